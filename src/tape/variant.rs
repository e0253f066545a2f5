//! Variants of kernels that compute the same, and their choice.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Choices of kernel variants; the default picks by shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LowerOptions {
    /// Which variant of the convolutions.
    pub conv: ConvVariant,
    /// Which variant of the norms.
    pub norm: NormVariant,
}

impl From<Norms> for LowerOptions {
    /// The default, with the norms chosen.
    fn from(norms: Norms) -> Self {
        Self { norm: norms.variant(), ..Self::default() }
    }
}

/// A variant of `kernels/conv`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConvVariant {
    /// The implicit GEMM where its tiles are well filled, else direct.
    #[default]
    Auto,
    /// `1_direct.cu` everywhere.
    Direct,
    /// `2_implicit_gemm.cu` wherever its channels come in fours.
    ImplicitGemm,
}

/// A variant of `kernels/adalin`. All compute the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NormVariant {
    /// `1_elementary.cu`: one kernel an operation, as an eager framework.
    Elementary,
    /// `2_composed.cu`: instance norm, layer norm, blend, scale and shift.
    Composed,
    /// `3_fused.cu`: fused, one element a memory access.
    Fused,
    /// `4_vectorised.cu`: fused, 16 bytes a memory access.
    Vectorised,
    /// `5_pad_fused.cu`: as vectorised, and the padding behind it in the same pass.
    #[default]
    Network,
    /// `6_cooperative.cu`: one cooperative launch that reads its input once. Images that no GPU's shared memory
    /// holds are left to the vectorised variant.
    Resident,
}

impl NormVariant {
    /// All of them, from the bottom of the ladder.
    pub const ALL: [Self; 6] =
        [Self::Elementary, Self::Composed, Self::Fused, Self::Vectorised, Self::Network, Self::Resident];

    /// Its name, as options take it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Elementary => "elementary",
            Self::Composed => "composed",
            Self::Fused => "fused",
            Self::Vectorised => "vectorised",
            Self::Network => "network",
            Self::Resident => "resident",
        }
    }
}

impl fmt::Display for NormVariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for NormVariant {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|r| r.name() == text).ok_or_else(|| {
            Error::new(format!("unknown norm '{text}'"))
                .hint("norms are elementary, composed, fused, vectorised, network, resident")
        })
    }
}

/// How all norms of a network are computed: fused, or as one of the two baselines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norms {
    /// [`NormVariant::Network`]: a norm, its activation, residual and padding in one pass.
    #[default]
    Fused,
    /// [`NormVariant::Composed`].
    Composed,
    /// [`NormVariant::Elementary`].
    Elementary,
}

impl Norms {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fused, Self::Composed, Self::Elementary];

    /// The variant of `kernels/adalin` it stands for.
    pub fn variant(self) -> NormVariant {
        match self {
            Self::Fused => NormVariant::Network,
            Self::Composed => NormVariant::Composed,
            Self::Elementary => NormVariant::Elementary,
        }
    }
}

impl fmt::Display for Norms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fused => "fused",
            Self::Composed => "composed",
            Self::Elementary => "elementary",
        })
    }
}

impl FromStr for Norms {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|n| n.to_string() == text).ok_or_else(|| {
            Error::new(format!("unknown norm '{text}'")).hint("norms are fused, composed, elementary")
        })
    }
}
