//! Files that are either whole or not there, even after a power failure.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::{Error, Result};

/// Ending of the name of a file that is being written; the name begins with a dot.
const TEMPORARY: &str = ".part";

/// Whether a file of that name was being written when its process was killed.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(TEMPORARY)
}

/// Has `write` write a file beside its place, forces it to the disk, moves it there, and forces that to the disk too.
///
/// Whoever looks, and whatever happens in between, sees the old file or the new one, never a part.
///
/// # Errors
/// When it cannot be written, which `cannot` puts in words, or `write` fails: nothing is left beside it then.
pub(crate) fn publish(
    path: &Path,
    cannot: impl Fn(&io::Error) -> Error,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let Some(name) = path.file_name() else {
        return Err(cannot(&io::Error::new(io::ErrorKind::InvalidInput, "not a file name")));
    };
    let mut beside = OsString::from(".");
    beside.push(name);
    // Two processes that write the same file do not write into each other's.
    beside.push(format!(".{}{TEMPORARY}", std::process::id()));
    let beside = path.with_file_name(beside);
    let written = write_to(&beside, &cannot, write)
        .and_then(|()| fs::rename(&beside, path).and_then(|()| sync_folder(path)).map_err(|e| cannot(&e)));
    if written.is_err() {
        // It may never have been made; the first failure is the one to report.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_to(
    path: &Path,
    cannot: &impl Fn(&io::Error) -> Error,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let file = File::create(path).map_err(|e| cannot(&e))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    write(&mut out)?;
    let file = out.into_inner().map_err(|e| cannot(e.error()))?;
    file.sync_all().map_err(|e| cannot(&e))
}

/// Forces a rename to the disk.
fn sync_folder(path: &Path) -> io::Result<()> {
    // Other systems do not open folders as files.
    if cfg!(unix) {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let cannot = |e: &io::Error| Error::new(format!("cannot: {e}"));
        let write = |text: &'static str| {
            move |out: &mut dyn Write| out.write_all(text.as_bytes()).map_err(|e| cannot(&e))
        };
        publish(&path, cannot, write("old")).unwrap();
        let names = || {
            let entries = fs::read_dir(folder.path()).unwrap();
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let fails = |out: &mut dyn Write| {
            write("new")(out)?;
            let temporary: Vec<String> = names().into_iter().filter(|n| is_temporary(n)).collect();
            assert_eq!(temporary.len(), 1);
            Err(Error::new("midway"))
        };
        assert_eq!(publish(&path, cannot, fails).unwrap_err().message(), "midway");
        assert_eq!((fs::read_to_string(&path).unwrap(), names()), ("old".to_owned(), vec!["x".to_owned()]));
        publish(&path, cannot, write("new")).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap(), names().len()), ("new".to_owned(), 1));
    }
}
