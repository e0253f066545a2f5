//! No six lines twice.

use std::collections::HashMap;

use crate::tree::Tree;

/// So many equal lines are one piece of code.
const LINES: usize = 6;

/// Files that may share lines, and why.
const REASONS: [(&str, &str, &str); 0] = [];

/// A line that says something: no comment, no import, no bracket by itself.
fn says_something(line: &str) -> bool {
    let dull = ["//", "use ", "pub use ", "pub(crate) use ", "pub(super) use ", "#["];
    line.chars().filter(|c| c.is_alphanumeric()).count() > 3 && !dull.iter().any(|d| line.starts_with(d))
}

/// Pairs of places that share lines.
pub fn shared(tree: &Tree, takes: impl Fn(&str) -> bool) -> Vec<String> {
    let files: Vec<(&str, Vec<(usize, &str)>)> = tree
        .rust()
        .filter(|(name, _)| takes(name))
        .map(|(name, text)| {
            let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
            (name, lines.filter(|(_, line)| says_something(line)).collect())
        })
        .collect();
    let mut places: HashMap<Vec<&str>, Vec<(usize, usize)>> = HashMap::new();
    for (f, (_, lines)) in files.iter().enumerate() {
        for (i, window) in lines.windows(LINES).enumerate() {
            places.entry(window.iter().map(|l| l.1).collect()).or_default().push((f, i));
        }
    }
    let line = |(f, i): (usize, usize), k: usize| files[f].1.get(i + k).map(|l| l.1);
    let mut out = Vec::new();
    for found in places.values() {
        for (n, &a) in found.iter().enumerate() {
            for &b in &found[..n] {
                let before = |(f, i): (usize, usize)| i.checked_sub(1).and_then(|i| line((f, i), 0));
                // Only where it begins.
                if before(a).is_some() && before(a) == before(b) {
                    continue;
                }
                let length = (0..).take_while(|&k| line(a, k).is_some() && line(a, k) == line(b, k)).count();
                let ((x, i), (y, j)) = (a.min(b), a.max(b));
                let (x, y, at, and) = (files[x].0, files[y].0, files[x].1[i].0, files[y].1[j].0);
                if !REASONS.iter().any(|r| (r.0, r.1) == (x, y)) {
                    out.push(format!("{x}:{at} and {y}:{and} share {length} lines"));
                }
            }
        }
    }
    out.sort();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str =
        "let first = 1;\nlet second = 2;\n}\nlet third = 3;\n// note\nlet fourth = 4;\nlet fifth = 5;\n";

    #[test]
    fn six_lines_are_found_wherever_they_stand_and_five_are_not() {
        let six = format!("{BODY}let sixth = 6;\nlet seventh = 7;\n");
        let (a, b) = (format!("fn a() {{\n{six}}}\n"), format!("\n\nfn other() {{\n    {six}\n}}"));
        let tree = Tree::of(&[("src/a.rs", &a), ("src/b.rs", &b)]);
        assert_eq!(shared(&tree, |_| true), ["src/a.rs:2 and src/b.rs:4 share 7 lines"]);
        assert!(shared(&tree, |name| name == "src/a.rs").is_empty());
        let tree = Tree::of(&[
            ("src/a.rs", &format!("{BODY}let x1 = 1;")),
            ("src/b.rs", &format!("{BODY}let y1 = 1;")),
        ]);
        assert!(shared(&tree, |_| true).is_empty());
        let twice = format!("fn a() {{\n{six}}}\nfn b() {{\n{six}}}\n");
        let tree = Tree::of(&[("src/a.rs", &twice)]);
        assert_eq!(shared(&tree, |_| true), ["src/a.rs:2 and src/a.rs:13 share 7 lines"]);
    }
}
