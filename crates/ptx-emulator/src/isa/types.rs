//! Types of PTX, roundings, and the modifiers of an opcode.

/// A lane-wise function: up to four operands as bits, the result as bits.
pub(crate) type Lane = fn([u64; 4]) -> u64;

/// A PTX type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ty {
    Pred,
    B8,
    B16,
    B32,
    B64,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F32,
    F64,
    Bf16,
    F16x2,
    Bf16x2,
    Tf32,
}

impl Ty {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "pred" => Ty::Pred,
            "b8" => Ty::B8,
            "b16" => Ty::B16,
            "b32" => Ty::B32,
            "b64" => Ty::B64,
            "u8" => Ty::U8,
            "u16" => Ty::U16,
            "u32" => Ty::U32,
            "u64" => Ty::U64,
            "s8" => Ty::S8,
            "s16" => Ty::S16,
            "s32" => Ty::S32,
            "s64" => Ty::S64,
            "f16" => Ty::F16,
            "f32" => Ty::F32,
            "f64" => Ty::F64,
            "bf16" => Ty::Bf16,
            "f16x2" => Ty::F16x2,
            "bf16x2" => Ty::Bf16x2,
            "tf32" => Ty::Tf32,
            _ => return None,
        })
    }

    pub(crate) fn bytes(self) -> u32 {
        match self {
            Ty::Pred => 0,
            Ty::B8 | Ty::U8 | Ty::S8 => 1,
            Ty::B16 | Ty::U16 | Ty::S16 | Ty::F16 | Ty::Bf16 => 2,
            Ty::B64 | Ty::U64 | Ty::S64 | Ty::F64 => 8,
            _ => 4,
        }
    }

    pub(crate) fn signed(self) -> bool {
        matches!(self, Ty::S8 | Ty::S16 | Ty::S32 | Ty::S64)
    }

    pub(crate) fn float(self) -> bool {
        matches!(self, Ty::F16 | Ty::F32 | Ty::F64 | Ty::Bf16 | Ty::F16x2 | Ty::Bf16x2 | Ty::Tf32)
    }
}

/// Rounding of a floating-point result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    Near,
    Zero,
    Down,
    Up,
    NearAway,
}

/// The modifiers of an opcode, sorted.
#[derive(Debug, Default)]
pub(crate) struct Mods<'a> {
    pub types: Vec<Ty>,
    pub round: Option<Round>,
    /// `.rni`, `.rzi`, …
    pub integer: bool,
    pub ftz: bool,
    pub sat: bool,
    pub rest: Vec<&'a str>,
}

impl<'a> Mods<'a> {
    pub(crate) fn new(op: &'a [String]) -> Self {
        let mut m = Mods::default();
        for word in &op[1..] {
            if let Some(ty) = Ty::parse(word) {
                m.types.push(ty);
                continue;
            }
            let mut round = |r, i| {
                m.round = Some(r);
                m.integer = i;
            };
            match word.as_str() {
                "rn" => round(Round::Near, false),
                "rz" => round(Round::Zero, false),
                "rm" => round(Round::Down, false),
                "rp" => round(Round::Up, false),
                "rna" => round(Round::NearAway, false),
                "rni" => round(Round::Near, true),
                "rzi" => round(Round::Zero, true),
                "rmi" => round(Round::Down, true),
                "rpi" => round(Round::Up, true),
                "ftz" => m.ftz = true,
                "sat" => m.sat = true,
                other => m.rest.push(other),
            }
        }
        m
    }

    /// Takes a modifier if it is there.
    pub(crate) fn take(&mut self, word: &str) -> bool {
        let n = self.rest.len();
        self.rest.retain(|w| *w != word);
        self.rest.len() != n
    }
}
