//! What GPUs can do at most, from their data sheets: the roofs of a roofline.

use crate::{Error, Result};

/// One GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    /// As `--gpu` takes it.
    pub key: &'static str,
    /// For people.
    pub name: &'static str,
    /// Compute capability times ten.
    pub arch: u32,
    /// Multiprocessors.
    pub sms: u32,
    /// Memory bandwidth, TB/s.
    pub bandwidth: f64,
    /// fp32 outside of the matrix units, TFLOP/s.
    pub fp32: f64,
    /// fp16 matrix units with fp32 accumulation, dense, TFLOP/s.
    pub matrix: f64,
}

const fn gpu(
    key: &'static str,
    name: &'static str,
    arch: u32,
    sms: u32,
    bandwidth: f64,
    fp32: f64,
    matrix: f64,
) -> Gpu {
    Gpu { key, name, arch, sms, bandwidth, fp32, matrix }
}

/// All there are figures of; the first is the default.
pub const ALL: [Gpu; 9] = [
    gpu("h200", "H200 SXM", 90, 132, 4.8, 66.9, 989.0),
    gpu("h100", "H100 SXM", 90, 132, 3.35, 66.9, 989.0),
    gpu("b200", "B200 SXM", 100, 148, 8.0, 75.0, 2250.0),
    gpu("a100", "A100 80 GB SXM", 80, 108, 2.039, 19.5, 312.0),
    gpu("l40s", "L40S", 89, 142, 0.864, 91.6, 362.0),
    gpu("rtx5090", "GeForce RTX 5090", 120, 170, 1.792, 104.8, 209.5),
    gpu("rtx4090", "GeForce RTX 4090", 89, 128, 1.008, 82.6, 165.2),
    gpu("rtx3090", "GeForce RTX 3090", 86, 82, 0.936, 35.6, 71.0),
    gpu("t4", "T4", 75, 40, 0.32, 8.1, 65.0),
];

/// The GPU of that name.
///
/// # Errors
/// When there are no figures of it; lists those there are.
pub fn find(name: &str) -> Result<&'static Gpu> {
    let wanted: String = name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    ALL.iter().find(|g| g.key == wanted).ok_or_else(|| {
        let keys: Vec<&str> = ALL.iter().map(|g| g.key).collect();
        Error::new(format!("no figures of a GPU '{name}'")).hint(format!("there are {}", keys.join(", ")))
    })
}

impl Gpu {
    /// Least time for so many operations and bytes, milliseconds: a prediction from the data sheet, in
    /// which either the arithmetic or the memory is never idle.
    pub fn predicted_ms(&self, flops: u64, bytes: u64, matrix: bool) -> f64 {
        let peak = if matrix { self.matrix } else { self.fp32 };
        (flops as f64 / peak).max(bytes as f64 / self.bandwidth) / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_however_written() {
        assert_eq!(find("RTX 4090").unwrap().key, "rtx4090");
        assert_eq!(find("h200").unwrap().arch, 90);
        let error = find("voodoo2").unwrap_err();
        assert_eq!(error.message(), "no figures of a GPU 'voodoo2'");
        assert!(error.hint_text().unwrap().contains("a100"));
    }

    #[test]
    fn the_slower_of_arithmetic_and_memory_decides() {
        let a100 = find("a100").unwrap();
        assert!((a100.predicted_ms(19_500_000_000, 1, false) - 1.0).abs() < 1e-9);
        assert!((a100.predicted_ms(1, 2_039_000_000, false) - 1.0).abs() < 1e-9);
        assert!(a100.predicted_ms(19_500_000_000, 1, true) < 0.1);
    }
}
