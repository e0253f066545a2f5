//! What a call of the driver came to, as a number.

/// What a call came to, other than success: whatever number the driver gave, known here or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(pub u32);

/// Result of a call.
pub(super) type DriverResult<T = ()> = Result<T, Code>;

impl Code {
    /// A toolkit's stand-in for linking answers every call with it.
    pub const STUB_LIBRARY: Self = Self(34);
    pub const OUT_OF_MEMORY: Self = Self(2);
    pub const NO_DEVICE: Self = Self(100);
    pub const NO_BINARY_FOR_GPU: Self = Self(209);
    pub const UNKNOWN: Self = Self(999);

    /// Success, or the code.
    pub fn checked(number: u32) -> DriverResult {
        match number {
            0 => Ok(()),
            number => Err(Self(number)),
        }
    }
}
