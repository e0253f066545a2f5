//! What the convolutions of a network multiply.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The type of the operands of a convolution. Tensors are stored in fp32, and all else is computed in fp32: sums,
/// statistics, pooling, CAM, spectral norm, losses, Adam.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// fp32, on the ordinary cores.
    #[default]
    F32,
    /// tf32: 8 bits of exponent and 10 of mantissa, on tensor cores.
    Tf32,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::F32, Self::Tf32];

    /// Its name, as options, records and checkpoints have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
        }
    }

    /// The largest relative error of an operand. That of tf32 is 5/8 of its last place, see `kernels/common/mma.cuh`.
    pub fn rounding(self) -> f64 {
        match self {
            Self::F32 => 0.0,
            Self::Tf32 => 0.625 * 2f64.powi(-10),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|p| p.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::new(format!("unknown precision '{text}'")).hint(format!("precisions are {names}"))
        })
    }
}
