//! What a benchmark leaves: records as JSON, one schema for this program and for `benches/torch_adalin.py`;
//! the tables made of them.

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bench::record::{Origin, between, read};
use crate::tape::NormVariant;
use crate::{Error, Result};

/// One pass of one variant on one shape.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Record {
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// `adalin`, `iln`, `in`.
    pub kind: String,
    /// The variant; of torch `eager`, `composed`, `compiled`.
    pub variant: String,
    /// `f32`, `f16`, `bf16`.
    pub dtype: String,
    /// Images, height, width, channels.
    pub shape: [usize; 4],
    /// `forward` or `backward`.
    pub pass: String,
    /// `norm`, or `norm, relu, pad` where one launch does all of it.
    pub work: String,
    /// Bytes at least: forward the input in, the output out; backward both gradients and the input.
    #[serde(rename = "least_bytes")]
    pub minimum_traffic: u64,
    /// What the emulator counted. Counts, not time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// What a GPU's events measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// Counts of one pass, all its launches together.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Counts {
    /// Kernel launches.
    pub launches: usize,
    /// Bytes that threads asked for from global memory.
    pub read_bytes: u64,
    /// Bytes that threads gave to global memory.
    pub written_bytes: u64,
    /// 32-byte sectors read, summed over warp accesses.
    pub read_sectors: u64,
    /// The same, written.
    pub written_sectors: u64,
    /// Instructions issued by warps.
    pub warp_instructions: u64,
    /// Passes through shared memory beyond those a conflict-free access takes.
    pub bank_conflicts: u64,
    /// Bytes of the last launch alone, which in the fused variants is the pass that writes the result.
    pub last_launch_bytes: u64,
}

/// Device time of one pass.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Time {
    /// `warm`: the same buffers over and over, in the L2 if they fit; `rotated`: buffers of more than
    /// 256 MiB in turn.
    pub regime: String,
    /// `stream` or `graph`.
    pub mode: String,
    /// Of one pass, the median of the samples.
    pub microseconds: f64,
    /// The minimum traffic over that time.
    pub gb_per_s: f64,
    /// What a copy reached in the same run, read and written bytes together.
    pub copy_gb_per_s: f64,
}

impl Counts {
    /// Bytes read and written.
    pub fn moved(&self) -> u64 {
        self.read_bytes + self.written_bytes
    }
}

/// All records of a folder's `*.json` files that have `source`, `pass` and so on; the files in order of name.
///
/// # Errors
/// When the folder or a file of it cannot be read.
pub fn read_folder(folder: &Path) -> Result<Vec<Record>> {
    let entries = std::fs::read_dir(folder)
        .map_err(|e| Error::new(format!("cannot read {}: {e}", folder.display())))?;
    let mut paths: Vec<_> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    paths.retain(|p| {
        let name = p.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.starts_with("adalin-") && name.ends_with(".json")
    });
    paths.sort();
    let mut records = Vec::new();
    for path in paths {
        records.extend(read::<Record>(&path)?);
    }
    Ok(records)
}

/// The start of what [`into_readme`] replaces.
pub const BEGIN: &str = "<!-- adalin benchmark: written by `ugatit bench adalin`, not by hand -->";
/// Its end.
pub const END: &str = "<!-- end of adalin benchmark -->";

/// The chart that [`into_readme`] shows, as the README names it.
pub const CHART: &str = "docs/adalin.svg";

/// Puts the chart and a table of the records between the markers of a README.
///
/// # Errors
/// When it has no markers.
pub fn into_readme(readme: &str, records: &[Record], predicted: &[Option<f64>]) -> Result<String> {
    between(readme, [BEGIN, END], &summary(records, predicted))
}

/// `1x64x64x256`.
pub fn shape_text(shape: [usize; 4]) -> String {
    shape.map(|v| v.to_string()).join("x")
}

/// Kind, type and shape, as three cells.
fn layer(r: &Record) -> String {
    format!("{} | {} | {}", r.kind, r.dtype, shape_text(r.shape))
}

