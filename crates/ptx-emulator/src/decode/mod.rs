//! Statements to [`Code`]: labels become numbers, calls are inlined, and each instruction goes to the file of its family.

mod async_copy;
mod builder;
mod lane_wise;
mod matrix;
mod memory;
mod params;
mod registers;
mod warp;

use std::collections::HashMap;

use ptx::{Function, Instruction, Operand, Place, Statement};

use crate::isa::{Code, Loc, Op, Ty};
use crate::{Error, Result};
use builder::{Builder, Decoded, Frame, Meaning, index};
use registers::{Mapping, allocate};

/// What the decoder dispatches on; a name that none has goes to `select`.
///
/// To let the emulator know another instruction: a family in the file of its subject, with its forms, and
/// `UPDATE=1 cargo test -p ptx-emulator instruction_table` for the document.
pub(crate) const FAMILIES: [&[Decoded]; 6] = [
    memory::FAMILIES,
    async_copy::FAMILIES,
    warp::FAMILIES,
    matrix::FAMILIES,
    &[
        Decoded {
            title: "Branches",
            names: &["bra", "brx"],
            forms: &["bra{,.uni} label", "brx.idx{,.uni} %r1, table"],
            remarks: "",
            take: branch,
        },
        Decoded {
            title: "Ends",
            names: &["ret", "exit", "trap", "brkpt"],
            forms: &["ret{,.uni}", "{exit,trap,brkpt}"],
            remarks: "",
            take: end,
        },
        Decoded {
            title: "Calls",
            names: &["call"],
            forms: &["call{,.uni} (object), function, (object)"],
            remarks: "Inlined: of a function with a body, not recursive, without a predicate. `__assertfail` traps.",
            take: call,
        },
    ],
    lane_wise::FAMILIES,
];

/// Decodes a kernel of a parsed module. `variables` gives the address of each module variable.
pub(crate) fn decode(
    ptx: &ptx::Module,
    module: &str,
    f: &Function,
    variables: &HashMap<String, u64>,
) -> Result<Code> {
    let first = run(ptx, module, f, variables, None)?;
    let mapping = allocate(&first.code, &first.regs, &first.accesses);
    Ok(run(ptx, module, f, variables, Some(mapping))?.code)
}

fn run<'a>(
    ptx: &'a ptx::Module,
    module: &'a str,
    f: &Function,
    variables: &'a HashMap<String, u64>,
    mapping: Option<Mapping>,
) -> Result<Builder<'a>> {
    let mut b = Builder::new(ptx, module, f, variables, mapping);
    function(&mut b, f, true, HashMap::new())?;
    b.finish();
    Ok(b)
}

/// The statements of a kernel, or of a function where it is called; `objects` are the parameters of the call.
fn function(b: &mut Builder, f: &Function, top: bool, objects: HashMap<String, Meaning>) -> Result<()> {
    b.frames.push(Frame {
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
            b.frame().targets.insert(name.clone(), list.clone());
        }
    }
    let mut loc = Loc::default();
    for stmt in &f.body {
        match stmt {
            Statement::Open => {
                let frame = b.frame();
                frame.scopes.push(HashMap::new());
                let id = frame.scope_count;
                frame.scope_count += 1;
                frame.path.push(id);
            }
            Statement::Close => {
                let frame = b.frame();
                frame.scopes.pop();
                frame.path.pop();
            }
            Statement::Label(name, _) => {
                let at = b.code.insts.len() as u32;
                let frame = b.frame();
                let scope = frame.path.last().copied().unwrap_or(0);
                frame.labels.insert((scope, name.clone()), at);
            }
            Statement::Targets(..) => {}
            Statement::Registers(ty, name, count) => b.declare_registers(ty, name, *count)?,
            Statement::Variable(v) => b.local_variable(v),
            Statement::Instruction(i) => {
                loc = location(i, loc);
                if top {
                    b.kernel_line = i.line;
                }
                b.loc = Loc { kernel: b.kernel_line, ..loc };
                instruction(b, i)?;
            }
        }
    }
    let end = b.code.insts.len() as u32;
    if top {
        // Falling off the end of a kernel ends it.
        b.emit_exit();
    }
    let frame = b.frames.pop().expect("pushed above");
    let find = |path: &[u32], name: &str| {
        path.iter().rev().find_map(|s| frame.labels.get(&(*s, name.to_owned()))).copied()
    };
    for (at, path, name, line) in &frame.fixups {
        match find(path, name) {
            Some(target) => b.code.insts[*at].ext = target,
            None => return no_label(b, name, *line),
        }
    }
    for (table, path, names, line) in &frame.table_fixups {
        let mut out = Vec::new();
        for name in names {
            match find(path, name) {
                Some(t) => out.push(t),
                None => return no_label(b, name, *line),
            }
        }
        b.code.tables[*table] = out;
    }
    for at in &frame.returns {
        b.code.insts[*at].ext = end;
    }
    Ok(())
}

