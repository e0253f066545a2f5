/// Major and minor version, as in 12.9.
pub type Version = (u32, u32);
