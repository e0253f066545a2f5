//! Only `src/cli` knows clap and how flags are spelt.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;

use crate::imports;
use crate::tree::Tree;

/// Commands of the program, such as `bench adalin`, with their flags.
pub type Commands = BTreeMap<String, BTreeSet<String>>;

/// Asks the program for its commands.
pub fn commands() -> Commands {
    let mut found = Commands::new();
    let mut next = vec![String::new()];
    while let Some(name) = next.pop() {
        let help = help(&name);
        next.extend(subcommands(&help).into_iter().map(|sub| format!("{name} {sub}").trim().to_owned()));
        found.insert(name, flags(&help));
    }
    found
}

fn help(command: &str) -> String {
    let program =
        std::env::var_os("CARGO_BIN_EXE_ugatit").unwrap_or_else(|| env!("CARGO_BIN_EXE_ugatit").into());
    let output = Command::new(program).args(command.split_whitespace()).arg("--help").output();
    let output = output.expect("the program starts");
    assert!(output.status.success(), "'ugatit {command} --help' fails");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let entries = lines.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    let names = entries.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn flags(help: &str) -> BTreeSet<String> {
    let options = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = options.flat_map(|line| line.split([' ', ',', '=']).take(3));
    words.filter(|word| word.starts_with("--") && word.len() > 2).map(str::to_owned).collect()
}

/// The flags of a text: `--` and a name, not inside another word.
pub fn spelt(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    for (at, _) in text.match_indices("--") {
        let inside = text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '-');
        let name = &text[at + 2..];
        let length = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(name.len());
        if !inside && name.starts_with(|c: char| c.is_ascii_lowercase()) {
            out.push(&text[at..at + 2 + length]);
        }
    }
    out
}

/// Places outside `src/cli` that name clap, or a flag of the program in a text for a reader.
pub fn outside(tree: &Tree, known: &BTreeSet<String>) -> Vec<String> {
    let mut out = Vec::new();
    for (name, text) in tree.rust() {
        let of_library = name.starts_with("src/") || name.starts_with("crates/") && name.contains("/src/");
        let elsewhere = name.starts_with("src/cli/") || name == "src/main.rs" || name.contains("/tests");
        if !of_library || elsewhere {
            continue;
        }
        let parsed = syn::parse_file(text).unwrap_or_else(|e| panic!("{name} cannot be parsed: {e}"));
        for item in parsed.items.iter().filter(|i| !imports::is_test(imports::attributes(i))) {
            scan(item.to_token_stream(), &mut |what, line| {
                let bad = what == "clap" || spelt(what).iter().any(|flag| known.contains(*flag));
                if bad {
                    out.push(format!("{name}:{line} has {what}"));
                }
            });
        }
    }
    out
}

/// Calls `see` for names and for literals, with their lines; documentation is left out.
fn scan(tokens: TokenStream, see: &mut dyn FnMut(&str, usize)) {
    for token in tokens {
        let line = token.span().start().line;
        match token {
            TokenTree::Group(group) => {
                let documents = group.stream().into_iter().next().is_some_and(|t| t.to_string() == "doc");
                if !documents {
                    scan(group.stream(), see);
                }
            }
            TokenTree::Ident(ident) => see(&ident.to_string(), line),
            TokenTree::Literal(literal) => see(&literal.to_string(), line),
            TokenTree::Punct(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_understood() {
        let text = "Trains.\n\nUsage: x\n\nCommands:\n  train  Train on --this\n  plan   List\n         more\n  help   Print\n\nOptions:\n  \
                    -h, --help  Print --help\n      --n-dis <N>  Depth\n";
        assert_eq!(subcommands(text), ["train", "plan"]);
        assert_eq!(flags(text).into_iter().collect::<Vec<_>>(), ["--help", "--n-dis"]);
        let all = commands();
        assert!(all["train"].contains("--n-dis") && all["bench adalin"].contains("--readme"));
    }

    #[test]
    fn flags_in_texts_of_the_library_are_found() {
        let known = ["--size".to_owned()].into();
        let told = |path: &str, text: &str| outside(&Tree::of(&[(path, text)]), &known).join("; ");
        let hint = "fn f() { g(format!(\"try a smaller --size, {x}\")) }";
        assert_eq!(told("src/a.rs", hint), "src/a.rs:1 has \"try a smaller --size, {x}\"");
        assert_eq!(
            told("crates/a/src/lib.rs", hint),
            "crates/a/src/lib.rs:1 has \"try a smaller --size, {x}\""
        );
        assert_eq!(told("src/cli/a.rs", hint), "");
        assert_eq!(told("src/a.rs", "/// `--size`\nfn f() { g(\"--size-of --other x--size\") }"), "");
        assert_eq!(told("src/a.rs", "#[cfg(test)]\nmod tests { fn f() { g(\"--size\") } }"), "");
        assert_eq!(told("src/a.rs", "#[derive(clap::Args)]\nstruct A;"), "src/a.rs:1 has clap");
        assert_eq!(told("src/a.rs", "use clap::Args;"), "src/a.rs:1 has clap");
    }
}
