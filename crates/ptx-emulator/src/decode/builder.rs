//! What the decoder holds while it walks a kernel: registers, names, and the instructions emitted so far.

use std::collections::HashMap;

use ptx::{Function, Instruction, Operand, Variable};

use super::registers::{Accesses, Bank, Mapping, Reg};
use crate::isa::{Class, Code, Family, Init, Inst, LaneMask, Loc, NONE, NOT, Op, Order, Slot, Ty, classify};
use crate::{Error, Result};

/// What takes an instruction over.
pub(crate) type Take = fn(&mut Builder, &Instruction) -> Result<()>;

/// Instructions that one function of the decoder takes over.
pub(crate) type Decoded = Family<Take>;

/// A `.param` object of a call: the registers that carry its parts.
#[derive(Debug, Default)]
pub(super) struct ParamObject {
    pub parts: HashMap<i64, usize>,
}

/// What a name in a body stands for.
#[derive(Clone, Debug)]
pub(super) enum Meaning {
    Reg(usize),
    /// First register, how many.
    Range(usize, u32),
    Shared(u32),
    Local(u32),
    Object(usize),
}

/// One function being inlined.
pub(super) struct Frame {
    pub scopes: Vec<HashMap<String, Meaning>>,
    /// Names of scopes that enclose the current place, innermost last.
    pub path: Vec<u32>,
    pub labels: HashMap<(u32, String), u32>,
    pub targets: HashMap<String, Vec<String>>,
    pub fixups: Vec<(usize, Vec<u32>, String, u32)>,
    pub table_fixups: Vec<(usize, Vec<u32>, Vec<String>, u32)>,
    pub returns: Vec<usize>,
    pub top: bool,
    pub scope_count: u32,
}

/// A kernel being decoded.
pub(crate) struct Builder<'a> {
    pub(super) ptx: &'a ptx::Module,
    pub(super) module: &'a str,
    variables: &'a HashMap<String, u64>,
    pub(super) code: Code,
    pub(super) regs: Vec<Reg>,
    pub(super) objects: Vec<ParamObject>,
    init32: HashMap<Init, u16>,
    init64: HashMap<Init, u16>,
    mapping: Option<Mapping>,
    shared_symbols: HashMap<String, u32>,
    shared_top: u32,
    local_top: u32,
    pub(super) accesses: Accesses,
    /// What the instruction being decoded reads and writes.
    now_uses: Vec<usize>,
    now_defs: Vec<usize>,
    /// The functions being inlined, outermost first.
    pub(super) stack: Vec<String>,
    pub(super) frames: Vec<Frame>,
    /// The smallest accesses so far.
    pub(super) granule: u32,
    pub(super) global_granule: u32,
    /// Index of the latest instruction.
    pub(super) last: usize,
    /// Where the statement being decoded comes from.
    pub(super) loc: Loc,
    /// Line of the PTX of the kernel's own statement being decoded.
    pub(super) kernel_line: u32,
    /// Declarations of registers: first, how many, name.
    declared: Vec<(usize, Option<u32>, String)>,
}

/// The name a variable of a function has in the source: `tile` of `_ZZ4meanE4tile`.
fn plain_name(mangled: &str) -> &str {
    let Some(rest) = mangled.strip_prefix("_ZZ") else { return mangled };
    // The name comes last, after its length, at times with a number after it.
    let whole = rest.rsplit_once('_').filter(|(_, n)| n.parse::<u32>().is_ok()).map_or(rest, |(r, _)| r);
    (1..whole.len())
        .filter(|&n| whole.is_char_boundary(whole.len() - n))
        .map(|n| whole.split_at(whole.len() - n))
        .find(|(before, name)| before.ends_with(&format!("E{}", name.len())))
        .map_or(mangled, |(_, name)| name)
}

