//! Decoded instructions: compact, with every operand a slot of a register file.

use ptx::{ParamKind, Place};

use super::class::Class;
use super::types::Lane;

/// Where an instruction comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loc {
    pub inner: Place,
    /// Where that was inlined; the same where it was not.
    pub outer: Place,
    /// Line of the PTX.
    pub ptx: u32,
    /// Line of the PTX of the kernel's own statement: that of the call, where the call was inlined.
    pub kernel: u32,
}

/// A comparison; those that end in `u` also hold when an operand is NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

/// What an instruction does. Operands are in [`Inst`]; where a table is named, `ext` indexes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Mov32,
    Mov64,
    MovP,
    Add32,
    Sub32,
    Mul32,
    Mad32,
    And32,
    Or32,
    Xor32,
    Not32,
    Shl32,
    ShrU32,
    ShrS32,
    Neg32,
    AbsS32,
    MinS32,
    MaxS32,
    MinU32,
    MaxU32,
    DivS32,
    DivU32,
    RemS32,
    RemU32,
    AddF32,
    SubF32,
    MulF32,
    FmaF32,
    FmaDownF32,
    DivF32,
    SqrtF32,
    RcpF32,
    RcpFtzF32,
    NegF32,
    AbsF32,
    MinF32,
    MaxF32,
    Sel32,
    Sel64,
    Add64,
    Sub64,
    Mul64,
    Mad64,
    And64,
    Or64,
    Xor64,
    Not64,
    Shl64,
    ShrU64,
    ShrS64,
    MulWideS,
    MulWideU,
    MadWideS,
    MadWideU,
    CvtU64U32,
    CvtS64S32,
    CvtU32U64,
    CvtF32S32,
    CvtF32U32,
    CvtF32F16,
    CvtF16F32,
    CvtBf16F32,
    PackF16,
    PackBf16,
    SetpF32(Cmp),
    SetpS32(Cmp),
    SetpU32(Cmp),
    SetpS64(Cmp),
    SetpU64(Cmp),
    AndP,
    OrP,
    XorP,
    NotP,
    /// Any other lane-wise instruction: `lanes[ext]`.
    Lane,
    /// `mov.b64 d, {a, b}`.
    Pack64,
    /// `mov.b64 {d, b}, a`.
    Unpack64,
    /// `mov.b32 d, {a, b}` of 16-bit halves.
    Pack32,
    /// `mov.b32 {d, b}, a`.
    Unpack32,
    /// Loads and stores: `mems[ext]`.
    Load,
    Store,
    /// `atom` and `red`: `atoms[ext]`.
    Atom,
    /// `shfl.sync`: `shfls[ext]`.
    Shfl,
    /// `vote.sync`: ext is a `Vote`.
    Vote(Vote),
    ActiveMask,
    MatchAny32,
    MatchAny64,
    Redux(Redux),
    /// `elect.sync d|b, a`.
    Elect,
    /// `bar.sync` and relatives: `bars[ext]`.
    Bar,
    /// `bar.warp.sync a`.
    BarWarp,
    /// Fences: nothing to do.
    Nop,
    /// To instruction `ext`.
    Bra,
    /// To `tables[ext][a]`.
    BraTable,
    Exit,
    Trap,
    /// `mma.sync`: `mmas[ext]`.
    Mma,
    /// `ldmatrix`: `mems[ext]`, `d` is 1 where it transposes.
    LoadMatrix,
    /// `cp.async`: `copies[ext]`.
    Copy,
    /// `cp.async.commit_group`.
    CopyCommit,
    /// `cp.async.wait_group a`, the number in an R32 slot.
    CopyWait,
    /// `cp.async.wait_all`.
    CopyWaitAll,
    /// `mbarrier`: `mbars[ext]`.
    MBar,
    /// `nanosleep`: somebody else first.
    Yield,
    /// Fails in lanes in which predicate `d` does not hold: register `names[ext]` was not written.
    CheckWritten,
    /// Sets predicate `d`: a register is written now.
    MarkWritten,
}

/// What `vote.sync` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uni,
    Ballot,
}

/// What `redux.sync` computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Redux {
    Add,
    MinS,
    MaxS,
    MinU,
    MaxU,
    And,
    Or,
    Xor,
}

/// No guard, or no register.
pub(crate) const NONE: u16 = u16::MAX;
/// Set in a predicate slot where the predicate is negated.
pub(crate) const NOT: u16 = 0x8000;

/// An instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inst {
    pub op: Op,
    pub guard: u16,
    pub d: u16,
    pub a: u16,
    pub b: u16,
    pub c: u16,
    pub ext: u32,
}

/// A slot with its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    None,
    R32(u16),
    R64(u16),
    P(u16),
}

/// A lane-wise instruction that has no vector loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneOp {
    pub lane: Lane,
    pub dst: Slot,
    /// Second predicate of `setp p|q`.
    pub dst2: Slot,
    pub src: [Slot; 4],
}

/// A state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    Shared,
    Local,
    Generic,
}

/// What an access to global memory orders between the blocks of a launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    /// It is no race with such an access of another block (`relaxed` and stronger, of scope `gpu` or `sys`).
    pub strong: bool,
    pub acquire: bool,
    pub release: bool,
}

