//! Files and functions that fit into a head.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::tree::Tree;

/// Lines of a file that is no flat table.
const FILE: usize = 700;
/// Lines of a function.
const FUNCTION: usize = 150;
/// What the first line of a longer file says.
const TABLE: &str = "flat table";
/// What a comment at a longer function says, before the reason.
const WHOLE: &str = "In one piece";

pub fn too_long(tree: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    for (name, text) in tree.rust() {
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > FILE && !lines[0].to_lowercase().contains(TABLE) {
            out.push(format!("{name} has {} lines, {FILE} are allowed", lines.len()));
        }
        let parsed = syn::parse_file(text).unwrap_or_else(|e| panic!("{name} cannot be parsed: {e}"));
        let mut functions = Functions(Vec::new());
        functions.visit_file(&parsed);
        for (function, first, last) in functions.0 {
            let length = last + 1 - first;
            if length > FUNCTION && !comment_above(&lines, first).contains(WHOLE) {
                out.push(format!("{name}:{first} {function} has {length} lines, {FUNCTION} are allowed"));
            }
        }
    }
    out
}

/// The comments and attributes right above a line that counts from 1.
fn comment_above(lines: &[&str], line: usize) -> String {
    let above = lines[..line - 1].iter().rev();
    let attached = above.take_while(|l| l.trim().starts_with("//") || l.trim().starts_with("#["));
    attached.copied().collect::<Vec<_>>().join("\n")
}

/// Names of functions with their first and last lines.
struct Functions(Vec<(String, usize, usize)>);

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        // A visibility in front stands on the same line.
        let first = signature.span().start().line;
        self.0.push((signature.ident.to_string(), first, block.span().end().line));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, f: &'ast syn::ItemFn) {
        self.add(&f.sig, &f.block);
        visit::visit_item_fn(self, f);
    }

    fn visit_impl_item_fn(&mut self, f: &'ast syn::ImplItemFn) {
        self.add(&f.sig, &f.block);
        visit::visit_impl_item_fn(self, f);
    }

    fn visit_trait_item_fn(&mut self, f: &'ast syn::TraitItemFn) {
        if let Some(block) = &f.default {
            self.add(&f.sig, block);
        }
        visit::visit_trait_item_fn(self, f);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_and_functions_need_a_reason() {
        let told = |text: &str| too_long(&Tree::of(&[("src/a.rs", text)])).join("; ");
        let function = |lines: usize| format!("pub fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
        assert_eq!(told(&function(150)), "");
        assert_eq!(told(&function(151)), "src/a.rs:1 f has 151 lines, 150 are allowed");
        let method = format!("struct A;\nimpl A {{\n    #[inline]\n{}}}", function(151));
        assert_eq!(told(&method), "src/a.rs:4 f has 151 lines, 150 are allowed");
        assert_eq!(
            told(&format!("/// F.\n// In one piece: it is inlined.\n#[inline]\n{}", function(200))),
            ""
        );
        assert_eq!(told(&"fn f() {}\n".repeat(700)), "");
        assert_eq!(told(&"fn f() {}\n".repeat(701)), "src/a.rs has 701 lines, 700 are allowed");
        assert_eq!(told(&format!("//! A flat table of f.\n{}", "fn f() {}\n".repeat(701))), "");
    }
}
