//! What CUDA C++ texts say of their kernels: the headers they include, and where each kernel is
//! defined, with what comment and parameters. A kernel may be made by a macro, so this holds
//! a small preprocessor; it ignores conditions and never sees the compiler's own macros.

use std::collections::BTreeMap;

/// Texts of headers by the name as it stands in `#include "…"`.
pub type Headers<'a> = BTreeMap<&'a str, &'a str>;

/// Where and how a kernel is defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The line its definition, or the macro call that makes it, starts on; from 1.
    pub line: u32,
    /// The comment directly above. Where a macro makes the kernel: that above the function its body
    /// calls first, and that above the macro's first call or above the macro.
    pub doc: String,
    /// Its parameters.
    pub params: Vec<Parameter>,
}

/// A parameter as its source declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// The words and signs of its declaration, macros expanded: `const`, `float`, `*`, `x`.
    pub tokens: Vec<String>,
}

/// Those of the headers that a text includes, directly or through others.
pub fn included<'a>(text: &str, headers: &Headers<'a>) -> Headers<'a> {
    let mut found = Headers::new();
    let mut pending: Vec<&str> = includes(text).collect();
    while let Some(name) = pending.pop() {
        // A name that is none of them is the compiler's to complain about.
        if let Some((&name, &text)) = headers.get_key_value(name)
            && found.insert(name, text).is_none()
        {
            pending.extend(includes(text));
        }
    }
    found
}

fn includes(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?;
        rest.trim_start().strip_prefix('"')?.split('"').next()
    })
}

/// A kernel's name as its source has it: `twice` of `_Z5twicePf`, the last part of `_ZN3foo5twiceEv`. A name
/// that is not mangled is its own.
pub fn unmangled(name: &str) -> &str {
    let Some(mut rest) = name.strip_prefix("_Z") else { return name };
    let nested = rest.starts_with('N');
    rest = rest.trim_start_matches('N');
    let mut last = name;
    loop {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (digits, text) = rest.split_at(number);
        let Some((part, more)) = digits.parse().ok().and_then(|length| text.split_at_checked(length)) else {
            return last;
        };
        last = part;
        if !nested {
            return last;
        }
        rest = more;
    }
}

/// The kernels that a text defines, by their names in the source. Of `headers` those that it includes are
/// read for their macros.
pub fn definitions(text: &str, headers: &Headers<'_>) -> BTreeMap<String, Definition> {
    let mut macros = BTreeMap::new();
    for header in included(text, headers).values() {
        scan(header, &mut macros);
    }
    let written = scan(text, &mut macros);
    let tokens = expand(&written, &macros, &mut Vec::new());
    let lines: Vec<&str> = text.lines().collect();

    let mut found = BTreeMap::new();
    for at in (0..tokens.len()).filter(|&at| tokens[at].text == "__global__") {
        let Some(Signature { name, params, calls }) = signature(&tokens[at..]) else { continue };
        let line = declaration_line(&tokens, at);
        let mut doc = comment_above(&lines[..line as usize - 1]);
        if !written.windows(2).any(|pair| pair[0].text == name && pair[1].text == "(") {
            if doc.is_empty() {
                doc = comment_of_call(line, &lines, &macros);
            }
            // A kernel that a macro makes mostly calls a template, which says more.
            let function =
                device_function(&written, &calls).map(|line| comment_above(&lines[..line as usize - 1]));
            doc = format!("{}\n{doc}", function.unwrap_or_default()).trim().to_owned();
        }
        found.insert(name, Definition { line, doc, params });
    }
    found
}

/// The comment above the first of a run of calls of one macro, or above the macro.
fn comment_of_call(line: u32, lines: &[&str], macros: &Macros) -> String {
    let mut at = line as usize - 1;
    let Some((name, called)) = first_name(lines[at]).and_then(|name| macros.get_key_value(name)) else {
        return String::new();
    };
    while at > 0 && first_name(lines[at - 1]) == Some(name) {
        at -= 1;
    }
    let above = comment_above(&lines[..at]);
    if above.is_empty() { called.doc.clone() } else { above }
}

/// The identifier a line starts with.
fn first_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let end = line.find(|c: char| !is_name(c)).unwrap_or(line.len());
    (end > 0).then(|| &line[..end])
}

