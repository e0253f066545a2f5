//! Who may see whose writes.

mod block_race;

pub(crate) use block_race::{Access, Races};
