//! The ladder of kernels/README.md is that of the kernels.

use ugatit::bench::ladder::{MARKERS, choices};

use crate::tree::Tree;

/// How the table differs from what the command would write; predicted times, which take a minute, are only read.
pub fn stale(tree: &Tree) -> Vec<String> {
    let document = tree.text("kernels/README.md").unwrap_or_default();
    let inside = document.split_once(MARKERS[0]).and_then(|(_, rest)| rest.split_once(MARKERS[1]));
    let Some((table, _)) = inside else { return vec!["kernels/README.md has no ladder".to_owned()] };
    let lines: Vec<&str> = table.lines().filter(|line| line.starts_with('|')).collect();
    let choices = choices();
    if lines.len() != choices.len() + 2 {
        return vec![format!(
            "the ladder has {} lines for {} choices of variants",
            lines.len(),
            choices.len()
        )];
    }
    let mut out = Vec::new();
    for (line, choice) in lines[2..].iter().zip(choices) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let now = choice.cells().expect("the official network plans");
        let [counted, times] = [&cells[..cells.len().min(5)], &cells[cells.len().min(5)..]];
        if counted != now {
            out.push(format!(
                "the ladder has '{}', but it is '{}' now",
                counted.join(" | "),
                now.join(" | ")
            ));
        }
        let columns = lines[0].matches('|').count() - 6;
        if times.len() != columns || !times.iter().all(|ms| ms.parse::<f64>().is_ok_and(|ms| ms > 0.0)) {
            out.push(format!("'{line}' has not {columns} times"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_other_kernels_is_found() {
        let here = Tree::of_repository();
        let text = here.text("kernels/README.md").expect("exists");
        let row = text.lines().find(|l| l.starts_with("| fused | implicit GEMM | f32 |")).expect("a row");
        let cells: Vec<&str> = row.split(" | ").collect();
        let of = |text: &str| stale(&Tree::of(&[("kernels/README.md", text)])).join("\n");
        assert_eq!(of(text), "");
        let fewer = row.replacen(cells[3], "7", 1);
        assert!(of(&text.replace(row, &fewer)).contains("implicit GEMM | f32 | 7 | "));
        assert!(of(&text.replace(row, &row.replace(cells[6], "fast"))).contains("has not 4 times"));
        assert!(of(&text.replace(&format!("{row}\n"), "")).contains("lines for"));
        assert_eq!(of("none"), "kernels/README.md has no ladder");
    }
}
