//! A cooperative launch: all blocks are resident at once, so that one may wait for another.
//!
//! The blocks run on one thread of the host, in turns. A block has its turn until every warp of it ended,
//! waits at a barrier or yielded (`nanosleep`); a loop that asks for another block's progress without
//! sleeping therefore never ends, and is reported as such.

use super::block::{PATIENCE, Round, Worker};
use crate::counters::tally::Tally;
use crate::fault::Fault;
use crate::launch::LaunchContext;

/// Runs all blocks; what was counted. A fault comes with its block.
pub(crate) fn run(launch: &LaunchContext) -> Result<Tally, (u64, Box<Fault>)> {
    let mut blocks: Vec<(u64, Worker)> = (0..launch.blocks()).map(|b| (b, Worker::default())).collect();
    if launch.reverse {
        blocks.reverse();
    }
    for (b, worker) in &mut blocks {
        worker.begin(launch);
        worker.start_block(launch, *b);
    }
    let mut tally = Tally::default();
    let mut idle = 0;
    while !blocks.is_empty() {
        let (mut moved, mut polling) = (false, false);
        let mut left = Vec::with_capacity(blocks.len());
        for (b, mut worker) in blocks {
            let ended = loop {
                match worker.round(launch).map_err(|fault| (b, fault))? {
                    Round::Done => break true,
                    Round::Moved => moved = true,
                    Round::Polling => {
                        polling = true;
                        break false;
                    }
                    Round::Stuck => return Err((b, worker.deadlock(launch, "the block can never go on"))),
                }
            };
            if ended {
                moved = true;
                if launch.count {
                    tally.add(&worker.tally);
                }
            } else {
                left.push((b, worker));
            }
        }
        blocks = left;
        idle = if moved { 0 } else { idle + 1 };
        if idle > PATIENCE
            && polling
            && let Some((b, worker)) = blocks.first()
        {
            return Err((*b, worker.deadlock(launch, "no block of the grid can go on")));
        }
    }
    Ok(tally)
}
