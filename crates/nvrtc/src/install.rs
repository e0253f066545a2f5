//! Where an NVRTC is installed.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::version::Version;

/// The environment variables that say where it is, the most explicit first: a folder, a toolkit, a toolkit,
/// a Python environment.
pub const VARIABLES: [&str; 4] = ["NVRTC_DIR", "CUDA_PATH", "CUDA_HOME", "VIRTUAL_ENV"];

/// Where toolkits and distributions install it.
const SYSTEM: [&str; 6] = [
    "/usr/local/cuda",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/opt/cuda",
];

/// Where the libraries lie below a toolkit or a folder of Python packages.
const BELOW: [&str; 8] = [
    "",
    "lib64",
    "lib",
    "targets/x86_64-linux/lib",
    "targets/sbsa-linux/lib",
    "nvidia/cuda_nvrtc/lib",
    "nvidia/cu12/lib",
    "nvidia/cu13/lib",
];

/// The two files of one installed NVRTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    library: PathBuf,
    builtins: PathBuf,
    version: Version,
}

impl Installation {
    /// Looks for an NVRTC of version `oldest` or newer, from the most explicit place to the least: only in
    /// `NVRTC_DIR` where that is set; else in `CUDA_PATH`, `CUDA_HOME`, the system's folders, `folders` and
    /// the packages of `VIRTUAL_ENV`. In each place subfolders are tried where toolkits and wheels have them.
    ///
    /// # Errors
    /// [`Error::NotInFolder`] or [`Error::TooOld`] of `NVRTC_DIR`, else [`Error::NotFound`].
    pub fn find(oldest: Version, folders: &[PathBuf]) -> Result<Self> {
        search(oldest, folders, &SYSTEM, |name| env::var_os(name))
    }

    /// `libnvrtc.so…`
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// `libnvrtc-builtins.so…`, which the library opens by name, so it must be loaded before.
    pub fn builtins(&self) -> &Path {
        &self.builtins
    }

    /// The version that the file names tell.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The newest NVRTC in a folder, or in the first of its subfolders that has one.
    fn in_tree(root: &Path) -> Option<Self> {
        BELOW.iter().find_map(|folder| Self::in_folder(&root.join(folder)))
    }

    /// The newest NVRTC of which both files lie in this folder.
    fn in_folder(folder: &Path) -> Option<Self> {
        let names = list(folder);
        // `libnvrtc-builtins.so.12.9` and `libnvrtc.so.12`, perhaps followed by the patch level.
        let newest = |prefix: &str, version: &[u32]| {
            let of = |name: &String| -> Option<(Vec<u32>, String)> {
                let numbers: Option<Vec<u32>> =
                    name.strip_prefix(prefix)?.split('.').skip(1).map(|x| x.parse().ok()).collect();
                let numbers = numbers?;
                version.iter().zip(&numbers).all(|(a, b)| a == b).then(|| (numbers, name.clone()))
            };
            names.iter().filter_map(of).max()
        };
        let (numbers, builtins) = newest("libnvrtc-builtins.so", &[])?;
        let &[major, minor, ..] = &numbers[..] else { return None };
        let (_, library) = newest("libnvrtc.so", &[major, minor])?;
        let (library, builtins) = (folder.join(library), folder.join(builtins));
        Some(Self { library, builtins, version: (major, minor) })
    }
}

fn search(
    oldest: Version,
    folders: &[PathBuf],
    system: &[&str],
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Installation> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let [explicit, toolkits @ .., environment] = VARIABLES;
    if let Some(folder) = variable(explicit) {
        return match Installation::in_tree(&folder) {
            Some(found) if found.version >= oldest => Ok(found),
            Some(found) => Err(Error::TooOld { folder, version: found.version, oldest }),
            None => Err(Error::NotInFolder { folder }),
        };
    }
    let mut roots: Vec<PathBuf> = toolkits.into_iter().filter_map(variable).collect();
    roots.extend(system.iter().map(PathBuf::from));
    roots.extend_from_slice(folders);
    if let Some(environment) = variable(environment) {
        let lib = environment.join("lib");
        roots.extend(list(&lib).iter().map(|python| lib.join(python).join("site-packages")));
    }

    let mut too_old = Vec::new();
    for root in roots {
        match Installation::in_tree(&root) {
            Some(found) if found.version >= oldest => return Ok(found),
            Some(found) => too_old.push((found.library, found.version)),
            None => {}
        }
    }
    Err(Error::NotFound { too_old, oldest })
}

