//! PTX text to statements: declarations, labels and instructions with their operands and lines.

use std::collections::HashMap;

use crate::kernels::ParamKind;
use crate::{Error, Result};

/// A parsed PTX module.
#[derive(Debug, Default)]
pub(super) struct Ptx {
    pub functions: Vec<Function>,
    pub variables: Vec<Variable>,
    pub files: HashMap<u32, String>,
}

impl Ptx {
    /// The functions that can be launched.
    pub(super) fn kernels(&self) -> impl Iterator<Item = &Function> {
        self.functions.iter().filter(|f| f.entry && f.has_body)
    }
}

/// Where a variable lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VarSpace {
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// A variable of a module or a function.
#[derive(Clone, Debug)]
pub(super) struct Variable {
    pub name: String,
    pub space: VarSpace,
    pub align: u32,
    /// Zero for `extern .shared x[]`.
    pub bytes: u32,
    /// Its type, such as `f32`.
    pub ty: String,
    pub init: Vec<u8>,
    pub is_extern: bool,
    /// `.ptr` was said of a parameter.
    pub ptr: bool,
}

/// A function or kernel.
#[derive(Debug)]
pub(super) struct Function {
    pub name: String,
    pub entry: bool,
    pub params: Vec<Variable>,
    pub returns: Vec<Variable>,
    pub max_threads: u32,
    pub body: Vec<Stmt>,
    pub has_body: bool,
}

/// A place in a source file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) struct Place {
    pub file: u32,
    pub line: u32,
}

/// Source line of an instruction: the innermost, and the outermost where it was inlined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Loc {
    pub inner: Place,
    pub outer: Place,
    /// Line of the PTX.
    pub ptx: u32,
}

/// One statement of a body.
#[derive(Debug, Clone)]
pub(super) enum Stmt {
    Open,
    Close,
    Label(String),
    /// Registers: type, name, and how many when declared as `%r<n>`.
    Reg(String, String, Option<u32>),
    Var(Variable),
    /// A label and its `.branchtargets`.
    Targets(String, Vec<String>),
    Inst(Instruction),
}

/// An instruction as written.
#[derive(Debug, Clone)]
pub(super) struct Instruction {
    pub guard: Option<(String, bool)>,
    /// The opcode split at dots.
    pub op: Vec<String>,
    pub operands: Vec<Operand>,
    pub text: String,
    pub line: u32,
    pub loc: Loc,
}

/// An operand as written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    /// A register, symbol, label or special register.
    Name(String),
    /// `!p`.
    Not(String),
    /// `-%r1` does not exist in PTX; a number as its bits and whether they are of a float.
    Int(i128),
    F32(u32),
    F64(u64),
    /// `[base + offset]`.
    Addr(Box<Operand>, i64),
    /// `{a, b}`.
    Vector(Vec<Operand>),
    /// `a|b`.
    Pair(Box<Operand>, Box<Operand>),
    /// `(a, b)`.
    List(Vec<Operand>),
    /// `_`.
    Sink,
}

/// Bytes of a PTX type name.
pub(super) fn type_bytes(ty: &str) -> Option<u32> {
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

impl Variable {
    /// The kind of a kernel parameter.
    pub(super) fn kind(&self) -> ParamKind {
        match (self.ty.as_str(), self.bytes) {
            ("u64" | "b64" | "s64", 8) => ParamKind::Pointer,
            ("f32", 4) => ParamKind::Float32,
            ("u32" | "s32" | "b32", 4) => ParamKind::Int32,
            (_, n) => ParamKind::Bytes(n),
        }
    }
}

struct Scanner<'a> {
    text: &'a [u8],
    pos: usize,
    line: u32,
    module: &'a str,
}

/// Parses a module; `name` is for messages.
pub(super) fn parse(name: &str, text: &str) -> Result<Ptx> {
    let clean = strip_comments(text);
    let mut s = Scanner { text: clean.as_bytes(), pos: 0, line: 1, module: name };
    s.module()
}