impl<'a> Builder<'a> {
    /// An empty kernel; `variables` gives the address of each module variable, `mapping` the slots of the registers once
    /// they are known.
    pub(super) fn new(
        ptx: &'a ptx::Module,
        module: &'a str,
        f: &Function,
        variables: &'a HashMap<String, u64>,
        mapping: Option<Mapping>,
    ) -> Self {
        Self {
            ptx,
            module,
            variables,
            code: Code {
                name: f.name.clone(),
                params: f.params.iter().map(|p| (p.name.clone(), p.kind())).collect(),
                shared_align: 16,
                max_threads: f.max_threads.unwrap_or(1024),
                ..Code::default()
            },
            regs: Vec::new(),
            objects: Vec::new(),
            init32: HashMap::new(),
            init64: HashMap::new(),
            mapping,
            shared_symbols: HashMap::new(),
            shared_top: 0,
            local_top: 0,
            accesses: Accesses::default(),
            now_uses: Vec::new(),
            now_defs: Vec::new(),
            stack: vec![f.name.clone()],
            frames: Vec::new(),
            granule: 16,
            global_granule: 4,
            last: 0,
            loc: Loc::default(),
            kernel_line: 0,
            declared: Vec::new(),
        }
    }

    /// What an access orders between blocks; `atomic`: it is strong in any case.
    pub(super) fn order(&mut self, i: &Instruction, atomic: bool) -> Order {
        let order = Order::of(&i.op, atomic);
        self.code.orders_blocks |= order.acquire || order.release;
        order
    }

    /// Fills in what is known once the body is decoded.
    pub(super) fn finish(&mut self) {
        self.code.shared_bytes = self.shared_top;
        self.code.local_bytes = self.local_top.next_multiple_of(8);
        self.code.shared_granule = self.granule.clamp(1, 4);
        self.code.global_granule = self.global_granule;
        if let Some(m) = &self.mapping {
            self.code.rows32 = m.rows[0];
            self.code.rows64 = m.rows[1];
            self.code.preds = m.rows[2];
        }
    }

    /// Forgets the operands of the instruction before.
    pub(super) fn begin(&mut self) {
        self.now_uses.clear();
        self.now_defs.clear();
    }

    pub(super) fn unknown<T>(&self, i: &Instruction) -> Result<T> {
        self.fail(i, "the emulator does not know this instruction")
    }

    pub(super) fn fail<T>(&self, i: &Instruction, what: impl std::fmt::Display) -> Result<T> {
        let message =
            format!("{}: kernel {}: PTX line {}: {what}: `{}`", self.module, self.code.name, i.line, i.text);
        Err(Error::unsupported(&self.code.name, i.line, &i.text, message))
    }

    pub(super) fn frame(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("a frame is open while a body is decoded")
    }

    /// Another register of a type; None where no register has it.
    pub(super) fn new_reg(&mut self, ty: &str) -> Option<usize> {
        self.regs.push(Reg::of(ty)?);
        Some(self.regs.len() - 1)
    }

    /// Registers as declared: `count` of them for `%r<n>`.
    pub(super) fn declare_registers(&mut self, ty: &str, name: &str, count: Option<u32>) -> Result<()> {
        let first = self.regs.len();
        for _ in 0..count.unwrap_or(1) {
            if self.new_reg(ty).is_none() {
                let (module, kernel) = (self.module, &self.code.name);
                let message = format!("{module}: kernel {kernel}: registers of type .{ty} are not known");
                return Err(Error::unsupported(kernel, 0, "", message));
            }
        }
        let meaning = match count {
            Some(n) => Meaning::Range(first, n),
            None => Meaning::Reg(first),
        };
        self.declared.push((first, count, name.to_owned()));
        self.declare(name, meaning);
        Ok(())
    }

    fn declare(&mut self, name: &str, meaning: Meaning) {
        self.frame().scopes.last_mut().expect("a frame has scopes").insert(name.to_owned(), meaning);
    }

    /// A variable of a function.
    pub(super) fn local_variable(&mut self, v: &Variable) {
        let meaning = match v.space {
            ptx::Space::Shared => Meaning::Shared(self.shared(v)),
            ptx::Space::Local => {
                let at = self.local_top.next_multiple_of(v.align);
                self.local_top = at + v.bytes;
                Meaning::Local(at)
            }
            _ => {
                self.objects.push(ParamObject::default());
                Meaning::Object(self.objects.len() - 1)
            }
        };
        self.declare(&v.name, meaning);
    }

