//! What a kernel may touch of global memory.

use super::global::Memory;

/// A range of global memory that a kernel may touch.
pub(crate) struct Region<'a> {
    pub memory: &'a Memory,
    /// First byte in the memory.
    pub start: u64,
    pub len: u64,
    /// Address of the first byte.
    pub base: u64,
    /// Nothing in it is unwritten, so reads need no check.
    pub all_written: bool,
    /// Constant memory.
    pub read_only: bool,
    pub name: String,
    /// Of the parameter it was passed as.
    pub param: String,
}

impl Region<'_> {
    pub(crate) fn describe(&self) -> String {
        if self.param.is_empty() || self.param == self.name {
            format!("`{}`", self.name)
        } else {
            format!("`{}` (argument {})", self.name, self.param)
        }
    }
}