/// Replaces comments by blanks, keeping line ends.
fn strip_comments(text: &str) -> String {
    let b = text.as_bytes();
    let mut out = Vec::with_capacity(b.len());
    let mut i = 0;
    while i < b.len() {
        match b[i] {
            b'"' => {
                out.push(b'"');
                i += 1;
                while i < b.len() && b[i] != b'"' {
                    out.push(b[i]);
                    i += 1;
                }
                out.push(b'"');
                i += 1;
            }
            b'/' if b.get(i + 1) == Some(&b'/') => {
                while i < b.len() && b[i] != b'\n' {
                    i += 1;
                }
            }
            b'/' if b.get(i + 1) == Some(&b'*') => {
                while i < b.len() && !(b[i] == b'*' && b.get(i + 1) == Some(&b'/')) {
                    if b[i] == b'\n' {
                        out.push(b'\n');
                    }
                    i += 1;
                }
                i += 2;
            }
            _ => {
                out.push(b[i]);
                i += 1;
            }
        }
    }
    // Bytes were only removed or copied whole, at ASCII boundaries.
    String::from_utf8_lossy(&out).into_owned()
}

impl Scanner<'_> {
    fn fail<T>(&self, line: u32, what: impl std::fmt::Display) -> Result<T> {
        Err(Error::new(format!("{}: PTX line {line}: {what}", self.module)))
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.pos).copied()
    }

    fn bump(&mut self) -> Option<u8> {
        let c = self.peek()?;
        self.pos += 1;
        if c == b'\n' {
            self.line += 1;
        }
        Some(c)
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|c| c.is_ascii_whitespace()) {
            self.bump();
        }
    }

    fn until(&mut self, end: u8) -> String {
        let mut out = Vec::new();
        let mut quoted = false;
        while let Some(c) = self.bump() {
            if c == b'"' {
                quoted = !quoted;
            }
            if c == end && !quoted {
                break;
            }
            out.push(if c == b'\n' { b' ' } else { c });
        }
        String::from_utf8_lossy(&out).trim().to_owned()
    }

    /// A word without consuming it.
    fn word_ahead(&self) -> &str {
        let mut end = self.pos;
        while end < self.text.len() {
            let c = self.text[end];
            if c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'%' | b'.') {
                end += 1;
            } else {
                break;
            }
        }
        std::str::from_utf8(&self.text[self.pos..end]).unwrap_or("")
    }

    fn skip_braces(&mut self) {
        self.until(b'{');
        let mut depth = 1;
        while depth > 0 {
            match self.bump() {
                Some(b'{') => depth += 1,
                Some(b'}') => depth -= 1,
                None => return,
                _ => {}
            }
        }
    }

    fn module(&mut self) -> Result<Ptx> {
        let mut ptx = Ptx::default();
        loop {
            self.blanks();
            if self.peek().is_none() {
                return Ok(ptx);
            }
            let line = self.line;
            let word = self.word_ahead().to_owned();
            match word.as_str() {
                ".version" | ".target" | ".address_size" => {
                    self.until(b'\n');
                }
                ".file" => {
                    let text = self.until(b'\n');
                    let mut parts = text.splitn(3, char::is_whitespace).skip(1);
                    let number = parts.next().and_then(|n| n.parse().ok());
                    let name = parts.next().and_then(|r| r.split('"').nth(1));
                    if let (Some(number), Some(name)) = (number, name) {
                        ptx.files.insert(number, name.to_owned());
                    }
                }
                ".section" => self.skip_braces(),
                _ if word.starts_with('.') => self.top_level(&mut ptx, line)?,
                _ => {
                    let text = self.until(b'\n');
                    return self.fail(line, format!("expected a directive, found `{text}`"));
                }
            }
        }
    }

    fn top_level(&mut self, ptx: &mut Ptx, line: u32) -> Result<()> {
        // Everything up to the first of `( { ; =` decides what it is.
        let start = self.pos;
        let mut words = Vec::new();
        let mut is_extern = false;
        loop {
            self.blanks();
            let word = self.word_ahead().to_owned();
            match word.as_str() {
                ".extern" => is_extern = true,
                ".visible" | ".weak" | ".common" => {}
                ".entry" | ".func" => {
                    self.pos += word.len();
                    let f = self.function(word == ".entry")?;
                    // A declaration, and its definition later.
                    ptx.functions.retain(|g| g.name != f.name || g.has_body);
                    if f.has_body || !ptx.functions.iter().any(|g| g.name == f.name) {
                        ptx.functions.push(f);
                    }
                    return Ok(());
                }
                ".global" | ".const" | ".shared" => {
                    let text = self.until(b';');
                    ptx.variables.push(self.variable(&text, line, is_extern)?);
                    return Ok(());
                }
                ".alias" | ".pragma" => {
                    self.until(b';');
                    return Ok(());
                }
                _ => {
                    self.pos = start;
                    let text = self.until(b'\n');
                    return self.fail(line, format!("unknown directive `{text}`"));
                }
            }
            self.pos += word.len();
            words.push(word);
        }
    }

    /// `.space .align n .type name[dims] = {...}` without the semicolon.
    fn variable(&self, text: &str, line: u32, is_extern: bool) -> Result<Variable> {
        let (decl, init) = match text.split_once('=') {
            Some((d, i)) => (d.trim(), Some(i.trim())),
            None => (text.trim(), None),
        };
        let mut v = Variable {
            name: String::new(),
            space: VarSpace::Global,
            align: 0,
            bytes: 0,
            ty: String::new(),
            init: Vec::new(),
            is_extern,
            ptr: false,
        };
        let mut lanes = 1;
        let mut words = decl.split_whitespace().peekable();
        while let Some(w) = words.next() {
            match w {
                ".global" if v.ty.is_empty() => v.space = VarSpace::Global,
                ".const" if v.ty.is_empty() => v.space = VarSpace::Const,
                ".shared" if v.ty.is_empty() => v.space = VarSpace::Shared,
                ".local" if v.ty.is_empty() => v.space = VarSpace::Local,
                ".param" => v.space = VarSpace::Param,
                ".global" | ".const" | ".shared" | ".local" => {}
                ".align" => {
                    let n = words.next().and_then(|n| n.parse().ok()).unwrap_or(1);
                    if v.ty.is_empty() || v.space != VarSpace::Param || !v.ptr {
                        v.align = n;
                    }
                }
                ".ptr" => v.ptr = true,
                ".v2" => lanes = 2,
                ".v4" => lanes = 4,
                ".attribute" | ".managed" | ".unified" => {}
                _ if w.starts_with('.') => v.ty = w[1..].to_owned(),
                _ => v.name.push_str(w),
            }
        }
        let Some(size) = type_bytes(&v.ty) else {
            return self.fail(line, format!("unknown type in `{text}`"));
        };
        let mut count: u32 = lanes;
        if let Some(open) = v.name.find('[') {
            let dims = v.name.split_off(open);
            for dim in dims.split(']').filter_map(|d| d.strip_prefix('[')) {
                count = if dim.is_empty() {
                    0
                } else {
                    match dim.parse::<u32>() {
                        Ok(n) => count.saturating_mul(n),
                        Err(_) => return self.fail(line, format!("bad dimension in `{text}`")),
                    }
                };
            }
        }
        v.bytes = size * count;
        v.align = v.align.max(size.max(1));
        if let Some(init) = init {
            for item in init.split([',', '{', '}', ' ']).filter(|t| !t.is_empty()) {
                match number(item) {
                    Some(Operand::Int(n)) => v.init.extend_from_slice(&n.to_le_bytes()[..size as usize]),
                    Some(Operand::F32(n)) => v.init.extend_from_slice(&n.to_le_bytes()),
                    Some(Operand::F64(n)) => v.init.extend_from_slice(&n.to_le_bytes()),
                    _ => {
                        return self
                            .fail(line, format!("initial value `{item}` of {} is not a number", v.name));
                    }
                }
            }
        }
        Ok(v)
    }

    fn parameters(&mut self) -> Result<Vec<Variable>> {
        let line = self.line;
        self.until(b'(');
        let text = self.until(b')');
        let mut out = Vec::new();
        for item in text.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            if item.starts_with(".reg") {
                return self.fail(line, "a function with register parameters is not supported");
            }
            out.push(self.variable(item, line, false)?);
        }
        Ok(out)
    }

    fn function(&mut self, entry: bool) -> Result<Function> {
        self.blanks();
        let returns = if self.peek() == Some(b'(') { self.parameters()? } else { Vec::new() };
        self.blanks();
        let name = self.word_ahead().to_owned();
        self.pos += name.len();
        self.blanks();
        let params = if self.peek() == Some(b'(') { self.parameters()? } else { Vec::new() };
        let mut f =
            Function { name, entry, params, returns, max_threads: 1024, body: Vec::new(), has_body: true };
        loop {
            self.blanks();
            match self.peek() {
                Some(b'{') => {
                    self.bump();
                    break;
                }
                Some(b';') => {
                    self.bump();
                    f.has_body = false;
                    return Ok(f);
                }
                Some(b'.') => {
                    let text = self.until(b'\n');
                    let (text, opens) = match text.strip_suffix('{') {
                        Some(t) => (t.trim(), true),
                        None => (text.as_str(), false),
                    };
                    let (text, ends) = match text.strip_suffix(';') {
                        Some(t) => (t.trim(), true),
                        None => (text, false),
                    };
                    if let Some(rest) =
                        text.strip_prefix(".maxntid").or_else(|| text.strip_prefix(".reqntid"))
                    {
                        f.max_threads =
                            rest.split(',').filter_map(|n| n.trim().parse::<u32>().ok()).product();
                    }
                    if ends {
                        f.has_body = false;
                        return Ok(f);
                    }
                    if opens {
                        break;
                    }
                }
                _ => return self.fail(self.line, format!("expected the body of {}", f.name)),
            }
        }
        f.body = self.body()?;
        Ok(f)
    }

    fn body(&mut self) -> Result<Vec<Stmt>> {
        let mut out = Vec::new();
        let mut depth = 0;
        let mut loc = Loc::default();
        loop {
            self.blanks();
            let line = self.line;
            match self.peek() {
                None => return self.fail(line, "the body does not end"),
                Some(b'{') => {
                    self.bump();
                    depth += 1;
                    out.push(Stmt::Open);
                    continue;
                }
                Some(b'}') => {
                    self.bump();
                    if depth == 0 {
                        return Ok(out);
                    }
                    depth -= 1;
                    out.push(Stmt::Close);
                    continue;
                }
                Some(b';') => {
                    self.bump();
                    continue;
                }
                _ => {}
            }
            let word = self.word_ahead().to_owned();
            match word.as_str() {
                ".loc" => {
                    let text = self.until(b'\n');
                    loc = parse_loc(&text, loc);
                }
                ".pragma" => {
                    self.until(b';');
                }
                ".reg" => {
                    let text = self.until(b';');
                    let rest = text[4..].trim();
                    let Some((ty, names)) = rest.split_once(char::is_whitespace) else {
                        return self.fail(line, format!("bad declaration `{text}`"));
                    };
                    for name in names.split(',').map(str::trim) {
                        let (name, count) = match name.split_once('<') {
                            Some((n, c)) => (n, c.trim_end_matches('>').parse().ok()),
                            None => (name, None),
                        };
                        out.push(Stmt::Reg(ty.trim_start_matches('.').to_owned(), name.to_owned(), count));
                    }
                }
                ".local" | ".shared" | ".param" | ".global" | ".const" => {
                    let text = self.until(b';');
                    out.push(Stmt::Var(self.variable(&text, line, false)?));
                }
                _ => {
                    let after = self.pos + word.len();
                    let mut colon = after;
                    while self.text.get(colon).is_some_and(|c| *c == b' ' || *c == b'\t') {
                        colon += 1;
                    }
                    if !word.is_empty()
                        && self.text.get(colon) == Some(&b':')
                        && self.text.get(colon + 1) != Some(&b':')
                    {
                        self.pos = colon + 1;
                        self.blanks();
                        if self.word_ahead() == ".branchtargets" {
                            let text = self.until(b';');
                            let list = text[".branchtargets".len()..]
                                .split(',')
                                .map(|t| t.trim().to_owned())
                                .collect();
                            out.push(Stmt::Targets(word, list));
                        } else {
                            out.push(Stmt::Label(word));
                        }
                    } else {
                        let text = self.until(b';');
                        out.push(Stmt::Inst(self.instruction(&text, line, loc)?));
                    }
                }
            }
        }
    }

    fn instruction(&self, text: &str, line: u32, loc: Loc) -> Result<Instruction> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut rest = text.as_str();
        let mut guard = None;
        if let Some(r) = rest.strip_prefix('@') {
            let (g, r) = r.split_once(' ').unwrap_or((r, ""));
            guard = Some(match g.strip_prefix('!') {
                Some(p) => (p.to_owned(), true),
                None => (g.to_owned(), false),
            });
            rest = r.trim();
        }
        let (op, args) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut p = OperandParser { text: args.as_bytes(), pos: 0 };
        let operands = match p.list(None) {
            Some(o) => o,
            None => return self.fail(line, format!("cannot read the operands of `{text}`")),
        };
        Ok(Instruction {
            guard,
            op: op.split('.').map(str::to_owned).collect(),
            operands,
            text: text.clone(),
            line,
            loc: Loc { ptx: line, ..loc },
        })
    }
}

