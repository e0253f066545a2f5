//! What a comparison found, as tables for people and as JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use crate::format::{self, Column, Table};

/// One tensor or number against its reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Its name in the file.
    pub name: String,
    /// How far it deviates, in the group's measure.
    pub deviation: f64,
    /// How far it may be.
    pub tolerance: f64,
    /// The largest absolute difference, where that says something.
    pub max_abs: f64,
    /// Elements in all.
    pub elements: usize,
    /// What went wrong, where no number says it.
    pub note: Option<String>,
}

impl Check {
    /// One number about a tensor.
    pub fn new(name: impl AsRef<str>, deviation: f64, tolerance: f64, max_abs: f64, elements: usize) -> Self {
        Self { name: name.as_ref().to_owned(), deviation, tolerance, max_abs, elements, note: None }
    }

    /// Whether the deviation is within the tolerance; NaN is not.
    pub fn passes(&self) -> bool {
        self.note.is_none() && self.deviation <= self.tolerance
    }

    /// Deviation over tolerance, for finding the worst; what is not a number comes last.
    fn badness(&self) -> f64 {
        let ratio = self.deviation / self.tolerance;
        if self.note.is_some() || ratio.is_nan() {
            // 0 of 0 allowed is perfect, not broken.
            if self.note.is_none() && self.deviation == 0.0 { 0.0 } else { f64::INFINITY }
        } else {
            ratio
        }
    }
}

/// Tensors of one kind, judged together and one by one.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What they are; the key in JSON.
    pub name: String,
    /// What the numbers mean.
    pub measure: &'static str,
    /// How far the group as a whole deviates.
    pub deviation: f64,
    /// How far it may be.
    pub tolerance: f64,
    /// Whether amplified rounding may relax the tolerances.
    pub relaxable: bool,
    /// Whether it did.
    pub relaxed: bool,
    /// Its tensors.
    pub checks: Vec<Check>,
}

impl Group {
    /// Tensors that were compared.
    pub fn new(
        name: impl AsRef<str>,
        measure: &'static str,
        deviation: f64,
        tolerance: f64,
        relaxable: bool,
        checks: Vec<Check>,
    ) -> Self {
        let name = name.as_ref().to_owned();
        Self { name, measure, deviation, tolerance, relaxable, relaxed: false, checks }
    }

    /// Whether the group and each of its tensors hold.
    pub fn passes(&self) -> bool {
        self.deviation <= self.tolerance && self.checks.iter().all(Check::passes)
    }

    /// The tensor that is nearest to its tolerance, or farthest beyond.
    pub fn worst(&self) -> Option<&Check> {
        // The first of equals: `max_by` would take the last.
        self.checks.iter().reduce(|a, b| if b.badness() > a.badness() { b } else { a })
    }

    /// Deviation over tolerance of the second worst tensor; None with fewer than two.
    pub fn second_worst(&self) -> Option<f64> {
        let mut ratios: Vec<f64> = self.checks.iter().map(Check::badness).collect();
        ratios.sort_by(|a, b| b.total_cmp(a));
        ratios.get(1).copied()
    }
}

/// What came of one file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileReport {
    /// The file, as it was named.
    pub file: String,
    /// `training run` or `operations`.
    pub kind: &'static str,
    /// In words: sizes and steps, or the number of cases.
    pub what: String,
    /// Things a person should know that are no failures.
    pub notes: Vec<String>,
    /// What was compared.
    pub groups: Vec<Group>,
    /// Wall-clock time.
    pub seconds: f64,
}

impl FileReport {
    /// Whether everything passes. A file in which nothing could be compared does not.
    pub fn passes(&self) -> bool {
        !self.groups.is_empty() && self.groups.iter().all(Group::passes)
    }