/// The block of `//` lines that ends the given lines, without the slashes.
fn comment_above(lines: &[&str]) -> String {
    let comment = |line: &&&str| line.trim_start().starts_with("//");
    let mut block: Vec<&str> = lines.iter().rev().take_while(comment).map(|line| line.trim()).collect();
    block.reverse();
    let text = |line: &&str| {
        let text = line.trim_start_matches('/');
        text.strip_prefix(' ').unwrap_or(text).to_owned()
    };
    let is_ruler = |line: &&&str| line.contains("----");
    block.iter().filter(|line| !is_ruler(line)).map(text).collect::<Vec<_>>().join("\n").trim().to_owned()
}

#[derive(Clone, Debug)]
struct Token {
    text: String,
    /// In the `.cu`: of the outermost macro call where one made it.
    line: u32,
}

#[derive(Debug)]
struct Macro {
    /// None where it takes no list of arguments.
    params: Option<Vec<String>>,
    body: Vec<Token>,
    doc: String,
}

type Macros = BTreeMap<String, Macro>;

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Splits a text into tokens; its `#define`s go into `macros`, other directives nowhere.
fn scan(text: &str, macros: &mut Macros) -> Vec<Token> {
    let raw: Vec<&str> = text.lines().collect();
    let text = without_comments(text);
    let mut tokens = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let line_number = number as u32 + 1;
        let Some(directive) = line.trim_start().strip_prefix('#') else {
            tokenize(line, line_number, &mut tokens);
            continue;
        };
        let mut whole = directive.trim_end().to_owned();
        while whole.ends_with('\\') {
            whole.pop();
            whole.push(' ');
            let Some((_, more)) = lines.next() else { break };
            whole += more.trim_end();
        }
        let Some(definition) = whole.trim_start().strip_prefix("define ") else { continue };
        let definition = definition.trim_start();
        let end = definition.find(|c: char| !is_name(c)).unwrap_or(definition.len());
        let (name, rest) = definition.split_at(end);
        let (params, body) = match rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            Some((list, body)) => {
                let names = list.split(',').map(|p| p.trim().replace("...", "__VA_ARGS__"));
                (Some(names.filter(|p| !p.is_empty()).collect()), body)
            }
            None => (None, rest),
        };
        let mut tokens = Vec::new();
        tokenize(body, line_number, &mut tokens);
        macros.insert(name.to_owned(), Macro { params, body: tokens, doc: comment_above(&raw[..number]) });
    }
    tokens
}

/// The text with every comment replaced by blanks, line breaks kept.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['/', '"']) {
        out += &rest[..at];
        rest = &rest[at..];
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            let end = rest.find("*/").map_or(rest.len(), |end| end + 2);
            out.extend(rest[..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            end
        } else {
            let end = if rest.starts_with('"') { string_end(rest) } else { 1 };
            out += &rest[..end];
            end
        };
        rest = &rest[taken..];
    }
    out + rest
}

/// The length of the string literal a text starts with.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\n' => return at,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

fn tokenize(line: &str, number: u32, tokens: &mut Vec<Token>) {
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = if is_name(first) {
            rest.find(|c: char| !is_name(c)).unwrap_or(rest.len())
        } else if first == '"' {
            string_end(rest)
        } else if rest.starts_with("##") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(Token { text: rest[..end].to_owned(), line: number });
        rest = rest[end..].trim_start();
    }
}

/// The tokens with their macros expanded; `active` are those being expanded.
fn expand(tokens: &[Token], macros: &Macros, active: &mut Vec<String>) -> Vec<Token> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        at += 1;
        let used = macros.get(&token.text).filter(|_| !active.contains(&token.text));
        let arguments = used.and_then(|m| m.params.as_ref()).and_then(|_| group(&tokens[at..]));
        let (Some(used), true) = (used, used.is_some_and(|m| m.params.is_none()) || arguments.is_some())
        else {
            out.push(token.clone());
            continue;
        };
        let mut given = Vec::new();
        if let Some((inside, length)) = arguments {
            at += length;
            given = split(inside);
        }
        let mut body = substitute(used, &given, macros, active);
        body.iter_mut().for_each(|t| t.line = token.line);
        active.push(token.text.clone());
        out.extend(expand(&body, macros, active));
        active.pop();
    }
    out
}

