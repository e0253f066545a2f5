//! Attention maps in colour, bit for bit as the official release paints them.

use crate::data::{Rgb8, resize_bilinear};
use crate::{Error, Result};

/// OpenCV's colour table `COLORMAP_JET`: dark blue, cyan, yellow, dark red; as red, green, blue.
pub const JET: [[u8; 3]; 256] = {
    let mut table = [[0; 3]; 256];
    let mut i = 0;
    while i < 256 {
        let x = 4 * i as i32;
        table[i] = [
            ramp(x - 382, 1148 - x),
            ramp(x - 128, 892 - x),
            // The original was tabulated and truncated; this is the one entry that shows it.
            if i == 159 { 1 } else { ramp(x + 128, 638 - x) },
        ];
        i += 1;
    }
    table
};

/// The lower one of a rising and a falling line, as a byte.
const fn ramp(rising: i32, falling: i32) -> u8 {
    let value = if rising < falling { rising } else { falling };
    if value < 0 {
        0
    } else if value > 255 {
        255
    } else {
        value as u8
    }
}

/// Paints an attention map of shape [`height`, `width`] as an image of `size` x `size` pixels:
/// blue where it is least, red where it is most.
///
/// [`grey_map`], then [`resize_grey`], then [`JET`], as in the official release (`cam`, utils.py).
///
/// # Errors
/// If `map` has another length than the shape, or a side is 0.
pub fn heatmap(map: &[f32], width: usize, height: usize, size: usize) -> Result<Rgb8> {
    let grey = resize_grey(&grey_map(map), width, height, size, size)?;
    let pixels = grey.iter().flat_map(|&v| JET[usize::from(v)]).collect();
    Rgb8::new(size, size, pixels)
}

/// Scales a map to bytes: `(x - min) / max(x - min) * 255`, truncated, all in f32.
///
/// A constant map becomes 0 everywhere (the official release divides 0 by 0 there). So does what
/// is not a number.
pub fn grey_map(map: &[f32]) -> Vec<u8> {
    let min = map.iter().copied().fold(f32::INFINITY, f32::min);
    let max = map.iter().map(|x| x - min).fold(0.0, f32::max);
    // 0 / 0 is NaN, and `as` takes that to 0.
    map.iter().map(|x| (255.0 * ((x - min) / max)) as u8).collect()
}

/// Bits after the point of OpenCV's coefficients.
const COEFFICIENT_BITS: u32 = 11;

/// Resizes one channel of bytes from `width` x `height` to `to_width` x `to_height`.
///
/// Equal in every bit to `cv2.resize` (`INTER_LINEAR`) of bytes, which is not antialiased. (Only
/// for exactly half of both sides OpenCV takes another way.)
///
/// # Errors
/// If `grey` has another length than its shape, or a side is 0.
pub fn resize_grey(
    grey: &[u8],
    width: usize,
    height: usize,
    to_width: usize,
    to_height: usize,
) -> Result<Vec<u8>> {
    if grey.is_empty() || width.checked_mul(height) != Some(grey.len()) {
        let len = grey.len();
        return Err(Error::new(format!("a map of {len} values is not {width} x {height}")));
    }
    if to_width == 0 || to_height == 0 {
        return Err(Error::new(format!("an image cannot have {to_width} x {to_height} pixels")));
    }
    let columns = taps(width, to_width, true);
    // Rows of the input stretched to the new width, still with 11 bits after the point.
    let stretched: Vec<i32> = grey
        .chunks_exact(width)
        .flat_map(|row| {
            let value = |at: usize| i32::from(row[at]);
            columns.iter().map(move |t| value(t.first) * t.weights[0] + value(t.second) * t.weights[1])
        })
        .collect();
    let mut out = Vec::with_capacity(to_width * to_height);
    for tap in taps(height, to_height, false) {
        let row = |at: usize| &stretched[at * to_width..(at + 1) * to_width];
        for (&upper, &lower) in row(tap.first).iter().zip(row(tap.second)) {
            // Products are cut to 16 bits one by one, as the vector instructions do it.
            let product = |value: i32, weight: i32| ((value >> 4) * weight) >> 16;
            let sum = product(upper, tap.weights[0]) + product(lower, tap.weights[1]);
            out.push(((sum + 2) >> 2).clamp(0, 255) as u8);
        }
    }
    Ok(out)
}

/// The two input positions of an output position and their weights.
struct Taps {
    first: usize,
    second: usize,
    weights: [i32; 2],
}

/// Taps along one side. Beyond the edges OpenCV clamps the position of a column, but of a row only
/// the index: the weights stay, and each product is rounded on its own.
fn taps(from: usize, to: usize, clamp: bool) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let last = from as i64 - 1;
    let one = (1 << COEFFICIENT_BITS) as f32;
    (0..to)
        .map(|position| {
            let x = ((position as f64 + 0.5) * scale - 0.5) as f32;
            let mut first = x.floor() as i64;
            let mut share = x - first as f32;
            if clamp && !(0..last).contains(&first) {
                (first, share) = (first.clamp(0, last), 0.0);
            }
            let fixed = |weight: f32| (weight * one).round_ties_even() as i32;
            Taps {
                first: first.clamp(0, last) as usize,
                second: (first + 1).clamp(0, last) as usize,
                weights: [fixed(1.0 - share), fixed(share)],
            }
        })
        .collect()
}

