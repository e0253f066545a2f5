//! Words that STYLE.md put aside do not come back.

use crate::tree::Tree;

/// Where a word stays, and why.
const REASONS: [(&str, &str, &str); 1] =
    [("src/train/checkpoint.rs", "pictures", "a key of the checkpoints' header, which older versions wrote")];

/// The words in backticks in the right column of the table under `## Words`.
pub fn put_aside(style: &str) -> Vec<String> {
    let table = style.split("## Words").nth(1).unwrap_or_default();
    let right = table.lines().filter_map(|line| line.strip_prefix('|')?.split('|').nth(1));
    let mut words: Vec<String> =
        right.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_lowercase).collect();
    words.sort();
    words
}

/// The words of a text in lower case, with their lines; those inside identifiers as well.
fn words(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let mut word = String::new();
        let mut lower = false;
        for c in line.chars().chain([' ']) {
            // `PadBehind` is two words.
            let ends = !c.is_alphabetic() || (lower && c.is_uppercase());
            if ends && !word.is_empty() {
                out.push((i + 1, std::mem::take(&mut word)));
            }
            lower = c.is_lowercase();
            if c.is_alphabetic() {
                word.extend(c.to_lowercase());
            }
        }
    }
    out
}

/// Where words that were put aside stand; a plural counts as its word.
pub fn found(tree: &Tree, style: &str, takes: impl Fn(&str) -> bool) -> Vec<String> {
    let aside = put_aside(style);
    let is_aside = |word: &str| {
        let one = word.strip_suffix('s').unwrap_or(word);
        aside.iter().any(|a| a == word || a == one)
    };
    let mut out = Vec::new();
    for (name, text) in tree.texts(takes) {
        for (line, word) in words(text) {
            if is_aside(&word) && !REASONS.iter().any(|r| r.0 == name && r.1 == word) {
                out.push(format!("{name}:{line} says '{word}'"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: &str = "# Style\n\n`not this`\n\n## Words\n\n| use | not |\n|---|---|\n\
                         | `image` | `picture` |\n| variant | `rung`, `behind`; way (verify) |\n";

    #[test]
    fn words_are_found_in_prose_and_in_identifiers() {
        assert_eq!(put_aside(STYLE), ["behind", "picture", "rung"]);
        let told = |text: &str| found(&Tree::of(&[("src/a.rs", text)]), STYLE, |_| true).join("; ");
        assert_eq!(
            told("// A Picture.\nfn load_pictures() {}"),
            "src/a.rs:1 says 'picture'; src/a.rs:2 says 'pictures'"
        );
        assert_eq!(told("struct PadBehind;"), "src/a.rs:1 says 'behind'");
        assert_eq!(told("wrung, imagepicture, way"), "");
    }
}
