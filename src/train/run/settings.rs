//! What a run is, and the file `config.toml` that says so.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::device::Target;
use crate::error::io_reason;
use crate::nn::Config;
use crate::report::write_whole;
use crate::tape::{NormVariant, Precision};
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
    /// Which variant of the norms.
    #[serde(rename = "norm_variant", default)]
    pub norm: NormVariant,
    /// What convolutions multiply; older runs had no choice.
    #[serde(default)]
    pub precision: Precision,
    /// The GPU that the programs are planned for; None until the run is opened: the device's.
    #[serde(default = "of_older_runs")]
    pub target: Option<Target>,
    /// Hyper-parameters.
    pub model: Config,
}

/// Before plans had a target they were those for an H100.
fn of_older_runs() -> Option<Target> {
    Some(Target::default())
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
            norm: NormVariant::default(),
            precision: Precision::default(),
            target: None,
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
            Ok(text) => Self::of(&text).map(Some).map_err(cannot),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(cannot(io_reason(&e))),
        }
    }

    /// The settings that a run's file holds; what is wrong with it otherwise.
    fn of(text: &str) -> Result<Self, String> {
        let mut table: toml::Table = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        // Version 0.1 had another key, and names that meant other kernels.
        if let Some(toml::Value::String(choice)) = table.remove("norm") {
            let norm = NormVariant::of_version_0_1(&choice).map_err(|e| e.message().to_owned())?;
            table.insert("norm_variant".into(), norm.name().into());
        }
        table.try_into().map_err(|e: toml::de::Error| e.message().to_owned())
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
            norm: NormVariant::Composed,
            precision: Precision::Tf32,
            target: Some(Target { sms: 108, shared_bytes: 163 << 10 }),
            model,
            ..Settings::default()
        };
        settings.write(&path).unwrap();
        assert_eq!(Settings::read(&path), Ok(Some(settings)));
        // Folders of version 0.1, and from before there was a choice of norms.
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("norm_variant = \"composed\"\nprecision = \"tf32\"\n"));
        // Before there was a choice of precision.
        fs::write(&path, text.replace("precision = \"tf32\"\n", "")).unwrap();
        assert_eq!(Settings::read(&path).unwrap().unwrap().precision, Precision::F32);
        for (older, norm) in [
            ("", NormVariant::PadFused),
            ("norm = \"fused\"\n", NormVariant::PadFused),
            ("norm = \"composed\"\n", NormVariant::Composed),
            ("norm = \"elementary\"\n", NormVariant::Elementary),
        ] {
            fs::write(&path, text.replace("norm_variant = \"composed\"\n", older)).unwrap();
            assert_eq!(Settings::read(&path).unwrap().unwrap().norm, norm, "{older}");
        }
        let from = text.find("[target]").unwrap();
        let until = text.find("[model]").unwrap();
        fs::write(&path, format!("{}{}", &text[..from], &text[until..])).unwrap();
        assert_eq!(Settings::read(&path).unwrap().unwrap().target, Some(Target::default()));
        fs::write(&path, text.replace("norm_variant = \"composed\"", "norm = \"vectorised\"")).unwrap();
        assert!(Settings::read(&path).unwrap_err().message().ends_with("unknown norm 'vectorised'"));
        fs::write(&path, "seed = -1").unwrap();
        assert!(Settings::read(&path).unwrap_err().message().starts_with("cannot read "));
    }
}
