//! A little colouring of CUDA, PTX and SASS, line by line.

use maud::{Markup, html};

/// Words of CUDA C++, sorted.
const WORDS: &[&str] = &[
    "alignas",
    "asm",
    "auto",
    "bool",
    "break",
    "case",
    "char",
    "class",
    "const",
    "constexpr",
    "continue",
    "default",
    "do",
    "double",
    "else",
    "enum",
    "extern",
    "false",
    "float",
    "float2",
    "float4",
    "for",
    "half",
    "if",
    "inline",
    "int",
    "int2",
    "int4",
    "long",
    "nullptr",
    "reinterpret_cast",
    "return",
    "short",
    "signed",
    "size_t",
    "sizeof",
    "static",
    "static_assert",
    "static_cast",
    "struct",
    "switch",
    "template",
    "true",
    "typename",
    "uint2",
    "uint4",
    "unsigned",
    "using",
    "void",
    "volatile",
    "while",
];

/// Text of one kind, which the style sheet colours by its class.
fn span(class: &str, text: &str) -> Markup {
    html! { s class=(class) { (text) } }
}

/// One line of CUDA C++. `in_comment` says whether a block comment is open before it, and is set for the next line.
pub(super) fn cuda(line: &str, in_comment: &mut bool) -> Markup {
    let mut rest = line;
    let mut parts: Vec<(&str, &str)> = Vec::new();
    if rest.trim_start().starts_with('#') && !*in_comment {
        let end = rest.find("//").unwrap_or(rest.len());
        parts.push(("p", &rest[..end]));
        rest = &rest[end..];
    }
    while let Some(c) = rest.chars().next() {
        let (class, length) = if *in_comment || rest.starts_with("/*") {
            let open = if *in_comment { 0 } else { 2 };
            let end = rest[open..].find("*/").map(|at| at + open + 2);
            *in_comment = end.is_none();
            ("c", end.unwrap_or(rest.len()))
        } else if rest.starts_with("//") {
            ("c", rest.len())
        } else if c == '"' {
            ("t", string_length(rest))
        } else if c.is_alphabetic() || c == '_' {
            let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            (class_of(&rest[..length], rest[length..].starts_with('(')), length)
        } else if c.is_ascii_digit() {
            let ends = |c: char| !(c.is_alphanumeric() || c == '.' || c == '\'');
            ("d", rest.find(ends).unwrap_or(rest.len()))
        } else {
            ("", c.len_utf8())
        };
        parts.push((class, &rest[..length]));
        rest = &rest[length..];
    }
    html! {
        @for (class, text) in parts {
            @if class.is_empty() { (text) } @else { (span(class, text)) }
        }
    }
}

/// The class of a word; none for names.
fn class_of(word: &str, called: bool) -> &'static str {
    if WORDS.binary_search(&word).is_ok() {
        "k"
    } else if word.starts_with("__") || ["threadIdx", "blockIdx", "blockDim", "gridDim"].contains(&word) {
        "b"
    } else if called {
        "f"
    } else {
        ""
    }
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

/// One line of PTX or SASS: guard, opcode, the rest; a label alone.
pub(super) fn machine(text: &str) -> Markup {
    if text.ends_with(':') {
        return span("f", text);
    }
    if text.starts_with("//") {
        return span("c", text);
    }
    let word = |text: &str| text.find(' ').unwrap_or(text.len());
    let (guard, rest) = match text.starts_with('@') {
        true => text.split_at(word(text)),
        false => ("", text),
    };
    let (opcode, operands) = rest.trim_start().split_at(word(rest.trim_start()));
    html! {
        @if !guard.is_empty() { (span("b", guard)) " " }
        (span(if opcode.starts_with('.') { "p" } else { "k" }, opcode))
        (operands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_sorted_for_the_search() {
        assert!(WORDS.is_sorted());
    }

    #[test]
    fn each_kind_of_text_has_its_class() {
        let mut open = false;
        let mut cuda = |line: &str| (cuda(line, &mut open).into_string(), open);
        let loop_head = "<s class=\"k\">for</s> (<s class=\"k\">int</s> i = <s class=\"d\">0</s>; <s class=\"c\">// x&lt;y</s>";
        assert_eq!(cuda("for (int i = 0; // x<y"), (loop_head.into(), false));
        assert_eq!(cuda("a /* b"), ("a <s class=\"c\">/* b</s>".into(), true));
        assert_eq!(cuda("c */ d"), ("<s class=\"c\">c */</s> d".into(), false));
        let branch = "<s class=\"b\">@%p1</s> <s class=\"k\">bra</s> $L;";
        assert_eq!(machine("@%p1 bra $L;").into_string(), branch);
    }
}
