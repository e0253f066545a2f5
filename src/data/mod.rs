//! Images: folders of them, decoding, resizing, augmentation, and batches made ahead of time.
//!
//! A data set is a folder with `trainA` and `trainB` (and, if there are any, `testA` and
//! `testB`), as in the official PyTorch release. [`Dataset::open`] finds the images,
//! [`Loader`] makes the batch of any step, [`Prefetcher`] makes batches in the background.
//!
//! **Invariant: a batch is a pure function** of the folder's contents, the seed and the step.
//! There is no generator whose state would have to be saved: a resumed run asks for the next step
//! and gets what an uninterrupted run would have got, and neither the number of threads nor the
//! cache changes a byte. Three things make it so:
//! - the order of epoch `e` is a permutation drawn from `(seed, domain, e)`, see [`permutation`];
//! - flip and crop of the `k`-th image of a domain are drawn from `(seed, domain, k)`, see
//!   [`Augmentation`];
//! - an image that cannot be decoded is replaced by the next readable one in the order of its
//!   epoch, see [`Loader`].
//!
//! Model tensors are `f32`, NHWC, RGB, in [-1, 1].

mod augment;
mod decode;
mod folder;
mod loader;
mod order;
mod prefetch;
mod resize;
mod rgb;

pub use augment::{Augmentation, MARGIN, from_output, normalise, to_input};
pub use decode::{MIN_SIDE, load_image};
pub use folder::{Dataset, EXTENSIONS, Folder, Image, Skipped};
pub use loader::{Batch, Loader, LoaderOptions};
pub use order::{Domain, permutation};
pub use prefetch::Prefetcher;
pub use resize::resize_bilinear;
pub use rgb::Rgb8;

#[cfg(test)]
pub(crate) mod testing;
