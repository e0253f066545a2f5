//! Folders of images.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Rgb8, decode, load_image};
use crate::error::io_reason;
use crate::{Error, Result};

/// File name extensions that count as images, in any case. The contents decide the format.
pub const EXTENSIONS: [&str; 9] = ["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "ppm", "pgm"];

/// At most this many names are written into one message.
const NAMED: usize = 5;

/// One image file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Where it lies below its folder, with `/` between the parts.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A file with an image's extension that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Where it lies below its folder, with `/` between the parts.
    pub name: String,
    /// Why it is left out, in a few words.
    pub reason: String,
}

/// The images below a folder, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// The folder.
    pub path: PathBuf,
    /// What can be used, sorted by name.
    pub images: Vec<Image>,
    /// What cannot, sorted by name.
    pub skipped: Vec<Skipped>,
}

impl Folder {
    /// Finds all images below `path`.
    ///
    /// Sub-folders are searched and links followed; hidden files are passed over. Of each image
    /// only the header is read, in parallel, so that 100 000 images open in seconds: an empty
    /// file, a text file called `.png` or an image with a side below [`MIN_SIDE`] is found here,
    /// a file that breaks off only when it is decoded.
    ///
    /// # Errors
    /// If there is no such folder, it cannot be read, or it has no image that can be used.
    ///
    /// [`MIN_SIDE`]: super::MIN_SIDE
    pub fn open(path: &Path) -> Result<Self> {
        let (folder, others) = Self::scan(path)?;
        if !folder.images.is_empty() {
            return Ok(folder);
        }
        let shown = path.display();
        Err(if !folder.skipped.is_empty() {
            Error::new(format!("no image in {shown} can be used: {}", list_skipped(&folder.skipped)))
                .hint("replace these files by images that other programs can show")
        } else if !others.is_empty() {
            let kinds: Vec<String> = others.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
            Error::new(format!("no image in {shown}, only other files: {}", kinds.join(", ")))
                .hint(format!("convert them to one of {}", EXTENSIONS.join(", ")))
        } else {
            Error::new(format!("no image in {shown}: the folder is empty"))
                .hint(format!("put images there: {}", EXTENSIONS.join(", ")))
        })
    }

    /// The folder, even without a usable image, and what other files it has: kind to number.
    fn scan(path: &Path) -> Result<(Self, BTreeMap<String, usize>)> {
        if !path.exists() {
            let error = Error::new(format!("no such folder: {}", path.display()));
            return Err(match near_names(path).as_slice() {
                [] => error,
                names => error.hint(format!("did you mean {}?", names.join(" or "))),
            });
        }
        if !path.is_dir() {
            return Err(Error::new(format!("not a folder: {}", path.display()))
                .hint("give the folder that the images are in"));
        }
        let mut walk = Walk::default();
        walk.folder(path, "")?;
        let probed: Vec<(String, PathBuf, Result<u64, String>)> = walk
            .files
            .into_par_iter()
            .map(|(name, path)| {
                let probed = decode::probe(&path).and_then(|()| {
                    let file = std::fs::metadata(&path).map_err(|e| io_reason(&e))?;
                    Ok(file.len())
                });
                (name, path, probed)
            })
            .collect();
        let mut folder = Self { path: path.to_owned(), images: vec![], skipped: vec![] };
        for (name, path, probed) in probed {
            match probed {
                Ok(bytes) => folder.images.push(Image { name, path, bytes }),
                Err(reason) => folder.skipped.push(Skipped { name, reason }),
            }
        }
        Ok((folder, walk.others))
    }

    /// Up to `count` images spread evenly over the folder, decoded, with their names: the same
    /// ones each time, for sample grids. What cannot be decoded is passed over.
    pub fn samples(&self, count: usize) -> Vec<(String, Rgb8)> {
        let len = self.images.len();
        let mut samples = Vec::new();
        let mut next = 0;
        for i in 0..count.min(len) {
            next = next.max(i * len / count.min(len));
            while let Some(image) = self.images.get(next) {
                next += 1;
                if let Ok(rgb) = load_image(&image.path) {
                    samples.push((image.name.clone(), rgb));
                    break;
                }
            }
        }
        samples
    }

    /// One line about the files left out, if any are.
    pub fn note(&self) -> Option<String> {
        let (skipped, all) = (self.skipped.len(), self.skipped.len() + self.images.len());
        (skipped > 0).then(|| {
            let path = self.path.display();
            format!("skipped {skipped} of {all} images in {path}: {}", list_skipped(&self.skipped))
        })
    }
}

