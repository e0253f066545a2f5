//! What the documents name exists: files, folders, commands, flags.

use std::collections::BTreeSet;

use crate::flags::{Commands, spelt};
use crate::tree::Tree;

/// Files that the program writes, and names that stand for a reader's own.
const NOT_HERE: [&str; 17] = [
    "RUN/config.toml",
    "a.cu",
    "atlas/index.html",
    "checkpoints/",
    "checkpoints/step-*.safetensors",
    "config.toml",
    "index.html",
    "losses.csv",
    "my.cu",
    "name.heatmap.png",
    "photo.png",
    "samples/",
    "samples/step-*.png",
    "step-*.png",
    "step-*.safetensors",
    "x.cu",
    "x.rs",
];

const ENDINGS: [&str; 15] = [
    ".rs",
    ".cu",
    ".cuh",
    ".md",
    ".sh",
    ".toml",
    ".py",
    ".json",
    ".svg",
    ".css",
    ".js",
    ".html",
    ".png",
    ".yml",
    ".safetensors",
];

/// The documents for a reader of the repository.
pub fn is_document(path: &str) -> bool {
    path.ends_with(".md") && path != "CHANGELOG.md"
}

/// What documents and comments name and nobody finds.
pub fn missing(tree: &Tree, commands: &Commands) -> Vec<String> {
    let mut out = Vec::new();
    for (name, text) in tree.texts(is_document) {
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        for link in links(text) {
            let target = link.split('#').next().unwrap_or_default();
            let path = normal(&format!("{folder}/{target}"));
            if !target.is_empty() && !target.contains("://") && !tree.has(&path) {
                out.push(format!("{name} links to {link}"));
            }
        }
        let blocks = blocks(text);
        for span in spans(text) {
            if is_path(tree, &span) && !exists(tree, &span) {
                out.push(format!("{name} names {span}"));
            }
            out.extend(command(tree, commands, &span).into_iter().map(|e| format!("{name}: {e}")));
        }
        for line in blocks {
            out.extend(command(tree, commands, &line).into_iter().map(|e| format!("{name}: {e}")));
        }
    }
    let is_code = |name: &str| [".rs", ".cu", ".cuh", ".sh", ".py"].iter().any(|e| name.ends_with(e));
    // The checks' own tests name what does not exist.
    for (name, text) in tree.texts(|name| is_code(name) && !name.starts_with("tests/tidy/")) {
        let comments =
            text.lines().map(str::trim_start).filter(|l| l.starts_with("//") || l.starts_with('#'));
        let comments: Vec<&str> = comments.collect();
        for span in spans(&comments.join("\n")) {
            if span.contains('/') && is_path(tree, &span) && !exists(tree, &span) {
                out.push(format!("{name} names {span}"));
            }
        }
    }
    out
}

/// Where links lead.
fn links(text: &str) -> Vec<String> {
    let after = text.match_indices("](").map(|(at, _)| &text[at + 2..]);
    after.filter_map(|rest| Some(rest[..rest.find(')')?].to_owned())).collect()
}

/// What stands in backticks within a line.
fn spans(text: &str) -> Vec<String> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The lines of code blocks, continued ones joined.
fn blocks(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let (mut fenced, mut continued) = (false, false);
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if !fenced && !line.starts_with("    ") {
            continued = false;
            continue;
        }
        let code = line.trim();
        let text = code.trim_end_matches('\\').trim_end();
        match out.last_mut().filter(|_| continued) {
            Some(last) => *last = format!("{last} {text}"),
            None => out.push(text.to_owned()),
        }
        continued = code.ends_with('\\');
    }
    out
}

