//! The files that are checked: those of the repository, or a few that a test makes up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Texts by their path from the root of the repository.
pub struct Tree {
    files: BTreeMap<String, Option<String>>,
}

impl Tree {
    /// The files that git knows or would add.
    pub fn of_repository() -> Self {
        let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&root);
        let listed = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output();
        let names: Vec<String> = match listed {
            Ok(output) if output.status.success() => {
                String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
            }
            // Without git, as in an unpacked archive: what a clone has.
            _ => walk(root),
        };
        let read = |name: String| {
            let path = root.join(&name);
            path.is_file().then(|| (name, std::fs::read_to_string(path).ok()))
        };
        Self { files: names.into_iter().filter_map(read).collect() }
    }

    /// A tree of these texts.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), Some((*text).to_owned()));
        Self { files: files.iter().map(owned).collect() }
    }

    /// All paths, folders too.
    pub fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let below = format!("{path}/");
        self.files.contains_key(path)
            || self.files.range(below.clone()..).next().is_some_and(|(name, _)| name.starts_with(&below))
    }

    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.as_deref()
    }

    /// The texts whose path a condition takes.
    pub fn texts(&self, takes: impl Fn(&str) -> bool) -> impl Iterator<Item = (&str, &str)> {
        let texts = self.files.iter().filter_map(|(name, text)| Some((name.as_str(), text.as_deref()?)));
        texts.filter(move |(name, _)| takes(name))
    }

    /// The Rust sources.
    pub fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts(|name| name.ends_with(".rs"))
    }
}

fn walk(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(root.join(&folder)).into_iter().flatten().flatten();
        for entry in entries {
            let path = folder.join(entry.file_name());
            let skipped = ["target", ".git", ".nvrtc", "runs"].iter().any(|s| path.starts_with(s));
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !skipped => folders.push(path),
                Ok(kind) if kind.is_file() => found.extend(path.to_str().map(str::to_owned)),
                _ => {}
            }
        }
    }
    found
}
