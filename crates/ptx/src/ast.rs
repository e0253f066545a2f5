//! What a module is made of.

use std::collections::HashMap;
use std::sync::Arc;

/// A module.
#[derive(Debug, Default)]
pub struct Module {
    /// Functions and kernels, in order. A function that is declared first is there once, with its body.
    pub functions: Vec<Function>,
    /// Variables outside functions.
    pub variables: Vec<Variable>,
    /// The `.file` table: name by number.
    pub files: HashMap<u32, String>,
}

impl Module {
    /// The functions that can be launched.
    pub fn kernels(&self) -> impl Iterator<Item = &Function> {
        self.functions.iter().filter(|f| f.entry && f.has_body)
    }
}

/// Where a variable lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Global memory.
    Global,
    /// Constant memory.
    Const,
    /// Memory of a block.
    Shared,
    /// Memory of a thread.
    Local,
    /// A parameter of a kernel or a function.
    Param,
}

/// A variable of a module or a function.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Where it lives.
    pub space: Space,
    /// Its alignment in bytes.
    pub align: u32,
    /// Its size in bytes; zero for `extern .shared x[]`.
    pub bytes: u32,
    /// Its type, such as `f32`.
    pub ty: String,
    /// Its first bytes; those that follow are zero.
    pub init: Vec<u8>,
    /// Declared here, defined elsewhere.
    pub is_extern: bool,
    /// A parameter that is declared a pointer (`.ptr`).
    pub ptr: bool,
}

/// What a kernel parameter is, as the signature says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// A 64-bit global address (`.u64 .ptr` or plain `.u64`).
    Pointer,
    /// A 32-bit integer, signed or not.
    Int32,
    /// A 32-bit float.
    Float32,
    /// Any other parameter: a by-value struct of so many bytes (a TMA map, say).
    Bytes(u32),
}

impl Variable {
    /// The kind of a kernel parameter.
    pub fn kind(&self) -> ParamKind {
        match (self.ty.as_str(), self.bytes) {
            ("u64" | "b64", 8) => ParamKind::Pointer,
            ("f32", 4) => ParamKind::Float32,
            ("u32" | "s32" | "b32", 4) => ParamKind::Int32,
            (_, n) => ParamKind::Bytes(n),
        }
    }
}

/// A function or kernel.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// A kernel (`.entry`).
    pub entry: bool,
    /// Its parameters.
    pub params: Vec<Variable>,
    /// What it returns.
    pub returns: Vec<Variable>,
    /// Most threads of a block: the product of `.maxntid` or `.reqntid`; None without either.
    pub max_threads: Option<u32>,
    /// Its statements in order.
    pub body: Vec<Statement>,
    /// False where it is declared only.
    pub has_body: bool,
    /// The lines of the text from its `.entry` or `.func` to its closing brace, from 1.
    pub lines: (u32, u32),
}

impl Function {
    /// Its instructions in order.
    pub fn instructions(&self) -> impl Iterator<Item = &Instruction> {
        self.body.iter().filter_map(|s| match s {
            Statement::Instruction(i) => Some(i),
            _ => None,
        })
    }

    /// The source line that its first `.loc` gives, in the source file of the function itself.
    pub fn first_line(&self) -> Option<u32> {
        self.instructions().find_map(|i| i.places.get(1).or(i.places.first())).map(|p| p.line)
    }
}

/// A line of a source file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Place {
    /// Number in [`Module::files`].
    pub file: u32,
    /// The line, from 1; 0 where the compiler gives none.
    pub line: u32,
}

/// One statement of a body.
#[derive(Clone, Debug)]
pub enum Statement {
    /// `{`: a scope begins.
    Open,
    /// `}`: it ends.
    Close,
    /// A label and its line of the text.
    Label(String, u32),
    /// Registers: type, name, and how many when declared as `%r<n>`.
    Registers(String, String, Option<u32>),
    /// A variable.
    Variable(Variable),
    /// A label and its `.branchtargets`.
    Targets(String, Vec<String>),
    /// An instruction.
    Instruction(Instruction),
}

/// An instruction as written.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// The predicate it runs under, and whether that is negated.
    pub guard: Option<(String, bool)>,
    /// The opcode split at dots.
    pub op: Vec<String>,
    /// Its operands.
    pub operands: Vec<Operand>,
    /// Its text without the semicolon, blanks between words reduced to one.
    pub text: String,
    /// Line of the text it begins on, from 1.
    pub line: u32,
    /// Where it comes from: the line itself, then the lines it was inlined at, outwards. Empty before the
    /// first `.loc` of a function.
    pub places: Arc<[Place]>,
}

/// An operand as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register, symbol, label or special register.
    Name(String),
    /// `!p`.
    Not(String),
    /// An integer.
    Int(i128),
    /// The bits of a 32-bit float.
    F32(u32),
    /// The bits of a 64-bit float.
    F64(u64),
    /// `[base + offset]`.
    Address(Box<Operand>, i64),
    /// `{a, b}`.
    Vector(Vec<Operand>),
    /// `a|b`.
    Pair(Box<Operand>, Box<Operand>),
    /// `(a, b)`.
    List(Vec<Operand>),
    /// `_`.
    Sink,
}

/// Bytes of the type of that name; 0 for `pred`, None where it is not known.
pub fn type_bytes(ty: &str) -> Option<u32> {
    Some(match ty {
        "b8" | "u8" | "s8" => 1,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 2,
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" | "tf32" => 4,
        "b64" | "u64" | "s64" | "f64" => 8,
        "b128" => 16,
        "pred" => 0,
        _ => return None,
    })
}