/// A data set: images of A and of B to train with, and, if there are any, to test with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The folder that the four others are in.
    pub root: PathBuf,
    /// Images of the source, from `trainA`; never empty.
    pub train_a: Folder,
    /// Images of the target, from `trainB`; never empty.
    pub train_b: Folder,
    /// From `testA`; may be empty, as training does not need it.
    pub test_a: Folder,
    /// From `testB`; may be empty.
    pub test_b: Folder,
    notes: Vec<String>,
}

impl Dataset {
    /// Opens the data set in `root`: `trainA` and `trainB`, and `testA` and `testB` if they exist.
    ///
    /// # Errors
    /// If `root`, `trainA` or `trainB` is missing or cannot be read, or one of the two has no
    /// image that can be used. A missing or useless test folder is only noted.
    pub fn open(root: &Path) -> Result<Self> {
        if !root.is_dir() {
            let missing = if root.exists() { "not a folder" } else { "no such folder" };
            let error = Error::new(format!("{missing}: {}", root.display()));
            return Err(match near_names(root).as_slice() {
                [] => error.hint("a data set is a folder with the folders trainA and trainB in it"),
                names => error.hint(format!("did you mean {}?", names.join(" or "))),
            });
        }
        for part in ["trainA", "trainB"] {
            if !root.join(part).is_dir() {
                return Err(Error::new(format!("no folder {part} in {}", root.display()))
                    .hint(missing_part_hint(root, part)));
            }
        }
        let (train_a, train_b) = (Folder::open(&root.join("trainA"))?, Folder::open(&root.join("trainB"))?);
        let mut notes: Vec<String> = [train_a.note(), train_b.note()].into_iter().flatten().collect();
        let mut test = |part: &str| {
            let path = root.join(part);
            let folder = Folder { path: path.clone(), images: vec![], skipped: vec![] };
            if !path.exists() {
                notes.push(format!("no test images: there is no {}", path.display()));
                return folder;
            }
            match Folder::scan(&path) {
                Ok((folder, _)) => {
                    notes.extend(folder.note());
                    if folder.images.is_empty() && folder.skipped.is_empty() {
                        notes.push(format!("no test images: {} has none", path.display()));
                    }
                    folder
                }
                Err(e) => {
                    notes.push(format!("no test images: {}", e.message()));
                    folder
                }
            }
        };
        let (test_a, test_b) = (test("testA"), test("testB"));
        Ok(Self { root: root.to_owned(), train_a, train_b, test_a, test_b, notes })
    }

    /// What is to be reported: files left out, test folders missing. One line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// A number that tells these training images from others, by names and file sizes.
    ///
    /// Batches depend on the folder's contents. A run that is resumed with another fingerprint
    /// sees other batches than it would have seen, which is worth a warning.
    pub fn fingerprint(&self) -> u64 {
        // FNV-1a: short, and the same in every version.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |bytes: &[u8]| {
            for &byte in bytes {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            }
        };
        for folder in [&self.train_a, &self.train_b] {
            add(&(folder.images.len() as u64).to_le_bytes());
            for image in &folder.images {
                add(image.name.as_bytes());
                add(&[0]);
                add(&image.bytes.to_le_bytes());
            }
        }
        hash
    }
}

/// Names and reasons, the first few of them.
fn list_skipped(skipped: &[Skipped]) -> String {
    let mut text: Vec<String> =
        skipped.iter().take(NAMED).map(|s| format!("{} ({})", s.name, s.reason)).collect();
    if skipped.len() > NAMED {
        text.push(format!("and {} more", skipped.len() - NAMED));
    }
    text.join(", ")
}

/// Where the missing `part` may be instead.
fn missing_part_hint(root: &Path, part: &str) -> String {
    let folders = folders_in(root);
    // Unpacking an archive often leaves a folder in a folder.
    if let Some(inner) = folders.iter().find(|name| root.join(name).join("trainA").is_dir()) {
        return format!("it is in a folder below: use {}", root.join(inner).display());
    }
    // Or the path goes one too far.
    if let Some(above) = root.parent()
        && above.join("trainA").is_dir()
    {
        return format!("use the folder above: {}", above.display());
    }
    let plain = |name: &str| name.to_lowercase().replace(['_', '-', ' ', '.'], "");
    if let Some(other) = folders.iter().find(|name| plain(name) == plain(part)) {
        return format!("rename {other} to {part}");
    }
    format!("a data set needs the folders trainA and trainB; put the images of one side into {part}")
}

/// Names of the folders in `path`, sorted; none if it cannot be read.
fn folders_in(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Folders beside `path` whose names are close to its own, as paths.
fn near_names(path: &Path) -> Vec<String> {
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
        return vec![];
    };
    let name = name.to_string_lossy().to_lowercase();
    let searched = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let allowed = (name.chars().count() / 3).max(1);
    folders_in(searched)
        .into_iter()
        .filter(|other| strsim::levenshtein(&name, &other.to_lowercase()) <= allowed)
        .take(3)
        .map(|other| parent.join(other).display().to_string())
        .collect()
}

