//! Machine code as text, where NVIDIA's disassembler is installed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::listing::{self, Line};

/// nvdisasm, from the most explicit place to the least: the toolkit's variables, the folder that
/// `scripts/install-nvrtc.sh --tools` fills, the PATH.
pub fn disassembler() -> Option<PathBuf> {
    let toolkits = ["CUDA_PATH", "CUDA_HOME"].into_iter().filter_map(env::var_os);
    let mut folders: Vec<PathBuf> = toolkits.map(|folder| Path::new(&folder).join("bin")).collect();
    for root in project_folders() {
        folders.extend(["nvidia/cu13/bin", "nvidia/cu12/bin", "bin"].map(|f| root.join(".nvrtc").join(f)));
    }
    folders.push("/usr/local/cuda/bin".into());
    folders.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    folders.into_iter().map(|folder| folder.join("nvdisasm")).find(|path| path.is_file())
}

/// Folders that may be the project's: the working folder, the program's, and those around them.
pub(super) fn project_folders() -> Vec<PathBuf> {
    let starts = [env::current_dir().ok(), env::current_exe().ok()];
    let around = |start: PathBuf| start.ancestors().map(Path::to_path_buf).collect::<Vec<_>>();
    starts.into_iter().flatten().flat_map(around).filter(|folder| folder.join(".nvrtc").is_dir()).collect()
}

/// A disassembled cubin: all its kernels.
pub struct Disassembly(String);

impl Disassembly {
    /// Runs the disassembler; None where it fails.
    pub fn of(tool: &Path, cubin: &[u8]) -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("ugatit-{}-{}.cubin", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let file = env::temp_dir().join(name);
        std::fs::write(&file, cubin).ok()?;
        let output = Command::new(tool).args(["-gi", "-c"]).arg(&file).output();
        _ = std::fs::remove_file(&file);
        let output = output.ok().filter(|output| output.status.success())?;
        Some(Self(String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// The instructions and labels of one kernel.
    pub fn kernel(&self, name: &str) -> Vec<Line> {
        listing::sass(&self.0, name)
    }
}

/// Loads and stores of thread-local memory among instructions: spilled registers, or arrays that did not
/// fit into them.
pub fn local_accesses(lines: &[Line]) -> usize {
    let local = |line: &&Line| {
        let words = line.text.split_whitespace();
        let opcode = words.into_iter().find(|w| !w.starts_with('@')).unwrap_or("");
        opcode.starts_with("LDL") || opcode.starts_with("STL")
    };
    lines.iter().filter(local).count()
}
