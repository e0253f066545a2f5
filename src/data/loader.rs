//! The batch of any step.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::augment::append_crop;
use super::folder::{Dataset, Folder};
use super::order::{Domain, Orders};
use super::{Augmentation, MARGIN, Rgb8, load_image, resize_bilinear};
use crate::{Error, Result};

/// How batches are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Side of the model's input in pixels, above 0.
    pub size: usize,
    /// Images of each domain in a batch, above 0.
    pub batch: usize,
    /// The run's seed; order and augmentation are drawn from it.
    pub seed: u64,
    /// Pixels to crop away from each resized image, in all.
    pub margin: usize,
    /// Threads that make batches in the background, at least one.
    pub threads: usize,
    /// Batches made ahead, at least one.
    pub ahead: usize,
    /// Bytes of memory for resized images that will be needed again.
    pub cache_bytes: usize,
}

impl LoaderOptions {
    /// The official pipeline: a margin of [`MARGIN`]; half of the processors but at most 8 threads,
    /// 8 batches ahead, 256 MiB of cache.
    pub fn new(size: usize, batch: usize, seed: u64) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = (processors / 2).clamp(1, 8);
        Self { size, batch, seed, margin: MARGIN, threads, ahead: 8, cache_bytes: 256 << 20 }
    }
}

/// The images of one training step, each side of shape [N, S, S, 3], in [-1, 1].
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The step, counted from 1.
    pub step: u64,
    /// Images of A.
    pub a: Vec<f32>,
    /// Images of B.
    pub b: Vec<f32>,
    /// File names of the images of A, below `trainA`.
    pub names_a: Vec<String>,
    /// File names of the images of B, below `trainB`.
    pub names_b: Vec<String>,
}

/// Makes the batch of any step, on the thread that asks.
///
/// A and B are shuffled independently, epoch by epoch; the shorter side begins its next epoch
/// earlier, and a batch that an epoch cannot fill goes on into the next: all batches are full.
/// Step `t` of a run with batch size N takes the images `(t-1)*N .. t*N` of either side.
///
/// An image that cannot be decoded is named in a warning, once, and in its place comes the next
/// image in the order of that epoch that can be. As the replacement depends on nothing but order
/// and files, all runs with one seed replace alike, resumed ones too. (The files must stay as
/// they are. One that failed once is not tried again.)
pub struct Loader {
    options: LoaderOptions,
    a: Folder,
    b: Folder,
    orders: Orders,
    cache: Mutex<Cache>,
    trouble: Mutex<Trouble>,
}

/// Images resized to the model's side plus margin, by domain, image and flip. (A flipped
/// image is flipped before resizing: rounding may make that another image than after.)
#[derive(Default)]
struct Cache {
    images: HashMap<(Domain, usize, bool), Arc<Rgb8>>,
    bytes: usize,
}

/// Images that could not be decoded, and what of that was not reported yet.
#[derive(Default)]
struct Trouble {
    unreadable: HashSet<(Domain, usize)>,
    warnings: Vec<String>,
}

impl Loader {
    /// A loader of the training images of `dataset`.
    ///
    /// # Errors
    /// If size or batch is 0 or one side has no images.
    pub fn new(dataset: &Dataset, options: LoaderOptions) -> Result<Self> {
        for (name, value) in [("size", options.size), ("batch", options.batch)] {
            if value == 0 {
                return Err(Error::new(format!("the {name} must be above 0")));
            }
        }
        for folder in [&dataset.train_a, &dataset.train_b] {
            if folder.images.is_empty() {
                return Err(Error::new(format!("no image in {}", folder.path.display())));
            }
        }
        Ok(Self {
            orders: Orders::new(options.seed),
            options,
            a: dataset.train_a.clone(),
            b: dataset.train_b.clone(),
            cache: Mutex::default(),
            trouble: Mutex::default(),
        })
    }

    /// How this loader makes batches.
    pub fn options(&self) -> &LoaderOptions {
        &self.options
    }

    /// The batch of `step`, counted from 1 (0 is taken as 1).
    ///
    /// # Errors
    /// If none of a side's images can be decoded.
    pub fn batch(&self, step: u64) -> Result<Batch> {
        let step = step.max(1);
        let (a, names_a) = self.side(Domain::A, step)?;
        let (b, names_b) = self.side(Domain::B, step)?;
        Ok(Batch { step, a, b, names_a, names_b })
    }

