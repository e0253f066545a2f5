//! Text of pages: first sentences, HTML escapes, a little colouring of CUDA, PTX and SASS.

use std::fmt::Write as _;

/// The first sentence of a kernel's comment.
pub fn first_sentence(doc: &str) -> String {
    let flat = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    let ends = |at: usize| {
        let (before, behind) = (&flat[..at], &flat[at + 1..]);
        let abbreviated = ["e.g", "i.e", "eq", "approx"].iter().any(|a| before.ends_with(a));
        (behind.is_empty() || behind.starts_with(' ')) && !abbreviated
    };
    let end = flat.match_indices('.').map(|(at, _)| at).find(|&at| ends(at)).unwrap_or(flat.len());
    flat[..end].trim_end_matches(':').to_owned()
}

/// A text as HTML.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            _ => out.push(c),
        }
    }
    out
}

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

/// One line of CUDA C++ as HTML. `in_comment` says whether a block comment is open before it, and is set
/// for the next line.
pub fn cuda(line: &str, in_comment: &mut bool) -> String {
    let mut out = String::with_capacity(line.len() * 2);
    let mut rest = line;
    let span = |class: &str, text: &str, out: &mut String| {
        _ = write!(out, "<s class={class}>{}</s>", escape(text));
    };
    if rest.trim_start().starts_with('#') && !*in_comment {
        let end = rest.find("//").unwrap_or(rest.len());
        span("p", &rest[..end], &mut out);
        rest = &rest[end..];
    }
    while let Some(c) = rest.chars().next() {
        let length;
        if *in_comment || rest.starts_with("/*") {
            let open = if *in_comment { 0 } else { 2 };
            let end = rest[open..].find("*/").map(|at| at + open + 2);
            *in_comment = end.is_none();
            length = end.unwrap_or(rest.len());
            span("c", &rest[..length], &mut out);
        } else if rest.starts_with("//") {
            length = rest.len();
            span("c", rest, &mut out);
        } else if c == '"' {
            length = string_length(rest);
            span("t", &rest[..length], &mut out);
        } else if c.is_alphabetic() || c == '_' {
            length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let word = &rest[..length];
            if WORDS.binary_search(&word).is_ok() {
                span("k", word, &mut out);
            } else if word.starts_with("__")
                || ["threadIdx", "blockIdx", "blockDim", "gridDim"].contains(&word)
            {
                span("b", word, &mut out);
            } else if rest[length..].starts_with('(') {
                span("f", word, &mut out);
            } else {
                out += word;
            }
        } else if c.is_ascii_digit() {
            length =
                rest.find(|c: char| !(c.is_alphanumeric() || c == '.' || c == '\'')).unwrap_or(rest.len());
            span("d", &rest[..length], &mut out);
        } else {
            length = c.len_utf8();
            out += &escape(&rest[..length]);
        }
        rest = &rest[length..];
    }
    out
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

/// One line of PTX or SASS as HTML: guard, opcode, the rest; a label alone.
pub fn machine(text: &str) -> String {
    if text.ends_with(':') {
        return format!("<s class=f>{}</s>", escape(text));
    }
    if text.starts_with("//") {
        return format!("<s class=c>{}</s>", escape(text));
    }
    let mut out = String::new();
    let mut rest = text;
    if rest.starts_with('@') {
        let end = rest.find(' ').unwrap_or(rest.len());
        _ = write!(out, "<s class=b>{}</s>", escape(&rest[..end]));
        rest = &rest[end..];
        out.push(' ');
        rest = rest.trim_start();
    }
    let end = rest.find(' ').unwrap_or(rest.len());
    let class = if rest.starts_with('.') { "p" } else { "k" };
    _ = write!(out, "<s class={class}>{}</s>{}", escape(&rest[..end]), escape(&rest[end..]));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences() {
        assert_eq!(
            first_sentence("Joins the chunks: stats [images, C, 2] = mean. More.\nAnd"),
            "Joins the chunks: stats [images, C, 2] = mean"
        );
        assert_eq!(first_sentence("x * 0.5 of\nit"), "x * 0.5 of it");
    }

    #[test]
    fn words_are_sorted_for_the_search() {
        assert!(WORDS.is_sorted());
    }

    #[test]
    fn colours() {
        let mut open = false;
        assert_eq!(
            cuda("for (int i = 0; // x<y", &mut open),
            "<s class=k>for</s> (<s class=k>int</s> i = <s class=d>0</s>; <s class=c>// x&lt;y</s>"
        );
        assert_eq!(cuda("a /* b", &mut open), "a <s class=c>/* b</s>");
        assert!(open);
        assert_eq!(cuda("c */ d", &mut open), "<s class=c>c */</s> d");
        assert!(!open);
        assert_eq!(machine("@%p1 bra $L;"), "<s class=b>@%p1</s> <s class=k>bra</s> $L;");
    }
}
