//! What a run is, and the file `config.toml` that says so.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::io_reason;
use crate::nn::Config;
use crate::report::write_whole;
use crate::tape::Norms;
use crate::{Error, ErrorKind, Result};

/// What a run is: enough to begin it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The data set's folder.
    pub data: PathBuf,
    /// Seed of initial weights, order of the images and augmentation.
    pub seed: u64,
    /// Images of each domain in a batch.
    pub batch_size: usize,
    /// Steps from checkpoint to checkpoint; 0 for the last step only.
    pub save_every: u64,
    /// Steps from sample grid to sample grid; 0 for the last step only.
    pub sample_every: u64,
    /// Newest checkpoints to keep; 0 for all.
    pub keep: usize,
    /// How norms are computed: fused, or as a baseline.
    #[serde(default)]
    pub norm: Norms,
    /// Hyper-parameters.
    pub model: Config,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: PathBuf::new(),
            seed: 0,
            batch_size: 1,
            save_every: 10_000,
            sample_every: 1_000,
            keep: 3,
            norm: Norms::default(),
            model: Config::default(),
        }
    }
}

impl Settings {
    /// Reads a run's file; none if there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is not one of a run.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let cannot = |why: String| {
            Error::new(format!("cannot read {}: {why}", path.display())).of_kind(ErrorKind::RunBroken)
        };
        match fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map(Some).map_err(|e| cannot(e.message().to_owned())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(cannot(io_reason(&e))),
        }
    }

    /// Writes a run's file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let cannot = |why: String| Error::new(format!("cannot write {}: {why}", path.display()));
        let text = toml::to_string(self).map_err(|e| cannot(e.to_string()))?;
        let text = format!(
            "# What this run is, as ugatit {} wrote it. Checkpoints have their own copy of all that must not\n\
             # change in a run.\n{text}",
            env!("CARGO_PKG_VERSION")
        );
        write_whole(path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_s_settings_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        assert_eq!(Settings::read(&path), Ok(None));
        let model = Config { lr: 1.234_567_890_123e-5, iterations: 7, ..Config::default() };
        let settings = Settings {
            data: "a \"b\" c".into(),
            seed: i64::MAX as u64,
            norm: Norms::Composed,
            model,
            ..Settings::default()
        };
        settings.write(&path).unwrap();
        assert_eq!(Settings::read(&path), Ok(Some(settings)));
        // A folder from before there was a choice of norms.
        let text = fs::read_to_string(&path).unwrap();
        let older: Vec<&str> = text.lines().filter(|l| !l.starts_with("norm")).collect();
        assert_eq!(older.len() + 1, text.lines().count());
        fs::write(&path, older.join("\n")).unwrap();
        assert_eq!(Settings::read(&path).unwrap().unwrap().norm, Norms::Fused);
        fs::write(&path, "seed = -1").unwrap();
        assert!(Settings::read(&path).unwrap_err().message().starts_with("cannot read "));
    }
}
