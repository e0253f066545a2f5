//! What a benchmark leaves: records as JSON, one schema for this program and for `benches/torch_adalin.py`;
//! the tables made of them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// One pass of one rung on one shape.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Record {
    /// `ugatit` or `torch`.
    pub source: String,
    /// The GPU, or `emulator`.
    pub device: String,
    /// `2026-01-31`.
    pub date: String,
    /// Of this repository.
    pub commit: String,
    /// `adalin`, `iln`, `in`.
    pub kind: String,
    /// The rung; of torch `eager`, `composed`, `compiled`.
    pub rung: String,
    /// `f32`, `f16`, `bf16`.
    pub dtype: String,
    /// Images, height, width, channels.
    pub shape: [usize; 4],
    /// `forward` or `backward`.
    pub pass: String,
    /// `norm`, or `norm, relu, pad` where one launch does all of it.
    pub work: String,
    /// Fewest bytes to move: forward the input in, the output out; backward both gradients and the input.
    pub least_bytes: u64,
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
    /// Bytes of the last launch alone, which in the fused rungs is the pass that writes the result.
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
    /// The least bytes over that time.
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

/// Today, in UTC.
pub fn today() -> String {
    let days = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() / 86400) as i64;
    // Civil date of a day number (Howard Hinnant's algorithm).
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The commit of the working folder, with `+` where it has changes; `unknown` without git.
pub fn commit() -> String {
    let git = |args: &[&str]| -> Option<String> {
        let out = std::process::Command::new("git").args(args).output().ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let Some(hash) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty());
    if changed { hash + "+" } else { hash }
}

/// Writes records as a JSON list.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, records: &[Record]) -> Result<()> {
    let mut text = String::from("[\n");
    for (i, record) in records.iter().enumerate() {
        let line = serde_json::to_string(record).map_err(|e| Error::new(format!("writing records: {e}")))?;
        text += if i == 0 { "  " } else { ",\n  " };
        text += &line;
    }
    text += "\n]\n";
    std::fs::write(path, text).map_err(|e| Error::new(format!("cannot write {}: {e}", path.display())))
}

/// Reads such a list.
///
/// # Errors
/// When the file cannot be read, or is none.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::new(format!("cannot read {}: {e}", path.display())))?;
    serde_json::from_str(&text)
        .map_err(|e| Error::new(format!("{}: no benchmark records: {e}", path.display())))
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
        records.extend(read(&path)?);
    }
    Ok(records)
}

/// The start of what [`into_readme`] replaces.
pub const BEGIN: &str = "<!-- adalin benchmark: written by `ugatit bench adalin --readme` -->";
/// Its end.
pub const END: &str = "<!-- end of adalin benchmark -->";

/// Puts tables of the records between the markers of a README.
///
/// # Errors
/// When it has no markers.
pub fn into_readme(readme: &str, records: &[Record]) -> Result<String> {
    let found = readme.find(BEGIN).zip(readme.find(END)).filter(|(b, e)| b < e);
    let Some((begin, end)) = found else {
        return Err(Error::new("the README has no place for the benchmark")
            .hint(format!("put these two lines where it belongs: {BEGIN} and {END}")));
    };
    Ok(format!("{}{BEGIN}\n\n{}\n{}", &readme[..begin], markdown(records), &readme[end..]))
}

/// `1x64x64x256`.
pub fn shape_text(shape: [usize; 4]) -> String {
    shape.map(|v| v.to_string()).join("x")
}

/// Tables in Markdown: times first, then counts. Nothing stands in for what nobody measured.
pub fn markdown(records: &[Record]) -> String {
    let mut text = String::new();
    let timed: Vec<&Record> = records.iter().filter(|r| r.time.is_some()).collect();
    if !timed.is_empty() {
        text += "| pass | layer | type | shape | rung | regime | launch | µs | GB/s | % of copy | device | date | commit |\n";
        text += "|---|---|---|---|---|---|---|--:|--:|--:|---|---|---|\n";
        for r in timed {
            let t = r.time.as_ref().expect("filtered");
            let share = 100.0 * t.gb_per_s / t.copy_gb_per_s;
            _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} {} | {} | {} | {:.1} | {:.0} | {} | {} | {} | {} |",
                r.pass,
                r.kind,
                r.dtype,
                shape_text(r.shape),
                r.source,
                r.rung,
                t.regime,
                t.mode,
                t.microseconds,
                t.gb_per_s,
                if t.regime == "rotated" { format!("{share:.0}") } else { String::new() },
                r.device,
                r.date,
                r.commit
            );
        }
        text += "\n";
    }
    let counted: Vec<&Record> = records.iter().filter(|r| r.counts.is_some()).collect();
    if !counted.is_empty() {
        text += "Counts of the emulator, no time. *Moved* is what threads ask for and give, over the least possible: \
                 input in and output out; backward both gradients and the input. Threads of the unfused rungs ask for \
                 their mean, gamma and the like each time, which a GPU's caches serve: of the tensor itself they \
                 move 23 and 76 passes (elementary), 11 and 27 (composed).\n\n";
        text += "| pass | layer | type | shape | rung | launches | MB moved | x least | instructions a value | bank conflicts | device | date | commit |\n";
        text += "|---|---|---|---|---|--:|--:|--:|--:|--:|---|---|---|\n";
        for r in counted {
            let c = r.counts.as_ref().expect("filtered");
            let values = r.shape.iter().product::<usize>() as f64;
            _ = writeln!(
                text,
                "| {} | {} | {} | {} | {}{} | {} | {:.1} | {:.2} | {:.1} | {} | {} | {} | {} |",
                r.pass,
                r.kind,
                r.dtype,
                shape_text(r.shape),
                r.rung,
                if r.work == "norm" { String::new() } else { format!(" ({})", r.work) },
                c.launches,
                c.moved() as f64 / 1e6,
                c.moved() as f64 / r.least_bytes as f64,
                c.warp_instructions as f64 * 32.0 / values,
                c.bank_conflicts,
                r.device,
                r.date,
                r.commit
            );
        }
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What the tests of this module and of the chart start from.
    pub fn record(rung: &str) -> Record {
        Record {
            source: "ugatit".into(),
            device: "emulator".into(),
            date: "2026-01-31".into(),
            commit: "abc".into(),
            kind: "adalin".into(),
            rung: rung.into(),
            dtype: "f32".into(),
            shape: [1, 2, 3, 4],
            pass: "forward".into(),
            work: "norm".into(),
            least_bytes: 192,
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
        let once = into_readme(&readme, &[record("fused")]).unwrap();
        assert!(once.starts_with("before\n") && once.ends_with("\nafter\n") && !once.contains("old"));
        assert!(once.contains("| 1.50 |"), "{once}");
        assert_eq!(into_readme(&once, &[record("fused")]).unwrap(), once);
        assert!(into_readme("no markers", &[]).unwrap_err().hint_text().is_some());
    }

    #[test]
    fn records_survive_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adalin-x.json");
        let records = vec![record("fused"), record("composed")];
        write(&path, &records).unwrap();
        assert_eq!(read(&path).unwrap(), records);
        assert_eq!(read_folder(folder.path()).unwrap(), records);
    }

    #[test]
    fn a_date_reads_as_one() {
        let today = today();
        assert_eq!(today.len(), 10, "{today}");
        assert!(*today > *"2025-01-01");
    }
}
