//! Where a run starts from: nothing, or what its folder holds.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::settings::Settings;
use crate::nn::Config;
use crate::train::checkpoint::{self, Checkpoint};
use crate::{Error, ErrorKind, Result};

/// Where the files of a run are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunFolder(PathBuf);

impl RunFolder {
    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    pub fn losses(&self) -> PathBuf {
        self.0.join("losses.csv")
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.checkpoints().join(checkpoint::file_name(step))
    }

    pub fn samples(&self) -> PathBuf {
        self.0.join("samples")
    }

    pub fn sample(&self, step: u64) -> PathBuf {
        self.samples().join(format!("step-{step:07}.png"))
    }

    /// Keeps a second training out of the folder, until the returned handle is closed or the process ends.
    ///
    /// # Errors
    /// When another training is there already.
    pub fn lock(&self) -> Result<Option<File>> {
        // Not every system opens folders, and not every file system has locks: then there is no such guard.
        let Ok(handle) = File::open(&self.0) else { return Ok(None) };
        match handle.try_lock() {
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(format!("another training is writing to {}", self.0.display()))
                    .of_kind(ErrorKind::RunBusy))
            }
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(handle)),
        }
    }
}

/// Where a run starts from.
#[derive(Debug)]
pub struct RunStart {
    pub(super) folder: RunFolder,
    settings: Option<Settings>,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) warnings: Vec<String>,
}

impl RunStart {
    /// A new run in `folder`.
    ///
    /// # Errors
    /// When the folder holds a run already.
    pub fn fresh(folder: &Path) -> Result<Self> {
        let shown = folder.display();
        if folder.exists() && !folder.is_dir() {
            return Err(Error::new(format!("cannot write a run to {shown}: it is a file"))
                .of_kind(ErrorKind::OutputUnusable));
        }
        let folder = RunFolder(folder.to_owned());
        let newest = checkpoint::list(&folder.checkpoints())?.pop();
        let what = match newest {
            Some((step, _)) => format!("a run with checkpoints up to step {step}"),
            None if folder.losses().exists() => "a run that has not saved yet".to_owned(),
            None => return Ok(Self { folder, settings: None, checkpoint: None, warnings: Vec::new() }),
        };
        Err(Error::new(format!("{shown} already holds {what}")).of_kind(ErrorKind::RunExists))
    }

    /// The run that `folder` holds, from its newest whole checkpoint; from its beginning if it was ended
    /// before the first.
    ///
    /// # Errors
    /// When there is no such folder, or it has checkpoints but no whole one.
    pub fn resume(folder: &Path) -> Result<Self> {
        let shown = folder.display();
        if !folder.is_dir() {
            let why = if folder.exists() { "it is a file" } else { "no such folder" };
            return Err(Error::new(format!("there is no run to resume in {shown}: {why}"))
                .of_kind(ErrorKind::RunMissing));
        }
        let folder = RunFolder(folder.to_owned());
        let found = checkpoint::newest_complete(&folder.checkpoints())?;
        let mut warnings: Vec<String> =
            found.broken.iter().map(|e| format!("passing over a checkpoint: {}", e.message())).collect();
        let mut settings = match Settings::read(&folder.config()) {
            Ok(settings) => settings,
            // The checkpoint has all that matters.
            Err(error) if found.checkpoint.is_some() => {
                warnings.push(error.message().to_owned());
                None
            }
            Err(error) => return Err(error),
        };
        match &found.checkpoint {
            Some(c) => {
                let meta = c.meta();
                let recent = settings
                    .unwrap_or_else(|| Settings { model: meta.config.clone(), ..Settings::default() });
                // The number of steps may have been changed since.
                let iterations = recent.model.iterations;
                settings = Some(Settings {
                    model: Config { iterations, ..meta.config.clone() },
                    seed: meta.seed,
                    batch_size: meta.batch_size,
                    norm: meta.norm,
                    precision: meta.precision,
                    target: Some(meta.target),
                    ..recent
                });
            }
            None => {
                if let Some(error) = found.broken.into_iter().next() {
                    return Err(Error::new(format!("{shown} has no whole checkpoint: {}", error.message()))
                        .of_kind(ErrorKind::RunBroken));
                }
                warnings.push(format!("no checkpoint in {shown} yet: starting over"));
            }
        }
        Ok(Self { folder, settings, checkpoint: found.checkpoint, warnings })
    }

    /// What the run was started with, where that is known.
    pub fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    /// The step of the checkpoint; 0 without one.
    pub fn step(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |c| c.meta().step)
    }
}
