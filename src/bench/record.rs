//! What all benchmarks' records share: who measured what and when, their files, and their place in documents.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Where a record comes from.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Origin {
    /// `ugatit` or `torch`.
    pub source: String,
    /// The GPU, or `emulator`.
    pub device: String,
    /// `2026-01-31`.
    pub date: String,
    /// Of this repository.
    pub commit: String,
}

impl Origin {
    /// This program, now, on that device.
    pub fn here(device: String) -> Self {
        Self { source: "ugatit".to_owned(), device, date: today(), commit: commit() }
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
pub fn write<T: Serialize>(path: &Path, records: &[T]) -> Result<()> {
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
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::new(format!("cannot read {}: {e}", path.display())))?;
    serde_json::from_str(&text)
        .map_err(|e| Error::new(format!("{}: no benchmark records: {e}", path.display())))
}

/// The records of several such files, one after the other.
///
/// # Errors
/// As [`read`].
pub fn read_all<T: DeserializeOwned>(paths: &[PathBuf]) -> Result<Vec<T>> {
    let mut records = Vec::new();
    for path in paths {
        records.extend(read::<T>(path)?);
    }
    Ok(records)
}

/// Puts a text between two markers of a document, each of which stands there once.
///
/// # Errors
/// When it has no markers.
pub fn between(document: &str, [begin, end]: [&str; 2], text: &str) -> Result<String> {
    let found = document.find(begin).zip(document.find(end)).filter(|(b, e)| b < e);
    let Some((first, last)) = found else {
        return Err(Error::new("the document has no place for what is to be written")
            .hint(format!("put these two lines where it belongs: {begin} and {end}")));
    };
    Ok(format!("{}{begin}\n\n{text}\n{}", &document[..first], &document[last..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_reads_as_one() {
        let today = today();
        assert_eq!(today.len(), 10, "{today}");
        assert!(*today > *"2025-01-01");
    }
}