/// What a search through a folder and its sub-folders found.
#[derive(Default)]
struct Walk {
    /// Name and path of every file with an image's extension, sorted by name at the end.
    files: Vec<(String, PathBuf)>,
    /// Other files: extension to number.
    others: BTreeMap<String, usize>,
    /// Folders that were entered, so that a link to a folder above ends.
    entered: HashSet<PathBuf>,
}

impl Walk {
    /// Searches `path`, whose name below the start is `name`.
    fn folder(&mut self, path: &Path, name: &str) -> Result<()> {
        let failed =
            |e: std::io::Error| Error::new(format!("cannot read {}: {}", path.display(), io_reason(&e)));
        if !self.entered.insert(path.canonicalize().map_err(failed)?) {
            return Ok(());
        }
        let mut entries =
            std::fs::read_dir(path).and_then(|d| d.collect::<Result<Vec<_>, _>>()).map_err(failed)?;
        // Which of two links to one folder is entered must not depend on the file system.
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (path, own) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if own.starts_with('.') {
                continue;
            }
            let below = if name.is_empty() { own } else { format!("{name}/{own}") };
            if path.is_dir() {
                self.folder(&path, &below)?;
                continue;
            }
            let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
            match extension {
                Some(e) if EXTENSIONS.contains(&e.as_str()) => self.files.push((below, path)),
                Some(e) => *self.others.entry(format!(".{e}")).or_default() += 1,
                None => *self.others.entry("without extension".to_owned()).or_default() += 1,
            }
        }
        if name.is_empty() {
            self.files.sort();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{noise, noise_set, project, save};

    fn names(folder: &Folder) -> Vec<&str> {
        folder.images.iter().map(|p| p.name.as_str()).collect()
    }

    #[test]
    fn the_sample_set_opens() {
        let set = Dataset::open(&project("samples/emoji-people")).unwrap();
        let counts = [&set.train_a, &set.train_b, &set.test_a, &set.test_b].map(|f| f.images.len());
        assert_eq!(counts, [48, 48, 12, 12]);
        assert!(set.notes().is_empty());
        assert_eq!(names(&set.train_a)[..2], ["0000.png", "0001.png"]);
    }

    #[test]
    fn files_are_found_in_sub_folders_in_order_and_bad_ones_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for name in ["b/10.PNG", "b/9.png", "a.bmp", "c.png", "b/c/d.tiff", ".hidden.png"] {
            let path = path.join(name);
            save(&path.with_extension("png"), &noise(9, 9, 1));
            std::fs::rename(path.with_extension("png"), path).unwrap();
        }
        std::fs::write(path.join("notes.txt"), "x").unwrap();
        std::fs::write(path.join("zero.jpg"), "").unwrap();
        std::fs::write(path.join("text.png"), "x").unwrap();
        save(&path.join("dot.png"), &noise(1, 1, 1));
        let found = Folder::open(path).unwrap();
        assert_eq!(names(&found), ["a.bmp", "b/10.PNG", "b/9.png", "b/c/d.tiff", "c.png"]);
        assert_eq!(
            found.note().unwrap(),
            format!(
                "skipped 3 of 8 images in {}: \
                 dot.png (only 1 x 1 pixels, at least 8 x 8 are needed), \
                 text.png (not an image (png, jpeg, webp, bmp, tiff, pnm)), \
                 zero.jpg (the file is empty)",
                path.display()
            )
        );
    }

    #[test]
    fn long_lists_of_bad_files_are_cut() {
        let skipped = |i: usize| Skipped { name: format!("{i}.png"), reason: "the file is empty".to_owned() };
        let text = list_skipped(&(0..9).map(skipped).collect::<Vec<_>>());
        assert!(text.ends_with("4.png (the file is empty), and 4 more"), "{text}");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_circles_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        save(&path.join("set/p.png"), &noise(9, 9, 1));
        save(&path.join("elsewhere/q.png"), &noise(9, 9, 1));
        std::os::unix::fs::symlink(path.join("set"), path.join("set/circle")).unwrap();
        std::os::unix::fs::symlink(path.join("elsewhere"), path.join("set/linked")).unwrap();
        std::os::unix::fs::symlink(path.join("nowhere"), path.join("set/gone.png")).unwrap();
        let found = Folder::open(&path.join("set")).unwrap();
        assert_eq!(names(&found), ["linked/q.png", "p.png"]);
        assert_eq!(found.skipped[0].reason, "no such file or directory");
    }

