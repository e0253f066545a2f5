//! Images and texts, written so that a file is either whole or not there.

use std::io::ErrorKind;
use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::data::Rgb8;
use crate::error::io_reason;
use crate::publish::publish;
use crate::{Error, Result};

/// Writes an image as PNG, see [`write_whole`].
///
/// # Errors
/// If the file cannot be written; the error names it.
pub fn save_png(path: &Path, rgb: &Rgb8) -> Result<()> {
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new(&mut bytes);
    let (width, height) = (rgb.width() as u32, rgb.height() as u32);
    encoder
        .write_image(rgb.pixels(), width, height, ExtendedColorType::Rgb8)
        .map_err(|e| Error::new(format!("cannot encode {}: {e}", path.display())))?;
    write_whole(path, &bytes)
}

/// Writes a file beside its place, forces it to the disk and then moves it there.
///
/// Whoever looks, and whatever happens in between, sees the old file or the new one, never a part.
///
/// # Errors
/// If it cannot be written: the error names the file, and nothing is left beside it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    publish(path, |e| cannot_write(path, e), |out| out.write_all(bytes).map_err(|e| cannot_write(path, &e)))
}

/// The error of a failed write, with what helps against it.
pub(super) fn cannot_write(path: &Path, e: &std::io::Error) -> Error {
    let error = Error::new(format!("cannot write {}: {}", path.display(), io_reason(e)));
    match e.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => error.hint("free some space and resume"),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            error.hint("write to a folder that is yours")
        }
        ErrorKind::NotFound => error.hint("the folder it should go to does not exist"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::load_image;

    fn entries(path: &Path) -> usize {
        std::fs::read_dir(path).unwrap().count()
    }

    #[test]
    fn a_written_image_is_read_back_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.png");
        for colour in [[1, 2, 3], [200, 100, 0]] {
            let rgb = Rgb8::filled(5, 4, colour);
            save_png(&path, &rgb).unwrap();
            assert_eq!(load_image(&path).unwrap(), rgb);
        }
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn failures_name_the_file_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none/x.png");
        let error = write_whole(&path, b"x").unwrap_err();
        let want = format!("cannot write {}: no such file or directory", path.display());
        assert_eq!(error.message(), want);
        assert_eq!(error.hint_text(), Some("the folder it should go to does not exist"));
        // A folder in the way cannot be replaced.
        let path = folder.path().join("folder");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("inside"), "").unwrap();
        assert!(write_whole(&path, b"x").is_err());
        assert_eq!(entries(folder.path()), 1);
        assert!(write_whole(Path::new("/"), b"x").is_err());
    }

    #[test]
    fn a_full_disk_is_told() {
        let full = std::io::Error::from(ErrorKind::StorageFull);
        let error = cannot_write(Path::new("run/x.png"), &full);
        assert_eq!(error.message(), "cannot write run/x.png: no storage space");
        assert_eq!(error.hint_text(), Some("free some space and resume"));
    }
}