    /// Warnings since the last call, a line for each image that had to be skipped.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.trouble).warnings)
    }

    fn side(&self, domain: Domain, step: u64) -> Result<(Vec<f32>, Vec<String>)> {
        let LoaderOptions { size, batch, seed, margin, .. } = self.options;
        let mut values = Vec::with_capacity(batch * size * size * 3);
        let mut names = Vec::with_capacity(batch);
        for place in 0..batch as u64 {
            let index = (step - 1).wrapping_mul(batch as u64).wrapping_add(place);
            let draw = Augmentation::draw(seed, domain, index, margin);
            let (rgb, name) = self.image(domain, index, draw.flip)?;
            append_crop(&rgb, draw, size, &mut values);
            names.push(name);
        }
        Ok((values, names))
    }

    /// The `index`-th image of a side, or the next one that can be decoded.
    fn image(&self, domain: Domain, index: u64, flip: bool) -> Result<(Arc<Rgb8>, String)> {
        let folder = self.folder(domain);
        let len = folder.images.len();
        for skipped in 0..len {
            let which = self.orders.image(domain, len, index, skipped);
            if let Some(rgb) = self.prepared(domain, which, flip) {
                return Ok((rgb, folder.images[which].name.clone()));
            }
        }
        Err(Error::new(format!("none of the {len} images in {} can be decoded", folder.path.display()))
            .hint("the warnings name what is wrong with each; replace the files"))
    }

    /// One image, flipped and resized, from the cache or the file; none if it is unreadable.
    fn prepared(&self, domain: Domain, which: usize, flip: bool) -> Option<Arc<Rgb8>> {
        if let Some(rgb) = lock(&self.cache).images.get(&(domain, which, flip)) {
            return Some(Arc::clone(rgb));
        }
        if lock(&self.trouble).unreadable.contains(&(domain, which)) {
            return None;
        }
        let image = &self.folder(domain).images[which];
        let rgb = match load_image(&image.path) {
            Ok(rgb) if flip => rgb.flipped(),
            Ok(rgb) => rgb,
            Err(error) => {
                let mut trouble = lock(&self.trouble);
                // Two threads may have tried it at once.
                if trouble.unreadable.insert((domain, which)) {
                    trouble.warnings.push(format!("skipping an image: {}", error.message()));
                }
                return None;
            }
        };
        let side = self.options.size + self.options.margin;
        let rgb = Arc::new(resize_bilinear(&rgb, side, side));
        let bytes = rgb.pixels().len();
        let mut cache = lock(&self.cache);
        // When it is full it stays as it is: each image comes once an epoch, so throwing one out
        // for another gains nothing.
        if cache.bytes + bytes <= self.options.cache_bytes
            && cache.images.insert((domain, which, flip), Arc::clone(&rgb)).is_none()
        {
            cache.bytes += bytes;
        }
        Some(rgb)
    }

    fn folder(&self, domain: Domain) -> &Folder {
        match domain {
            Domain::A => &self.a,
            Domain::B => &self.b,
        }
    }
}

