//! No circles of files: what a file names of others, over `use` lines and over paths written out.
//!
//! A name is followed through the modules that only pass it on, so that a parent which re-exports from its children
//! depends on them and they do not depend on it, unless they use what it defines itself.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree};

use crate::tree::Tree;

type Path = Vec<String>;

/// One module: its file, what it defines and what it takes from elsewhere.
#[derive(Default)]
struct Module {
    file: String,
    defined: BTreeSet<String>,
    /// Names that `use` lines bring, with their paths.
    uses: BTreeMap<String, Path>,
    globs: Vec<Path>,
    /// Paths in expressions, types and macros.
    mentioned: BTreeSet<Path>,
}

/// The modules of one crate, by their paths from its root.
struct Modules<'t> {
    tree: &'t Tree,
    all: BTreeMap<Path, Module>,
}

/// Files, each with the files that it names.
pub type Edges = BTreeMap<String, BTreeSet<String>>;

/// What the files of the crate with that root name of each other.
pub fn edges(tree: &Tree, root: &str) -> Edges {
    let mut modules = Modules { tree, all: BTreeMap::new() };
    modules.load(root, Path::new());
    modules.edges()
}

/// The groups of files that can reach each other, with the arrows inside.
pub fn circles(edges: &Edges) -> Vec<String> {
    let reach = |from: &str| {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut next: Vec<&str> = vec![from];
        while let Some(file) = next.pop() {
            for to in edges.get(file).into_iter().flatten() {
                if seen.insert(to) {
                    next.push(to);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = edges.keys().map(|f| (f.as_str(), reach(f))).collect();
    let mut told: BTreeSet<&str> = BTreeSet::new();
    let mut out = Vec::new();
    for (file, far) in &reached {
        if !far.contains(file) || told.contains(file) {
            continue;
        }
        let ring: BTreeSet<&str> =
            far.iter().copied().filter(|f| reached.get(f).is_some_and(|r| r.contains(file))).collect();
        told.extend(&ring);
        let arrows: Vec<String> = ring
            .iter()
            .flat_map(|a| {
                edges[*a].iter().filter(|b| ring.contains(b.as_str())).map(move |b| format!("    {a} -> {b}"))
            })
            .collect();
        out.push(format!("{} files in a circle:\n{}", ring.len(), arrows.join("\n")));
    }
    out
}

/// Whether an item is compiled for tests only.
pub fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("cfg") && a.meta.to_token_stream().to_string().contains("test")
            || a.path().is_ident("test")
    })
}

pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Macro(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::Type(i) => &i.attrs,
        Item::Union(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        _ => &[],
    }
}

fn name(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(i) => i.ident.to_string(),
        Item::Enum(i) => i.ident.to_string(),
        Item::Fn(i) => i.sig.ident.to_string(),
        Item::Macro(i) => i.ident.as_ref()?.to_string(),
        Item::Static(i) => i.ident.to_string(),
        Item::Struct(i) => i.ident.to_string(),
        Item::Trait(i) => i.ident.to_string(),
        Item::Type(i) => i.ident.to_string(),
        Item::Union(i) => i.ident.to_string(),
        _ => return None,
    })
}

/// `folder` of the modules that a file declares: a root or `mod.rs` has them beside itself, any other file below.
fn children_folder(file: &str) -> String {
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    match name {
        "lib.rs" | "main.rs" | "mod.rs" | "build.rs" => folder.to_owned(),
        _ => format!("{folder}/{}", name.trim_end_matches(".rs")),
    }
}

