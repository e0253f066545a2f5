//! The one image type of the host side.

use crate::{Error, Result};

/// An image: rows from top to bottom, three bytes (red, green, blue) a pixel.
///
/// Neither side is ever 0, and `pixels().len()` is always `width * height * 3`.
#[derive(Clone, PartialEq, Eq)]
pub struct Rgb8 {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Rgb8 {
    /// An image of `pixels`, `width * height * 3` bytes.
    ///
    /// # Errors
    /// If a side is 0 or the number of bytes is another.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self> {
        let bytes = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        if width == 0 || height == 0 || bytes != Some(pixels.len()) {
            return Err(Error::new(format!(
                "an image of {width} x {height} pixels cannot have {} bytes",
                pixels.len()
            )));
        }
        Ok(Self { width, height, pixels })
    }

    /// An image of one colour; sides of 0 become 1.
    pub fn filled(width: usize, height: usize, colour: [u8; 3]) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        Self { width, height, pixels: colour.repeat(width * height) }
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All bytes, row by row.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Row `y` as bytes. Panics if there is no such row.
    pub fn row(&self, y: usize) -> &[u8] {
        &self.pixels[y * self.width * 3..(y + 1) * self.width * 3]
    }

    /// The image mirrored left to right.
    pub fn flipped(&self) -> Self {
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for y in 0..self.height {
            for pixel in self.row(y).rchunks_exact(3) {
                pixels.extend_from_slice(pixel);
            }
        }
        Self { width: self.width, height: self.height, pixels }
    }

    /// Copies `other` into this image with its top left corner at (`x`, `y`); what would lie
    /// outside is left out.
    pub fn paste(&mut self, other: &Self, x: usize, y: usize) {
        let columns = other.width.min(self.width.saturating_sub(x));
        let rows = other.height.min(self.height.saturating_sub(y));
        for dy in 0..rows {
            let at = ((y + dy) * self.width + x) * 3;
            self.pixels[at..at + columns * 3].copy_from_slice(&other.row(dy)[..columns * 3]);
        }
    }
}

impl std::fmt::Debug for Rgb8 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rgb8 {{ {} x {} }}", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_image_has_the_bytes_its_sides_ask_for() {
        assert!(Rgb8::new(2, 1, vec![0; 6]).is_ok());
        assert!(Rgb8::new(2, 1, vec![0; 5]).is_err());
        assert!(Rgb8::new(0, 0, vec![]).is_err());
        assert!(Rgb8::new(usize::MAX, 2, vec![]).is_err());
    }

    #[test]
    fn flipping_mirrors_every_row() {
        let p = Rgb8::new(2, 2, (1..=12).collect()).unwrap();
        let f = p.flipped();
        assert_eq!(f.pixels(), [4, 5, 6, 1, 2, 3, 10, 11, 12, 7, 8, 9]);
        assert_eq!(f.flipped(), p);
    }

    #[test]
    fn pasting_cuts_what_is_outside() {
        let mut p = Rgb8::filled(2, 2, [0; 3]);
        p.paste(&Rgb8::filled(5, 5, [9; 3]), 1, 1);
        assert_eq!(p.pixels(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9]);
        p.paste(&Rgb8::filled(1, 1, [7; 3]), 4, 4);
    }
}
