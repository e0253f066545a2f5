//! Registers as declared, and the slots that they get: those whose lifetimes do not overlap share one.

use std::collections::HashMap;

use ptx::type_bytes;

use crate::isa::{Code, NONE, Op, Ty};

/// The file a register is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bank {
    R32,
    R64,
    P,
}

/// A register as declared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reg {
    pub bank: Bank,
    /// 16-bit registers keep their upper half zero.
    pub half: bool,
}

impl Reg {
    /// A register of a type; None where no register has it.
    pub(super) fn of(ty: &str) -> Option<Self> {
        let (bank, half) = match ty {
            "pred" => (Bank::P, false),
            _ => match type_bytes(ty)? {
                1 | 2 => (Bank::R32, true),
                4 => (Bank::R32, false),
                8 => (Bank::R64, false),
                _ => return None,
            },
        };
        Some(Self { bank, half })
    }

    /// Whether an operand of a type can be this register.
    pub(super) fn holds(self, ty: Ty) -> bool {
        match self.bank {
            Bank::P => ty == Ty::Pred,
            Bank::R32 => (1..=4).contains(&ty.bytes()),
            Bank::R64 => ty.bytes() == 8,
        }
    }
}

/// Which registers each instruction reads and writes, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Accesses {
    pub uses: Vec<Vec<usize>>,
    pub defs: Vec<Vec<usize>>,
}

/// How registers map to slots after allocation: by virtual number.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    pub slot: Vec<u16>,
    pub rows: [usize; 3],
    pub dynamic_base: u32,
    /// Registers that some path reads before it writes them, with the predicate that tells in
    /// which lanes they were written.
    pub tracked: HashMap<usize, u16>,
}

/// Gives registers whose lifetimes do not overlap one slot: the working set of a warp then fits
/// the nearest cache.
pub(super) fn allocate(code: &Code, regs: &[Reg], accesses: &Accesses) -> Mapping {
    let live = Liveness::of(code, regs.len(), accesses);
    let span = live.spans(regs.len(), accesses);
    let mut order: Vec<usize> = (0..regs.len()).filter(|r| span[*r].is_some()).collect();
    order.sort_by_key(|r| span[*r]);
    let mut rows = [code.init32.len(), code.init64.len(), 2];
    let mut tracked = HashMap::new();
    for r in (0..regs.len()).filter(|r| live.at_entry(*r)) {
        tracked.insert(r, rows[2] as u16);
        rows[2] += 1;
    }
    let mut free: [Vec<u16>; 3] = Default::default();
    let mut active: Vec<(usize, usize, u16)> = Vec::new();
    let mut slot = vec![0u16; regs.len()];
    for r in order {
        let Some((from, to)) = span[r] else { continue };
        active.retain(|&(end, bank, s)| {
            let keep = end >= from;
            if !keep {
                free[bank].push(s);
            }
            keep
        });
        let bank = regs[r].bank as usize;
        let s = free[bank].pop().unwrap_or_else(|| {
            rows[bank] += 1;
            (rows[bank] - 1) as u16
        });
        slot[r] = s;
        active.push((to, bank, s));
    }
    Mapping { slot, rows, dynamic_base: code.shared_bytes.next_multiple_of(16), tracked }
}

/// The instructions that may follow each one.
fn successors(code: &Code) -> Vec<Vec<usize>> {
    let n = code.insts.len();
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); n];
    for (i, inst) in code.insts.iter().enumerate() {
        let falls = match inst.op {
            Op::Bra => {
                next[i].push(inst.ext as usize);
                inst.guard != NONE
            }
            Op::BraTable => {
                next[i].extend(code.tables[inst.ext as usize].iter().map(|t| *t as usize));
                inst.guard != NONE
            }
            Op::Exit | Op::Trap => inst.guard != NONE,
            _ => true,
        };
        if falls && i + 1 < n {
            next[i].push(i + 1);
        }
    }
    next
}

/// The registers that are live before each instruction, as bit sets.
struct Liveness {
    instructions: usize,
    /// 64-bit words of a set.
    words: usize,
    live: Vec<u64>,
}

impl Liveness {
    /// Backwards to a fixed point.
    fn of(code: &Code, regs: usize, accesses: &Accesses) -> Self {
        let next = successors(code);
        let n = code.insts.len();
        let words = regs.div_ceil(64);
        let mut live = vec![0u64; n * words];
        let mut changed = true;
        let mut row = vec![0u64; words];
        while changed {
            changed = false;
            for i in (0..n).rev() {
                row.fill(0);
                for &s in next[i].iter().filter(|s| **s < n) {
                    for w in 0..words {
                        row[w] |= live[s * words + w];
                    }
                }
                if code.insts[i].guard == NONE {
                    for &r in &accesses.defs[i] {
                        row[r / 64] &= !(1 << (r % 64));
                    }
                }
                for &r in &accesses.uses[i] {
                    row[r / 64] |= 1 << (r % 64);
                }
                if live[i * words..(i + 1) * words] != row[..] {
                    live[i * words..(i + 1) * words].copy_from_slice(&row);
                    changed = true;
                }
            }
        }
        Self { instructions: n, words, live }
    }

    fn at_entry(&self, r: usize) -> bool {
        self.instructions > 0 && self.live[r / 64] >> (r % 64) & 1 == 1
    }

    /// The span of instructions over which each register lives; a definition counts as well. Live after a definition
    /// means live at the next instruction, which comes into the span by itself.
    fn spans(&self, regs: usize, accesses: &Accesses) -> Vec<Option<(usize, usize)>> {
        let mut span: Vec<Option<(usize, usize)>> = vec![None; regs];
        let mut use_at = |r: usize, i: usize| {
            let s = span[r].get_or_insert((i, i));
            s.0 = s.0.min(i);
            s.1 = s.1.max(i);
        };
        for i in 0..self.instructions {
            for w in 0..self.words {
                let mut bits = self.live[i * self.words + w];
                while bits != 0 {
                    use_at(w * 64 + bits.trailing_zeros() as usize, i);
                    bits &= bits - 1;
                }
            }
            for &r in accesses.defs[i].iter().chain(&accesses.uses[i]) {
                use_at(r, i);
            }
        }
        span
    }
}
