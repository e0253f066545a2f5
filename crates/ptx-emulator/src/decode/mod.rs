//! Statements to [`Code`]: registers get slots, calls are inlined, labels become numbers.

use std::collections::HashMap;

use ptx::{Function, Instruction, Operand, Place, Statement, Variable, type_bytes};

use crate::isa::{
    AtomKind, AtomOp, BarKind, BarOp, Class, Code, CopyOp, Init, Inst, LOCAL_WINDOW, Lane, LaneMask, LaneOp,
    Loc, MBarKind, MBarOp, MatrixType, MemOp, MmaOp, Mods, NONE, NOT, Op, Order, Redux, SHARED_WINDOW,
    ShflKind, ShflOp, Slot, Space, Ty, Vote, classify,
};
use crate::select;
use crate::{Error, Result};

/// The file a register is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bank {
    R32,
    R64,
    P,
}

/// A register as declared.
#[derive(Clone, Copy, Debug)]
struct Reg {
    class: Bank,
    /// 16-bit registers keep their upper half zero.
    half: bool,
}

/// A `.param` object of a call: the registers that carry its parts.
#[derive(Debug, Default)]
struct ParamObject {
    parts: HashMap<i64, usize>,
}

/// What a name in a body stands for.
#[derive(Clone, Debug)]
enum Meaning {
    Reg(usize),
    /// First register, how many.
    Range(usize, u32),
    Shared(u32),
    Local(u32),
    Object(usize),
}

/// One function being inlined.
struct Frame {
    scopes: Vec<HashMap<String, Meaning>>,
    /// Names of scopes that enclose the current place, innermost last.
    path: Vec<u32>,
    labels: HashMap<(u32, String), u32>,
    targets: HashMap<String, Vec<String>>,
    fixups: Vec<(usize, Vec<u32>, String, u32)>,
    table_fixups: Vec<(usize, Vec<u32>, Vec<String>, u32)>,
    returns: Vec<usize>,
    top: bool,
    scope_count: u32,
}

/// How registers map to slots after allocation: by virtual number.
#[derive(Clone, Debug)]
struct Mapping {
    slot: Vec<u16>,
    rows: [usize; 3],
    dynamic_base: u32,
    /// Registers that some path reads before it writes them, with the predicate that tells in
    /// which lanes they were written.
    tracked: HashMap<usize, u16>,
}

struct Decoder<'a> {
    ptx: &'a ptx::Module,
    module: &'a str,
    variables: &'a HashMap<String, u64>,
    code: Code,
    regs: Vec<Reg>,
    objects: Vec<ParamObject>,
    init32: HashMap<Init, u16>,
    init64: HashMap<Init, u16>,
    mapping: Option<Mapping>,
    shared_symbols: HashMap<String, u32>,
    shared_top: u32,
    local_top: u32,
    uses: Vec<Vec<usize>>,
    defs: Vec<Vec<usize>>,
    now_uses: Vec<usize>,
    now_defs: Vec<usize>,
    stack: Vec<String>,
    frames: Vec<Frame>,
    granule: u32,
    global_granule: u32,
    /// Index of the latest instruction.
    last: usize,
    /// Where the statement being decoded comes from.
    loc: Loc,
    /// Line of the PTX of the kernel's own statement being decoded.
    kernel_line: u32,
    /// Declarations of registers: first, how many, name.
    declared: Vec<(usize, Option<u32>, String)>,
}

/// Decodes a kernel of a parsed module. `variables` gives the address of each module variable.
pub(crate) fn decode(
    ptx: &ptx::Module,
    module: &str,
    f: &Function,
    variables: &HashMap<String, u64>,
) -> Result<Code> {
    let first = run(ptx, module, f, variables, None)?;
    let mapping = allocate(&first);
    Ok(run(ptx, module, f, variables, Some(mapping))?.code)
}

fn run<'a>(
    ptx: &'a ptx::Module,
    module: &'a str,
    f: &Function,
    variables: &'a HashMap<String, u64>,
    mapping: Option<Mapping>,
) -> Result<Decoder<'a>> {
    let mut d = Decoder {
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
        uses: Vec::new(),
        defs: Vec::new(),
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
    };
    d.function(f, true, HashMap::new())?;
    d.code.shared_bytes = d.shared_top;
    d.code.local_bytes = d.local_top.next_multiple_of(8);
    d.code.granule = d.granule.clamp(1, 4);
    d.code.global_granule = d.global_granule;
    if let Some(m) = &d.mapping {
        d.code.rows32 = m.rows[0];
        d.code.rows64 = m.rows[1];
        d.code.preds = m.rows[2];
    }
    Ok(d)
}

/// The name a variable of a function has in the source: `tile` of `_ZZ4meanE4tile`.
fn plain_name(mangled: &str) -> &str {
    let Some(rest) = mangled.strip_prefix("_ZZ") else { return mangled };
    // The name comes last, behind its length, at times with a number behind it.
    let whole = rest.rsplit_once('_').filter(|(_, n)| n.parse::<u32>().is_ok()).map_or(rest, |(r, _)| r);
    (1..whole.len())
        .filter(|&n| whole.is_char_boundary(whole.len() - n))
        .map(|n| whole.split_at(whole.len() - n))
        .find(|(before, name)| before.ends_with(&format!("E{}", name.len())))
        .map_or(mangled, |(_, name)| name)
}

