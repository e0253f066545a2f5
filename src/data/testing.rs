//! What several tests of images need.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

use super::Rgb8;

/// An image of noise that any language can make again: a linear congruential generator.
pub fn noise(width: usize, height: usize, seed: u32) -> Rgb8 {
    let mut state = seed;
    let bytes = (0..width * height * 3).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    Rgb8::new(width, height, bytes.collect()).unwrap()
}

/// Writes an image; its extension tells the format.
pub fn save(path: &Path, rgb: &Rgb8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let (width, height) = (rgb.width() as u32, rgb.height() as u32);
    let colour = image::ExtendedColorType::Rgb8;
    image::save_buffer(path, rgb.pixels(), width, height, colour).unwrap();
}

/// A data set of noise: `a` and `b` images of 20 x 17 pixels, `000.png` and so on.
pub fn noise_set(root: &Path, a: usize, b: usize) {
    for (part, count, seed) in [("trainA", a, 100), ("trainB", b, 200)] {
        for i in 0..count {
            let rgb = noise(20, 17, seed + i as u32);
            save(&root.join(part).join(format!("{i:03}.png")), &rgb);
        }
    }
}

/// A file below the project, or below `UGATIT_ROOT` where the tests were carried to another machine.
pub fn project(path: &str) -> PathBuf {
    let root = std::env::var_os("UGATIT_ROOT").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(root).join(path)
}

fn golden(name: &str, dtype: Dtype) -> (Vec<usize>, Vec<u8>) {
    let file = std::fs::read(project("tests/golden/ops.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), dtype, "{name}");
    (tensor.shape().to_vec(), tensor.data().to_vec())
}

/// Shape and values of a golden tensor of bytes.
pub fn golden_bytes(name: &str) -> (Vec<usize>, Vec<u8>) {
    golden(name, Dtype::U8)
}

/// Shape and values of a golden tensor of f32.
pub fn golden_f32(name: &str) -> (Vec<usize>, Vec<f32>) {
    let (shape, bytes) = golden(name, Dtype::F32);
    let value = |b: &[u8]| f32::from_le_bytes(b.try_into().unwrap());
    (shape, bytes.chunks_exact(4).map(value).collect())
}
