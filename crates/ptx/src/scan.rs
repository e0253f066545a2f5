//! Text to statements: declarations, labels and instructions with their source lines.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::Error;
use crate::ast::{Function, Instruction, Module, Operand, Place, Space, Statement, Variable, type_bytes};
use crate::operand::{number, operands};

type Result<T> = std::result::Result<T, Error>;

impl Module {
    /// Reads a module.
    ///
    /// # Errors
    /// Names the first line that is not PTX, or PTX of a form that is not read.
    pub fn parse(text: &str) -> Result<Self> {
        Scanner::new(text).module()
    }
}

/// Reads a text from front to end.
struct Scanner {
    text: Vec<u8>,
    pos: usize,
    line: u32,
}

/// Replaces comments by blanks, keeping line ends.
fn strip_comments(text: &str) -> Vec<u8> {
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
    out
}

/// A failure at a line of the text.
fn fail<T>(line: u32, what: impl fmt::Display) -> Result<T> {
    Err(Error { line, message: what.to_string() })
}

impl Scanner {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: strip_comments(text), pos: 0, line: 1 }
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

    fn module(&mut self) -> Result<Module> {
        let mut ptx = Module::default();
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
                    return fail(line, format!("expected a directive, found `{text}`"));
                }
            }
        }
    }

    fn top_level(&mut self, ptx: &mut Module, line: u32) -> Result<()> {
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
                    ptx.variables.push(Self::variable(&text, line, is_extern)?);
                    return Ok(());
                }
                ".alias" | ".pragma" => {
                    self.until(b';');
                    return Ok(());
                }
                _ => {
                    self.pos = start;
                    let text = self.until(b'\n');
                    return fail(line, format!("unknown directive `{text}`"));
                }
            }
            self.pos += word.len();
            words.push(word);
        }
    }

    /// `.space .align n .type name[dims] = {...}` without the semicolon.
    fn variable(text: &str, line: u32, is_extern: bool) -> Result<Variable> {
        let (decl, init) = match text.split_once('=') {
            Some((d, i)) => (d.trim(), Some(i.trim())),
            None => (text.trim(), None),
        };
        let mut v = Variable {
            name: String::new(),
            space: Space::Global,
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
                ".global" if v.ty.is_empty() => v.space = Space::Global,
                ".const" if v.ty.is_empty() => v.space = Space::Const,
                ".shared" if v.ty.is_empty() => v.space = Space::Shared,
                ".local" if v.ty.is_empty() => v.space = Space::Local,
                ".param" => v.space = Space::Param,
                ".global" | ".const" | ".shared" | ".local" => {}
                ".align" => {
                    let n = words.next().and_then(|n| n.parse().ok()).unwrap_or(1);
                    if v.ty.is_empty() || v.space != Space::Param || !v.ptr {
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
            return fail(line, format!("unknown type in `{text}`"));
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
                        Err(_) => return fail(line, format!("bad dimension in `{text}`")),
                    }
                };
            }
        }
        let Some(bytes) = size.checked_mul(count) else {
            return fail(line, format!("the variable of `{text}` is too large"));
        };
        v.bytes = bytes;
        v.align = v.align.max(size.max(1));
        if let Some(init) = init {
            for item in init.split([',', '{', '}', ' ']).filter(|t| !t.is_empty()) {
                match number(item) {
                    Some(Operand::Int(n)) => v.init.extend_from_slice(&n.to_le_bytes()[..size as usize]),
                    Some(Operand::F32(n)) => v.init.extend_from_slice(&n.to_le_bytes()),
                    Some(Operand::F64(n)) => v.init.extend_from_slice(&n.to_le_bytes()),
                    _ => {
                        return fail(line, format!("initial value `{item}` of {} is not a number", v.name));
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
                return fail(line, "a function with register parameters is not supported");
            }
            out.push(Self::variable(item, line, false)?);
        }
        Ok(out)
    }

    fn function(&mut self, entry: bool) -> Result<Function> {
        let start = self.line;
        self.blanks();
        let returns = if self.peek() == Some(b'(') { self.parameters()? } else { Vec::new() };
        self.blanks();
        let name = self.word_ahead().to_owned();
        self.pos += name.len();
        self.blanks();
        let params = if self.peek() == Some(b'(') { self.parameters()? } else { Vec::new() };
        let mut f = Function {
            name,
            entry,
            params,
            returns,
            max_threads: None,
            body: Vec::new(),
            has_body: true,
            lines: (start, start),
        };
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
                        f.max_threads = rest
                            .split(',')
                            .map(|n| n.trim().parse().ok())
                            .try_fold(1u32, |product, n| product.checked_mul(n?));
                    }
                    if ends {
                        f.has_body = false;
                        return Ok(f);
                    }
                    if opens {
                        break;
                    }
                }
                _ => return fail(self.line, format!("expected the body of {}", f.name)),
            }
        }
        f.body = self.body()?;
        f.lines.1 = self.line;
        Ok(f)
    }

    fn body(&mut self) -> Result<Vec<Statement>> {
        let mut out = Vec::new();
        let mut depth = 0;
        let mut lines = SourceLines::default();
        loop {
            self.blanks();
            let line = self.line;
            match self.peek() {
                None => return fail(line, "the body does not end"),
                Some(b'{') => {
                    self.bump();
                    depth += 1;
                    out.push(Statement::Open);
                    continue;
                }
                Some(b'}') => {
                    self.bump();
                    if depth == 0 {
                        return Ok(out);
                    }
                    depth -= 1;
                    out.push(Statement::Close);
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
                    lines.loc(&text);
                }
                ".pragma" => {
                    self.until(b';');
                }
                ".reg" => {
                    let text = self.until(b';');
                    let rest = text[4..].trim();
                    let Some((ty, names)) = rest.split_once(char::is_whitespace) else {
                        return fail(line, format!("bad declaration `{text}`"));
                    };
                    for name in names.split(',').map(str::trim) {
                        let (name, count) = match name.split_once('<') {
                            Some((n, c)) => (n, c.trim_end_matches('>').parse().ok()),
                            None => (name, None),
                        };
                        out.push(Statement::Registers(
                            ty.trim_start_matches('.').to_owned(),
                            name.to_owned(),
                            count,
                        ));
                    }
                }
                ".local" | ".shared" | ".param" | ".global" | ".const" => {
                    let text = self.until(b';');
                    out.push(Statement::Variable(Self::variable(&text, line, false)?));
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
                            out.push(Statement::Targets(word, list));
                        } else {
                            out.push(Statement::Label(word, line));
                        }
                    } else {
                        let text = self.until(b';');
                        out.push(Statement::Instruction(instruction(
                            &text,
                            line,
                            Arc::clone(&lines.places),
                        )?));
                    }
                }
            }
        }
    }
}

