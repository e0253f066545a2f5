//! Variants of kernels that compute the same, what is known of each, and their choice.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::precision::Precision;
use crate::device::Target;
use crate::{Error, Result};

/// Choices of kernel variants, and the GPU they are for; the default picks by shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LowerOptions {
    /// Which variant of the convolutions. None: that of the precision, where it suits the shape.
    pub conv: Option<ConvVariant>,
    /// What the convolutions multiply.
    pub precision: Precision,
    /// Which variant of the norms.
    pub norm: NormVariant,
    /// The GPU to plan for.
    pub target: Target,
}

impl LowerOptions {
    /// The default, for that GPU.
    pub fn on(target: Target) -> Self {
        Self { target, ..Self::default() }
    }
}

impl From<NormVariant> for LowerOptions {
    /// The default, with the norms chosen.
    fn from(norm: NormVariant) -> Self {
        Self { norm, ..Self::default() }
    }
}

/// What a variant is, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// What it does.
    pub what: &'static str,
    /// What it moves between memory and chip.
    pub moves: String,
    /// What bounds its speed.
    pub bound_by: &'static str,
}

/// A variant of `kernels/conv`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvVariant {
    /// Everywhere.
    Direct,
    /// Wherever its channels come in fours.
    ImplicitGemm,
    /// Everywhere; operands are rounded to tf32.
    TensorCore,
}

impl ConvVariant {
    /// All of them, from the bottom of the ladder.
    pub const ALL: [Self; 3] = [Self::Direct, Self::ImplicitGemm, Self::TensorCore];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::ImplicitGemm => "implicit GEMM",
            Self::TensorCore => "tensor core",
        }
    }

    /// Its kernels' file, below `kernels`.
    pub fn file(self) -> &'static str {
        match self {
            Self::Direct => "conv/1_direct.cu",
            Self::ImplicitGemm => "conv/2_implicit_gemm.cu",
            Self::TensorCore => "conv/3_tensor_core.cu",
        }
    }

    /// What its operands are rounded to.
    pub fn precision(self) -> Precision {
        match self {
            Self::Direct | Self::ImplicitGemm => Precision::F32,
            Self::TensorCore => Precision::Tf32,
        }
    }

    /// What it is.
    pub fn about(self) -> About {
        match self {
            Self::Direct => About {
                what: "direct, fp32, register-tiled, no shared memory",
                moves: "1 / 8 + 1 / 4 words through the cache, a multiply-add".to_owned(),
                bound_by: "load instructions that hit L1 and L2",
            },
            Self::ImplicitGemm => About {
                what: "implicit GEMM, fp32, tiles in shared memory",
                moves: "1 / 128 + 1 / 64 words through the cache, a multiply-add".to_owned(),
                bound_by: "the fp32 units, where there are enough tiles to fill the GPU",
            },
            Self::TensorCore => About {
                what: "implicit GEMM, tf32 on tensor cores, fp32 sums",
                moves: "1 / 128 + 1 / 128 words through the cache, a multiply-add".to_owned(),
                bound_by: "tensor cores, and the L2 close behind them",
            },
        }
    }
}

impl FromStr for ConvVariant {
    type Err = Error;

    /// By its name, with a hyphen for the blank.
    fn from_str(text: &str) -> Result<Self> {
        let word = |variant: Self| variant.name().replace(' ', "-").to_lowercase();
        Self::ALL.into_iter().find(|v| word(*v) == text).ok_or_else(|| {
            let names = Self::ALL.map(word).join(", ");
            Error::new(format!("unknown convolution '{text}'")).hint(format!("convolutions are {names}"))
        })
    }
}

/// A variant of `kernels/adalin`. All compute the same, up to rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum NormVariant {
    /// One kernel an operation, as an eager framework.
    Elementary,
    /// Instance norm, layer norm, blend, scale and shift.
    Composed,
    /// Fused, one element a memory access.
    Fused,
    /// Fused, 16 bytes a memory access.
    Vectorised,
    /// As vectorised, and the padding after it in the same pass.
    #[default]
    PadFused,
    /// One cooperative launch that reads its input once. Images that no GPU's shared memory holds are left to the
    /// vectorised variant.
    Cooperative,
}

/// What the program must know of a variant of the norms.
struct Properties {
    name: &'static str,
    file: &'static str,
    what: &'static str,
    bound_by: &'static str,
    /// Tensors of the input's size that forward and backward pass read or write.
    passes: [usize; 2],
    rounds_intermediates: bool,
    fuses_padding: bool,
    cooperative: bool,
}

impl NormVariant {
    /// All of them, from the bottom of the ladder.
    pub const ALL: [Self; 6] =
        [Self::Elementary, Self::Composed, Self::Fused, Self::Vectorised, Self::PadFused, Self::Cooperative];

