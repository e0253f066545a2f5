//! Where in the address space things lie.

/// Where a class of addresses starts: a region is 2^40 bytes, its base in the middle, so that a
/// small negative offset still belongs to it.
pub(crate) const REGION: u32 = 40;

/// The middle of a region.
pub(crate) const MIDDLE: u64 = 1 << 39;

/// First region of module variables.
pub(crate) const VARIABLES: u64 = 0x1000;

/// The region through which generic addresses reach shared memory.
pub(crate) const SHARED_WINDOW: u64 = 0xf00 << REGION | MIDDLE;

/// The region through which generic addresses reach local memory.
pub(crate) const LOCAL_WINDOW: u64 = 0xf01 << REGION | MIDDLE;

/// Address of the first byte of an argument's buffer: the low bits tell its true alignment.
pub(crate) fn argument_base(index: usize, offset: u64) -> u64 {
    ((index as u64 + 1) << REGION) | MIDDLE | (offset % 256)
}

/// Address of a module variable.
pub(crate) fn variable_base(index: usize) -> u64 {
    (VARIABLES + index as u64) << REGION | MIDDLE
}