/// The lock, whether or not a thread died holding it: what is inside is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{noise, noise_set};
    use crate::data::{from_output, permutation};

    fn options() -> LoaderOptions {
        LoaderOptions { margin: 6, ..LoaderOptions::new(16, 2, 5) }
    }

    fn open(folder: &tempfile::TempDir, options: LoaderOptions) -> Loader {
        Loader::new(&Dataset::open(folder.path()).unwrap(), options).unwrap()
    }

    #[test]
    fn a_batch_is_what_order_and_draws_say() {
        let folder = tempfile::tempdir().unwrap();
        noise_set(folder.path(), 5, 3);
        let loader = open(&folder, options());
        let mut flips = 0;
        for step in 1..=9 {
            let batch = loader.batch(step).unwrap();
            assert_eq!((batch.step, batch.a.len(), batch.b.len()), (step, 2 * 16 * 16 * 3, 2 * 16 * 16 * 3));
            for (domain, values, names, len, seed) in
                [(Domain::A, &batch.a, &batch.names_a, 5, 100), (Domain::B, &batch.b, &batch.names_b, 3, 200)]
            {
                for place in 0..2 {
                    let index = (step - 1) * 2 + place as u64;
                    let order = permutation(5, domain, index / len, len as usize);
                    let which = order[(index % len) as usize];
                    assert_eq!(names[place], format!("{which:03}.png"));
                    let draw = Augmentation::draw(5, domain, index, 6);
                    let mut rgb = noise(20, 17, seed + which);
                    if draw.flip {
                        flips += 1;
                        rgb = rgb.flipped();
                    }
                    let rgb = resize_bilinear(&rgb, 22, 22);
                    let got = from_output(&values[place * 768..(place + 1) * 768], 16, 16).unwrap();
                    for y in 0..16 {
                        let want = &rgb.row(y + draw.top)[draw.left * 3..(draw.left + 16) * 3];
                        assert_eq!(got.row(y), want);
                    }
                }
            }
        }
        assert!(flips > 5 && flips < 31, "{flips}");
    }

    #[test]
    fn every_epoch_shows_every_image_once() {
        let folder = tempfile::tempdir().unwrap();
        noise_set(folder.path(), 5, 3);
        let loader = open(&folder, options());
        let batches: Vec<_> = (1..=15).map(|step| loader.batch(step).unwrap()).collect();
        let a: Vec<_> = batches.iter().flat_map(|b| b.names_a.clone()).collect();
        let b: Vec<_> = batches.iter().flat_map(|b| b.names_b.clone()).collect();
        let epochs = a.chunks(5).chain(b.chunks(3));
        for epoch in epochs {
            let different: HashSet<_> = epoch.iter().collect();
            assert_eq!(different.len(), epoch.len());
        }
    }

    #[test]
    fn the_cache_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        noise_set(folder.path(), 5, 3);
        let none = open(&folder, LoaderOptions { cache_bytes: 0, ..options() });
        // Room for three images, and for all.
        let some = open(&folder, LoaderOptions { cache_bytes: 22 * 22 * 3 * 3 + 5, ..options() });
        let all = open(&folder, options());
        for step in (1..20).chain(1..5) {
            let batch = none.batch(step).unwrap();
            assert_eq!(batch, some.batch(step).unwrap());
            assert_eq!(batch, all.batch(step).unwrap());
        }
        assert_eq!(lock(&none.cache).images.len(), 0);
        assert_eq!(lock(&some.cache).images.len(), 3);
        assert_eq!(lock(&all.cache).images.len(), 16);
        // What was read once is not read again.
        std::fs::remove_dir_all(folder.path().join("trainA")).unwrap();
        assert!(all.batch(30).is_ok());
        assert!(none.batch(30).is_err());
    }

    /// Cuts the file in the middle: its header is fine, its pixels are not.
    pub(in crate::data) fn break_off(folder: &tempfile::TempDir, name: &str) {
        let path = folder.path().join(name);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }

    #[test]
    fn the_next_readable_image_stands_in_for_a_broken_one() {
        let (folder, intact) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        noise_set(folder.path(), 5, 3);
        noise_set(intact.path(), 5, 3);
        let whole = open(&intact, options());
        break_off(&folder, "trainA/002.png");
        let loader = open(&folder, options());
        let mut replaced = 0;
        for step in 1..=20 {
            let (want, got) = (whole.batch(step).unwrap(), loader.batch(step).unwrap());
            assert_eq!((&want.b, &want.names_b), (&got.b, &got.names_b));
            for place in 0..2 {
                if want.names_a[place] != "002.png" {
                    assert_eq!(want.names_a[place], got.names_a[place]);
                    continue;
                }
                replaced += 1;
                let index = (step - 1) * 2 + place as u64;
                let order = permutation(5, Domain::A, index / 5, 5);
                let next = order[(index as usize + 1) % 5];
                assert_eq!(got.names_a[place], format!("{next:03}.png"));
            }
        }
        assert_eq!(replaced, 8);
        let warnings = loader.take_warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with("skipping an image: cannot read "), "{warnings:?}");
        assert!(warnings[0].contains("002.png: "), "{warnings:?}");
        assert!(loader.take_warnings().is_empty());
        // A resumed run replaces alike, though it has not met the broken image before.
        for step in [7, 20, 13] {
            assert_eq!(open(&folder, options()).batch(step).unwrap(), loader.batch(step).unwrap());
        }
    }

    #[test]
    fn no_readable_image_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        noise_set(folder.path(), 2, 3);
        break_off(&folder, "trainA/000.png");
        break_off(&folder, "trainA/001.png");
        let loader = open(&folder, options());
        for step in [1, 2] {
            let message = loader.batch(step).unwrap_err().message().to_owned();
            assert!(message.starts_with("none of the 2 images in "), "{message}");
        }
        assert_eq!(loader.take_warnings().len(), 2);
    }

    #[test]
    fn sizes_of_nothing_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        noise_set(folder.path(), 1, 1);
        let set = Dataset::open(folder.path()).unwrap();
        for options in [LoaderOptions::new(0, 1, 1), LoaderOptions::new(16, 0, 1)] {
            assert!(Loader::new(&set, options).is_err());
        }
    }

    #[test]
    fn images_never_change_between_versions() {
        let folder = tempfile::tempdir().unwrap();
        noise_set(folder.path(), 5, 3);
        let batch = open(&folder, options()).batch(1).unwrap();
        assert_eq!(batch.names_a, PINNED_A);
        let sum: f64 = batch.a.iter().chain(&batch.b).map(|&v| f64::from(v)).sum();
        assert!((sum - PINNED_SUM).abs() < 1e-3, "{sum}");
    }

    const PINNED_A: [&str; 2] = ["001.png", "004.png"];
    const PINNED_SUM: f64 = -57.505_883;
}