    /// Address of a shared variable; one variable has one address, however often it is declared.
    fn shared(&mut self, v: &Variable) -> u32 {
        if v.is_extern {
            // A number no constant has, until the first pass has found where static memory ends.
            return self.mapping.as_ref().map_or(0xfeed_beef, |m| m.dynamic_base);
        }
        if let Some(&at) = self.shared_symbols.get(&v.name) {
            return at;
        }
        let at = self.shared_top.next_multiple_of(v.align);
        self.shared_top = at + v.bytes;
        self.code.shared_align = self.code.shared_align.max(v.align);
        self.shared_symbols.insert(v.name.clone(), at);
        self.code.shared_names.push((plain_name(&v.name).to_owned(), at, v.bytes));
        at
    }

    /// What a name stands for, innermost scope first.
    pub(super) fn meaning(&self, name: &str) -> Option<Meaning> {
        let frame = self.frames.last()?;
        for scope in frame.scopes.iter().rev() {
            if let Some(m) = scope.get(name) {
                return Some(m.clone());
            }
            let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
            if stem.len() < name.len()
                && let Some(Meaning::Range(first, n)) = scope.get(stem)
                && let Ok(i) = name[stem.len()..].parse::<u32>()
                && i < *n
            {
                return Some(Meaning::Reg(first + i as usize));
            }
        }
        None
    }

    pub(super) fn reg(&self, name: &str) -> Option<usize> {
        match self.meaning(name)? {
            Meaning::Reg(r) => Some(r),
            _ => None,
        }
    }

    fn slot_of(&self, r: usize) -> Slot {
        let n = match &self.mapping {
            Some(m) => m.slot[r],
            None => 0,
        };
        match self.regs[r].bank {
            Bank::R32 => Slot::R32(n),
            Bank::R64 => Slot::R64(n),
            Bank::P => Slot::P(n),
        }
    }

    pub(super) fn use_reg(&mut self, r: usize) -> Slot {
        self.now_uses.push(r);
        self.slot_of(r)
    }

    pub(super) fn def_reg(&mut self, r: usize) -> Slot {
        self.now_defs.push(r);
        self.slot_of(r)
    }

    /// The slot of a 32-bit register that is filled before the kernel starts.
    pub(super) fn init32(&mut self, init: Init) -> u16 {
        prefilled(&mut self.init32, &mut self.code.init32, init)
    }

    /// The same of 64 bits.
    pub(super) fn init64(&mut self, init: Init) -> u16 {
        prefilled(&mut self.init64, &mut self.code.init64, init)
    }

    /// A constant as a slot of the file of its size; 0 bytes for a predicate.
    pub(super) fn imm(&mut self, bits: u64, bytes: u32) -> Slot {
        match bytes {
            0 => Slot::P(u16::from(bits & 1 == 1)),
            1 => Slot::R32(self.init32(Init::Imm(bits & 0xff))),
            2 => Slot::R32(self.init32(Init::Imm(bits & 0xffff))),
            4 => Slot::R32(self.init32(Init::Imm(bits & 0xffff_ffff))),
            _ => Slot::R64(self.init64(Init::Imm(bits))),
        }
    }

    /// An operand of a type as a slot of its file.
    pub(super) fn src(&mut self, i: &Instruction, o: &Operand, ty: Ty) -> Result<Slot> {
        let bytes = ty.bytes();
        match o {
            Operand::Int(n) if ty == Ty::F32 => Ok(self.imm(u64::from((*n as f32).to_bits()), 4)),
            Operand::Int(n) if ty == Ty::F64 => Ok(self.imm((*n as f64).to_bits(), 8)),
            Operand::Int(n) => Ok(self.imm(*n as u64, bytes)),
            Operand::F32(v) if ty == Ty::F64 => Ok(self.imm(f64::from(f32::from_bits(*v)).to_bits(), 8)),
            Operand::F32(v) => Ok(self.imm(u64::from(*v), bytes)),
            Operand::F64(v) if bytes == 4 => {
                Ok(self.imm(u64::from((f64::from_bits(*v) as f32).to_bits()), 4))
            }
            Operand::F64(v) => Ok(self.imm(*v, bytes)),
            Operand::Not(name) => match self.reg(name) {
                Some(r) if self.regs[r].bank == Bank::P && ty == Ty::Pred => match self.use_reg(r) {
                    Slot::P(n) => Ok(Slot::P(n | NOT)),
                    _ => self.fail(i, "`!` of a register that is no predicate"),
                },
                _ => self.fail(i, format!("{name} is no predicate")),
            },
            Operand::Name(name) => {
                if let Some(r) = self.reg(name) {
                    if !self.regs[r].holds(ty) {
                        return self.fail(i, format!("register {name} does not fit the type .{ty:?}"));
                    }
                    return Ok(self.use_reg(r));
                }
                if let Some(init) = special(name) {
                    return Ok(if bytes == 8 {
                        Slot::R64(self.init64(init))
                    } else {
                        Slot::R32(self.init32(init))
                    });
                }
                match self.symbol(name) {
                    Some(address) => Ok(self.imm(address, bytes)),
                    None => self.fail(i, format!("{name} is not known")),
                }
            }
            _ => self.fail(i, "an operand of this form is not known here"),
        }
    }

