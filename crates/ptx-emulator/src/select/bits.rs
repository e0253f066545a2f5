//! Operands as values: integers and floats of their bits, and back.

/// An integer type, for functions over any of them.
pub(crate) trait Int: Copy {
    /// The low bits as this type.
    fn of(bits: u64) -> Self;
    /// Its bits, the upper ones zero.
    fn bits(self) -> u64;
}

macro_rules! ints {
    ($($signed:ident $unsigned:ident),*) => {$(
        impl Int for $signed {
            #[inline]
            fn of(bits: u64) -> Self { bits as $signed }
            #[inline]
            fn bits(self) -> u64 { u64::from(self as $unsigned) }
        }
    )*};
}
ints!(i8 u8, i16 u16, i32 u32, i64 u64, u8 u8, u16 u16, u32 u32, u64 u64);

#[inline]
pub(crate) fn f32_of_bits(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

#[inline]
pub(crate) fn bits_of_f32(v: f32) -> u64 {
    u64::from(v.to_bits())
}

#[inline]
pub(crate) fn f64_of_bits(bits: u64) -> f64 {
    f64::from_bits(bits)
}

#[inline]
pub(crate) fn bits_of_f64(v: f64) -> u64 {
    v.to_bits()
}

/// `.ftz`: a subnormal becomes a zero of its sign.
#[inline]
pub(crate) fn flush(v: f32) -> f32 {
    if v.is_subnormal() { 0f32.copysign(v) } else { v }
}

/// `.sat`: clamped to [0, 1], a NaN becomes zero.
#[inline]
pub(crate) fn saturate_f32(v: f32) -> f32 {
    if v > 0.0 { v.min(1.0) } else { 0.0 }
}

/// The same of an f64.
#[inline]
pub(crate) fn saturate_f64(v: f64) -> f64 {
    if v > 0.0 { v.min(1.0) } else { 0.0 }
}
