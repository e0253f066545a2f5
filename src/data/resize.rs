//! Bilinear resizing, bit for bit as Pillow does it.
//!
//! The official data pipeline resizes with `PIL.Image.BILINEAR`: a triangle filter that widens
//! when shrinking (so it antialiases), in fixed point, one direction after the other, with an
//! 8-bit image in between. Trained models depend on the look of their inputs, so this is
//! reproduced exactly, and the golden cases hold it. The crate `fast_image_resize` is modelled on
//! the same code but keeps 16-bit coefficients: up to one grey level off in nine of ten images,
//! which is why it is not used here.

use super::Rgb8;

/// Bits after the point of a coefficient: 8 for the value, 2 to spare for overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Resizes to `width` x `height`, ignoring the aspect; sides of 0 become 1.
///
/// Equal in every bit to `resize((width, height), Image.BILINEAR)` of Pillow 13 for an RGB
/// image. Before Pillow 13 the columns always came first, so that an image whose height shrinks
/// much more than its width came out differently, by one grey level at a few places.
pub fn resize_bilinear(rgb: &Rgb8, width: usize, height: usize) -> Rgb8 {
    let (width, height) = (width.max(1), height.max(1));
    let fewer_columns = rgb.width() as i64 - width as i64;
    let fewer_rows = rgb.height() as i64 - height as i64;
    if fewer_rows > 0 && fewer_rows > 2 * fewer_columns {
        resize_columns(&resize_rows(rgb, height), width)
    } else {
        resize_rows(&resize_columns(rgb, width), height)
    }
}

/// The input pixels one output pixel is made of: `weights[i]` belongs to pixel `first + i`.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// The triangle filter at every output position, in fixed point.
fn taps(input: usize, output: usize) -> Vec<Taps> {
    let scale = input as f64 / output as f64;
    let support = scale.max(1.0);
    let step = 1.0 / support;
    let fixed = f64::from(1u32 << PRECISION_BITS);
    (0..output)
        .map(|position| {
            let centre = (position as f64 + 0.5) * scale;
            // `as` truncates towards zero and saturates below it, as the original does by hand.
            let first = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(input);
            let triangle = |pixel: usize| (1.0 - ((pixel as f64 - centre + 0.5) * step).abs()).max(0.0);
            let sum: f64 = (first..end).map(triangle).sum();
            let weights = (first..end)
                .map(|pixel| {
                    let share = if sum == 0.0 { 0.0 } else { triangle(pixel) / sum };
                    (share * fixed + 0.5) as i32
                })
                .collect();
            Taps { first, weights }
        })
        .collect()
}

/// Rounds a fixed-point sum, half already added, to a byte.
fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION_BITS - 1);

fn resize_columns(rgb: &Rgb8, width: usize) -> Rgb8 {
    if width == rgb.width() {
        return rgb.clone();
    }
    let taps = taps(rgb.width(), width);
    let mut pixels = Vec::with_capacity(width * rgb.height() * 3);
    for y in 0..rgb.height() {
        let row = rgb.row(y);
        for tap in &taps {
            let mut sum = [HALF; 3];
            for (pixel, &weight) in row[tap.first * 3..].chunks_exact(3).zip(&tap.weights) {
                for (sum, &value) in sum.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            pixels.extend(sum.map(to_byte));
        }
    }
    finished(width, rgb.height(), pixels)
}

fn resize_rows(rgb: &Rgb8, height: usize) -> Rgb8 {
    if height == rgb.height() {
        return rgb.clone();
    }
    let mut pixels = Vec::with_capacity(rgb.width() * height * 3);
    let mut sums = vec![HALF; rgb.width() * 3];
    for tap in taps(rgb.height(), height) {
        sums.fill(HALF);
        for (i, &weight) in tap.weights.iter().enumerate() {
            for (sum, &value) in sums.iter_mut().zip(rgb.row(tap.first + i)) {
                *sum += i32::from(value) * weight;
            }
        }
        pixels.extend(sums.iter().map(|&sum| to_byte(sum)));
    }
    finished(rgb.width(), height, pixels)
}

fn finished(width: usize, height: usize, pixels: Vec<u8>) -> Rgb8 {
    Rgb8::new(width, height, pixels).expect("every output pixel was written once")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{golden_bytes, noise};

    #[test]
    fn equals_pillow_bit_for_bit() {
        for case in ["43_resize", "44_resize", "45_resize"] {
            let (shape, x) = golden_bytes(&format!("{case}/x"));
            let (want_shape, want) = golden_bytes(&format!("{case}/y"));
            let x = Rgb8::new(shape[1], shape[0], x).unwrap();
            let y = resize_bilinear(&x, want_shape[1], want_shape[0]);
            let wrong = y.pixels().iter().zip(&want).filter(|(a, b)| a != b).count();
            assert_eq!((y.pixels().len(), wrong), (want.len(), 0), "{case}");
        }
    }

    #[test]
    fn equals_pillow_of_any_shape() {
        // Made once with Pillow: sums of position-weighted bytes of the resized noise images.
        let check = |w, h, dw, dh| {
            let y = resize_bilinear(&noise(w, h, 1), dw, dh);
            let weighted = y.pixels().iter().zip(1u64..);
            weighted.fold(0u64, |sum, (&p, i)| (sum * 31 + u64::from(p) * i) % 1_000_000_007)
        };
        for (w, h, dw, dh, want) in PILLOW {
            assert_eq!(check(w, h, dw, dh), want, "{w}x{h} -> {dw}x{dh}");
        }
    }

    const PILLOW: [(usize, usize, usize, usize, u64); 8] = [
        (64, 64, 64, 94, 878_615_118),
        (64, 64, 94, 64, 224_375_377),
        (1, 1, 9, 5, 566_049_736),
        (200, 3, 7, 7, 13_582_400),
        (3, 150, 62, 62, 725_285_924),
        (97, 41, 1, 1, 129_462),
        (31, 33, 30, 32, 823_625_736),
        (128, 96, 286, 286, 932_876_689),
    ];

    #[test]
    fn the_same_size_is_the_same_image() {
        let p = noise(13, 7, 2);
        assert_eq!(resize_bilinear(&p, 13, 7), p);
    }

    #[test]
    fn one_colour_stays_that_colour() {
        for colour in [[0; 3], [255; 3], [1, 128, 254]] {
            let p = Rgb8::filled(37, 11, colour);
            assert_eq!(resize_bilinear(&p, 5, 90), Rgb8::filled(5, 90, colour));
        }
    }
}