/// A macro's body with its arguments in place.
fn substitute(used: &Macro, given: &[&[Token]], macros: &Macros, active: &mut Vec<String>) -> Vec<Token> {
    let params = used.params.as_deref().unwrap_or_default();
    let argument = |token: &Token| -> Option<Vec<Token>> {
        let index = params.iter().position(|p| *p == token.text)?;
        if token.text == "__VA_ARGS__" {
            let comma = [Token { text: ",".into(), line: token.line }];
            return Some(given.get(index..).unwrap_or_default().join(&comma[..]));
        }
        Some(given.get(index).copied().unwrap_or_default().to_vec())
    };
    let is = |index: Option<usize>, text: &str| {
        index.and_then(|i| used.body.get(i)).is_some_and(|t| t.text == text)
    };
    let mut out: Vec<Token> = Vec::new();
    for (i, token) in used.body.iter().enumerate() {
        let pasted = is(i.checked_sub(1), "##");
        let mut piece = match argument(token) {
            _ if token.text == "##" => continue,
            _ if token.text == "#" && used.body.get(i + 1).is_some_and(|t| params.contains(&t.text)) => {
                continue;
            }
            Some(argument) if is(i.checked_sub(1), "#") => {
                let text: Vec<&str> = argument.iter().map(|t| &t.text[..]).collect();
                vec![Token { text: format!("\"{}\"", text.join(" ")), line: token.line }]
            }
            Some(argument) if pasted || is(Some(i + 1), "##") => argument,
            Some(argument) => expand(&argument, macros, active),
            None => vec![token.clone()],
        };
        if pasted
            && !piece.is_empty()
            && let Some(last) = out.last_mut()
        {
            last.text += &piece.remove(0).text;
        }
        out.extend(piece);
    }
    out
}

/// What stands between the parenthesis the tokens start with and its partner; and how many tokens
/// that is with both.
fn group(tokens: &[Token]) -> Option<(&[Token], usize)> {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate() {
        match &token.text[..] {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (i > 0).then(|| (&tokens[1..i], i + 1));
        }
    }
    None
}