    /// The address of a variable within its space.
    fn symbol(&mut self, name: &str) -> Option<u64> {
        match self.meaning(name) {
            Some(Meaning::Shared(at) | Meaning::Local(at)) => return Some(u64::from(at)),
            Some(_) => return None,
            None => {}
        }
        let ptx = self.ptx;
        if let Some(v) = ptx.variables.iter().find(|v| v.name == name) {
            return match v.space {
                ptx::Space::Shared => Some(u64::from(self.shared(v))),
                _ => self.variables.get(name).copied(),
            };
        }
        None
    }

    /// A destination of a type as a slot of its file.
    pub(super) fn dst(&mut self, i: &Instruction, o: &Operand, ty: Ty) -> Result<Slot> {
        match o {
            Operand::Sink => {
                let ty = match ty.bytes() {
                    0 => "pred",
                    8 => "b64",
                    _ => "b32",
                };
                let r = self.new_reg(ty).expect("a known type");
                Ok(self.def_reg(r))
            }
            Operand::Name(name) => match self.reg(name) {
                Some(r) if self.regs[r].holds(ty) => Ok(self.def_reg(r)),
                Some(_) => self.fail(i, format!("register {name} does not fit the type .{ty:?}")),
                None => self.fail(i, format!("{name} is no register")),
            },
            _ => self.fail(i, "the destination is no register"),
        }
    }