/// Gives registers whose lifetimes do not overlap one slot: the working set of a warp then fits
/// the nearest cache.
fn allocate(d: &Decoder) -> Mapping {
    let n = d.code.insts.len();
    let regs = d.regs.len();
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); n];
    for (i, inst) in d.code.insts.iter().enumerate() {
        let falls = match inst.op {
            Op::Bra => {
                next[i].push(inst.ext as usize);
                inst.guard != NONE
            }
            Op::BraTable => {
                next[i].extend(d.code.tables[inst.ext as usize].iter().map(|t| *t as usize));
                inst.guard != NONE
            }
            Op::Exit | Op::Trap => inst.guard != NONE,
            _ => true,
        };
        if falls && i + 1 < n {
            next[i].push(i + 1);
        }
    }
    // Liveness, backwards to a fixed point, over bit sets.
    let words = regs.div_ceil(64);
    let mut live = vec![0u64; n * words];
    let mut changed = true;
    let mut row = vec![0u64; words];
    while changed {
        changed = false;
        for i in (0..n).rev() {
            row.fill(0);
            for &s in &next[i] {
                if s < n {
                    for w in 0..words {
                        row[w] |= live[s * words + w];
                    }
                }
            }
            if d.code.insts[i].guard == NONE {
                for &r in &d.defs[i] {
                    row[r / 64] &= !(1 << (r % 64));
                }
            }
            for &r in &d.uses[i] {
                row[r / 64] |= 1 << (r % 64);
            }
            if live[i * words..(i + 1) * words] != row[..] {
                live[i * words..(i + 1) * words].copy_from_slice(&row);
                changed = true;
            }
        }
    }
    // The span of instructions over which each register lives; a definition counts as well.
    let mut span: Vec<Option<(usize, usize)>> = vec![None; regs];
    let mut touch = |r: usize, i: usize| {
        let s = span[r].get_or_insert((i, i));
        s.0 = s.0.min(i);
        s.1 = s.1.max(i);
    };
    for i in 0..n {
        for w in 0..words {
            let mut bits = live[i * words + w];
            while bits != 0 {
                touch(w * 64 + bits.trailing_zeros() as usize, i);
                bits &= bits - 1;
            }
        }
        for &r in d.defs[i].iter().chain(&d.uses[i]) {
            touch(r, i);
        }
        // Live after a definition means live at the next instruction, which the loop sees itself.
    }
    let mut order: Vec<usize> = (0..regs).filter(|r| span[*r].is_some()).collect();
    order.sort_by_key(|r| span[*r]);
    let init = [d.code.init32.len(), d.code.init64.len()];
    let mut rows = [init[0], init[1], 2];
    let mut tracked = HashMap::new();
    for r in (0..regs).filter(|r| n > 0 && live[r / 64] >> (r % 64) & 1 == 1) {
        tracked.insert(r, rows[2] as u16);
        rows[2] += 1;
    }
    let mut free: [Vec<u16>; 3] = Default::default();
    let mut active: Vec<(usize, usize, u16)> = Vec::new();
    let mut slot = vec![0u16; regs];
    for r in order {
        let Some((from, to)) = span[r] else { continue };
        active.retain(|&(end, class, s)| {
            let keep = end >= from;
            if !keep {
                free[class].push(s);
            }
            keep
        });
        let class = d.regs[r].class as usize;
        let s = free[class].pop().unwrap_or_else(|| {
            rows[class] += 1;
            (rows[class] - 1) as u16
        });
        slot[r] = s;
        active.push((to, class, s));
    }
    Mapping { slot, rows, dynamic_base: d.shared_top.next_multiple_of(16), tracked }
}

impl<'a> Decoder<'a> {
    fn fail<T>(&self, i: &Instruction, what: impl std::fmt::Display) -> Result<T> {
        let message =
            format!("{}: kernel {}: PTX line {}: {what}: `{}`", self.module, self.code.name, i.line, i.text);
        Err(Error::unsupported(&self.code.name, i.line, &i.text, message))
    }

    fn frame(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("a frame is open while a body is decoded")
    }

    fn new_reg(&mut self, ty: &str) -> Option<usize> {
        let (class, half) = match ty {
            "pred" => (Bank::P, false),
            _ => match type_bytes(ty)? {
                1 | 2 => (Bank::R32, true),
                4 => (Bank::R32, false),
                8 => (Bank::R64, false),
                _ => return None,
            },
        };
        self.regs.push(Reg { class, half });
        Some(self.regs.len() - 1)
    }

    fn function(&mut self, f: &Function, top: bool, objects: HashMap<String, Meaning>) -> Result<()> {
        self.frames.push(Frame {
            scopes: vec![objects, HashMap::new()],
            path: vec![0],
            labels: HashMap::new(),
            targets: HashMap::new(),
            fixups: Vec::new(),
            table_fixups: Vec::new(),
            returns: Vec::new(),
            top,
            scope_count: 1,
        });
        // Branch tables may be declared after their use.
        for s in &f.body {
            if let Statement::Targets(name, list) = s {
                self.frame().targets.insert(name.clone(), list.clone());
            }
        }
        let mut loc = Loc::default();
        for stmt in &f.body {
            match stmt {
                Statement::Open => {
                    let frame = self.frame();
                    frame.scopes.push(HashMap::new());
                    let id = frame.scope_count;
                    frame.scope_count += 1;
                    frame.path.push(id);
                }
                Statement::Close => {
                    let frame = self.frame();
                    frame.scopes.pop();
                    frame.path.pop();
                }
                Statement::Label(name, _) => {
                    let at = self.code.insts.len() as u32;
                    let frame = self.frame();
                    let scope = frame.path.last().copied().unwrap_or(0);
                    frame.labels.insert((scope, name.clone()), at);
                }
                Statement::Targets(..) => {}
                Statement::Registers(ty, name, count) => {
                    let first = self.regs.len();
                    for _ in 0..count.unwrap_or(1) {
                        if self.new_reg(ty).is_none() {
                            let (module, kernel) = (self.module, &self.code.name);
                            let message =
                                format!("{module}: kernel {kernel}: registers of type .{ty} are not known");
                            return Err(Error::unsupported(kernel, 0, "", message));
                        }
                    }
                    let meaning = match count {
                        Some(n) => Meaning::Range(first, *n),
                        None => Meaning::Reg(first),
                    };
                    self.declared.push((first, *count, name.clone()));
                    self.declare(name, meaning);
                }
                Statement::Variable(v) => self.local_variable(v),
                Statement::Instruction(i) => {
                    loc = location(i, loc);
                    if top {
                        self.kernel_line = i.line;
                    }
                    self.loc = Loc { kernel: self.kernel_line, ..loc };
                    self.instruction(i)?;
                }
            }
        }
        let end = self.code.insts.len() as u32;
        if top {
            // Falling off the end of a kernel ends it.
            self.emit_exit();
        }
        let frame = self.frames.pop().expect("pushed above");
        let find = |path: &[u32], name: &str| {
            path.iter().rev().find_map(|s| frame.labels.get(&(*s, name.to_owned()))).copied()
        };
        for (at, path, name, line) in &frame.fixups {
            match find(path, name) {
                Some(target) => self.code.insts[*at].ext = target,
                None => return self.no_label(name, *line),
            }
        }
        for (table, path, names, line) in &frame.table_fixups {
            let mut out = Vec::new();
            for name in names {
                match find(path, name) {
                    Some(t) => out.push(t),
                    None => return self.no_label(name, *line),
                }
            }
            self.code.tables[*table] = out;
        }
        for at in &frame.returns {
            self.code.insts[*at].ext = end;
        }
        Ok(())
    }

    fn no_label<T>(&self, name: &str, line: u32) -> Result<T> {
        let (module, kernel) = (self.module, &self.code.name);
        let message = format!("{module}: kernel {kernel}: PTX line {line}: no label is named {name}");
        Err(Error::unsupported(kernel, line, "", message))
    }

    fn declare(&mut self, name: &str, meaning: Meaning) {
        self.frame().scopes.last_mut().expect("a frame has scopes").insert(name.to_owned(), meaning);
    }