/// `.loc file line column[, function_name f, inlined_at file line column]`.
fn parse_loc(text: &str, before: Loc) -> Loc {
    let place = |t: &str| {
        let mut n = t.split_whitespace().filter_map(|n| n.parse::<u32>().ok());
        Some(Place { file: n.next()?, line: n.next()? })
    };
    let Some(inner) = place(text.trim_start_matches(".loc").split(',').next().unwrap_or("")) else {
        return before;
    };
    match text.split_once("inlined_at").and_then(|(_, t)| place(t)) {
        // An inlined place in another inlined place names only the latter's own line; good enough.
        Some(outer) => Loc { inner, outer, ptx: 0 },
        // Line 0 is code of no line: keep the line before it.
        None if inner.line == 0 => before,
        None => Loc { inner, outer: inner, ptx: 0 },
    }
}

/// A number as PTX writes it.
fn number(text: &str) -> Option<Operand> {
    let (neg, digits) = match text.strip_prefix('-') {
        Some(d) => (true, d),
        None => (false, text),
    };
    if let Some(h) = digits.strip_prefix("0f").or_else(|| digits.strip_prefix("0F")) {
        let v = u32::from_str_radix(h, 16).ok()?;
        return Some(Operand::F32(v ^ (u32::from(neg) << 31)));
    }
    if let Some(h) = digits.strip_prefix("0d").or_else(|| digits.strip_prefix("0D")) {
        let v = u64::from_str_radix(h, 16).ok()?;
        return Some(Operand::F64(v ^ (u64::from(neg) << 63)));
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if digits.contains('.') || (digits.contains(['e', 'E']) && !digits.starts_with("0x")) {
        let v: f64 = text.parse().ok()?;
        return Some(Operand::F64(v.to_bits()));
    }
    let digits = digits.trim_end_matches('U');
    let v = if let Some(h) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        i128::from_str_radix(h, 16).ok()?
    } else if let Some(b) = digits.strip_prefix("0b") {
        i128::from_str_radix(b, 2).ok()?
    } else if digits.len() > 1 && digits.starts_with('0') {
        i128::from_str_radix(digits, 8).ok()?
    } else {
        digits.parse().ok()?
    };
    Some(Operand::Int(if neg { -v } else { v }))
}

