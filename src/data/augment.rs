//! From an image to a model input and back, and the random part of it in training.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use super::order::{Domain, below, generator};
use super::{Rgb8, resize_bilinear};
use crate::{Error, Result};

/// Training images are resized to this many pixels more than the model sees, and cropped.
pub const MARGIN: usize = 30;

/// What is random about one training image: mirrored or not, and where the crop lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Augmentation {
    /// Mirrored left to right, before resizing.
    pub flip: bool,
    /// Columns cut off on the left, at most the margin.
    pub left: usize,
    /// Rows cut off at the top, at most the margin.
    pub top: usize,
}

impl Augmentation {
    /// The draw for the `index`-th image that `domain` gives in a run, counted from 0.
    ///
    /// A pure function: a flip with probability one half, and each crop position from 0 to
    /// `margin` with the same probability.
    pub fn draw(seed: u64, domain: Domain, index: u64, margin: usize) -> Self {
        let mut rng: ChaCha8Rng = generator(seed, *b"augment\0", domain, index);
        let places = margin as u64 + 1;
        Self {
            flip: rng.next_u64() >> 63 == 1,
            top: below(&mut rng, places) as usize,
            left: below(&mut rng, places) as usize,
        }
    }
}

/// A byte as the model sees it: 0 becomes -1 and 255 becomes 1.
///
/// `(value / 255 - 0.5) / 0.5`, computed in f64 and rounded once.
pub fn normalise(value: u8) -> f32 {
    const TABLE: [f32; 256] = {
        let mut table = [0.0; 256];
        let mut i = 0;
        while i < 256 {
            table[i] = ((i as f64 / 255.0 - 0.5) / 0.5) as f32;
            i += 1;
        }
        table
    };
    TABLE[usize::from(value)]
}

/// Makes a model input of shape [`size`, `size`, 3]: resized (ignoring the aspect), normalised.
///
/// This is what the official release does with test images.
pub fn to_input(rgb: &Rgb8, size: usize) -> Vec<f32> {
    let resized = resize_bilinear(rgb, size, size);
    resized.pixels().iter().map(|&v| normalise(v)).collect()
}

/// Makes an image of a model output of shape [`height`, `width`, 3] in [-1, 1].
///
/// `x * 0.5 + 0.5` in f32, times 255, rounded to the nearest byte, halves to even, and saturated,
/// as `cv2.imwrite` does in the official release. NaN becomes 0.
///
/// # Errors
/// If `output` has another length than the shape.
pub fn from_output(output: &[f32], width: usize, height: usize) -> Result<Rgb8> {
    let pixels: Vec<u8> = output.iter().map(|&x| to_byte(x)).collect();
    let len = pixels.len();
    Rgb8::new(width, height, pixels).map_err(|_| {
        Error::new(format!("an output of {len} values is no image of {width} x {height} pixels"))
    })
}

fn to_byte(x: f32) -> u8 {
    // `as` saturates and takes NaN to 0.
    (f64::from(x * 0.5 + 0.5) * 255.0).round_ties_even() as u8
}

/// Appends the crop of `size` x `size` pixels at (`left`, `top`), normalised, to `out`.
pub(super) fn append_crop(rgb: &Rgb8, draw: Augmentation, size: usize, out: &mut Vec<f32>) {
    for y in draw.top..draw.top + size {
        let row = &rgb.row(y)[draw.left * 3..(draw.left + size) * 3];
        out.extend(row.iter().map(|&v| normalise(v)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{golden_bytes, golden_f32, noise};

    #[test]
    fn a_test_image_becomes_the_golden_input() {
        for case in ["43_resize", "44_resize", "45_resize"] {
            let (shape, x) = golden_bytes(&format!("{case}/x"));
            let x = Rgb8::new(shape[1], shape[0], x).unwrap();
            let (shape, want) = golden_f32(&format!("{case}/y_normalised"));
            let size = shape[1];
            let got = to_input(&x, size);
            assert_eq!(got.len(), want.len());
            for (i, got) in got.iter().enumerate() {
                let (pixel, channel) = (i / 3, i % 3);
                assert_eq!(*got, want[channel * size * size + pixel], "{case} {i}");
            }
        }
    }

    #[test]
    fn the_ends_are_exact() {
        assert_eq!((normalise(0), normalise(255)), (-1.0, 1.0));
    }

    #[test]
    fn every_byte_survives_the_way_there_and_back() {
        let bytes: Vec<u8> = (0..=255).flat_map(|v| [v; 3]).collect();
        let p = Rgb8::new(16, 16, bytes).unwrap();
        assert_eq!(from_output(&to_input(&p, 16), 16, 16).unwrap(), p);
    }

    #[test]
    fn outputs_are_rounded_to_even_and_saturated() {
        // 0 becomes 127.5, the only value of f32 that lies half way between two bytes.
        let out = [0.0, -5.0, 5.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        let p = from_output(&out, 2, 1).unwrap();
        assert_eq!(p.pixels(), [128, 0, 255, 0, 255, 0]);
        // A little below 25.5 and 229.5, and a little above 38.
        assert_eq!([-0.8, 0.8, -0.7].map(to_byte), [25, 229, 38]);
    }

    #[test]
    fn a_wrong_length_is_an_error() {
        let e = from_output(&[0.0; 5], 2, 1).unwrap_err();
        assert_eq!(e.message(), "an output of 5 values is no image of 2 x 1 pixels");
    }

    #[test]
    fn draws_are_even() {
        let draws: Vec<_> = (0..6200).map(|k| Augmentation::draw(7, Domain::A, k, MARGIN)).collect();
        // Four standard deviations of a fair coin, and of one in 31.
        let flips = draws.iter().filter(|d| d.flip).count();
        assert!(flips.abs_diff(3100) <= 158, "{flips}");
        for place in 0..=MARGIN {
            let left = draws.iter().filter(|d| d.left == place).count();
            let top = draws.iter().filter(|d| d.top == place).count();
            assert!(left.abs_diff(200) <= 56 && top.abs_diff(200) <= 56, "{left} {top}");
        }
        assert!(draws.iter().all(|d| d.left <= MARGIN && d.top <= MARGIN));
        let equal = draws.iter().filter(|d| d.left == d.top).count();
        assert!(equal.abs_diff(200) <= 56, "{equal}");
    }

    #[test]
    fn draws_depend_on_seed_domain_and_index_alone() {
        let draw =
            |seed, domain| (0..50).map(|k| Augmentation::draw(seed, domain, k, MARGIN)).collect::<Vec<_>>();
        assert_eq!(draw(1, Domain::A), draw(1, Domain::A));
        assert_ne!(draw(1, Domain::A), draw(2, Domain::A));
        assert_ne!(draw(1, Domain::A), draw(1, Domain::B));
    }

    #[test]
    fn no_margin_is_no_crop() {
        let draw = Augmentation::draw(1, Domain::A, 3, 0);
        assert_eq!((draw.left, draw.top), (0, 0));
    }

    #[test]
    fn the_crop_is_where_the_draw_says() {
        let p = noise(9, 8, 3);
        let draw = Augmentation { flip: false, left: 2, top: 1 };
        let mut out = vec![];
        append_crop(&p, draw, 5, &mut out);
        assert_eq!(out.len(), 75);
        assert_eq!(out[0], normalise(p.row(1)[6]));
        assert_eq!(out[74], normalise(p.row(5)[20]));
    }
}