/// Splits at the commas outside of parentheses.
fn split(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0;
    let pieces = tokens.split(|token| {
        match &token.text[..] {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        depth == 0 && token.text == ","
    });
    pieces.collect()
}

/// What a kernel's tokens say.
struct Signature {
    name: String,
    params: Vec<Parameter>,
    /// The first name in its body.
    calls: String,
}

fn is_word(token: &&Token) -> bool {
    token.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Reads the kernel whose `__global__` the tokens start with: its name is the first one with a
/// parenthesised list after it and a body after that.
fn signature(tokens: &[Token]) -> Option<Signature> {
    for i in 0..tokens.len() - 1 {
        if matches!(&tokens[i].text[..], ";" | "{" | "}") {
            return None;
        }
        let Some((list, length)) = group(&tokens[i + 1..]) else { continue };
        let after = &tokens[i + 1 + length..];
        if tokens[i].text.chars().all(is_name) && after.first().is_some_and(|t| t.text == "{") {
            return Some(Signature {
                name: tokens[i].text.clone(),
                params: top_level(list).into_iter().filter_map(parameter).collect(),
                calls: after.iter().find(is_word).map(|t| t.text.clone()).unwrap_or_default(),
            });
        }
    }
    None
}

/// Reads one declaration of a list of parameters.
fn parameter(tokens: &[Token]) -> Option<Parameter> {
    let end = tokens.iter().position(|t| t.text == "[" || t.text == "=").unwrap_or(tokens.len());
    Some(Parameter {
        name: tokens[..end].iter().rfind(is_word)?.text.clone(),
        tokens: tokens.iter().map(|t| t.text.clone()).collect(),
    })
}

/// The line on which the declaration starts that a token is part of.
fn declaration_line(tokens: &[Token], at: usize) -> u32 {
    let before = tokens[..at].iter().rposition(|t| matches!(&t.text[..], ";" | "{" | "}"));
    tokens[before.map_or(0, |i| i + 1)].line
}

/// The line on which the `__device__` function of that name starts.
fn device_function(tokens: &[Token], name: &str) -> Option<u32> {
    let starts = (0..tokens.len()).filter(|&i| tokens[i].text == "__device__");
    starts.map(|i| (i, tokens[i..].iter().take_while(|t| !matches!(&t.text[..], ";" | "{" | "}")))).find_map(
        |(i, declaration)| {
            let words: Vec<&str> = declaration.map(|t| &t.text[..]).collect();
            words.windows(2).any(|pair| pair == [name, "("]).then(|| declaration_line(tokens, i))
        },
    )
}

/// Splits a list of parameters at its commas, not at those of template arguments.
fn top_level(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0;
    let pieces = tokens.split(|token| {
        match &token.text[..] {
            "(" | "<" | "[" | "{" => depth += 1,
            ")" | ">" | "]" | "}" => depth -= 1,
            _ => {}
        }
        depth == 0 && token.text == ","
    });
    pieces.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str, headers: &Headers<'_>) -> (String, Definition) {
        let found = definitions(text, headers);
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }

    #[test]
    fn a_written_kernel_has_its_comment_line_and_names() {
        let text = "// Helper.\n__device__ float half_of(float x) { return x / 2; }\n\n\
                    // -----\n// Doubles, for (x, n) of any n.\n//   In place.\n\
                    extern \"C\" __global__ void __launch_bounds__(256)\ntwice(float *__restrict__ x, /* , */ int n, \
                    Map<float, 2> m, float y[3] = {}) { half_of(n); }\n\
                    __global__ void later(int n);\n";
        let (name, found) = only(text, &Headers::new());
        let doc = "Doubles, for (x, n) of any n.\n  In place.".to_owned();
        assert_eq!((name.as_str(), found.line, found.doc), ("twice", 7, doc));
        let params: Vec<(&str, String)> =
            found.params.iter().map(|p| (p.name.as_str(), p.tokens.join(" "))).collect();
        let declared = ["float * __restrict__ x", "int n", "Map < float , 2 > m", "float y [ 3 ] = { }"];
        assert_eq!(params.iter().map(|p| &p.1[..]).collect::<Vec<_>>(), declared);
        assert_eq!(params.iter().map(|p| p.0).collect::<Vec<_>>(), ["x", "n", "m", "y"]);
    }

    #[test]
    fn a_kernel_made_by_a_macro_has_the_comments_of_its_function_and_calls() {
        let header = "#define KERNEL(name, T, ...) \\\n  __global__ void name##_##T(T *x, __VA_ARGS__) { run<T>(x); }\n";
        let headers = Headers::from([("k.cuh", header), ("unused.cuh", "#define KERNEL nothing")]);
        let text = "#include \"k.cuh\"\n// Adds one.\ntemplate <class T> __device__ void run(T *x) { *x += 1; }\n\n\
                    // A kernel a type.\nKERNEL(add, float, int n, int m)\nKERNEL(add, half, int k)\n";
        let found = definitions(text, &headers);
        let of = |name: &str| {
            let Definition { line, doc, params } = &found[name];
            let params: Vec<&str> = params.iter().map(|p| &p.name[..]).collect();
            (*line, doc.as_str(), params.join(" "))
        };
        assert_eq!(of("add_float"), (6, "Adds one.\nA kernel a type.", "x n m".to_owned()));
        assert_eq!(of("add_half"), (7, "Adds one.\nA kernel a type.", "x k".to_owned()));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn headers_are_followed() {
        let headers = Headers::from([
            ("a.cuh", "#include \"b.cuh\"\n"),
            ("b.cuh", "# include \"a.cuh\"\n#include <cuda_fp16.h>\n"),
            ("c.cuh", ""),
        ]);
        let found = included("#include \"a.cuh\"\n#include \"missing.cuh\"\n", &headers);
        assert_eq!(found.into_keys().collect::<Vec<_>>(), ["a.cuh", "b.cuh"]);
    }

    #[test]
    fn mangled_names() {
        let pairs = [
            ("twice", "twice"),
            ("_Z5twicePf", "twice"),
            ("_Z4foldIfLi4EEvPT_", "fold"),
            ("_ZN3foo3bar5twiceEPfi", "twice"),
            ("_Z99x", "_Z99x"),
            ("_Z", "_Z"),
        ];
        for (mangled, name) in pairs {
            assert_eq!(unmangled(mangled), name);
        }
    }
}