impl Modules<'_> {
    fn load(&mut self, file: &str, path: Path) {
        let text = self.tree.text(file).unwrap_or_else(|| panic!("{file} is declared and missing"));
        let parsed = syn::parse_file(text).unwrap_or_else(|e| panic!("{file} cannot be parsed: {e}"));
        self.fill(file, path, parsed.items, &children_folder(file));
    }

    fn fill(&mut self, file: &str, path: Path, items: Vec<Item>, folder: &str) {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        for item in items.into_iter().filter(|i| !is_test(attributes(i))) {
            if let Item::Mod(inner) = item {
                let mut below = path.clone();
                below.push(inner.ident.to_string());
                match inner.content {
                    Some((_, items)) => self.fill(file, below, items, &format!("{folder}/{}", inner.ident)),
                    None => {
                        let candidates = [
                            format!("{folder}/{}.rs", inner.ident),
                            format!("{folder}/{}/mod.rs", inner.ident),
                        ];
                        let found =
                            candidates.iter().map(|c| c.trim_start_matches('/')).find(|c| self.tree.has(c));
                        // What a build script includes from elsewhere by `#[path]` is a crate of its own.
                        if let Some(found) = found {
                            self.load(found, below);
                        }
                    }
                }
                continue;
            }
            module.defined.extend(name(&item));
            let mut found = Uses(&mut module);
            found.visit_item(&item);
            if !matches!(item, Item::Use(_)) {
                mentions(item.to_token_stream(), &mut module.mentioned);
            }
        }
        self.all.insert(path, module);
    }

    fn edges(&self) -> Edges {
        let mut edges = Edges::new();
        for (path, module) in &self.all {
            let from = edges.entry(module.file.clone()).or_default();
            for named in module.uses.values().chain(&module.mentioned) {
                from.extend(self.file_of(path, named, 0));
            }
            for glob in &module.globs {
                let whole = self.module_of(path, glob).and_then(|m| self.all.get(&m));
                from.extend(whole.filter(|m| !m.defined.is_empty()).map(|m| m.file.clone()));
            }
            from.remove(&module.file);
        }
        edges
    }

    /// The file that defines what a path names; none for a module, and for what lies outside the crate.
    fn file_of(&self, at: &Path, named: &[String], depth: usize) -> Option<String> {
        let (mut here, mut rest) = self.start(at, named)?;
        if depth > 16 {
            return None;
        }
        loop {
            let (first, others) = rest.split_first()?;
            let mut below = here.clone();
            below.push(first.clone());
            if self.all.contains_key(&below) {
                (here, rest) = (below, others);
                continue;
            }
            let module = self.all.get(&here)?;
            if module.defined.contains(first) {
                return Some(module.file.clone());
            }
            if let Some(to) = module.uses.get(first) {
                let further: Path = to.iter().chain(others).cloned().collect();
                return self.file_of(&here, &further, depth + 1);
            }
            return module.globs.iter().find_map(|glob| {
                let whole = self.module_of(&here, glob)?;
                let further: Path = ["crate".to_owned()].iter().chain(&whole).chain(rest).cloned().collect();
                self.file_of(&here, &further, depth + 1)
            });
        }
    }

    /// The module that a path names.
    fn module_of(&self, at: &Path, named: &[String]) -> Option<Path> {
        let (mut here, rest) = self.start(at, named)?;
        here.extend(rest.iter().cloned());
        self.all.contains_key(&here).then_some(here)
    }

    /// Where a path begins, and what is left of it.
    fn start<'p>(&self, at: &Path, named: &'p [String]) -> Option<(Path, &'p [String])> {
        let mut here = at.clone();
        let mut rest = named;
        match named.first()?.as_str() {
            "crate" => (here, rest) = (Path::new(), &named[1..]),
            "self" => rest = &named[1..],
            "super" => {
                while rest.first().is_some_and(|s| s == "super") {
                    here.pop()?;
                    rest = &rest[1..];
                }
            }
            first => {
                let module = self.all.get(at)?;
                let below: Path = at.iter().cloned().chain([first.to_owned()]).collect();
                let known = self.all.contains_key(&below) || module.uses.contains_key(first);
                // A path through a name of this file itself leads nowhere else.
                if !known {
                    return None;
                }
            }
        }
        Some((here, rest))
    }
}

/// Gathers `use` lines, those inside functions too.
struct Uses<'m>(&'m mut Module);

impl<'ast> Visit<'ast> for Uses<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, Path::new());
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }
}