/// Lays a heatmap over an image: `alpha` (0 to 1) of the heatmap, the rest of the image.
///
/// The heatmap is resized to the image.
pub fn overlay(image: &Rgb8, heatmap: &Rgb8, alpha: f32) -> Rgb8 {
    let (width, height) = (image.width(), image.height());
    let heatmap = resize_bilinear(heatmap, width, height);
    // What is no number becomes 0.
    let alpha = if alpha > 0.0 { alpha.min(1.0) } else { 0.0 };
    let mix = |(&p, &h): (&u8, &u8)| {
        let (p, h) = (f32::from(p), f32::from(h));
        (p + (h - p) * alpha).round() as u8
    };
    let pixels = image.pixels().iter().zip(heatmap.pixels()).map(mix).collect();
    Rgb8::new(width, height, pixels).expect("as many bytes as the image")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{golden_bytes, golden_f32, noise};

    #[test]
    fn equals_the_official_images_bit_for_bit() {
        for case in ["46_heatmap", "47_heatmap"] {
            let (shape, x) = golden_f32(&format!("{case}/x"));
            let (height, width) = (shape[1], shape[2]);
            let grey = grey_map(&x);
            assert_eq!(grey, golden_bytes(&format!("{case}/grey")).1);
            let (shape, want) = golden_bytes(&format!("{case}/grey_resized"));
            assert_eq!(resize_grey(&grey, width, height, shape[1], shape[0]).unwrap(), want);
            let (shape, want) = golden_bytes(&format!("{case}/y_rgb"));
            assert_eq!(heatmap(&x, width, height, shape[0]).unwrap().pixels(), want);
            assert_eq!(JET.as_flattened(), golden_bytes(&format!("{case}/jet_rgb")).1);
        }
    }

    #[test]
    fn equals_opencv_at_other_shapes() {
        // Made once with OpenCV: sums of position-weighted bytes of resized noise.
        for (w, h, dw, dh, want) in OPENCV {
            let source = noise(w, h, 1);
            let grey: Vec<u8> = source.pixels().iter().step_by(3).copied().collect();
            let out = resize_grey(&grey, w, h, dw, dh).unwrap();
            let weighted = out.iter().zip(1u64..);
            let sum = weighted.fold(0u64, |s, (&p, i)| (s * 31 + u64::from(p) * i) % 1_000_000_007);
            assert_eq!(sum, want, "{w}x{h} -> {dw}x{dh}");
        }
    }

    const OPENCV: [(usize, usize, usize, usize, u64); 6] = [
        (8, 8, 32, 32, 562_971_744),
        (64, 64, 256, 256, 893_545_111),
        (7, 5, 28, 20, 841_713_612),
        (1, 1, 5, 3, 563_149_433),
        (9, 6, 31, 77, 368_814_237),
        (24, 24, 17, 50, 858_933_028),
    ];

    #[test]
    fn constant_and_broken_maps_are_blue() {
        for map in [[3.5; 4], [0.0; 4], [f32::NAN; 4], [f32::INFINITY; 4]] {
            assert_eq!(heatmap(&map, 2, 2, 8).unwrap(), Rgb8::filled(8, 8, [0, 0, 128]));
        }
        assert_eq!(grey_map(&[0.0, f32::NAN, 1.0, 0.999]), [0, 0, 255, 254]);
        assert!(grey_map(&[]).is_empty());
    }

    #[test]
    fn negative_maps_are_scaled_like_others() {
        assert_eq!(grey_map(&[-3.0, -1.0, -2.0]), [0, 255, 127]);
    }

    #[test]
    fn wrong_shapes_are_errors() {
        assert!(heatmap(&[0.0; 5], 2, 2, 8).is_err());
        assert!(heatmap(&[], 0, 0, 8).is_err());
        assert!(heatmap(&[0.0; 4], 2, 2, 0).is_err());
        assert!(resize_grey(&[0; 4], usize::MAX, 2, 1, 1).is_err());
    }

    #[test]
    fn an_overlay_mixes() {
        let (image, heat) = (Rgb8::filled(6, 4, [100, 0, 255]), Rgb8::filled(2, 2, [200, 10, 0]));
        assert_eq!(overlay(&image, &heat, 0.25), Rgb8::filled(6, 4, [125, 3, 191]));
        assert_eq!(overlay(&image, &heat, 0.0), image);
        assert_eq!(overlay(&image, &heat, f32::NAN), image);
        assert_eq!(overlay(&image, &heat, 7.0), Rgb8::filled(6, 4, [200, 10, 0]));
    }
}