/// The names in a folder; none where it cannot be read.
fn list(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// A folder with the files, empty.
    fn folder(files: &[&str]) -> TempDir {
        let root = TempDir::new().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        root
    }

    /// A search in which nothing is set but the variable given, and the system has nothing.
    fn find(set: Option<(&str, &Path)>, folders: &[&Path]) -> Result<Installation> {
        let folders: Vec<PathBuf> = folders.iter().map(|f| f.to_path_buf()).collect();
        search((12, 4), &folders, &[], |name| {
            set.filter(|(set, _)| *set == name).map(|(_, folder)| folder.into())
        })
    }

    const NEW: [&str; 2] = ["lib/libnvrtc.so.12", "lib/libnvrtc-builtins.so.12.9"];
    const OLD: [&str; 2] = ["libnvrtc.so.11.2", "libnvrtc-builtins.so.11.2.152"];

    #[test]
    fn the_newest_whose_two_files_agree_is_taken() {
        let root = folder(&[
            "libnvrtc.so",
            "libnvrtc.so.12",
            "libnvrtc.so.13",
            "libnvrtc-builtins.so.12.6",
            "libnvrtc-builtins.so.12.10.3",
            "libnvrtc-builtins.alt.so.12.10",
        ]);
        let found = find(None, &[root.path()]).unwrap();
        assert_eq!(found.version(), (12, 10), "12.10 is newer than 12.6");
        assert_eq!(found.library(), root.path().join("libnvrtc.so.12"));
        assert_eq!(found.builtins(), root.path().join("libnvrtc-builtins.so.12.10.3"));
    }

    #[test]
    fn a_library_without_its_builtins_is_none() {
        let root = folder(&["libnvrtc.so.12", "libnvrtc-builtins.so", "libnvrtc-builtins.so.x.y"]);
        let error = find(None, &[root.path()]).unwrap_err();
        assert_eq!(error, Error::NotFound { too_old: vec![], oldest: (12, 4) });
        assert_eq!(error.to_string(), "no NVRTC was found");
        let root = folder(&["libnvrtc.so.11", "libnvrtc-builtins.so.12.9"]);
        assert!(find(None, &[root.path()]).is_err(), "the two are of different versions");
    }

    #[test]
    fn old_ones_are_passed_over_and_named_if_there_is_no_other() {
        let (old, new) = (folder(&OLD), folder(&NEW));
        assert_eq!(find(None, &[old.path(), new.path()]).unwrap().version(), (12, 9));
        let error = find(None, &[old.path()]).unwrap_err();
        let library = old.path().join(OLD[0]);
        let note = format!("{}: NVRTC 11.2 is too old, at least 12.4 is needed", library.display());
        assert_eq!(error.to_string(), format!("no NVRTC was found\nnote: {note}"));
    }

    #[test]
    fn the_explicit_folder_is_the_only_one_looked_at() {
        let (old, new, empty) = (folder(&OLD), folder(&NEW), folder(&[]));
        let explicit = |at: &TempDir| find(Some(("NVRTC_DIR", at.path())), &[new.path()]);
        assert!(explicit(&new).unwrap().library().starts_with(new.path().join("lib")));
        let error = explicit(&old).unwrap_err();
        assert!(matches!(&error, Error::TooOld { version: (11, 2), .. }), "{error}");
        let error = explicit(&empty).unwrap_err();
        assert_eq!(error, Error::NotInFolder { folder: empty.path().into() });
    }

    #[test]
    fn toolkits_come_before_other_folders_and_python_environments_after() {
        let toolkit = folder(&[
            "targets/sbsa-linux/lib/libnvrtc.so.13",
            "targets/sbsa-linux/lib/libnvrtc-builtins.so.13.0",
        ]);
        let python = folder(&[
            "lib/python3.12/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
            "lib/python3.12/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.5",
        ]);
        let other = folder(&NEW);
        let version = |set, folders: &[&Path]| find(Some(set), folders).unwrap().version();
        assert_eq!(version(("CUDA_HOME", toolkit.path()), &[other.path()]), (13, 0));
        assert_eq!(version(("VIRTUAL_ENV", python.path()), &[other.path()]), (12, 9));
        assert_eq!(version(("VIRTUAL_ENV", python.path()), &[]), (12, 5));
    }
}
