//! The pages that are written, and what is run for them.

use std::path::{Path, PathBuf};

use super::atlas::{self, Shown};
use super::compile::Compiled;
use super::counts::KernelRecord;
use super::ladder;
use super::listing::Line;
use super::page::Page;
use super::run::{Record, Step, training_step};
use crate::device::select::Choice;
use crate::format;
use crate::kernels::Kernel;
use crate::model::Machine;
use crate::{Error, ErrorKind, Result};

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Pages of kernels.
    pub pages: usize,
    /// The file to look at first.
    pub first: PathBuf,
}

/// Runs a training step on the emulator and writes a page of each kernel, and the atlas where there are several.
/// Kernels that the step does not use are run in the ladders' cases. `command` is shown as what made the pages.
///
/// # Errors
/// When the step makes no network, the emulator finds a fault, or a file cannot be written.
pub fn of_kernels(
    wanted: &[&'static Kernel],
    step: &Step,
    gpu: &'static Machine,
    folder: &Path,
    command: &str,
) -> Result<Written> {
    let record = training_step(step, Choice::Emulator)?;
    let launched = |k: &Kernel| record.kernels.iter().any(|r| r.kernel.name == k.name);
    let index = wanted.len() > 1;
    let ladders = if index || !wanted.iter().all(|k| launched(k)) { ladder::all()? } else { Vec::new() };
    let known = |k: &Kernel| {
        let runs = ladders.iter().flat_map(|l| &l.variants).flat_map(|r| &r.record.kernels);
        launched(k) || runs.into_iter().any(|r| r.kernel.name == k.name)
    };
    let variants = if wanted.iter().all(|k| known(k)) { Vec::new() } else { ladder::variants()? };
    let shown = Shown { gpu, command };
    let first = atlas::write(folder, &record, step, wanted, [&ladders, &variants], shown, index)?;
    Ok(Written { pages: wanted.len(), first: folder.join(first) })
}

/// Writes the page of one launch of a user kernel; `command` is shown as what made it.
///
/// # Errors
/// When the file has no such kernel, or a page cannot be written.
pub fn of_user_kernel(
    compiled: &Compiled,
    name: &str,
    record: &Record,
    gpu: &'static Machine,
    folder: &Path,
    command: &str,
) -> Result<PathBuf> {
    let kernel = compiled.find(name)?;
    let one = record.kernels.first().cloned().unwrap_or_else(|| KernelRecord::new(kernel));
    let mut sass = atlas::Sass::new().of(kernel);
    let relative = |lines: &mut Vec<Line>| {
        for place in lines.iter_mut().flat_map(|l| &mut l.places) {
            place.file = compiled.relative(&place.file).to_owned();
        }
    };
    sass.iter_mut().for_each(|(_, lines)| relative(lines));
    let launch = record.program.launches.first();
    let run = launch.map_or_else(String::new, |l| {
        format!(
            "one launch of {} blocks of {} threads",
            format::extent(l.grid, " x "),
            format::extent(l.block, " x ")
        )
    });
    let page = Page {
        record: &one,
        run: &run,
        command,
        sass,
        neighbours: [None, None],
        gpu,
        source_of: &|file| compiled.source_of(file),
        has_index: false,
    };
    std::fs::create_dir_all(folder).map_err(|e| {
        Error::new(format!("cannot write {}: {e}", folder.display())).of_kind(ErrorKind::OutputUnusable)
    })?;
    let path = folder.join(format!("{name}.html"));
    atlas::write_file(&path, &page.html())?;
    Ok(path)
}