impl Order {
    /// From the words of an instruction; `atomic`: it is strong in any case.
    pub(crate) fn of(words: &[String], atomic: bool) -> Self {
        let has = |word: &str| words.iter().any(|w| w == word);
        if has("volatile") {
            return Self { strong: true, ..Self::default() };
        }
        let wide = has("gpu") || has("sys") || (atomic && !has("cta"));
        Self {
            strong: wide && (atomic || has("relaxed") || has("acquire") || has("release")),
            acquire: wide && (has("acquire") || has("acq_rel")),
            release: wide && (has("release") || has("acq_rel")),
        }
    }
}

/// A load or store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemOp {
    pub space: Space,
    /// What it orders between blocks.
    pub order: Order,
    /// Bytes of each element.
    pub size: u32,
    /// Elements.
    pub count: u32,
    pub signed: bool,
    /// Whether it is a load that need not see what the launch writes.
    pub non_coherent: bool,
    /// Width of the registers: 16, 32 or 64 bits.
    pub width: u32,
    pub regs: [u16; 4],
    pub addr: Slot,
    pub offset: i64,
}

/// What an atomic computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomKind {
    Add,
    AddF,
    Inc,
    Dec,
    And,
    Or,
    Xor,
    MinS,
    MaxS,
    MinU,
    MaxU,
    Exch,
    Cas,
}

/// An atomic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtomOp {
    pub kind: AtomKind,
    pub mem: MemOp,
    pub dst: Slot,
    pub b: Slot,
    pub c: Slot,
}

/// How `shfl.sync` picks its source lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShflKind {
    Up,
    Down,
    Bfly,
    Idx,
}

/// A shuffle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShflOp {
    pub kind: ShflKind,
    pub dst: u16,
    /// Predicate, or NONE.
    pub pred: u16,
    pub a: u16,
    pub b: u16,
    pub c: u16,
    pub members: u16,
}

/// Type of the operands of a matrix multiply-add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MatrixType {
    F16,
    Bf16,
    Tf32,
}

/// A matrix multiply-add of m16n8 and `k`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MmaOp {
    pub ty: MatrixType,
    pub k: u32,
    /// Accumulates in f16.
    pub half: bool,
    pub d: [u16; 4],
    pub a: [u16; 4],
    pub b: [u16; 2],
    pub c: [u16; 4],
}

/// An asynchronous copy to shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopyOp {
    pub to: Slot,
    pub to_offset: i64,
    pub from: Slot,
    pub from_offset: i64,
    pub bytes: u32,
    /// Bytes to read, or a predicate that says to read none; None for all.
    pub length: Slot,
}

/// What an `mbarrier` instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MBarKind {
    Init,
    Inval,
    Arrive,
    /// Whether the phase of a state is over.
    Test,
    /// Whether the phase of a parity is over.
    TestParity,
    /// `cp.async.mbarrier.arrive`, without `.noinc`.
    CopyArrive,
    /// With `.noinc`.
    CopyArriveNoInc,
}

/// An `mbarrier` instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MBarOp {
    pub kind: MBarKind,
    pub addr: Slot,
    pub offset: i64,
    /// Count, state or parity.
    pub value: Slot,
    /// State or result.
    pub dst: Slot,
}

/// What a block barrier does besides waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarKind {
    Sync,
    Arrive,
    Popc,
    And,
    Or,
}

/// A block barrier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BarOp {
    pub kind: BarKind,
    /// R32 slot of the number.
    pub id: u16,
    /// R32 slot of the thread count, or NONE.
    pub count: u16,
    pub pred: u16,
    pub dst: Slot,
}

/// What a pre-filled register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Init {
    Imm(u64),
    Tid(u8),
    Ctaid(u8),
    Ntid(u8),
    Nctaid(u8),
    Lane,
    Warp,
    Warps,
    LaneMask(LaneMask),
    /// Parameter number and byte within it.
    Param(u16, u16),
    /// Bytes of dynamic shared memory, and of all.
    DynamicShared,
    TotalShared,
}

/// `%lanemask_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LaneMask {
    Eq,
    Lt,
    Le,
    Gt,
    Ge,
}

/// A kernel ready to run.
#[derive(Debug, Default)]
pub(crate) struct Code {
    pub name: String,
    pub insts: Vec<Inst>,
    pub lanes: Vec<LaneOp>,
    pub mems: Vec<MemOp>,
    pub atoms: Vec<AtomOp>,
    pub shfls: Vec<ShflOp>,
    pub bars: Vec<BarOp>,
    pub mmas: Vec<MmaOp>,
    pub copies: Vec<CopyOp>,
    pub mbars: Vec<MBarOp>,
    pub tables: Vec<Vec<u32>>,
    pub locs: Vec<Loc>,
    pub text: Vec<String>,
    /// Registers that `CheckWritten` names.
    pub names: Vec<String>,
    /// Class of each instruction, and its floating-point operations a lane.
    pub classes: Vec<(Class, u32)>,
    /// Pre-filled rows come first in each file.
    pub init32: Vec<Init>,
    pub init64: Vec<Init>,
    pub rows32: usize,
    pub rows64: usize,
    pub preds: usize,
    pub shared_bytes: u32,
    pub shared_align: u32,
    /// Name, first byte and bytes of each variable in shared memory.
    pub shared_names: Vec<(String, u32, u32)>,
    pub local_bytes: u32,
    /// Bytes of a shadow granule of shared memory: the smallest access of the kernel.
    pub shared_granule: u32,
    /// The same for global accesses.
    pub global_granule: u32,
    /// Whether it has non-coherent loads.
    pub non_coherent: bool,
    /// Whether an access acquires or releases.
    pub orders_blocks: bool,
    pub params: Vec<(String, ParamKind)>,
    pub max_threads: u32,
}