    /// The groups that do not hold.
    pub fn failing(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|g| !g.passes())
    }

    fn checks(&self) -> usize {
        self.groups.iter().map(|g| g.checks.len()).sum()
    }

    /// The table for people.
    pub fn text(&self, verbose: bool) -> String {
        let mut out = format!("{}: {}, {}\n", self.file, self.kind, self.what);
        let width = self.groups.iter().map(|g| g.name.chars().count()).max().unwrap_or(0).max(5);
        let measures = self.groups.iter().map(|g| g.measure.chars().count()).max().unwrap_or(0).max(7);
        let table = Table::new(
            2,
            [
                Column::left("group", width),
                Column::left("measure", measures),
                Column::right("deviation", 9),
                Column::right("tolerance", 9),
                Column::left("", 1).gap(0),
                Column::left("", 4).gap(1),
                Column::left("worst", 0),
            ],
        );
        out += &table.head();
        for g in &self.groups {
            let worst = g.worst().map_or_else(String::new, |c| match &c.note {
                Some(note) => format!("{}: {note}", c.name),
                None if g.checks.len() == 1 && c.deviation.to_bits() == g.deviation.to_bits() => {
                    c.name.clone()
                }
                None => format!(
                    "{} {} of {}",
                    c.name,
                    format::exponent(c.deviation),
                    format::exponent(c.tolerance)
                ),
            });
            out += &table.row([
                g.name.clone(),
                g.measure.to_owned(),
                format::exponent(g.deviation),
                format::exponent(g.tolerance),
                if g.relaxed { "*" } else { "" }.to_owned(),
                if g.passes() { "ok" } else { "FAIL" }.to_owned(),
                worst,
            ]);
        }
        for g in self.groups.iter().filter(|g| verbose || !g.passes()) {
            let mut listed: Vec<&Check> = g.checks.iter().filter(|c| verbose || !c.passes()).collect();
            if listed.is_empty() {
                continue;
            }
            listed.sort_by(|a, b| b.badness().total_cmp(&a.badness()));
            let most = if verbose { listed.len() } else { 8 };
            _ = writeln!(out, "  {}:", g.name);
            for c in listed.iter().take(most) {
                let what = match &c.note {
                    Some(note) => note.clone(),
                    None => format!(
                        "{} of {}, at most {} absolute, {} elements",
                        format::exponent(c.deviation),
                        format::exponent(c.tolerance),
                        format::exponent(c.max_abs),
                        c.elements
                    ),
                };
                _ = writeln!(out, "    {} {}: {what}", if c.passes() { "ok  " } else { "FAIL" }, c.name);
            }
            if listed.len() > most {
                _ = writeln!(out, "    and {} more", listed.len() - most);
            }
        }
        if self.groups.iter().any(|g| g.relaxed) {
            _ = writeln!(
                out,
                "  * relaxed: rounding is amplified here; runs with perturbed inputs deviate as far"
            );
        }
        for note in &self.notes {
            _ = writeln!(out, "  note: {note}");
        }
        let failing = self.failing().count();
        let verdict = match (self.groups.is_empty(), failing) {
            (true, _) => "nothing could be compared".to_owned(),
            (_, 0) => "pass".to_owned(),
            (_, n) => format!("{n} FAIL"),
        };
        _ = writeln!(
            out,
            "  {} groups, {} quantities in {:.1} s: {verdict}",
            self.groups.len(),
            self.checks(),
            self.seconds
        );
        out
    }

    /// For programs. A deviation that is not a number is null.
    pub fn json(&self) -> Json {
        let check = |c: &Check| {
            json!({
                "name": c.name, "deviation": c.deviation, "tolerance": c.tolerance, "max_abs": c.max_abs,
                "elements": c.elements, "pass": c.passes(), "note": c.note,
            })
        };
        let groups: Vec<Json> = self
            .groups
            .iter()
            .map(|g| {
                json!({
                    "name": g.name, "measure": g.measure, "deviation": g.deviation, "tolerance": g.tolerance,
                    "relaxed": g.relaxed, "pass": g.passes(), "quantities": g.checks.len(),
                    "worst": g.worst().map(check),
                    "failing": g.checks.iter().filter(|c| !c.passes()).map(check).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({
            "file": self.file, "kind": self.kind, "what": self.what, "pass": self.passes(),
            "seconds": self.seconds, "notes": self.notes, "groups": groups,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, deviation: f64, tolerance: f64) -> Check {
        Check::new(name, deviation, tolerance, deviation, 1)
    }

    fn report(checks: Vec<Check>) -> FileReport {
        let deviation = checks.iter().map(|c| c.deviation).fold(0.0, f64::max);
        let group = Group::new("losses", "relative", deviation, 1.0, false, checks);
        FileReport {
            file: "x".into(),
            kind: "training run",
            what: "1 step".into(),
            notes: vec![],
            groups: vec![group],
            seconds: 0.0,
        }
    }

    #[test]
    fn one_bad_tensor_fails_the_file_and_is_named() {
        let good = report(vec![check("a", 0.5, 1.0), check("b", 0.9, 1.0)]);
        assert!(good.passes());
        assert!(good.text(false).contains("pass") && good.text(false).contains("b 9.0e-1 of 1.0e0"));
        for bad in [f64::NAN, f64::INFINITY, 1.5] {
            let bad = report(vec![check("a", 0.5, 1.0), check("b", bad, 1.0), check("c", 0.9, 1.0)]);
            assert!(!bad.passes());
            assert_eq!(bad.groups[0].worst().unwrap().name, "b");
            assert!(bad.text(false).contains("FAIL") && bad.text(false).contains("1 FAIL"));
            assert_eq!(bad.json()["groups"][0]["failing"][0]["name"], "b");
        }
    }

    #[test]
    fn a_file_without_anything_to_compare_does_not_hold() {
        let empty = FileReport { groups: vec![], ..report(vec![]) };
        assert!(!empty.passes());
        assert!(empty.text(false).contains("nothing could be compared"));
    }

    #[test]
    fn no_elements_pass() {
        let c = check("a", 0.0, 0.0);
        assert!(c.passes() && c.badness() == 0.0);
    }
}
