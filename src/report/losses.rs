//! The table of losses of a run, `losses.csv`.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::write::cannot_write;
use crate::error::io_reason;
use crate::{Error, Result};

/// A growing table, one row a step: `step,lr,` and the losses by their names.
///
/// Numbers are written with as many digits as it takes to read the same f64 back (`NaN` and
/// `inf` where it comes to that).
pub struct LossTable {
    path: PathBuf,
    file: File,
    losses: usize,
}

impl LossTable {
    /// Opens the table at `path` for a run of which `done` steps are done, or makes a new one.
    ///
    /// Rows of later steps are cut off, for a run that is resumed does them again; rows up to
    /// `done` are never touched. So is a last row that breaks off, left by a run that was killed.
    ///
    /// # Errors
    /// If the file cannot be read or written, has other columns, or a row that is not one of ours.
    pub fn open(path: &Path, names: &[&str], done: u64) -> Result<Self> {
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| cannot_write(path, &e))?;
        let header = format!("step,lr,{}\n", names.join(","));
        let kept = kept_bytes(path, &file, &header, done)?;
        let failed = |e| cannot_write(path, &e);
        file.set_len(kept).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        if kept == 0 {
            file.write_all(header.as_bytes()).map_err(failed)?;
        }
        Ok(Self { path: path.to_owned(), file, losses: names.len() })
    }

    /// Adds the row of `step`; it is in the file when this returns.
    ///
    /// # Errors
    /// If it cannot be written, or there are not as many losses as names.
    pub fn append(&mut self, step: u64, lr: f64, losses: &[f64]) -> Result<()> {
        if losses.len() != self.losses {
            let (path, have, want) = (self.path.display(), losses.len(), self.losses);
            return Err(Error::new(format!("{have} losses for the {want} columns of {path}")));
        }
        let mut row = format!("{step},{lr:?}");
        for loss in losses {
            // Writing to a string cannot fail.
            let _ = write!(row, ",{loss:?}");
        }
        row.push('\n');
        self.file.write_all(row.as_bytes()).map_err(|e| cannot_write(&self.path, &e))
    }
}

/// How many bytes of the table stay: the header and the rows up to step `done`; 0 if there is not
/// even a header.
fn kept_bytes(path: &Path, file: &File, header: &str, done: u64) -> Result<u64> {
    let shown = path.display();
    let another =
        |message: String| Err(Error::new(message).hint("move this file away, and a new one will be made"));
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let (mut kept, mut number, mut last_step) = (0, 0u64, 0);
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => return Ok(kept),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::new(format!("cannot read {shown}: {}", io_reason(&e)))),
        }
        number += 1;
        let whole = line.ends_with(b"\n");
        if number == 1 {
            if whole && line != header.as_bytes() {
                return another(format!("{shown} has other columns than this run"));
            }
            if !whole && !header.as_bytes().starts_with(&line) {
                return another(format!("{shown} is no table of losses"));
            }
        }
        if !whole {
            return Ok(kept);
        }
        if number > 1 {
            let row = std::str::from_utf8(&line).unwrap_or_default();
            let columns = header.matches(',').count();
            let step = row.split(',').next().and_then(|step| step.parse().ok());
            match step.filter(|&step| step > last_step && row.matches(',').count() == columns) {
                Some(step) if step > done => return Ok(kept),
                Some(step) => last_step = step,
                None => return another(format!("line {number} of {shown} is no row of losses")),
            }
        }
        kept += line.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 2] = ["D", "G"];

    fn table() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("losses.csv");
        (folder, path)
    }

    fn write_rows(path: &Path, done: u64, steps: std::ops::RangeInclusive<u64>) {
        let mut table = LossTable::open(path, &NAMES, done).unwrap();
        for step in steps {
            table.append(step, 1e-4, &[step as f64 / 3.0, -0.5]).unwrap();
        }
    }

    fn steps(path: &Path) -> Vec<u64> {
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("step,lr,D,G"));
        lines.map(|line| line.split(',').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn numbers_round_trip() {
        let (_folder, path) = table();
        let values = [0.1 + 0.2, 6.776263578034403e-21];
        let mut table = LossTable::open(&path, &NAMES, 0).unwrap();
        table.append(1, 1e-4 / 3.0, &values).unwrap();
        table.append(2, 0.0, &[f64::NAN, f64::NEG_INFINITY]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let row: Vec<f64> = text.lines().nth(1).unwrap().split(',').map(|v| v.parse().unwrap()).collect();
        assert_eq!(row, [1.0, 1e-4 / 3.0, values[0], values[1]]);
        assert_eq!(text.lines().nth(2), Some("2,0.0,NaN,-inf"));
    }

    #[test]
    fn resuming_cuts_later_rows_and_keeps_earlier_ones() {
        let (_folder, path) = table();
        write_rows(&path, 0, 1..=10);
        let before = std::fs::read_to_string(&path).unwrap();
        write_rows(&path, 6, 7..=10);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
        write_rows(&path, 4, 5..=5);
        assert_eq!(steps(&path), [1, 2, 3, 4, 5]);
        // A checkpoint newer than the table loses nothing either.
        write_rows(&path, 8, 9..=9);
        assert_eq!(steps(&path), [1, 2, 3, 4, 5, 9]);
        write_rows(&path, 0, 1..=1);
        assert_eq!(steps(&path), [1]);
    }

    #[test]
    fn a_row_that_breaks_off_goes() {
        let (_folder, path) = table();
        write_rows(&path, 0, 1..=3);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            write_rows(&path, 3, 4..=4);
            let rows = whole[..cut].iter().filter(|&&b| b == b'\n').count().saturating_sub(1) as u64;
            let want: Vec<u64> = (1..=rows).chain([4]).collect();
            assert_eq!(steps(&path), want);
        }
    }

    #[test]
    fn other_files_are_left_alone() {
        let (_folder, path) = table();
        for (text, want) in [
            ("step,lr,D\n1,0,0\n", "has other columns than this run"),
            ("my notes", "is no table of losses"),
            ("step,lr,D,G\n1,0,0,0\nx,0,0,0\n2,0,0,0\n", "is no row of losses"),
            ("step,lr,D,G\n1,0,0,0\n2,0,0\n", "is no row of losses"),
            ("step,lr,D,G\n5,0,0,0\n4,0,0,0\n", "is no row of losses"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = LossTable::open(&path, &NAMES, 9).err().unwrap();
            assert!(error.message().ends_with(want), "{error}");
            assert!(error.message().contains("losses.csv"));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn failures_name_the_file() {
        let (_folder, path) = table();
        let mut table = LossTable::open(&path, &NAMES, 0).unwrap();
        assert!(table.append(1, 0.0, &[1.0]).unwrap_err().message().contains("losses.csv"));
        let error = LossTable::open(&path.join("below"), &NAMES, 0).err().unwrap();
        assert!(error.message().starts_with("cannot write "), "{error}");
    }
}
