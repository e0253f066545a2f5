//! Numbers as bytes.

mod sealed {
    pub trait Sealed {}
}

/// A number that lies in memory with its lowest byte first.
pub trait Element: sealed::Sealed + Copy {
    #[doc(hidden)]
    fn put(self, out: &mut Vec<u8>);
    /// From exactly as many bytes as it has.
    #[doc(hidden)]
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! elements {
    ($($ty:ident)*) => {$(
        impl sealed::Sealed for $ty {}
        impl Element for $ty {
            fn put(self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }

            fn get(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<$ty>()];
                own.copy_from_slice(bytes);
                Self::from_le_bytes(own)
            }
        }
    )*};
}

elements!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);
