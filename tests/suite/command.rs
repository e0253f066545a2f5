//! Runs the `ugatit` binary, for the tests of what people see of it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A network that makes a step in milliseconds.
pub const TINY: &str = "--light --size 8 --ch 4 --n-res 1 --n-dis 2";

/// A light network of 24 pixels: all kernels of a larger one, spectral norm and AdaLIN included.
pub const LONGER: &str = "--size 24 --n-dis 4 --sample-every 0";

/// The sample data set of the repository.
pub fn emoji() -> PathBuf {
    crate::project("samples/emoji-people")
}

/// What a command came to.
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    pub fn new(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Checks the exit code and that all of `parts` are in the messages, which otherwise are shown.
    #[track_caller]
    pub fn expect(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "\n{}{}", self.out, self.err);
        for part in parts {
            assert!(self.err.contains(part), "'{part}' is not in\n{}", self.err);
        }
        // Whatever happens, nothing panics.
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }
}

/// The binary with these words as arguments, on the device under test.
pub fn command(words: &str) -> Command {
    // Carried to another machine, the binary is where the environment says.
    let binary =
        std::env::var_os("CARGO_BIN_EXE_ugatit").unwrap_or_else(|| env!("CARGO_BIN_EXE_ugatit").into());
    let mut command = Command::new(binary);
    command.args(words.split_whitespace()).stdin(Stdio::null());
    if std::env::var_os("UGATIT_DEVICE").is_none_or(|device| device.is_empty()) {
        command.env("UGATIT_DEVICE", "emulator");
    }
    command
}

/// Runs the binary: words, then paths.
pub fn ugatit<P: AsRef<OsStr>>(words: &str, paths: &[P]) -> Ended {
    Ended::new(&command(words).args(paths).output().expect("the binary starts"))
}

/// A folder with a small data set `data` and room for a run `run`.
pub struct Place {
    root: TempDir,
}

impl Place {
    /// With two sample images of each domain to train with, and one to test with.
    pub fn new() -> Self {
        let place = Self { root: tempfile::tempdir().expect("a folder") };
        for (part, count) in [("trainA", 2), ("trainB", 2), ("testA", 1), ("testB", 1)] {
            let folder = place.data().join(part);
            std::fs::create_dir_all(&folder).expect("a folder");
            for image in images(part).into_iter().take(count) {
                std::fs::copy(&image, folder.join(image.file_name().expect("a file"))).expect("a copy");
            }
        }
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn run(&self) -> PathBuf {
        self.path("run")
    }

    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.run().join(format!("checkpoints/step-{step:07}.safetensors"))
    }

    /// `ugatit train` of the tiny network with more flags.
    pub fn train(&self, flags: &str) -> Ended {
        Ended::new(&self.train_command(flags).output().expect("the binary starts"))
    }

    pub fn train_command(&self, flags: &str) -> Command {
        let mut command = command(&format!("train {TINY} {flags}"));
        command.arg(self.data()).arg("--out").arg(self.run());
        command
    }
}

/// Sample images of one part, by name.
pub fn images(part: &str) -> Vec<PathBuf> {
    names(&emoji().join(part)).into_iter().map(|name| emoji().join(part).join(name)).collect()
}

/// Names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<String> =
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Checks that two runs have left the same bits: every checkpoint tensor, loss and image.
#[track_caller]
pub fn assert_same_run(a: &Path, b: &Path, step: u64) {
    for file in [
        format!("checkpoints/step-{step:07}.safetensors"),
        format!("samples/step-{step:07}.png"),
        "losses.csv".to_owned(),
    ] {
        assert!(read(&a.join(&file)) == read(&b.join(&file)), "{file} differs");
    }
}