/// Where and when it was measured, and of which commit, as three cells.
fn made(r: &Record) -> String {
    format!("{} | {} | {}", r.origin.device, r.origin.date, r.origin.commit)
}

/// What counts are of.
fn counted_text() -> String {
    let [[forward, backward], [composed_forward, composed_backward]] =
        [NormVariant::Elementary, NormVariant::Composed].map(NormVariant::passes);
    format!(
        "Counts of the emulator, no time. *Traffic* is what threads ask for and give, over the minimum: \
         input in and output out; backward both gradients and the input. Threads of the unfused variants ask for \
         their mean, gamma and the like each time, which a GPU's caches serve: of the tensor itself they \
         move {forward} and {backward} passes (elementary), {composed_forward} and {composed_backward} (composed)."
    )
}

/// The chart, and folded below it a row for each variant, shape and type: forward / backward. Times are those inside a
/// graph; `markdown` has the others too. Nothing stands in for what nobody measured. `predicted` has the predicted time
/// of each record, where there is one.
pub fn summary(records: &[Record], predicted: &[Option<f64>]) -> String {
    let key = |r: &Record| {
        let of_layer = (r.kind.clone(), r.shape, r.dtype.clone(), r.work.clone());
        (
            r.origin.source.clone(),
            r.variant.clone(),
            of_layer,
            r.origin.device.clone(),
            r.origin.date.clone(),
            r.origin.commit.clone(),
        )
    };
    type Row<'a> = Vec<(&'a Record, Option<f64>)>;
    let mut rows: Vec<(_, Row)> = Vec::new();
    for (r, &us) in records.iter().zip(predicted) {
        match rows.iter_mut().find(|row| row.0 == key(r)) {
            Some(row) => row.1.push((r, us)),
            None => rows.push((key(r), vec![(r, us)])),
        }
    }
    // Forward / backward of some figure; a dash where nobody measured it.
    let figures = |row: &Row, figure: &dyn Fn(&Record, Option<f64>) -> Option<String>| -> String {
        ["forward", "backward"]
            .map(|pass| {
                let found = row.iter().filter(|(r, _)| r.pass == pass).find_map(|(r, us)| figure(r, *us));
                found.unwrap_or_else(|| "–".into())
            })
            .join(" / ")
    };
    let both = |row: &Row, figure: &dyn Fn(&Record) -> Option<String>| figures(row, &|r, _| figure(r));
    let name = |r: &Record| {
        let source =
            if r.origin.source == "ugatit" { String::new() } else { format!("{} ", r.origin.source) };
        let work = if r.work == "norm" { String::new() } else { format!(" ({})", r.work) };
        format!("{source}{}{work}", r.variant)
    };
    let (first, end) = ("layer | type | shape | variant", "device | date | commit");
    let place = |r: &Record| format!("{} | {}", layer(r), name(r));

    let mut text = format!(
        "![the chart of the figures below]({CHART})\n\n<details><summary>The figures, forward / backward</summary>\n\n"
    );
    let timed = |r: &Record, regime: &str| r.time.clone().filter(|t| t.mode == "graph" && t.regime == regime);
    if records.iter().any(|r| r.time.is_some()) {
        _ = writeln!(
            text,
            "| {first} | µs, L2-warm | predicted | measured / predicted | µs, rotated | predicted | measured / predicted | GB/s, rotated | % of copy | {end} |"
        );
        text += "|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|---|---|\n";
        for (_, row) in rows.iter().filter(|(_, row)| row.iter().any(|(r, _)| r.time.is_some())) {
            let [warm, rotated] = ["warm", "rotated"].map(|regime| {
                let measured = both(row, &|r| Some(format!("{:.1}", timed(r, regime)?.microseconds)));
                let predicted = figures(row, &|r, us| {
                    timed(r, regime)?;
                    Some(format!("{:.1}", us?))
                });
                let ratio =
                    figures(row, &|r, us| Some(format!("{:.2}", timed(r, regime)?.microseconds / us?)));
                format!("{measured} | {predicted} | {ratio}")
            });
            let speed = both(row, &|r| Some(format!("{:.0}", timed(r, "rotated")?.gb_per_s)));
            let share = both(row, &|r| {
                let t = timed(r, "rotated")?;
                Some(format!("{:.0}", 100.0 * t.gb_per_s / t.copy_gb_per_s))
            });
            _ = writeln!(
                text,
                "| {} | {warm} | {rotated} | {speed} | {share} | {} |",
                place(row[0].0),
                made(row[0].0)
            );
        }
        text += "\n";
    }
    if records.iter().any(|r| r.counts.is_some()) {
        _ = writeln!(text, "{}\n", counted_text());
        _ = writeln!(
            text,
            "| {first} | launches | traffic, MB | × minimum | instructions a value | bank conflicts | {end} |"
        );
        text += "|---|---|---|---|--:|--:|--:|--:|--:|---|---|---|\n";
        for (_, row) in rows.iter().filter(|(_, row)| row.iter().any(|(r, _)| r.counts.is_some())) {
            let counted = |figure: &dyn Fn(&Record, &Counts) -> String| {
                both(row, &|r| r.counts.as_ref().map(|c| figure(r, c)))
            };
            _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} |",
                place(row[0].0),
                counted(&|_, c| c.launches.to_string()),
                counted(&|_, c| format!("{:.1}", c.moved() as f64 / 1e6)),
                counted(&|r, c| format!("{:.2}", c.moved() as f64 / r.minimum_traffic as f64)),
                counted(&|r, c| {
                    let values = r.shape.iter().product::<usize>() as f64;
                    format!("{:.1}", c.warp_instructions as f64 * 32.0 / values)
                }),
                counted(&|_, c| c.bank_conflicts.to_string()),
                made(row[0].0)
            );
        }
        text += "\n";
    }
    text + "</details>\n"
}

