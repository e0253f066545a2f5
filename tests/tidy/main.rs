//! What STYLE.md asks for and a machine can see. Each check is tried on a small tree that breaks it, then on this one.

mod documents;
mod duplicates;
mod flags;
mod imports;
mod ladder;
mod sizes;
mod tree;
mod words;

use tree::Tree;

#[track_caller]
fn none(found: &[String]) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    let tree = Tree::of_repository();
    let is_root = |p: &&str| {
        ["src/lib.rs", "src/main.rs", "build.rs"].contains(p)
            || p.starts_with("crates/") && p.ends_with("/src/lib.rs")
    };
    let roots: Vec<&str> = tree.paths().filter(is_root).collect();
    assert!(roots.len() > 2);
    let found: Vec<String> =
        roots.iter().flat_map(|root| imports::circles(&imports::edges(&tree, root))).collect();
    none(&found);
}

#[test]
fn documents_name_what_exists() {
    let tree = Tree::of_repository();
    none(&documents::missing(&tree, &flags::commands()));
    assert!(
        documents::version_is_described(&tree),
        "CHANGELOG.md has no entry for the version of Cargo.toml"
    );
}

#[test]
fn only_the_command_line_knows_flags() {
    let commands = flags::commands();
    let known = commands.values().flatten().cloned().collect();
    none(&flags::outside(&Tree::of_repository(), &known));
}

#[test]
fn files_and_functions_are_short() {
    none(&sizes::too_long(&Tree::of_repository()));
}

#[test]
fn words_put_aside_do_not_come_back() {
    let tree = Tree::of_repository();
    let style = tree.text("STYLE.md").expect("STYLE.md exists");
    assert!(!words::put_aside(style).is_empty());
    let elsewhere = ["STYLE.md", "CHANGELOG.md"];
    let read = [".rs", ".cu", ".cuh", ".md", ".sh", ".py", ".css", ".js", ".toml"];
    let takes = |name: &str| {
        read.iter().any(|e| name.ends_with(e))
            && !elsewhere.contains(&name)
            && !name.starts_with("tests/tidy/")
    };
    none(&words::found(&tree, style, takes));
}

#[test]
fn the_ladder_is_that_of_the_kernels() {
    let stale = ladder::stale(&Tree::of_repository());
    assert!(
        stale.is_empty(),
        "\n{}\n`ugatit plan --ladder --write kernels/README.md` writes it anew",
        stale.join("\n")
    );
}

#[test]
fn no_six_lines_stand_twice() {
    let in_src =
        |name: &str| name.starts_with("src/") || name.starts_with("crates/") && name.contains("/src/");
    none(&duplicates::shared(&Tree::of_repository(), in_src));
}
