//! The order of images, and where all randomness of the data comes from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// One of the two sides of a translation: A the source, B the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Domain {
    /// The source, `trainA`.
    A,
    /// The target, `trainB`.
    B,
}

/// A fresh generator whose whole state is its key: nothing is shared between two uses.
pub(super) fn generator(seed: u64, use_: [u8; 8], domain: Domain, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&use_);
    key[16] = domain as u8;
    key[24..].copy_from_slice(&index.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// A number below `bound` (not 0), each as likely as the other to one part in 2^64 / `bound`.
///
/// Written out, because a library's range function may give other numbers in its next version,
/// and runs must go on as they began.
pub(super) fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// The order in which `domain` gives its `len` images in `epoch` (from 0), as indices.
///
/// A pure function; every permutation is as likely (Fisher and Yates).
pub fn permutation(seed: u64, domain: Domain, epoch: u64, len: usize) -> Vec<u32> {
    let mut rng = generator(seed, *b"shuffle\0", domain, epoch);
    let mut order: Vec<u32> = (0..len as u32).collect();
    for last in (1..len).rev() {
        order.swap(last, below(&mut rng, last as u64 + 1) as usize);
    }
    order
}

/// Permutations at hand, so that an epoch's is not drawn again for every batch.
pub(super) struct Orders {
    seed: u64,
    recent: Mutex<Recent>,
}

/// Orders by domain and epoch.
type Recent = HashMap<(Domain, u64), Arc<Vec<u32>>>;

impl Orders {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, recent: Mutex::default() }
    }

    /// Which image of `len` is the `index`-th (from 0) that `domain` gives. With `skipped` above
    /// 0: the one that comes that many places later in the order of the same epoch, going round.
    pub(super) fn image(&self, domain: Domain, len: usize, index: u64, skipped: usize) -> usize {
        let (epoch, place) = (index / len as u64, (index % len as u64) as usize);
        let order = self.epoch(domain, len, epoch);
        order[(place + skipped) % len] as usize
    }

    fn epoch(&self, domain: Domain, len: usize, epoch: u64) -> Arc<Vec<u32>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(order) = recent.get(&(domain, epoch)) {
            return Arc::clone(order);
        }
        // Threads work at most a few batches apart: nobody comes back to older epochs.
        recent.retain(|&(d, e), _| d != domain || e + 2 > epoch);
        let order = Arc::new(permutation(self.seed, domain, epoch, len));
        recent.insert((domain, epoch), Arc::clone(&order));
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_every_image_once() {
        for len in [1, 2, 3, 48, 1000] {
            for epoch in 0..5 {
                let mut order = permutation(3, Domain::B, epoch, len);
                order.sort_unstable();
                assert!(order.into_iter().eq(0..len as u32));
            }
        }
        assert!(permutation(3, Domain::B, 0, 0).is_empty());
    }

    #[test]
    fn epochs_domains_and_seeds_differ() {
        let first = permutation(3, Domain::A, 0, 48);
        assert_eq!(first, permutation(3, Domain::A, 0, 48));
        assert_ne!(first, permutation(3, Domain::A, 1, 48));
        assert_ne!(first, permutation(3, Domain::B, 0, 48));
        assert_ne!(first, permutation(4, Domain::A, 0, 48));
    }

    #[test]
    fn every_order_is_as_likely() {
        let mut counts = HashMap::new();
        for epoch in 0..2400 {
            *counts.entry(permutation(1, Domain::A, epoch, 4)).or_insert(0usize) += 1;
        }
        assert_eq!(counts.len(), 24);
        // 100 each, give or take five standard deviations.
        assert!(counts.values().all(|n| n.abs_diff(100) <= 50), "{counts:?}");
    }

    #[test]
    fn the_draws_never_change() {
        // Seeds are kept in checkpoints: a run resumed with a later version must go on alike.
        assert_eq!(permutation(1, Domain::A, 0, 8), PINNED);
    }

    const PINNED: [u32; 8] = [6, 7, 3, 4, 5, 2, 0, 1];

    #[test]
    fn indices_run_through_epochs() {
        let orders = Orders::new(9);
        for index in 0..60 {
            let epoch = permutation(9, Domain::A, index / 7, 7);
            let place = (index % 7) as usize;
            assert_eq!(orders.image(Domain::A, 7, index, 0), epoch[place] as usize);
            let next = epoch[(place + 3) % 7] as usize;
            assert_eq!(orders.image(Domain::A, 7, index, 3), next);
        }
        assert!(orders.recent.lock().unwrap().len() <= 3);
    }
}
