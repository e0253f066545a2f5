//! The lane-wise instructions: every name that [`select`](super::select) answers for, and what answers.

use super::alu::Alu;
use super::{compare, convert, float, half, integer, logic, moves};
use crate::isa::{Family, Mods, Ty};

/// What picks the function of an instruction, and of which types.
pub(crate) struct Selector {
    over: Over,
    pub select: fn(&str, Ty, &mut Mods) -> Option<Alu>,
}

/// Types that a family is about: those of its last type word.
enum Over {
    Any,
    Integers,
    Floats,
    Halves,
}

impl Selector {
    const fn of(over: Over, select: fn(&str, Ty, &mut Mods) -> Option<Alu>) -> Self {
        Self { over, select }
    }

    pub(crate) fn answers(&self, ty: Ty) -> bool {
        match self.over {
            Over::Any => true,
            Over::Integers => !ty.float(),
            Over::Floats => matches!(ty, Ty::F32 | Ty::F64),
            Over::Halves => matches!(ty, Ty::F16 | Ty::Bf16 | Ty::F16x2 | Ty::Bf16x2),
        }
    }
}

/// To let the emulator know another lane-wise instruction: its name and forms here, its body in the file that `take`
/// names, and `UPDATE=1 cargo test -p ptx-emulator instruction_table` for the document.
pub(crate) const FAMILIES: &[Family<Selector>] = &[
    Family {
        title: "Integer arithmetic",
        names: &[
            "add", "sub", "mul", "mad", "mul24", "mad24", "div", "rem", "neg", "abs", "min", "max", "sad",
            "dp4a",
        ],
        forms: &[
            "{add,sub,div,rem,min,max,sad}.{u16,u32,u64,s16,s32,s64}",
            "{add,sub}.sat.s32",
            "{mul,mad}.{lo,hi}.{u16,u32,u64,s16,s32,s64}",
            "{mul,mad}.wide.{u16,u32,s16,s32}",
            "{mul24,mad24}.lo.{u32,s32}",
            "{neg,abs}.{s16,s32,s64}",
            "dp4a.{u32,s32}.{u32,s32}",
        ],
        remarks: "A quotient by zero is all ones, the remainder the dividend.",
        take: Selector::of(Over::Integers, integer::select),
    },
    Family {
        title: "Logic and shifts",
        names: &["and", "or", "xor", "not", "cnot", "lop3", "shl", "shr", "shf"],
        forms: &[
            "{and,or,xor,not}.{pred,b16,b32,b64}",
            "cnot.{b16,b32,b64}",
            "lop3.b32",
            "shl.{b16,b32,b64}",
            "shr.{b16,b32,b64,u16,u32,u64,s16,s32,s64}",
            "shf.{l,r}.{wrap,clamp}.b32",
        ],
        remarks: "",
        take: Selector::of(Over::Integers, logic::select),
    },
    Family {
        title: "Bit fields and bytes",
        names: &["bfe", "bfi", "prmt", "popc", "clz", "brev", "bfind"],
        forms: &[
            "bfe.{u32,u64,s32,s64}",
            "bfi.{b32,b64}",
            "prmt.b32",
            "{popc,clz,brev}.{b32,b64}",
            "bfind{,.shiftamt}.{u32,u64,s32,s64}",
        ],
        remarks: "`prmt` in its default mode.",
        take: Selector::of(Over::Integers, logic::select_bits),
    },
    Family {
        title: "Moves and selections",
        names: &["mov", "selp", "slct"],
        forms: &[
            "mov.{pred,b16,b32,b64,u16,u32,u64,s16,s32,s64,f32,f64}",
            "selp.{b16,b32,b64,u16,u32,u64,s16,s32,s64,f32,f64}",
            "slct.{b16,b32,b64,u16,u32,u64,s16,s32,s64,f32,f64}.{s32,f32}",
        ],
        remarks: "A move also takes the address of a variable or a special register: `%tid`, `%ctaid`, `%ntid`, \
                  `%nctaid`, `%laneid`, `%warpid`, `%nwarpid`, `%lanemask_*`, `%dynamic_smem_size`, \
                  `%total_smem_size`, `WARP_SZ`.",
        take: Selector::of(Over::Any, moves::select),
    },
    Family {
        title: "f32 and f64 arithmetic",
        names: &[
            "add", "sub", "mul", "fma", "mad", "div", "neg", "abs", "copysign", "min", "max", "testp", "rcp",
            "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh",
        ],
        forms: &[
            "{add,sub,mul}{,.rn}{,.ftz}{,.sat}.f32",
            "fma.rn{,.ftz}{,.sat}.f32",
            "mad.rn{,.sat}.f32",
            "{add,sub,mul,fma}.{rz,rm,rp}.f32",
            "{add,sub,mul}{,.rn,.rz,.rm,.rp}.f64",
            "{fma,mad}.rn.f64",
            "div.{approx,full}{,.ftz}.f32",
            "div.{rn,rz,rm,rp}.f32",
            "{rcp,sqrt}.approx{,.ftz}.f32",
            "{rcp,sqrt}.{rn,rz,rm,rp}.f32",
            "{div,rcp,sqrt}.rn.f64",
            "{ex2,lg2,rsqrt,sin,cos}.approx{,.ftz}.f32",
            "tanh.approx.f32",
            "rsqrt.approx.f64",
            "{neg,abs,copysign}.{f32,f64}",
            "{min,max}{,.NaN}.f32",
            "{min,max}.f64",
            "testp.{finite,infinite,number,notanumber,normal,subnormal}.{f32,f64}",
        ],
        remarks: "Approximate functions are computed at f64 and rounded, or exact: a device's last bits differ.",
        take: Selector::of(Over::Floats, float::select),
    },
    Family {
        title: "16-bit float arithmetic",
        names: &["add", "sub", "mul", "fma", "neg", "abs", "min", "max", "ex2", "tanh"],
        forms: &[
            "{add,sub,mul}{,.rn}.{f16,f16x2,bf16,bf16x2}",
            "fma.rn.{f16,f16x2,bf16,bf16x2}",
            "fma.rn.relu.{f16,bf16}",
            "{neg,abs}.{f16,f16x2,bf16,bf16x2}",
            "{min,max}{,.NaN}.{f16,f16x2,bf16,bf16x2}",
            "ex2.approx.{f16,f16x2}",
            "ex2.approx.ftz.{bf16,bf16x2}",
            "tanh.approx.{f16,f16x2,bf16,bf16x2}",
        ],
        remarks: "",
        take: Selector::of(Over::Halves, half::select),
    },
    Family {
        title: "Comparisons",
        names: &["setp", "set"],
        forms: &[
            "setp.{eq,ne,lt,le,gt,ge}{,.and,.or,.xor}.{u16,u32,u64,s16,s32,s64}",
            "setp.{lo,ls,hi,hs}{,.and,.or,.xor}.{u16,u32,u64}",
            "setp.{eq,ne}{,.and,.or,.xor}.{b16,b32,b64}",
            "setp.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}{,.and,.or,.xor}.{f16,bf16,f32,f64}",
            "set.{eq,ne,lt,le,gt,ge}.{u32,s32,f32}.s32",
            "set.{eq,ne,lt,le,gt,ge}.{u32,s32}.u32",
            "set.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}.{u32,s32,f32}.f32",
        ],
        remarks: "`setp` with one destination or with two, `p|q`.",
        take: Selector::of(Over::Any, compare::select),
    },
    Family {
        title: "Conversions",
        names: &["cvt"],
        forms: &[
            "cvt{,.sat}.{u8,u16,u32,u64,s8,s16,s32,s64}.{u8,u16,u32,u64,s8,s16,s32,s64}",
            "cvt.{rn,rz,rm,rp}.f32.{u8,u16,u32,u64,s8,s16,s32,s64}",
            "cvt.{rn,rz,rm,rp}.f64.{u16,u32,u64,s16,s32,s64}",
            "cvt.{rni,rzi,rmi,rpi}{,.ftz}.{u8,u16,u32,u64,s8,s16,s32,s64}.f32",
            "cvt.{rni,rzi,rmi,rpi}.{u8,u16,u32,u64,s8,s16,s32,s64}.f64",
            "cvt.{rni,rzi,rmi,rpi}.{f16.f16,f32.f32,f64.f64}",
            "cvt.sat.{f32.f32,f64.f64}",
            "cvt.f64.f32",
            "cvt.{rn,rz,rm,rp}{,.sat}.f32.f64",
            "cvt.{f32,f64}.{f16,bf16}",
            "cvt.{rn,rz,rm,rp}.{f16,bf16}.{f32,f64}",
            "cvt.rn{,.relu}.{f16x2,bf16x2}.f32",
            "cvt.rz.{f16x2,bf16x2}.f32",
            "cvt.rna.tf32.f32",
            "cvt.rn.{f16,bf16}.{u8,u16,u32,s8,s16,s32}",
            "cvt.{rni,rzi,rmi,rpi}.{u32,s32}.{f16,bf16}",
            "cvt.{rni,rzi,rmi,rpi}.{u16,s16}.f16",
        ],
        remarks: "A float that an integer cannot hold becomes the nearest that it can.",
        take: Selector::of(Over::Any, convert::select),
    },
];