/// Tables in Markdown: times first, then counts. Nothing stands in for what nobody measured. `predicted` as in [`summary`].
pub fn markdown(records: &[Record], predicted: &[Option<f64>]) -> String {
    let mut text = String::new();
    let timed: Vec<_> = records.iter().zip(predicted).filter(|(r, _)| r.time.is_some()).collect();
    if !timed.is_empty() {
        text += "| pass | layer | type | shape | variant | regime | launch | µs | predicted | measured / predicted | GB/s | % of copy | device | date | commit |\n";
        text += "|---|---|---|---|---|---|---|--:|--:|--:|--:|--:|---|---|---|\n";
        for (r, us) in timed {
            let t = r.time.as_ref().expect("filtered");
            let share = 100.0 * t.gb_per_s / t.copy_gb_per_s;
            _ = writeln!(
                text,
                "| {} | {} | {} {} | {} | {} | {:.1} | {} | {} | {:.0} | {} | {} |",
                r.pass,
                layer(r),
                r.origin.source,
                r.variant,
                t.regime,
                t.mode,
                t.microseconds,
                us.map_or("–".into(), |us| format!("{us:.1}")),
                us.map_or("–".into(), |us| format!("{:.2}", t.microseconds / us)),
                t.gb_per_s,
                if t.regime == "rotated" { format!("{share:.0}") } else { String::new() },
                made(r)
            );
        }
        text += "\n";
    }
    let counted: Vec<&Record> = records.iter().filter(|r| r.counts.is_some()).collect();
    if !counted.is_empty() {
        _ = writeln!(text, "{}\n", counted_text());
        text += "| pass | layer | type | shape | variant | launches | traffic, MB | × minimum | instructions a value | bank conflicts | device | date | commit |\n";
        text += "|---|---|---|---|---|--:|--:|--:|--:|--:|---|---|---|\n";
        for r in counted {
            let c = r.counts.as_ref().expect("filtered");
            let values = r.shape.iter().product::<usize>() as f64;
            _ = writeln!(
                text,
                "| {} | {} | {}{} | {} | {:.1} | {:.2} | {:.1} | {} | {} |",
                r.pass,
                layer(r),
                r.variant,
                if r.work == "norm" { String::new() } else { format!(" ({})", r.work) },
                c.launches,
                c.moved() as f64 / 1e6,
                c.moved() as f64 / r.minimum_traffic as f64,
                c.warp_instructions as f64 * 32.0 / values,
                c.bank_conflicts,
                made(r)
            );
        }
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::record::write;

    /// Of a day in January.
    pub fn origin(source: &str, device: &str) -> Origin {
        let [source, device, date, commit] = [source, device, "2026-01-31", "abc"].map(str::to_owned);
        Origin { source, device, date, commit }
    }

    /// What the tests of this module and of the chart start from.
    pub fn record(variant: &str) -> Record {
        Record {
            origin: origin("ugatit", "emulator"),
            kind: "adalin".into(),
            variant: variant.into(),
            dtype: "f32".into(),
            shape: [1, 2, 3, 4],
            pass: "forward".into(),
            work: "norm".into(),
            minimum_traffic: 192,
            counts: Some(Counts {
                launches: 3,
                read_bytes: 192,
                written_bytes: 96,
                read_sectors: 6,
                written_sectors: 3,
                warp_instructions: 10,
                bank_conflicts: 0,
                last_launch_bytes: 192,
            }),
            time: None,
        }
    }

    #[test]
    fn a_readme_changes_between_the_markers_only() {
        let readme = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let once = into_readme(&readme, &[record("fused")], &[None]).unwrap();
        assert!(once.starts_with("before\n") && once.ends_with("\nafter\n") && !once.contains("old"));
        assert!(once.contains("| 1.50 / – |"), "{once}");
        assert!(once.contains("(docs/adalin.svg)"), "{once}");
        assert_eq!(into_readme(&once, &[record("fused")], &[None]).unwrap(), once);
        assert!(into_readme("no markers", &[], &[]).unwrap_err().hint_text().is_some());
    }

    #[test]
    fn a_summary_has_a_row_for_each_variant() {
        let backward = |variant| {
            let mut r = Record { pass: "backward".into(), minimum_traffic: 288, ..record(variant) };
            r.counts.as_mut().unwrap().launches = 14;
            r
        };
        let time = |regime: &str, microseconds| Time {
            regime: regime.into(),
            mode: "graph".into(),
            microseconds,
            gb_per_s: 400.0,
            copy_gb_per_s: 500.0,
        };
        let on_gpu = |regime, microseconds| Record {
            origin: origin("torch", "H100"),
            counts: None,
            time: Some(time(regime, microseconds)),
            ..record("eager")
        };
        let records = [
            record("fused"),
            record("composed"),
            backward("fused"),
            on_gpu("warm", 7.0),
            on_gpu("rotated", 9.5),
        ];
        let mut predicted = vec![None; records.len()];
        predicted[3] = Some(5.0);
        let text = summary(&records, &predicted);
        let rows: Vec<&str> = text.lines().filter(|l| l.starts_with("| adalin")).collect();
        assert_eq!(
            rows,
            [
                "| adalin | f32 | 1x2x3x4 | torch eager | 7.0 / – | 5.0 / – | 1.40 / – | 9.5 / – | – / – | – / – | 400 / – | 80 / – | H100 | 2026-01-31 | abc |",
                "| adalin | f32 | 1x2x3x4 | fused | 3 / 14 | 0.0 / 0.0 | 1.50 / 1.00 | 13.3 / 13.3 | 0 / 0 | emulator | 2026-01-31 | abc |",
                "| adalin | f32 | 1x2x3x4 | composed | 3 / – | 0.0 / – | 1.50 / – | 13.3 / – | 0 / – | emulator | 2026-01-31 | abc |",
            ],
            "{text}"
        );
    }

    #[test]
    fn records_survive_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adalin-x.json");
        let records = vec![record("fused"), record("composed")];
        write(&path, &records).unwrap();
        assert_eq!(read::<Record>(&path).unwrap(), records);
        assert_eq!(read_folder(folder.path()).unwrap(), records);
    }
}