    /// Message and hint of the error when `root` is opened, with the folder's path cut out.
    fn failure(folder: &tempfile::TempDir, name: &str) -> (String, String) {
        let error = Dataset::open(&folder.path().join(name)).unwrap_err();
        let cut = |text: &str| text.replace(&folder.path().display().to_string(), "DIR");
        (cut(error.message()), cut(error.hint_text().unwrap()))
    }

    #[test]
    fn a_missing_data_set_is_named_and_near_names_hinted_at() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = (
            "no such folder: DIR/selfie2anime",
            "a data set is a folder with the folders \
                       trainA and trainB in it",
        );
        assert_eq!(failure(&folder, "selfie2anime"), (nothing.0.into(), nothing.1.into()));
        noise_set(&folder.path().join("Selfie2anme"), 1, 1);
        noise_set(&folder.path().join("horses"), 1, 1);
        let near = (nothing.0.into(), "did you mean DIR/Selfie2anme?".into());
        assert_eq!(failure(&folder, "selfie2anime"), near);
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(failure(&folder, "file").0, "not a folder: DIR/file");
    }

    #[test]
    fn missing_parts_are_hinted_at() {
        let folder = tempfile::tempdir().unwrap();
        let set = folder.path().join("set");
        noise_set(&set, 1, 0);
        let missing = "no folder trainB in DIR/set";
        let hint = "a data set needs the folders trainA and trainB; put the images of one side into trainB";
        assert_eq!(failure(&folder, "set"), (missing.into(), hint.into()));
        std::fs::create_dir(set.join("train_b")).unwrap();
        assert_eq!(failure(&folder, "set"), (missing.into(), "rename train_b to trainB".into()));
        let within = ("no folder trainA in DIR/set/trainA".into(), "use the folder above: DIR/set".into());
        assert_eq!(failure(&folder, "set/trainA"), within);
        let outside = ("no folder trainA in DIR/".into(), "it is in a folder below: use DIR/set".into());
        assert_eq!(failure(&folder, ""), outside);
    }

    #[test]
    fn folders_without_a_image_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        noise_set(&folder.path().join("set"), 1, 0);
        let part = folder.path().join("set/trainB");
        std::fs::create_dir(&part).unwrap();
        assert_eq!(failure(&folder, "set").0, "no image in DIR/set/trainB: the folder is empty");
        for name in ["1.gif", "2.gif", "readme"] {
            std::fs::write(part.join(name), "x").unwrap();
        }
        let others = "no image in DIR/set/trainB, only other files: 2 .gif, 1 without extension";
        assert_eq!(failure(&folder, "set").0, others);
        std::fs::write(part.join("1.png"), "").unwrap();
        let bad = "no image in DIR/set/trainB can be used: 1.png (the file is empty)";
        assert_eq!(failure(&folder, "set").0, bad);
    }

    #[test]
    fn test_images_are_not_needed() {
        let folder = tempfile::tempdir().unwrap();
        noise_set(folder.path(), 2, 3);
        std::fs::create_dir(folder.path().join("testB")).unwrap();
        let set = Dataset::open(folder.path()).unwrap();
        let root = folder.path().display();
        let notes = [
            format!("no test images: there is no {root}/testA"),
            format!("no test images: {root}/testB has none"),
        ];
        assert_eq!(set.notes(), notes);
        assert!(set.test_a.images.is_empty() && set.test_b.images.is_empty());
    }

    #[test]
    fn the_fingerprint_tells_changed_folders() {
        let folder = tempfile::tempdir().unwrap();
        noise_set(folder.path(), 2, 3);
        let first = Dataset::open(folder.path()).unwrap().fingerprint();
        assert_eq!(first, Dataset::open(folder.path()).unwrap().fingerprint());
        noise_set(folder.path(), 3, 3);
        let second = Dataset::open(folder.path()).unwrap().fingerprint();
        save(&folder.path().join("trainB/000.png"), &noise(8, 8, 1));
        let third = Dataset::open(folder.path()).unwrap().fingerprint();
        assert!(first != second && second != third && first != third);
    }

    #[test]
    fn samples_are_spread_and_readable() {
        let folder = tempfile::tempdir().unwrap();
        noise_set(folder.path(), 10, 1);
        let broken = folder.path().join("trainA/000.png");
        let bytes = std::fs::read(&broken).unwrap();
        std::fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
        let found = Folder::open(&folder.path().join("trainA")).unwrap();
        let samples = |n| found.samples(n).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(samples(3), ["001.png", "003.png", "006.png"]);
        assert_eq!(samples(20).len(), 9);
        assert!(samples(0).is_empty());
        assert_eq!(found.samples(1)[0].1, noise(20, 17, 101));
    }
}