    fn properties(self) -> Properties {
        match self {
            Self::Elementary => Properties {
                name: "elementary",
                file: "adalin/1_elementary.cu",
                what: "the norm as an eager framework issues it, one kernel for each operation",
                bound_by: "memory bandwidth, on traffic that fusing removes; at one image by the launches",
                passes: [23, 76],
                rounds_intermediates: true,
                fuses_padding: false,
                cooperative: false,
            },
            Self::Composed => Properties {
                name: "composed",
                file: "adalin/2_composed.cu",
                what: "the norm out of the layers a framework has: instance norm, layer norm, blend, scale and \
                           shift",
                bound_by: "memory bandwidth, on the intermediates between the layers",
                passes: [11, 27],
                rounds_intermediates: true,
                fuses_padding: false,
                cooperative: false,
            },
            Self::Fused => Properties {
                name: "fused",
                file: "adalin/3_fused.cu",
                what: "the whole norm, forward and backward, with activation and residual fused",
                bound_by: "memory instructions, one element each; and the coefficients, where one block walks \
                               over all images",
                passes: [3, 5],
                rounds_intermediates: false,
                fuses_padding: false,
                cooperative: false,
            },
            Self::Vectorised => Properties {
                name: "vectorised",
                file: "adalin/4_vectorised.cu",
                what: "the fused norm with 16-byte accesses, 4 floats or 8 of a 16-bit type a thread",
                bound_by: "memory bandwidth; at one image, by the latency of three dependent launches",
                passes: [3, 5],
                rounds_intermediates: false,
                fuses_padding: false,
                cooperative: false,
            },
            Self::PadFused => Properties {
                name: "pad-fused",
                file: "adalin/5_pad_fused.cu",
                what: "the vectorised norm that writes the padded, optionally up-sampled tensor which the next \
                           convolution reads",
                bound_by: "memory bandwidth, as vectorised",
                passes: [3, 5],
                rounds_intermediates: false,
                fuses_padding: true,
                cooperative: false,
            },
            Self::Cooperative => Properties {
                name: "cooperative",
                file: "adalin/6_cooperative.cu",
                what: "the fused norm that reads its input once: an image stays in shared memory between \
                           statistics and result",
                bound_by: "memory bandwidth, while a block loads or stores; at two barriers an image nothing \
                               moves, unless another group of blocks is at work meanwhile",
                passes: [2, 3],
                rounds_intermediates: false,
                fuses_padding: false,
                cooperative: true,
            },
        }
    }

    /// Its name, as options, records and checkpoints have it.
    pub fn name(self) -> &'static str {
        self.properties().name
    }

    /// Its kernels' file, below `kernels`.
    pub fn file(self) -> &'static str {
        self.properties().file
    }

    /// What it is.
    pub fn about(self) -> About {
        let Properties { what, bound_by, passes: [forward, backward], .. } = self.properties();
        let moves =
            format!("forward {forward} passes over a tensor of the input's size, backward {backward}");
        About { what, moves, bound_by }
    }

    /// Tensors of the input's size that AdaLIN's forward and backward pass read or write.
    pub fn passes(self) -> [usize; 2] {
        self.properties().passes
    }

    /// Whether tensors between its launches have the element type, so that each is rounded.
    pub fn rounds_intermediates(self) -> bool {
        self.properties().rounds_intermediates
    }

    /// Whether it makes the padding after a norm in the norm's own pass.
    pub fn fuses_padding(self) -> bool {
        self.properties().fuses_padding
    }

    /// Whether blocks of its launches wait for each other, so that a GPU must hold them all at once.
    pub fn cooperative(self) -> bool {
        self.properties().cooperative
    }

    /// Whether networks are trained with it. A run goes on with its variant on whatever GPU it is resumed on, and
    /// cooperative launches are refused by small ones.
    pub fn trains(self) -> bool {
        !self.cooperative()
    }

    /// The names of some variants, as a list for people.
    pub fn names(of: impl Fn(Self) -> bool) -> String {
        Self::ALL.into_iter().filter(|v| of(*v)).map(Self::name).collect::<Vec<_>>().join(", ")
    }

    /// The variant that version 0.1 meant by a choice of norms, where `fused` fused the padding too.
    ///
    /// # Errors
    /// When it had no such choice.
    pub fn of_version_0_1(choice: &str) -> Result<Self> {
        match choice {
            "fused" => Ok(Self::PadFused),
            "composed" => Ok(Self::Composed),
            "elementary" => Ok(Self::Elementary),
            _ => {
                Err(Error::new(format!("unknown norm '{choice}'"))
                    .hint("norms were fused, composed, elementary"))
            }
        }
    }
}

impl fmt::Display for NormVariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for NormVariant {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|v| v.name() == text).ok_or_else(|| {
            Error::new(format!("unknown norm '{text}'")).hint(format!("norms are {}", Self::names(|_| true)))
        })
    }
}

impl TryFrom<String> for NormVariant {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<NormVariant> for &'static str {
    fn from(variant: NormVariant) -> Self {
        variant.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels;

    #[test]
    fn every_file_of_norm_kernels_is_a_variant() {
        let files: Vec<&str> =
            kernels::modules().iter().map(|m| m.file).filter(|f| f.starts_with("adalin/")).collect();
        assert_eq!(NormVariant::ALL.map(NormVariant::file).to_vec(), files);
        for (i, variant) in NormVariant::ALL.into_iter().enumerate() {
            let name = variant.name();
            assert_eq!(variant.file(), format!("adalin/{}_{}.cu", i + 1, name.replace('-', "_")));
            assert_eq!(name.parse(), Ok(variant));
        }
        assert!(NormVariant::default().trains());
    }

    #[test]
    fn every_file_of_convolution_kernels_is_a_variant() {
        let files: Vec<&str> =
            kernels::modules().iter().map(|m| m.file).filter(|f| f.starts_with("conv/")).collect();
        assert_eq!(ConvVariant::ALL.map(ConvVariant::file).to_vec(), files);
    }
}