    /// The base and the offset of `[base + offset]`.
    pub(super) fn bracketed<'o>(&self, i: &Instruction, o: &'o Operand) -> Result<(&'o Operand, i64)> {
        match o {
            Operand::Address(base, offset) => Ok((base, *offset)),
            _ => self.fail(i, "an address expected"),
        }
    }

    /// An address as a slot and an offset.
    pub(super) fn address(&mut self, i: &Instruction, base: &Operand, offset: i64) -> Result<(Slot, i64)> {
        match base {
            Operand::Name(name) => match self.reg(name) {
                Some(r) => match self.regs[r].bank {
                    Bank::P => self.fail(i, format!("{name} is no address")),
                    _ => Ok((self.use_reg(r), offset)),
                },
                None => match self.symbol(name) {
                    Some(at) => Ok((self.imm(at, 8), offset)),
                    None => self.fail(i, format!("{name} is not known")),
                },
            },
            Operand::Int(n) => Ok((self.imm(*n as u64, 8), offset)),
            _ => self.fail(i, "an address of this form is not known"),
        }
    }

    /// Appends an instruction under the guard that `i` has.
    pub(super) fn emit(&mut self, op: Op, i: &Instruction, fields: [u16; 4], ext: u32) -> Result<()> {
        let mut guard = NONE;
        if let Some((name, not)) = &i.guard {
            let Some(r) = self.reg(name) else {
                return self.fail(i, format!("{name} is no register"));
            };
            if let Slot::P(n) = self.use_reg(r) {
                guard = if *not { n | NOT } else { n };
            } else {
                return self.fail(i, format!("{name} is no predicate"));
            }
        }
        let [d, a, b, c] = fields;
        self.push(Inst { op, guard, d, a, b, c, ext }, self.loc, i.text.clone(), classify(&i.op));
        Ok(())
    }

    fn push(&mut self, inst: Inst, loc: Loc, text: String, class: (Class, u32)) {
        let tracked = |d: &Self, regs: &[usize]| -> Vec<(usize, u16)> {
            let Some(m) = &d.mapping else { return Vec::new() };
            regs.iter().filter_map(|r| Some((*r, *m.tracked.get(r)?))).collect()
        };
        // A selection may well look at what it does not take.
        let checks =
            if matches!(inst.op, Op::Sel32 | Op::Sel64) { Vec::new() } else { tracked(self, &self.now_uses) };
        let marks = tracked(self, &self.now_defs);
        for (r, written) in checks {
            let guards_itself = self.regs[r].bank == Bank::P;
            let guard = if guards_itself { NONE } else { inst.guard };
            let name = self.register_name(r);
            self.code.names.push(name);
            let ext = self.code.names.len() as u32 - 1;
            self.place(
                Inst { op: Op::CheckWritten, guard, d: written, a: 0, b: 0, c: 0, ext },
                loc,
                String::new(),
                (Class::Other, 0),
            );
        }
        self.last = self.code.insts.len();
        self.place(inst, loc, text, class);
        self.accesses.uses[self.last] = std::mem::take(&mut self.now_uses);
        self.accesses.defs[self.last] = std::mem::take(&mut self.now_defs);
        for (_, written) in marks {
            self.place(
                Inst { op: Op::MarkWritten, guard: inst.guard, d: written, a: 0, b: 0, c: 0, ext: 0 },
                loc,
                String::new(),
                (Class::Other, 0),
            );
        }
    }

    fn place(&mut self, inst: Inst, loc: Loc, text: String, class: (Class, u32)) {
        self.code.insts.push(inst);
        self.code.locs.push(loc);
        self.code.text.push(text);
        self.code.classes.push(class);
        self.accesses.uses.push(Vec::new());
        self.accesses.defs.push(Vec::new());
    }

    /// The name of a register as declared.
    fn register_name(&self, r: usize) -> String {
        self.declared
            .iter()
            .rev()
            .find(|(first, n, _)| (*first..first + n.unwrap_or(1) as usize).contains(&r))
            .map_or_else(
                || "a parameter".to_owned(),
                |(first, n, name)| match n {
                    Some(_) => format!("{name}{}", r - first),
                    None => name.clone(),
                },
            )
    }

    pub(super) fn emit_exit(&mut self) {
        let loc = self.code.locs.last().copied().unwrap_or_default();
        let inst = Inst { op: Op::Exit, guard: NONE, d: 0, a: 0, b: 0, c: 0, ext: 0 };
        self.push(inst, loc, "exit".to_owned(), (Class::Branch, 0));
    }

    pub(super) fn need(&self, i: &Instruction, n: usize) -> Result<()> {
        if i.operands.len() == n { Ok(()) } else { self.fail(i, format!("{n} operands expected")) }
    }
}

/// The slot of a pre-filled register: one for each content.
fn prefilled(slots: &mut HashMap<Init, u16>, contents: &mut Vec<Init>, init: Init) -> u16 {
    let next = slots.len() as u16;
    let slot = *slots.entry(init).or_insert(next);
    if slot == next {
        contents.push(init);
    }
    slot
}

/// The number of a slot in its file.
pub(super) fn index(slot: Slot) -> u16 {
    match slot {
        Slot::None => 0,
        Slot::R32(n) | Slot::R64(n) | Slot::P(n) => n,
    }
}

/// A special register.
fn special(name: &str) -> Option<Init> {
    let axis = |suffix: &str| match suffix {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    if let Some((stem, suffix)) = name.split_once('.') {
        let a = axis(suffix)?;
        return match stem {
            "%tid" => Some(Init::Tid(a)),
            "%ctaid" => Some(Init::Ctaid(a)),
            "%ntid" => Some(Init::Ntid(a)),
            "%nctaid" => Some(Init::Nctaid(a)),
            _ => None,
        };
    }
    Some(match name {
        "%laneid" => Init::Lane,
        "%warpid" => Init::Warp,
        "%nwarpid" => Init::Warps,
        "%lanemask_eq" => Init::LaneMask(LaneMask::Eq),
        "%lanemask_lt" => Init::LaneMask(LaneMask::Lt),
        "%lanemask_le" => Init::LaneMask(LaneMask::Le),
        "%lanemask_gt" => Init::LaneMask(LaneMask::Gt),
        "%lanemask_ge" => Init::LaneMask(LaneMask::Ge),
        "%dynamic_smem_size" => Init::DynamicShared,
        "%total_smem_size" => Init::TotalShared,
        "WARP_SZ" => Init::Imm(32),
        _ => return None,
    })
}