fn no_label<T>(b: &Builder, name: &str, line: u32) -> Result<T> {
    let (module, kernel) = (b.module, &b.code.name);
    let message = format!("{module}: kernel {kernel}: PTX line {line}: no label is named {name}");
    Err(Error::unsupported(kernel, line, "", message))
}

fn instruction(b: &mut Builder, i: &Instruction) -> Result<()> {
    b.begin();
    match FAMILIES.iter().copied().flatten().find(|f| f.names.contains(&i.op[0].as_str())) {
        Some(family) => (family.take)(b, i),
        None => lane_wise::lane_wise(b, i),
    }
}

fn branch(b: &mut Builder, i: &Instruction) -> Result<()> {
    if i.op[0] == "brx" {
        return branch_by_table(b, i);
    }
    let Some(Operand::Name(label)) = i.operands.first() else {
        return b.fail(i, "a label expected");
    };
    b.emit(Op::Bra, i, [0; 4], 0)?;
    let at = b.last;
    let frame = b.frame();
    let path = frame.path.clone();
    frame.fixups.push((at, path, label.clone(), i.line));
    Ok(())
}

fn branch_by_table(b: &mut Builder, i: &Instruction) -> Result<()> {
    b.need(i, 2)?;
    let a = b.src(i, &i.operands[0], Ty::U32)?;
    let Operand::Name(name) = &i.operands[1] else {
        return b.fail(i, "a table of labels expected");
    };
    let Some(list) = b.frame().targets.get(name).cloned() else {
        return b.fail(i, format!("no .branchtargets is named {name}"));
    };
    let table = b.code.tables.len();
    b.code.tables.push(Vec::new());
    b.emit(Op::BraTable, i, [0, index(a), 0, 0], table as u32)?;
    let frame = b.frame();
    let path = frame.path.clone();
    frame.table_fixups.push((table, path, list, i.line));
    Ok(())
}

/// The end of a thread, or of a function that was inlined.
fn end(b: &mut Builder, i: &Instruction) -> Result<()> {
    match i.op[0].as_str() {
        "trap" | "brkpt" => b.emit(Op::Trap, i, [0; 4], 0),
        "ret" if !b.frame().top => {
            b.emit(Op::Bra, i, [0; 4], 0)?;
            let at = b.last;
            b.frame().returns.push(at);
            Ok(())
        }
        _ => b.emit(Op::Exit, i, [0; 4], 0),
    }
}

/// Inlines a function.
fn call(b: &mut Builder, i: &Instruction) -> Result<()> {
    if i.guard.is_some() {
        return b.fail(i, "a call under a predicate is not supported");
    }
    let mut returns: &[Operand] = &[];
    let mut name = None;
    let mut args: &[Operand] = &[];
    for o in &i.operands {
        match o {
            Operand::List(l) if name.is_none() => returns = l,
            Operand::List(l) => args = l,
            Operand::Name(n) if name.is_none() => name = Some(n.as_str()),
            _ => return b.fail(i, "a call of this form is not supported"),
        }
    }
    let name = name.unwrap_or("");
    let ptx = b.ptx;
    if name == "__assertfail" {
        return b.emit(Op::Trap, i, [0; 4], 0);
    }
    let Some(f) = ptx.functions.iter().find(|f| f.name == name && f.has_body) else {
        return b.fail(i, format!("the function {name} has no body here"));
    };
    if b.stack.iter().any(|s| s == name) {
        return b.fail(i, format!("{name} is recursive, which is not supported"));
    }
    let mut bound = HashMap::new();
    for (formal, actual) in f.params.iter().chain(&f.returns).zip(args.iter().chain(returns)) {
        let Operand::Name(a) = actual else {
            return b.fail(i, "a call of this form is not supported");
        };
        match b.meaning(a) {
            Some(Meaning::Object(o)) => bound.insert(formal.name.clone(), Meaning::Object(o)),
            _ => return b.fail(i, format!("{a} is no parameter object")),
        };
    }
    b.stack.push(name.to_owned());
    function(b, f, false, bound)?;
    b.stack.pop();
    Ok(())
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
