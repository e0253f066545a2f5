//! What may access what: the order between the warps of a block and between the blocks of a launch, and the
//! races where there is none.

mod block_race;
mod clock;
mod non_coherent;
mod shared_race;

pub(crate) use block_race::{Access, BlockAccess, Races};
pub(crate) use clock::{Clock, join};
pub(crate) use shared_race::{LaneAccess, Shadow, WarpAccess};