/// An instruction from its text.
fn instruction(text: &str, line: u32, places: Arc<[Place]>) -> Result<Instruction> {
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
    let Some(operands) = operands(args) else {
        return fail(line, format!("cannot read the operands of `{text}`"));
    };
    let op = op.split('.').map(str::to_owned).collect();
    Ok(Instruction { guard, op, operands, text, line, places })
}

/// File, line and column.
type Spot = (u32, u32, u32);

/// The `.loc` that holds for what follows.
#[derive(Default)]
struct SourceLines {
    places: Arc<[Place]>,
    /// Where the code of a spot was inlined. A `.loc` names one step outwards; those beyond it come from the
    /// earlier `.loc` of the outer spot.
    inlined_at: HashMap<Spot, Spot>,
}

impl SourceLines {
    /// `.loc file line column[, function_name f, inlined_at file line column]`.
    fn loc(&mut self, text: &str) {
        let spot = |text: &str| -> Option<Spot> {
            let mut numbers = text.split_whitespace().map(|n| n.trim_end_matches(',').parse().ok());
            Some((numbers.next()??, numbers.next()??, numbers.next()??))
        };
        let rest = text.trim_start_matches(".loc");
        let Some(here) = spot(rest) else {
            self.places = Arc::default();
            return;
        };
        let mut chain = vec![here];
        if let Some(outer) = rest.split_once("inlined_at").and_then(|(_, outer)| spot(outer)) {
            self.inlined_at.insert(here, outer);
            let mut next = Some(outer);
            while let Some(at) = next.filter(|at| chain.len() < 32 && !chain.contains(at)) {
                chain.push(at);
                next = self.inlined_at.get(&at).copied();
            }
        } else {
            self.inlined_at.remove(&here);
        }
        self.places = chain.into_iter().map(|(file, line, _)| Place { file, line }).collect();
    }
}
