//! Shapes and element types of device tensors, and the layout changes at the border to files.

use std::fmt;

/// Element type of a device tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single-precision number.
    Bf16,
    /// Signed 32-bit integer (pixel indices of the maximum pooling).
    I32,
}

impl DType {
    /// Bytes an element.
    pub fn bytes(self) -> u64 {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::Bf16 => 2,
        }
    }

    /// Its name, in options, records and kernels.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::I32 => "i32",
        }
    }
}

/// Extents of a device tensor: `[D, N, H, W, C]`, channels fastest.
///
/// D is the direction axis: the two generators, or the two discriminators of a pair, are one network
/// with D = 2. Weights use the same five extents: a convolution's is `[D, K, K, CI, CO]`, a linear
/// layer's `[D, 1, 1, O, I]`, a vector's `[D, 1, 1, 1, C]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Directions.
    pub d: usize,
    /// Images a direction.
    pub n: usize,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels.
    pub c: usize,
}

impl Shape {
    /// `[d, n, h, w, c]`.
    pub const fn new(d: usize, n: usize, h: usize, w: usize, c: usize) -> Self {
        Self { d, n, h, w, c }
    }

    /// A row of `c` values for each direction: `[d, 1, 1, 1, c]`.
    pub const fn row(d: usize, c: usize) -> Self {
        Self::new(d, 1, 1, 1, c)
    }

    /// Elements in all.
    pub fn len(&self) -> usize {
        self.d * self.n * self.h * self.w * self.c
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Images over all directions, D * N.
    pub fn images(&self) -> usize {
        self.d * self.n
    }

    /// Pixels an image, H * W.
    pub fn pixels(&self) -> usize {
        self.h * self.w
    }

    /// Elements an image, H * W * C.
    pub fn image_len(&self) -> usize {
        self.pixels() * self.c
    }

    /// The same with another number of channels.
    pub fn with_c(self, c: usize) -> Self {
        Self { c, ..self }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}x{}x{}", self.d, self.n, self.h, self.w, self.c)
    }
}

/// `[N, C, H, W]` to `[N, H, W, C]`.
pub fn nchw_to_nhwc(data: &[f32], n: usize, c: usize, h: usize, w: usize) -> Vec<f32> {
    transpose(data, n, c, h * w)
}

/// `[N, H, W, C]` to `[N, C, H, W]`.
pub fn nhwc_to_nchw(data: &[f32], n: usize, c: usize, h: usize, w: usize) -> Vec<f32> {
    transpose(data, n, h * w, c)
}

/// `[batch, rows, columns]` to `[batch, columns, rows]`.
///
/// # Panics
/// When `data` has not `batch * rows * columns` elements.
pub fn transpose(data: &[f32], batch: usize, rows: usize, columns: usize) -> Vec<f32> {
    assert_eq!(data.len(), batch * rows * columns, "transpose of {batch}x{rows}x{columns}");
    let mut out = vec![0.0; data.len()];
    if rows == 0 || columns == 0 {
        return out;
    }
    for (from, to) in data.chunks_exact(rows * columns).zip(out.chunks_exact_mut(rows * columns)) {
        for r in 0..rows {
            for c in 0..columns {
                to[c * rows + r] = from[r * columns + c];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_invert_each_other() {
        let (n, c, h, w) = (2, 3, 5, 7);
        let data: Vec<f32> = (0..n * c * h * w).map(|i| i as f32).collect();
        let nhwc = nchw_to_nhwc(&data, n, c, h, w);
        assert_eq!(nhwc[1], (h * w) as f32, "second element is channel 1 of pixel 0");
        assert_eq!(nhwc_to_nchw(&nhwc, n, c, h, w), data);
    }
}
