//! Batches made in the background.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::{Batch, Dataset, Loader, LoaderOptions};
use crate::{Error, Result};

/// Threads that make batches ahead of the training, which takes them in order.
///
/// Each thread makes whole batches, whichever step is next; a [`Loader`]'s batches depend on the
/// step alone, so how many threads there are changes only the speed. At most `ahead` batches wait.
/// Dropping it ends the threads, after the image they are at.
pub struct Prefetcher {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    loader: Loader,
    queue: Mutex<Queue>,
    /// A batch was taken: there may be room for one more.
    taken: Condvar,
    /// A batch was made.
    made: Condvar,
}

struct Queue {
    /// The step that the next free thread makes.
    to_make: u64,
    /// The step that training asks for next.
    to_take: u64,
    ready: BTreeMap<u64, Result<Batch>>,
    stop: bool,
}

impl Prefetcher {
    /// Begins to make batches, from that of `first_step` on: 1, or in a resumed run the step after
    /// the last one done.
    ///
    /// # Errors
    /// As [`Loader::new`], or if the system gives no thread.
    pub fn start(dataset: &Dataset, options: LoaderOptions, first_step: u64) -> Result<Self> {
        let threads = options.threads.max(1);
        let first_step = first_step.max(1);
        let shared = Arc::new(Shared {
            loader: Loader::new(dataset, options)?,
            queue: Mutex::new(Queue {
                to_make: first_step,
                to_take: first_step,
                ready: BTreeMap::new(),
                stop: false,
            }),
            taken: Condvar::new(),
            made: Condvar::new(),
        });
        // Built before its threads, so that what did start ends if another does not.
        let mut prefetcher = Self { shared, threads: vec![] };
        for i in 0..threads {
            let shared = Arc::clone(&prefetcher.shared);
            let thread = std::thread::Builder::new()
                .name(format!("images {i}"))
                .spawn(move || shared.work())
                .map_err(|e| Error::new(format!("cannot start a thread for images: {e}")))?;
            prefetcher.threads.push(thread);
        }
        Ok(prefetcher)
    }

    /// The batch of the next step; waits for it if it is not made yet.
    ///
    /// # Errors
    /// As [`Loader::batch`]. The next call goes on with the next step.
    pub fn next_batch(&mut self) -> Result<Batch> {
        let mut queue = self.shared.lock();
        loop {
            let step = queue.to_take;
            if let Some(batch) = queue.ready.remove(&step) {
                queue.to_take += 1;
                self.shared.taken.notify_one();
                return batch;
            }
            queue = self.shared.made.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Warnings since the last call, a line for each image that had to be skipped.
    pub fn take_warnings(&self) -> Vec<String> {
        self.shared.loader.take_warnings()
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.taken.notify_all();
        for thread in self.threads.drain(..) {
            // Whatever a thread died of was handed over as a batch's error.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let ahead = self.loader.options().ahead.max(1) as u64;
        let mut queue = self.lock();
        loop {
            while !queue.stop && queue.to_make >= queue.to_take.saturating_add(ahead) {
                queue = self.taken.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.stop {
                return;
            }
            let step = queue.to_make;
            queue.to_make += 1;
            drop(queue);
            // A panic must come out as an error: the training would wait for ever.
            let batch = catch_unwind(AssertUnwindSafe(|| self.loader.batch(step)))
                .unwrap_or_else(|_| Err(Error::new(format!("making the batch of step {step} failed"))));
            queue = self.lock();
            queue.ready.insert(step, batch);
            self.made.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::data::testing::noise_set;

    fn set(a: usize, b: usize) -> (tempfile::TempDir, Dataset) {
        let folder = tempfile::tempdir().unwrap();
        noise_set(folder.path(), a, b);
        let set = Dataset::open(folder.path()).unwrap();
        (folder, set)
    }

    fn options(threads: usize) -> LoaderOptions {
        LoaderOptions { margin: 6, threads, ahead: 3, ..LoaderOptions::new(16, 2, 5) }
    }

    #[test]
    fn threads_change_nothing_and_a_resumed_run_goes_on_alike() {
        let (_folder, set) = set(5, 3);
        let loader = Loader::new(&set, options(1)).unwrap();
        for threads in [0, 1, 2, 7] {
            for first in [1, 12] {
                let mut ahead = Prefetcher::start(&set, options(threads), first).unwrap();
                for step in first..first + 25 {
                    let batch = ahead.next_batch().unwrap();
                    assert_eq!(batch, loader.batch(step).unwrap());
                }
            }
        }
    }

    #[test]
    fn no_more_is_made_than_may_wait() {
        let (_folder, set) = set(5, 3);
        let mut ahead = Prefetcher::start(&set, options(2), 1).unwrap();
        let wait_for = |ahead: &Prefetcher, made: u64| {
            let begin = Instant::now();
            while ahead.shared.lock().ready.keys().max() != Some(&made) {
                assert!(begin.elapsed() < Duration::from_secs(20));
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        wait_for(&ahead, 3);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(ahead.shared.lock().to_make, 4);
        ahead.next_batch().unwrap();
        wait_for(&ahead, 4);
        assert_eq!(ahead.shared.lock().to_make, 5);
    }

    #[test]
    fn unreadable_sides_are_errors_and_dropping_still_works() {
        let (folder, set) = set(2, 1);
        std::fs::remove_dir_all(folder.path().join("trainB")).unwrap();
        let mut ahead = Prefetcher::start(&set, options(2), 1).unwrap();
        for _ in 0..10 {
            assert!(ahead.next_batch().is_err());
        }
        let warnings = ahead.take_warnings();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("000.png: no such file or directory"), "{warnings:?}");
    }

    #[test]
    fn dropping_ends_the_threads() {
        let (_folder, set) = set(2, 1);
        let ahead = Prefetcher::start(&set, options(4), 1).unwrap();
        let shared = Arc::downgrade(&ahead.shared);
        drop(ahead);
        assert!(shared.upgrade().is_none());
    }
}