/// `a/./b/../c` as `a/c`.
fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Whether a text means a file or folder of the repository.
fn is_path(tree: &Tree, text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./*{},-".contains(c);
    if !text.chars().all(plain) || text.starts_with(['/', '-', '.']) && !text.starts_with(".ci") {
        return false;
    }
    let first = text.split('/').next().unwrap_or_default();
    ENDINGS.iter().any(|e| text.ends_with(e) && text.len() > e.len())
        || text.contains('/') && (text.ends_with('/') || tree.has(first) && !first.contains('.'))
}

/// Whether some path is, or ends with, what a text says; a star stands for anything, braces for one of several.
fn exists(tree: &Tree, text: &str) -> bool {
    if let Some((before, rest)) = text.split_once('{')
        && let Some((inside, after)) = rest.split_once('}')
    {
        return inside.split(',').all(|one| exists(tree, &format!("{before}{one}{after}")));
    }
    let wanted: Vec<&str> = text.trim_end_matches('/').split('/').collect();
    let here = |path: &str| {
        let parts: Vec<&str> = path.split('/').collect();
        // Any folder on the way counts as a path of its own.
        (0..=parts.len().saturating_sub(wanted.len())).any(|at| {
            parts.len() >= at + wanted.len() && parts[at..].iter().zip(&wanted).all(|(p, w)| fits(p, w))
        })
    };
    NOT_HERE.contains(&text) || tree.paths().any(here)
}

/// Whether a name fits a pattern with stars.
fn fits(name: &str, pattern: &str) -> bool {
    let mut rest = name;
    for (i, part) in pattern.split("**").flat_map(|p| p.split('*')).enumerate() {
        match rest.find(part) {
            Some(0) if i == 0 => rest = &rest[part.len()..],
            Some(at) if i > 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    rest.is_empty() || pattern.ends_with('*')
}

/// What is wrong with a line, if it is a command.
fn command(tree: &Tree, commands: &Commands, line: &str) -> Vec<String> {
    let line = line.split(" #").next().unwrap_or_default();
    let words: Vec<&str> =
        line.split_whitespace().skip_while(|w| w.contains('=') && !w.starts_with('-')).collect();
    let Some((&first, rest)) = words.split_first() else { return Vec::new() };
    let unknown = |flag: &str| format!("'{line}' has {flag}, which is no flag");
    let mut out = Vec::new();
    if first == "ugatit" || first.ends_with("/ugatit") {
        // `a | b` and `a --flag x | y` give alternatives.
        for part in line.split('|') {
            let named: Vec<&str> = part.split_whitespace().filter(|w| *w != first).take(2).collect();
            let two = named.join(" ");
            let (one, known) = (named.first().copied().unwrap_or(""), commands.get(&two));
            match known.or_else(|| commands.get(one)) {
                Some(flags) => {
                    let all = spelt(part).into_iter().filter(|f| !flags.contains(*f)).map(unknown);
                    out.extend(all);
                }
                None if part == line || part.starts_with("ugatit") => {
                    let global = one.starts_with("--") && commands.get("").is_some_and(|f| f.contains(one));
                    if !global && !one.is_empty() {
                        out.push(format!("'{line}' has {one}, which is no command"));
                    }
                }
                None => {}
            }
        }
    } else if first == "cargo" {
        for pair in rest.windows(2) {
            let found = match pair[0] {
                "--bench" => tree.has(&format!("benches/{}.rs", pair[1])),
                "--test" => [format!("tests/{}.rs", pair[1]), format!("tests/{}/main.rs", pair[1])]
                    .iter()
                    .any(|p| tree.has(p)),
                "--example" => tree.paths().any(|p| p.ends_with(&format!("examples/{}.rs", pair[1]))),
                "-p" => pair[1] == "ugatit" || tree.has(&format!("crates/{}/Cargo.toml", pair[1])),
                "suite" => module(tree, "tests/suite", pair[1]),
                "--lib" => module(tree, "src", pair[1]),
                _ => true,
            };
            if !found {
                out.push(format!("'{line}' has {} {}, which does not exist", pair[0], pair[1]));
            }
        }
    } else if tree.text(first).is_some_and(|script| script.starts_with("#!")) {
        let script = tree.text(first).unwrap_or_default();
        let flags: BTreeSet<&str> = spelt(script).into_iter().collect();
        // What a script does not take it hands to a command.
        let handed = |flag: &&str| commands.values().any(|c| c.contains(*flag));
        out.extend(spelt(line).into_iter().filter(|f| !flags.contains(f) && !handed(f)).map(unknown));
    } else if first.starts_with("--") {
        let known = |flag: &str| {
            commands.values().any(|c| c.contains(flag))
                || tree.texts(|name| name.starts_with("scripts/")).any(|(_, t)| spelt(t).contains(&flag))
        };
        out.extend(spelt(line).into_iter().filter(|f| !known(f)).map(unknown));
    }
    out
}

/// Whether the modules that a test filter names exist below a folder; what is no filter is fine.
fn module(tree: &Tree, root: &str, filter: &str) -> bool {
    let Some(path) = filter.strip_suffix("::").or_else(|| filter.contains("::").then_some(filter)) else {
        return true;
    };
    let path = format!("{root}/{}", path.replace("::", "/"));
    tree.has(&path) || tree.has(&format!("{path}.rs"))
}

/// Whether the changelog says what the version brings.
pub fn version_is_described(tree: &Tree) -> bool {
    let manifest = tree.text("Cargo.toml").unwrap_or_default();
    let version = manifest.lines().find_map(|l| l.strip_prefix("version = \"")?.strip_suffix('"'));
    let heading = format!("## [{}]", version.unwrap_or("none"));
    tree.text("CHANGELOG.md").is_some_and(|log| log.lines().any(|l| l.starts_with(&heading)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(document: &str) -> String {
        let tree = Tree::of(&[
            ("README.md", document),
            ("src/a/b.rs", ""),
            ("tests/suite/main.rs", ""),
            ("tests/suite/ops.rs", ""),
            ("benches/engine.rs", ""),
            ("crates/ptx/examples/race.rs", ""),
            ("crates/ptx/Cargo.toml", ""),
            ("scripts/do.sh", "#!/bin/sh\n# --force\n"),
        ]);
        let train: BTreeSet<String> = ["--size".to_owned(), "--help".to_owned()].into();
        let commands = Commands::from([
            (String::new(), ["--help".to_owned()].into()),
            ("train".into(), train.clone()),
            ("bench".into(), BTreeSet::new()),
            ("bench adalin".into(), ["--readme".to_owned()].into()),
        ]);
        missing(&tree, &commands).join("; ")
    }

    #[test]
    fn paths_that_exist_are_fine_and_others_are_named() {
        for good in [
            "`src/a/b.rs`, `a/b.rs`, `b.rs`, `src/a/`, `src/*/b.rs`, `src/{a,a}/b.rs`, `losses.csv`",
            "[this](README.md#there), [that](https://example.org/x.md), [here](#here), [it](src/a)",
            "`a + b`, `x.y`, `1/sigma`, `image/A/1`, `n/2`, `...`",
        ] {
            assert_eq!(told(good), "", "{good}");
        }
        for bad in ["`src/cli.rs`", "`src/c/`", "`c.rs`", "`src/*/c.rs`", "`src/{a,c}/b.rs`", "`tests/none`"]
        {
            assert!(told(bad).starts_with("README.md names "), "{bad}");
        }
        assert_eq!(told("[this](src/none.rs)"), "README.md links to src/none.rs");
    }

    #[test]
    fn commands_that_exist_are_fine_and_others_are_named() {
        for good in [
            "    ugatit train DATA --size 8 # --none\n    ugatit bench adalin --readme\n    ugatit --help",
            "    ugatit train \\\n        --size 8",
            "`ugatit train … --size 1 | 2`, `ugatit train | bench`, `--size 5`, `scripts/do.sh --force --size 3`",
            "    X=1 cargo test --test suite ops::\n    cargo bench --bench engine\n    cargo run --example race -p ptx",
            "```\ncargo test --lib a::b\n```",
            "    scripts/do.sh ops",
        ] {
            assert_eq!(told(good), "", "{good}");
        }
        for bad in [
            "    ugatit fly",
            "    ugatit train --readme",
            "    ugatit train \\\n        --readme",
            "`ugatit bench adalin --size`",
            "`--none`",
            "    X=1 cargo test --test none",
            "    cargo test --test suite conv::",
            "    cargo test --lib a::c",
            "    cargo bench --bench none",
            "    cargo run --example saxpy -p ptx",
            "    cargo run --example race -p none",
            "    scripts/do.sh --slow",
        ] {
            assert!(told(bad).starts_with("README.md: '"), "{bad}");
        }
    }

    #[test]
    fn a_version_has_its_entry() {
        let of = |version: &str| {
            let manifest = format!("[package]\nversion = \"{version}\"\n");
            version_is_described(&Tree::of(&[
                ("Cargo.toml", &manifest),
                ("CHANGELOG.md", "# C\n\n## [0.1.0] - x\n"),
            ]))
        };
        assert!(of("0.1.0") && !of("0.2.0"));
    }
}