impl Uses<'_> {
    fn tree(&mut self, tree: &UseTree, mut path: Path) {
        let mut bring = |name: String, path: Path| {
            // `use serde;` leads nowhere, and must not lead to itself.
            if path.len() > 1 {
                self.0.uses.insert(name, path);
            }
        };
        match tree {
            UseTree::Path(p) => {
                path.push(p.ident.to_string());
                self.tree(&p.tree, path);
            }
            UseTree::Name(n) if n.ident == "self" => {
                bring(path.last().cloned().unwrap_or_default(), path);
            }
            UseTree::Name(n) => {
                path.push(n.ident.to_string());
                bring(n.ident.to_string(), path);
            }
            UseTree::Rename(r) => {
                if r.ident != "self" {
                    path.push(r.ident.to_string());
                }
                bring(r.rename.to_string(), path);
            }
            UseTree::Group(g) => g.items.iter().for_each(|t| self.tree(t, path.clone())),
            UseTree::Glob(_) => self.0.globs.push(path),
        }
    }
}

/// Paths of two and more names among tokens: macros have no other structure.
fn mentions(tokens: TokenStream, out: &mut BTreeSet<Path>) {
    let mut path = Path::new();
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Punct(p) if p.as_char() == ':' => colons += 1,
            TokenTree::Ident(ident) => {
                if colons != 2 {
                    finish(&mut path, out);
                }
                path.push(ident.to_string());
                colons = 0;
            }
            other => {
                finish(&mut path, out);
                colons = 0;
                if let TokenTree::Group(group) = other {
                    mentions(group.stream(), out);
                }
            }
        }
    }
    finish(&mut path, out);
}

fn finish(path: &mut Path, out: &mut BTreeSet<Path>) {
    let path = std::mem::take(path);
    if path.len() > 1 {
        out.insert(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        circles(&edges(&Tree::of(files), "src/lib.rs"))
    }

    #[test]
    fn a_face_is_no_circle_and_a_parent_with_types_is() {
        let face = ("src/lib.rs", "mod a;\nmod b;\npub use a::A;\npub use b::B;");
        let child = ("src/b.rs", "use crate::A;\npub struct B(A);");
        assert!(found(&[face, ("src/a.rs", "pub struct A;"), child]).is_empty());
        let parent = ("src/lib.rs", "mod b;\npub use b::B;\npub struct A;");
        let told = found(&[parent, child]);
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("src/b.rs -> src/lib.rs") && told[0].contains("src/lib.rs -> src/b.rs"));
    }

    #[test]
    fn circles_are_seen_through_groups_parents_paths_and_macros() {
        let lib = ("src/lib.rs", "mod a;\nmod b;");
        let b = ("src/b.rs", "pub fn f() { super::a::g() }\npub struct B;");
        for a in [
            "use crate::{b::{self, B}};\npub fn g() -> B { B }",
            "pub fn g() { println!(\"{}\", crate::b::f()) }",
            "use super::b;\npub fn g() { b::f() }",
            "pub fn g() { use super::b::B as C; C; }",
            "use super::b::*;\npub fn g() { f() }",
        ] {
            assert_eq!(found(&[lib, ("src/a.rs", a), b]).len(), 1, "{a}");
        }
        for a in [
            "pub fn g() {}\n#[cfg(test)]\nmod tests { use crate::b::B; }",
            "use other::b::B;\npub fn g() -> B { B }",
            "pub fn g() {} // crate::b::f()",
        ] {
            assert!(found(&[lib, ("src/a.rs", a), b]).is_empty(), "{a}");
        }
    }

    #[test]
    fn names_are_followed_through_faces_in_folders() {
        let files = [
            ("src/lib.rs", "pub mod a;\npub mod c;"),
            ("src/a/mod.rs", "mod x;\npub use x::X;\nmod y;\npub use self::y::Y as Z;"),
            ("src/a/x.rs", "pub struct X;"),
            ("src/a/y.rs", "use super::X;\nuse crate::c::C;\npub struct Y(X, C);"),
        ];
        let with = |c: &'static str| {
            let mut all = files.to_vec();
            all.push(("src/c.rs", c));
            found(&all)
        };
        assert!(with("use crate::a::X;\npub struct C(X);").is_empty());
        assert_eq!(with("use crate::a::{X, Z};\npub struct C(X, Z);").len(), 1);
    }
}