struct OperandParser<'a> {
    text: &'a [u8],
    pos: usize,
}

impl OperandParser<'_> {
    fn blanks(&mut self) {
        while self.text.get(self.pos) == Some(&b' ') {
            self.pos += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.blanks();
        self.text.get(self.pos).copied()
    }

    /// Operands up to the closing byte, or the end.
    fn list(&mut self, close: Option<u8>) -> Option<Vec<Operand>> {
        let mut out = Vec::new();
        loop {
            match self.peek() {
                None => return close.is_none().then_some(out),
                c if c == close => {
                    self.pos += 1;
                    return Some(out);
                }
                Some(b',') => self.pos += 1,
                _ => out.push(self.operand()?),
            }
        }
    }

    fn word(&mut self) -> String {
        self.blanks();
        let start = self.pos;
        while self.text.get(self.pos).is_some_and(|c| {
            c.is_ascii_alphanumeric()
                || matches!(c, b'_' | b'$' | b'%' | b'.')
                || (*c == b'-' && self.pos == start)
        }) {
            self.pos += 1;
        }
        String::from_utf8_lossy(&self.text[start..self.pos]).into_owned()
    }

    fn operand(&mut self) -> Option<Operand> {
        let first = match self.peek()? {
            b'{' => {
                self.pos += 1;
                Operand::Vector(self.list(Some(b'}'))?)
            }
            b'(' => {
                self.pos += 1;
                Operand::List(self.list(Some(b')'))?)
            }
            b'[' => {
                self.pos += 1;
                let base = self.operand()?;
                let mut offset = 0;
                loop {
                    match self.peek()? {
                        b']' => {
                            self.pos += 1;
                            break;
                        }
                        b'+' => {
                            self.pos += 1;
                            let Operand::Int(n) = number(&self.word())? else {
                                return None;
                            };
                            offset += i64::try_from(n).ok()?;
                        }
                        b'-' => {
                            let Operand::Int(n) = number(&self.word())? else {
                                return None;
                            };
                            offset += i64::try_from(n).ok()?;
                        }
                        _ => return None,
                    }
                }
                Operand::Addr(Box::new(base), offset)
            }
            b'!' => {
                self.pos += 1;
                Operand::Not(self.word())
            }
            _ => {
                let word = self.word();
                if word.is_empty() {
                    return None;
                }
                if word == "_" {
                    Operand::Sink
                } else if let Some(n) = number(&word) {
                    n
                } else if word.starts_with('-') {
                    return None;
                } else {
                    Operand::Name(word)
                }
            }
        };
        if self.peek() == Some(b'|') {
            self.pos += 1;
            let second = self.operand()?;
            return Some(Operand::Pair(Box::new(first), Box::new(second)));
        }
        Some(first)
    }
}