    fn local_variable(&mut self, v: &Variable) {
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

    /// Address of a shared variable; one variable has one address, however often it is met.
    fn shared(&mut self, v: &Variable) -> u32 {
        if v.is_extern {
            // A number no constant has, until the first pass has told where static memory ends.
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

    fn meaning(&self, name: &str) -> Option<Meaning> {
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

    fn reg(&self, name: &str) -> Option<usize> {
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
        match self.regs[r].class {
            Bank::R32 => Slot::R32(n),
            Bank::R64 => Slot::R64(n),
            Bank::P => Slot::P(n),
        }
    }

    fn use_reg(&mut self, r: usize) -> Slot {
        self.now_uses.push(r);
        self.slot_of(r)
    }

    fn def_reg(&mut self, r: usize) -> Slot {
        self.now_defs.push(r);
        self.slot_of(r)
    }

    fn init32(&mut self, init: Init) -> u16 {
        let next = self.init32.len() as u16;
        let slot = *self.init32.entry(init).or_insert(next);
        if slot == next {
            self.code.init32.push(init);
        }
        slot
    }

    fn init64(&mut self, init: Init) -> u16 {
        let next = self.init64.len() as u16;
        let slot = *self.init64.entry(init).or_insert(next);
        if slot == next {
            self.code.init64.push(init);
        }
        slot
    }

    fn imm(&mut self, bits: u64, bytes: u32) -> Slot {
        match bytes {
            0 => Slot::P(u16::from(bits & 1 == 1)),
            1 => Slot::R32(self.init32(Init::Imm(bits & 0xff))),
            2 => Slot::R32(self.init32(Init::Imm(bits & 0xffff))),
            4 => Slot::R32(self.init32(Init::Imm(bits & 0xffff_ffff))),
            _ => Slot::R64(self.init64(Init::Imm(bits))),
        }
    }

    /// An operand of a type as a slot of its file.
    fn src(&mut self, i: &Instruction, o: &Operand, ty: Ty) -> Result<Slot> {
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
                Some(r) if self.regs[r].class == Bank::P && ty == Ty::Pred => match self.use_reg(r) {
                    Slot::P(n) => Ok(Slot::P(n | NOT)),
                    _ => self.fail(i, "`!` of a register that is no predicate"),
                },
                _ => self.fail(i, format!("{name} is no predicate")),
            },
            Operand::Name(name) => {
                if let Some(r) = self.reg(name) {
                    let fits = match self.regs[r].class {
                        Bank::P => ty == Ty::Pred,
                        Bank::R32 => bytes > 0 && bytes <= 4,
                        Bank::R64 => bytes == 8,
                    };
                    if !fits {
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

    fn dst(&mut self, i: &Instruction, o: &Operand, ty: Ty) -> Result<Slot> {
        let bytes = ty.bytes();
        match o {
            Operand::Sink => {
                let ty = match bytes {
                    0 => "pred",
                    8 => "b64",
                    _ => "b32",
                };
                let r = self.new_reg(ty).expect("a known type");
                Ok(self.def_reg(r))
            }
            Operand::Name(name) => match self.reg(name) {
                Some(r) => {
                    let fits = match self.regs[r].class {
                        Bank::P => ty == Ty::Pred,
                        Bank::R32 => bytes > 0 && bytes <= 4,
                        Bank::R64 => bytes == 8,
                    };
                    if fits {
                        Ok(self.def_reg(r))
                    } else {
                        self.fail(i, format!("register {name} does not fit the type .{ty:?}"))
                    }
                }
                None => self.fail(i, format!("{name} is no register")),
            },
            _ => self.fail(i, "the destination is no register"),
        }
    }

    fn emit(&mut self, op: Op, i: &Instruction, fields: [u16; 4], ext: u32) -> Result<()> {
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
            let guards_itself = self.regs[r].class == Bank::P;
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
        self.uses[self.last] = std::mem::take(&mut self.now_uses);
        self.defs[self.last] = std::mem::take(&mut self.now_defs);
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
        self.uses.push(Vec::new());
        self.defs.push(Vec::new());
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

    fn emit_exit(&mut self) {
        let loc = self.code.locs.last().copied().unwrap_or_default();
        let inst = Inst { op: Op::Exit, guard: NONE, d: 0, a: 0, b: 0, c: 0, ext: 0 };
        self.push(inst, loc, "exit".to_owned(), (Class::Branch, 0));
    }

    fn need(&self, i: &Instruction, n: usize) -> Result<()> {
        if i.operands.len() == n { Ok(()) } else { self.fail(i, format!("{n} operands expected")) }
    }

    fn instruction(&mut self, i: &Instruction) -> Result<()> {
        self.now_uses.clear();
        self.now_defs.clear();
        let unknown = "the emulator does not know this instruction";
        let op: Vec<&str> = i.op.iter().map(String::as_str).collect();
        match op[0] {
            "mov" if i.operands.iter().any(|o| matches!(o, Operand::Vector(_))) => self.mov_vector(i),
            "ld" | "ldu" | "st" => self.memory(i),
            "atom" | "red" => self.atomic(i),
            "mma" => self.mma(i),
            "ldmatrix" => self.load_matrix(i),
            "cp" => self.copy(i),
            "mbarrier" => self.mbarrier(i),
            "cvta" => self.cvta(i),
            "shfl" => self.shuffle(i),
            "vote" => {
                let kind = match op.get(2) {
                    Some(&"all") => Vote::All,
                    Some(&"any") => Vote::Any,
                    Some(&"uni") => Vote::Uni,
                    Some(&"ballot") => Vote::Ballot,
                    _ => return self.fail(i, unknown),
                };
                if op.get(1) != Some(&"sync") {
                    return self.fail(i, unknown);
                }
                self.need(i, 3)?;
                let d = self.dst(i, &i.operands[0], if kind == Vote::Ballot { Ty::B32 } else { Ty::Pred })?;
                let a = self.src(i, &i.operands[1], Ty::Pred)?;
                let b = self.src(i, &i.operands[2], Ty::B32)?;
                self.emit(Op::Vote(kind), i, [index(d), index(a), index(b), 0], 0)
            }
            "activemask" => {
                self.need(i, 1)?;
                let d = self.dst(i, &i.operands[0], Ty::B32)?;
                self.emit(Op::ActiveMask, i, [index(d), 0, 0, 0], 0)
            }
            "match" if op.get(1) == Some(&"any") => {
                self.need(i, 3)?;
                let wide = op.last() == Some(&"b64");
                let d = self.dst(i, &i.operands[0], Ty::B32)?;
                let a = self.src(i, &i.operands[1], if wide { Ty::B64 } else { Ty::B32 })?;
                let b = self.src(i, &i.operands[2], Ty::B32)?;
                let op = if wide { Op::MatchAny64 } else { Op::MatchAny32 };
                self.emit(op, i, [index(d), index(a), index(b), 0], 0)
            }
            "redux" => {
                let signed = op.last() == Some(&"s32");
                let kind = match (op.get(2), signed) {
                    (Some(&"add"), _) => Redux::Add,
                    (Some(&"min"), true) => Redux::MinS,
                    (Some(&"max"), true) => Redux::MaxS,
                    (Some(&"min"), false) => Redux::MinU,
                    (Some(&"max"), false) => Redux::MaxU,
                    (Some(&"and"), _) => Redux::And,
                    (Some(&"or"), _) => Redux::Or,
                    (Some(&"xor"), _) => Redux::Xor,
                    _ => return self.fail(i, unknown),
                };
                if op.len() != 4 || !matches!(op[3], "s32" | "u32" | "b32") {
                    return self.fail(i, unknown);
                }
                self.need(i, 3)?;
                let d = self.dst(i, &i.operands[0], Ty::B32)?;
                let a = self.src(i, &i.operands[1], Ty::B32)?;
                let b = self.src(i, &i.operands[2], Ty::B32)?;
                self.emit(Op::Redux(kind), i, [index(d), index(a), index(b), 0], 0)
            }
            "elect" => {
                self.need(i, 2)?;
                let Operand::Pair(d, p) = &i.operands[0] else {
                    return self.fail(i, "a pair of destinations expected");
                };
                let a = self.src(i, &i.operands[1], Ty::B32)?;
                let d = self.dst(i, d, Ty::B32)?;
                let p = self.dst(i, p, Ty::Pred)?;
                self.emit(Op::Elect, i, [index(d), index(a), index(p), 0], 0)
            }
            "bar" | "barrier" => self.barrier(i),
            "nanosleep" => self.emit(Op::Yield, i, [0; 4], 0),
            "membar" | "fence" | "prefetch" | "prefetchu" | "discard" | "applypriority" => {
                self.emit(Op::Nop, i, [0; 4], 0)
            }
            "bra" => {
                let Some(Operand::Name(label)) = i.operands.first() else {
                    return self.fail(i, "a label expected");
                };
                self.emit(Op::Bra, i, [0; 4], 0)?;
                let at = self.last;
                let frame = self.frame();
                let path = frame.path.clone();
                frame.fixups.push((at, path, label.clone(), i.line));
                Ok(())
            }
            "brx" => {
                self.need(i, 2)?;
                let a = self.src(i, &i.operands[0], Ty::U32)?;
                let Operand::Name(name) = &i.operands[1] else {
                    return self.fail(i, "a table of labels expected");
                };
                let Some(list) = self.frame().targets.get(name).cloned() else {
                    return self.fail(i, format!("no .branchtargets is named {name}"));
                };
                let table = self.code.tables.len();
                self.code.tables.push(Vec::new());
                self.emit(Op::BraTable, i, [0, index(a), 0, 0], table as u32)?;
                let frame = self.frame();
                let path = frame.path.clone();
                frame.table_fixups.push((table, path, list, i.line));
                Ok(())
            }
            "ret" | "exit" => {
                if op[0] == "exit" || self.frame().top {
                    self.emit(Op::Exit, i, [0; 4], 0)
                } else {
                    self.emit(Op::Bra, i, [0; 4], 0)?;
                    let at = self.last;
                    self.frame().returns.push(at);
                    Ok(())
                }
            }
            "trap" | "brkpt" => self.emit(Op::Trap, i, [0; 4], 0),
            "call" => self.call(i),
            _ => match select::select(&i.op) {
                Some(a) => self.lane_wise(i, a),
                None => self.fail(i, unknown),
            },
        }
    }

    fn lane_wise(&mut self, i: &Instruction, a: select::Alu) -> Result<()> {
        let setp = i.op[0] == "setp";
        let bool_op = if setp { select::bool_op_number(&i.op) } else { 0 };
        let inputs = a.src.len() + usize::from(setp && bool_op != 0);
        // `prmt` in its modes and the like would have been refused by `select`.
        self.need(i, inputs + 1)?;
        let mut src = [Slot::None; 4];
        for (k, ty) in a.src.iter().enumerate() {
            src[k] = self.src(i, &i.operands[k + 1], *ty)?;
        }
        if setp && bool_op != 0 {
            src[2] = self.src(i, &i.operands[3], Ty::Pred)?;
            src[3] = self.imm(bool_op, 4);
        }
        let (first, second) = match &i.operands[0] {
            Operand::Pair(p, q) => (p.as_ref(), Some(q.as_ref())),
            o => (o, None),
        };
        let dst = self.dst(i, first, a.dst)?;
        let dst2 = match second {
            Some(q) => self.dst(i, q, Ty::Pred)?,
            None => Slot::None,
        };
        match a.fast {
            Some(op) if second.is_none() => {
                let [x, y, z, _] = src.map(index);
                self.emit(op, i, [index(dst), x, y, z], 0)
            }
            _ => {
                if setp && src[3] == Slot::None {
                    src[3] = self.imm(0, 4);
                }
                let ext = self.code.lanes.len() as u32;
                self.code.lanes.push(LaneOp { lane: a.lane, dst, dst2, src });
                self.emit(Op::Lane, i, [0; 4], ext)
            }
        }
    }

    fn mov_vector(&mut self, i: &Instruction) -> Result<()> {
        self.need(i, 2)?;
        let ty = Mods::new(&i.op).types.first().copied();
        let (part, pack, unpack) = match ty.map(Ty::bytes) {
            Some(8) => (Ty::B32, Op::Pack64, Op::Unpack64),
            Some(4) => (Ty::B16, Op::Pack32, Op::Unpack32),
            _ => return self.fail(i, "the emulator does not know this instruction"),
        };
        let whole = ty.unwrap_or(Ty::B64);
        match (&i.operands[0], &i.operands[1]) {
            (d, Operand::Vector(parts)) if parts.len() == 2 => {
                let a = self.src(i, &parts[0], part)?;
                let b = self.src(i, &parts[1], part)?;
                let d = self.dst(i, d, whole)?;
                self.emit(pack, i, [index(d), index(a), index(b), 0], 0)
            }
            (Operand::Vector(parts), a) if parts.len() == 2 => {
                let a = self.src(i, a, whole)?;
                let d = self.dst(i, &parts[0], part)?;
                let b = self.dst(i, &parts[1], part)?;
                self.emit(unpack, i, [index(d), index(a), index(b), 0], 0)
            }
            _ => self.fail(i, "the emulator does not know this instruction"),
        }
    }

    /// The width in bits that a register of a load or store has.
    fn data_width(&self, o: &Operand, ty: Ty) -> u32 {
        if let Operand::Name(name) = o
            && let Some(r) = self.reg(name)
        {
            return match self.regs[r] {
                Reg { class: Bank::R64, .. } => 64,
                Reg { half: true, .. } => 16,
                _ => 32,
            };
        }
        if ty.bytes() == 8 { 64 } else { 32 }
    }

    fn memory(&mut self, i: &Instruction) -> Result<()> {
        let unknown = "the emulator does not know this instruction";
        let load = i.op[0] != "st";
        let mut space = Space::Generic;
        let mut param = false;
        let mut count = 1u32;
        let mut ty = None;
        for word in &i.op[1..] {
            match word.as_str() {
                "global" | "const" => space = Space::Global,
                "shared" | "shared::cta" => space = Space::Shared,
                "local" => space = Space::Local,
                "param" | "param::entry" | "param::func" => param = true,
                "v2" => count = 2,
                "v4" => count = 4,
                "nc"
                | "ca"
                | "cg"
                | "cs"
                | "lu"
                | "cv"
                | "wb"
                | "wt"
                | "volatile"
                | "relaxed"
                | "acquire"
                | "release"
                | "weak"
                | "cta"
                | "gpu"
                | "sys"
                | "cluster"
                | "L1::evict_last"
                | "L1::evict_normal"
                | "L1::evict_first"
                | "L1::evict_unchanged"
                | "L1::no_allocate"
                | "L2::64B"
                | "L2::128B"
                | "L2::256B" => {}
                other => match Ty::parse(other) {
                    Some(t) if t != Ty::Pred => ty = Some(t),
                    _ => return self.fail(i, unknown),
                },
            }
        }
        let Some(ty) = ty else {
            return self.fail(i, unknown);
        };
        self.need(i, 2)?;
        let (data, address) =
            if load { (&i.operands[0], &i.operands[1]) } else { (&i.operands[1], &i.operands[0]) };
        let Operand::Address(base, offset) = address else {
            return self.fail(i, "an address expected");
        };
        let data: Vec<&Operand> = match data {
            Operand::Vector(parts) => parts.iter().collect(),
            o => vec![o],
        };
        if data.len() != count as usize {
            return self.fail(i, format!("{count} registers expected"));
        }
        if param {
            return self.param_access(i, load, ty, &data, base, *offset);
        }
        if ty.bytes() * count > 16 {
            return self.fail(i, unknown);
        }
        let width =
            self.data_width(data.iter().find(|d| !matches!(d, Operand::Sink)).unwrap_or(&data[0]), ty);
        let file = match width {
            64 => Ty::B64,
            16 => Ty::B16,
            _ => Ty::B32,
        };
        let mut regs = [NONE; 4];
        if !load {
            for (k, o) in data.iter().enumerate() {
                let constant = matches!(o, Operand::Int(_) | Operand::F32(_) | Operand::F64(_));
                regs[k] = index(self.src(i, o, if constant { ty } else { file })?);
            }
        }
        let (addr, offset) = self.address(i, base, *offset)?;
        if load {
            for (k, o) in data.iter().enumerate() {
                regs[k] = index(self.dst(i, o, file)?);
            }
        }
        if matches!(space, Space::Shared | Space::Generic) {
            self.granule = self.granule.min(ty.bytes());
        }
        if matches!(space, Space::Global | Space::Generic) {
            self.global_granule = self.global_granule.min(ty.bytes());
        }
        let ext = self.code.mems.len() as u32;
        self.code.mems.push(MemOp {
            space,
            order: Order::of(&i.op, false),
            size: ty.bytes(),
            count,
            signed: ty.signed(),
            width,
            regs,
            addr,
            offset,
        });
        self.emit(if load { Op::Load } else { Op::Store }, i, [0; 4], ext)
    }

    fn address(&mut self, i: &Instruction, base: &Operand, offset: i64) -> Result<(Slot, i64)> {
        match base {
            Operand::Name(name) => match self.reg(name) {
                Some(r) => match self.regs[r].class {
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

    fn param_access(
        &mut self,
        i: &Instruction,
        load: bool,
        ty: Ty,
        data: &[&Operand],
        base: &Operand,
        offset: i64,
    ) -> Result<()> {
        let Operand::Name(name) = base else {
            return self.fail(i, "a parameter expected");
        };
        if let Some(Meaning::Object(object)) = self.meaning(name) {
            for (k, o) in data.iter().enumerate() {
                let at = offset + k as i64 * i64::from(ty.bytes());
                let wide = ty.bytes() == 8;
                let known = self.objects[object].parts.get(&at).copied();
                let part = match known {
                    Some(r) => r,
                    None => {
                        let r = self.new_reg(if wide { "b64" } else { "b32" }).expect("a known type");
                        self.objects[object].parts.insert(at, r);
                        r
                    }
                };
                if (self.regs[part].class == Bank::R64) != wide {
                    return self.fail(i, "a parameter read in another width than it was written");
                }
                let file = if wide { Ty::B64 } else { Ty::B32 };
                if load {
                    let a = self.use_reg(part);
                    let width = self.data_width(o, ty);
                    if (width == 64) != wide {
                        return self.fail(i, "a parameter read into a register of another width");
                    }
                    let d = self.dst(i, o, file)?;
                    self.emit(if wide { Op::Mov64 } else { Op::Mov32 }, i, [index(d), index(a), 0, 0], 0)?;
                } else {
                    let constant = matches!(o, Operand::Int(_) | Operand::F32(_) | Operand::F64(_));
                    let a = self.src(i, o, if constant { ty } else { file })?;
                    let d = self.def_reg(part);
                    self.emit(if wide { Op::Mov64 } else { Op::Mov32 }, i, [index(d), index(a), 0, 0], 0)?;
                }
            }
            return Ok(());
        }
        let Some(number) = self.code.params.iter().position(|(n, _)| n == name) else {
            return self.fail(i, format!("{name} is no parameter"));
        };
        if !load {
            return self.fail(i, "a store to a kernel parameter");
        }
        for (k, o) in data.iter().enumerate() {
            let at = offset + k as i64 * i64::from(ty.bytes());
            let init = Init::Param(number as u16, at as u16);
            let narrow = ty.bytes() < 4;
            if narrow {
                // A small integer of the parameter: cut out of its 32-bit word.
                let shift = (at % 4 * 8) as u64;
                let word = self.init32(Init::Param(number as u16, (at / 4 * 4) as u16));
                let lane: Lane = match (ty.bytes(), ty.signed()) {
                    (1, false) => |[a, s, ..]| (a >> s) & 0xff,
                    (1, true) => |[a, s, ..]| u64::from(((a >> s) as i8) as i32 as u32),
                    (_, false) => |[a, s, ..]| (a >> s) & 0xffff,
                    (_, true) => |[a, s, ..]| u64::from(((a >> s) as i16) as i32 as u32),
                };
                let half = self.data_width(o, ty) == 16;
                let dst = self.dst(i, o, if half { Ty::B16 } else { Ty::B32 })?;
                let shift = self.imm(shift, 4);
                let ext = self.code.lanes.len() as u32;
                let lane: Lane = if half {
                    match (ty.bytes(), ty.signed()) {
                        (1, true) => |[a, s, ..]| u64::from(((a >> s) as i8) as i16 as u16),
                        (2, true) => |[a, s, ..]| (a >> s) & 0xffff,
                        _ => lane,
                    }
                } else {
                    lane
                };
                self.code.lanes.push(LaneOp {
                    lane,
                    dst,
                    dst2: Slot::None,
                    src: [Slot::R32(word), shift, Slot::None, Slot::None],
                });
                self.emit(Op::Lane, i, [0; 4], ext)?;
                continue;
            }
            let wide = ty.bytes() == 8;
            let width = self.data_width(o, ty);
            match (wide, width) {
                (true, 64) => {
                    let a = self.init64(init);
                    let d = self.dst(i, o, Ty::B64)?;
                    self.emit(Op::Mov64, i, [index(d), a, 0, 0], 0)?;
                }
                (false, 32) => {
                    let a = self.init32(init);
                    let d = self.dst(i, o, Ty::B32)?;
                    self.emit(Op::Mov32, i, [index(d), a, 0, 0], 0)?;
                }
                (false, 64) => {
                    let a = self.init32(init);
                    let d = self.dst(i, o, Ty::B64)?;
                    let op = if ty.signed() { Op::CvtS64S32 } else { Op::CvtU64U32 };
                    self.emit(op, i, [index(d), a, 0, 0], 0)?;
                }
                _ => return self.fail(i, "a parameter read into a register of another width"),
            }
        }
        Ok(())
    }

    fn atomic(&mut self, i: &Instruction) -> Result<()> {
        let unknown = "the emulator does not know this instruction";
        let returns = i.op[0] == "atom";
        let mut space = Space::Generic;
        let mut what = None;
        let mut ty = None;
        for word in &i.op[1..] {
            match word.as_str() {
                "global" => space = Space::Global,
                "shared" | "shared::cta" => space = Space::Shared,
                "relaxed" | "acquire" | "release" | "acq_rel" | "cta" | "gpu" | "sys" | "noftz" => {}
                "add" | "min" | "max" | "and" | "or" | "xor" | "exch" | "cas" | "inc" | "dec" => {
                    what = Some(word.as_str())
                }
                other => match Ty::parse(other) {
                    Some(t) if t.bytes() >= 4 => ty = Some(t),
                    _ => return self.fail(i, unknown),
                },
            }
        }
        let (Some(what), Some(ty)) = (what, ty) else {
            return self.fail(i, unknown);
        };
        let kind = match (what, ty) {
            ("add", Ty::F32 | Ty::F64) => AtomKind::AddF,
            ("add", Ty::U32 | Ty::S32 | Ty::U64) => AtomKind::Add,
            ("min", Ty::S32 | Ty::S64) => AtomKind::MinS,
            ("max", Ty::S32 | Ty::S64) => AtomKind::MaxS,
            ("min", Ty::U32 | Ty::U64) => AtomKind::MinU,
            ("max", Ty::U32 | Ty::U64) => AtomKind::MaxU,
            ("and", Ty::B32 | Ty::B64) => AtomKind::And,
            ("or", Ty::B32 | Ty::B64) => AtomKind::Or,
            ("xor", Ty::B32 | Ty::B64) => AtomKind::Xor,
            ("exch", Ty::B32 | Ty::B64) => AtomKind::Exch,
            ("cas", Ty::B32 | Ty::B64) => AtomKind::Cas,
            ("inc", Ty::U32) => AtomKind::Inc,
            ("dec", Ty::U32) => AtomKind::Dec,
            _ => return self.fail(i, unknown),
        };
        let args = 2 + usize::from(kind == AtomKind::Cas);
        self.need(i, args + usize::from(returns))?;
        let rest = &i.operands[usize::from(returns)..];
        let Operand::Address(base, offset) = &rest[0] else {
            return self.fail(i, "an address expected");
        };
        let b = self.src(i, &rest[1], ty)?;
        let c = match rest.get(2) {
            Some(o) => self.src(i, o, ty)?,
            None => Slot::None,
        };
        let (addr, offset) = self.address(i, base, *offset)?;
        let dst = if returns { self.dst(i, &i.operands[0], ty)? } else { Slot::None };
        if space != Space::Global {
            self.granule = self.granule.min(ty.bytes());
        }
        let ext = self.code.atoms.len() as u32;
        self.code.atoms.push(AtomOp {
            kind,
            mem: MemOp {
                space,
                order: Order::of(&i.op, true),
                size: ty.bytes(),
                count: 1,
                signed: false,
                width: ty.bytes() * 8,
                regs: [NONE; 4],
                addr,
                offset,
            },
            dst,
            b,
            c,
        });
        self.emit(Op::Atom, i, [0; 4], ext)
    }

    fn cvta(&mut self, i: &Instruction) -> Result<()> {
        self.need(i, 2)?;
        let to = i.op.iter().any(|w| w == "to");
        let window = i.op.iter().find_map(|w| match w.as_str() {
            "global" | "const" | "param" => Some(0),
            "shared" | "shared::cta" => Some(SHARED_WINDOW),
            "local" => Some(LOCAL_WINDOW),
            _ => None,
        });
        let (Some(window), Some("u64")) = (window, i.op.last().map(String::as_str)) else {
            return self.fail(i, "the emulator does not know this instruction");
        };
        let a = self.src(i, &i.operands[1], Ty::U64)?;
        let d = self.dst(i, &i.operands[0], Ty::U64)?;
        if window == 0 {
            return self.emit(Op::Mov64, i, [index(d), index(a), 0, 0], 0);
        }
        let b = self.imm(window, 8);
        self.emit(if to { Op::Sub64 } else { Op::Add64 }, i, [index(d), index(a), index(b), 0], 0)
    }

    /// The registers of a braced operand.
    fn vector<'o>(&self, i: &Instruction, o: &'o Operand, n: usize) -> Result<&'o [Operand]> {
        match o {
            Operand::Vector(parts) if parts.len() == n => Ok(parts),
            _ if n == 1 => Ok(std::slice::from_ref(o)),
            _ => self.fail(i, format!("{n} registers in braces expected")),
        }
    }

    fn mma(&mut self, i: &Instruction) -> Result<()> {
        let unknown = "the emulator does not know this instruction";
        let words: Vec<&str> = i.op.iter().map(String::as_str).collect();
        let ["mma", "sync", "aligned", shape, "row", "col", d, a, b, c] = words.as_slice() else {
            return self.fail(i, unknown);
        };
        let k = shape.strip_prefix("m16n8k").and_then(|k| k.parse::<u32>().ok());
        let ty = match (*a, k) {
            ("f16", Some(8 | 16)) => MatrixType::F16,
            ("bf16", Some(8 | 16)) => MatrixType::Bf16,
            ("tf32", Some(4 | 8)) => MatrixType::Tf32,
            _ => return self.fail(i, unknown),
        };
        let half = *d == "f16";
        if a != b || d != c || !(half && ty == MatrixType::F16 || *d == "f32") {
            return self.fail(i, unknown);
        }
        self.need(i, 4)?;
        let k = k.unwrap_or(0);
        let tf32 = ty == MatrixType::Tf32;
        let counts =
            [if half { 2 } else { 4 }, if tf32 { k / 2 } else { k / 4 }, if tf32 { k / 4 } else { k / 8 }];
        let [outs, lefts, rights] = counts.map(|n| n as usize);
        let mut op = MmaOp { ty, k, half, d: [0; 4], a: [0; 4], b: [0; 2], c: [0; 4] };
        for (slot, o) in op.a.iter_mut().zip(self.vector(i, &i.operands[1], lefts)?) {
            *slot = index(self.src(i, o, Ty::B32)?);
        }
        for (slot, o) in op.b.iter_mut().zip(self.vector(i, &i.operands[2], rights)?) {
            *slot = index(self.src(i, o, Ty::B32)?);
        }
        let accumulator = if half { Ty::B32 } else { Ty::F32 };
        for (slot, o) in op.c.iter_mut().zip(self.vector(i, &i.operands[3], outs)?) {
            *slot = index(self.src(i, o, accumulator)?);
        }
        for (slot, o) in op.d.iter_mut().zip(self.vector(i, &i.operands[0], outs)?) {
            *slot = index(self.dst(i, o, accumulator)?);
        }
        let ext = self.code.mmas.len() as u32;
        self.code.mmas.push(op);
        self.emit(Op::Mma, i, [0; 4], ext)
    }

    fn load_matrix(&mut self, i: &Instruction) -> Result<()> {
        let unknown = "the emulator does not know this instruction";
        let mut count = 0;
        let mut transposed = false;
        let mut space = Space::Generic;
        for word in &i.op[1..] {
            match word.as_str() {
                "sync" | "aligned" | "m8n8" | "b16" => {}
                "x1" => count = 1,
                "x2" => count = 2,
                "x4" => count = 4,
                "trans" => transposed = true,
                "shared" | "shared::cta" => space = Space::Shared,
                _ => return self.fail(i, unknown),
            }
        }
        if count == 0 {
            return self.fail(i, unknown);
        }
        self.need(i, 2)?;
        let Operand::Address(base, offset) = &i.operands[1] else {
            return self.fail(i, "an address expected");
        };
        let (addr, offset) = self.address(i, base, *offset)?;
        let mut regs = [NONE; 4];
        for (slot, o) in regs.iter_mut().zip(self.vector(i, &i.operands[0], count as usize)?) {
            *slot = index(self.dst(i, o, Ty::B32)?);
        }
        let ext = self.code.mems.len() as u32;
        self.code.mems.push(MemOp {
            space,
            order: Order::default(),
            size: 4,
            count,
            signed: false,
            width: 32,
            regs,
            addr,
            offset,
        });
        self.emit(Op::LoadMatrix, i, [u16::from(transposed), 0, 0, 0], ext)
    }

    fn copy(&mut self, i: &Instruction) -> Result<()> {
        let unknown = "the emulator does not know this instruction";
        let words: Vec<&str> = i.op[1..].iter().map(String::as_str).collect();
        match words.as_slice() {
            ["async", "commit_group"] => return self.emit(Op::CopyCommit, i, [0; 4], 0),
            ["async", "wait_all"] => return self.emit(Op::CopyWaitAll, i, [0; 4], 0),
            ["async", "wait_group"] => {
                self.need(i, 1)?;
                let n = self.src(i, &i.operands[0], Ty::U32)?;
                return self.emit(Op::CopyWait, i, [0, index(n), 0, 0], 0);
            }
            ["async", "mbarrier", "arrive", rest @ ..] => {
                let kind =
                    if rest.contains(&"noinc") { MBarKind::CopyArriveNoInc } else { MBarKind::CopyArrive };
                self.need(i, 1)?;
                return self.push_mbarrier(i, kind, &i.operands[0], Slot::None, Slot::None);
            }
            ["async", "ca" | "cg", to, "global", rest @ ..]
                if matches!(*to, "shared" | "shared::cta")
                    && rest.iter().all(|w| matches!(*w, "L2::64B" | "L2::128B" | "L2::256B")) => {}
            _ => return self.fail(i, unknown),
        }
        if !(3..=4).contains(&i.operands.len()) {
            return self.fail(i, "3 or 4 operands expected");
        }
        let (Operand::Address(to, to_offset), Operand::Address(from, from_offset)) =
            (&i.operands[0], &i.operands[1])
        else {
            return self.fail(i, "two addresses expected");
        };
        let bytes = match i.operands[2] {
            Operand::Int(n @ (4 | 8)) if words[1] == "ca" => n as u32,
            Operand::Int(16) => 16,
            _ => return self.fail(i, "a copy is of 4, 8 or 16 bytes, with .cg of 16"),
        };
        let (to, to_offset) = self.address(i, to, *to_offset)?;
        let (from, from_offset) = self.address(i, from, *from_offset)?;
        let length = match i.operands.get(3) {
            None => Slot::None,
            Some(Operand::Not(_)) => self.src(i, &i.operands[3], Ty::Pred)?,
            Some(Operand::Name(n)) if self.reg(n).is_some_and(|r| self.regs[r].class == Bank::P) => {
                self.src(i, &i.operands[3], Ty::Pred)?
            }
            Some(o) => self.src(i, o, Ty::U32)?,
        };
        let ext = self.code.copies.len() as u32;
        self.code.copies.push(CopyOp { to, to_offset, from, from_offset, bytes, length });
        self.emit(Op::Copy, i, [0; 4], ext)
    }

    fn push_mbarrier(
        &mut self,
        i: &Instruction,
        kind: MBarKind,
        address: &Operand,
        value: Slot,
        dst: Slot,
    ) -> Result<()> {
        let Operand::Address(base, offset) = address else {
            return self.fail(i, "an address expected");
        };
        let (addr, offset) = self.address(i, base, *offset)?;
        let ext = self.code.mbars.len() as u32;
        self.code.mbars.push(MBarOp { kind, addr, offset, value, dst });
        self.emit(Op::MBar, i, [0; 4], ext)
    }

    fn mbarrier(&mut self, i: &Instruction) -> Result<()> {
        let unknown = "the emulator does not know this instruction";
        let words: Vec<&str> = i.op[1..]
            .iter()
            .map(String::as_str)
            .filter(|w| {
                !matches!(*w, "shared" | "shared::cta" | "b64" | "release" | "acquire" | "relaxed" | "cta")
            })
            .collect();
        let o = &i.operands;
        match words.as_slice() {
            ["init"] => {
                self.need(i, 2)?;
                let count = self.src(i, &o[1], Ty::U32)?;
                self.push_mbarrier(i, MBarKind::Init, &o[0], count, Slot::None)
            }
            ["inval"] => {
                self.need(i, 1)?;
                self.push_mbarrier(i, MBarKind::Inval, &o[0], Slot::None, Slot::None)
            }
            ["arrive"] if (2..=3).contains(&o.len()) => {
                let count = match o.get(2) {
                    Some(n) => self.src(i, n, Ty::U32)?,
                    None => Slot::None,
                };
                let dst = self.dst(i, &o[0], Ty::B64)?;
                self.push_mbarrier(i, MBarKind::Arrive, &o[1], count, dst)
            }
            ["test_wait" | "try_wait"] if o.len() >= 3 => {
                let state = self.src(i, &o[2], Ty::B64)?;
                let dst = self.dst(i, &o[0], Ty::Pred)?;
                self.push_mbarrier(i, MBarKind::Test, &o[1], state, dst)
            }
            ["test_wait" | "try_wait", "parity"] if o.len() >= 3 => {
                let parity = self.src(i, &o[2], Ty::U32)?;
                let dst = self.dst(i, &o[0], Ty::Pred)?;
                self.push_mbarrier(i, MBarKind::TestParity, &o[1], parity, dst)
            }
            _ => self.fail(i, unknown),
        }
    }

    fn shuffle(&mut self, i: &Instruction) -> Result<()> {
        let kind = match (i.op.get(1).map(String::as_str), i.op.get(2).map(String::as_str)) {
            (Some("sync"), Some("up")) => ShflKind::Up,
            (Some("sync"), Some("down")) => ShflKind::Down,
            (Some("sync"), Some("bfly")) => ShflKind::Bfly,
            (Some("sync"), Some("idx")) => ShflKind::Idx,
            _ => return self.fail(i, "the emulator does not know this instruction"),
        };
        self.need(i, 5)?;
        let (d, p) = match &i.operands[0] {
            Operand::Pair(d, p) => (d.as_ref(), Some(p.as_ref())),
            o => (o, None),
        };
        let a = self.src(i, &i.operands[1], Ty::B32)?;
        let b = self.src(i, &i.operands[2], Ty::B32)?;
        let c = self.src(i, &i.operands[3], Ty::B32)?;
        let members = self.src(i, &i.operands[4], Ty::B32)?;
        let dst = self.dst(i, d, Ty::B32)?;
        let pred = match p {
            Some(p) => index(self.dst(i, p, Ty::Pred)?),
            None => NONE,
        };
        let ext = self.code.shfls.len() as u32;
        self.code.shfls.push(ShflOp {
            kind,
            dst: index(dst),
            pred,
            a: index(a),
            b: index(b),
            c: index(c),
            members: index(members),
        });
        self.emit(Op::Shfl, i, [0; 4], ext)
    }

    fn barrier(&mut self, i: &Instruction) -> Result<()> {
        let unknown = "the emulator does not know this instruction";
        let words: Vec<&str> =
            i.op[1..].iter().map(String::as_str).filter(|w| !matches!(*w, "cta" | "aligned")).collect();
        if words.first() == Some(&"warp") {
            self.need(i, 1)?;
            let a = self.src(i, &i.operands[0], Ty::B32)?;
            return self.emit(Op::BarWarp, i, [0, index(a), 0, 0], 0);
        }
        let kind = match words.as_slice() {
            ["sync"] => BarKind::Sync,
            ["arrive"] => BarKind::Arrive,
            ["red", "popc", "u32"] => BarKind::Popc,
            ["red", "and", "pred"] => BarKind::And,
            ["red", "or", "pred"] => BarKind::Or,
            _ => return self.fail(i, unknown),
        };
        let red = matches!(kind, BarKind::Popc | BarKind::And | BarKind::Or);
        let args = &i.operands[usize::from(red).min(i.operands.len())..];
        let plain = args.len() - usize::from(red && !args.is_empty());
        if !(1..=2).contains(&plain) {
            return self.fail(i, unknown);
        }
        let id = self.src(i, &args[0], Ty::U32)?;
        let count = if plain == 2 { index(self.src(i, &args[1], Ty::U32)?) } else { NONE };
        let pred = if red { index(self.src(i, &args[plain], Ty::Pred)?) } else { NONE };
        let dst = if red {
            self.dst(i, &i.operands[0], if kind == BarKind::Popc { Ty::U32 } else { Ty::Pred })?
        } else {
            Slot::None
        };
        let ext = self.code.bars.len() as u32;
        self.code.bars.push(BarOp { kind, id: index(id), count, pred, dst });
        self.emit(Op::Bar, i, [0; 4], ext)
    }

    fn call(&mut self, i: &Instruction) -> Result<()> {
        if i.guard.is_some() {
            return self.fail(i, "a call under a predicate is not supported");
        }
        let mut returns: &[Operand] = &[];
        let mut name = None;
        let mut args: &[Operand] = &[];
        for o in &i.operands {
            match o {
                Operand::List(l) if name.is_none() => returns = l,
                Operand::List(l) => args = l,
                Operand::Name(n) if name.is_none() => name = Some(n.as_str()),
                _ => return self.fail(i, "a call of this form is not supported"),
            }
        }
        let name = name.unwrap_or("");
        let ptx: &'a ptx::Module = self.ptx;
        if name == "__assertfail" {
            return self.emit(Op::Trap, i, [0; 4], 0);
        }
        let Some(f) = ptx.functions.iter().find(|f| f.name == name && f.has_body) else {
            return self.fail(i, format!("the function {name} has no body here"));
        };
        if self.stack.iter().any(|s| s == name) {
            return self.fail(i, format!("{name} is recursive, which is not supported"));
        }
        let mut bound = HashMap::new();
        for (formal, actual) in f.params.iter().chain(&f.returns).zip(args.iter().chain(returns)) {
            let Operand::Name(a) = actual else {
                return self.fail(i, "a call of this form is not supported");
            };
            match self.meaning(a) {
                Some(Meaning::Object(o)) => bound.insert(formal.name.clone(), Meaning::Object(o)),
                _ => return self.fail(i, format!("{a} is no parameter object")),
            };
        }
        self.stack.push(name.to_owned());
        self.function(f, false, bound)?;
        self.stack.pop();
        Ok(())
    }
}

/// Where an instruction comes from; `before`: that of the one before it.
fn location(i: &Instruction, before: Loc) -> Loc {
    let (inner, outer) = match *i.places {
        // Line 0 is code of no line: keep the line before it.
        [] | [Place { line: 0, .. }] => (before.inner, before.outer),
        [only] => (only, only),
        // Of several steps outwards, messages show the first.
        [inner, outer, ..] => (inner, outer),
    };
    Loc { inner, outer, ptx: i.line, kernel: 0 }
}

/// The number of a slot in its file.
fn index(slot: Slot) -> u16 {
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
