//! Drops what nobody reads, lowers the rest, and lays every buffer out in one arena by its lifetime.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use super::lowering::Lowering;
use super::operation::Operations;
use super::record::Tape;
use super::rewrite::{pad_fusion, ring};
use super::value::{StateLayout, Value, ValueInfo, Values};
use super::variant::LowerOptions;
use crate::device::{BUFFER_ALIGN, Buffer, Launch, Location, Program, Space};
use crate::{Error, ErrorKind, Result};

/// A program and where the host finds its values.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What a device runs.
    pub program: Arc<Program>,
    /// Where every value lies that the host may read: kept and persistent ones.
    pub locations: HashMap<Value, Location>,
}

/// Plans a whole tape. Operations whose results reach neither persistent memory nor a kept value are
/// dropped.
///
/// # Errors
/// When a launch does not fit its kernel's signature: a bug in the engine; the message names the launch.
pub fn plan(name: &str, tape: &Tape, layout: &StateLayout) -> Result<Planned> {
    plan_with(name, tape, layout, LowerOptions::default())
}

/// As [`plan`], with the kernel variants and the GPU chosen.
///
/// # Errors
/// As [`plan`].
pub fn plan_with(name: &str, tape: &Tape, layout: &StateLayout, options: LowerOptions) -> Result<Planned> {
    let mut ops = live(tape);
    check_extents(&tape.values, &ops)?;
    if options.norm.fuses_padding() {
        pad_fusion::fuse(&tape.values, &mut ops);
    }
    ring::fuse(&tape.values, &mut ops);
    let mut to = Lowering::new(&tape.values, layout, tape.preset.clone(), options);
    for op in &ops {
        op.lower(&mut to)?;
    }
    let Lowering { mut buffers, mut launches, value_buffer, .. } = to;
    let kept: HashSet<u32> =
        value_buffer.iter().filter(|(v, _)| tape.info(**v).kept).map(|(_, &b)| b).collect();
    let arena_bytes = lay_out(&mut buffers, &mut launches, &kept);

    let name = name.to_owned();
    let target = options.target;
    let program = Program { name, target, buffers, launches, arena_bytes, state_bytes: layout.bytes() };
    for launch in &program.launches {
        launch.check(&program.buffers, target)?;
    }
    let locations = value_buffer
        .iter()
        .filter(|(v, _)| tape.values.outlives(**v))
        .map(|(&v, &b)| {
            let b = &program.buffers[b as usize];
            (v, Location { space: b.space, offset: b.offset, bytes: b.bytes })
        })
        .collect();
    Ok(Planned { program: Arc::new(program), locations })
}

/// Places the arena buffers and notes with each launch which of them it is the first to name. The contents of
/// `kept` survive to the end. Returns the arena's size.
pub(crate) fn lay_out(buffers: &mut [Buffer], launches: &mut [Launch], kept: &HashSet<u32>) -> u64 {
    // First and last launch that names each buffer.
    let mut lifetime: Vec<Option<(usize, usize)>> = vec![None; buffers.len()];
    for (i, launch) in launches.iter().enumerate() {
        for buffer in launch.buffers() {
            lifetime[buffer as usize].get_or_insert((i, i)).1 = i;
        }
    }
    for &b in kept {
        if let Some(span) = &mut lifetime[b as usize] {
            span.1 = usize::MAX;
        }
    }
    for (b, span) in lifetime.iter().enumerate() {
        if let Some((first, _)) = span
            && buffers[b].space == Space::Arena
        {
            launches[*first].defines.push(b as u32);
        }
    }
    assign(buffers, &lifetime)
}

/// Kernels count elements in 31 bits.
fn check_extents(values: &Values, ops: &Operations) -> Result<()> {
    let uses = ops.iter().map(|op| op.uses());
    for v in uses.flat_map(|uses| uses.reads.into_iter().chain(uses.writes)) {
        let ValueInfo { name, shape, .. } = values.info(v);
        if shape.len() > i32::MAX as usize {
            let message = format!("{name} would have {} elements ({shape})", shape.len());
            return Err(Error::new(message)
                .hint("a tensor may have at most 2147483647")
                .of_kind(ErrorKind::TensorTooLarge));
        }
    }
    Ok(())
}

/// The operations that something reads, found from the end.
fn live(tape: &Tape) -> Operations {
    let mut live: HashSet<Value> = HashSet::new();
    let mut ops = Operations::new();
    for op in tape.ops.iter().rev() {
        let uses = op.uses();
        if uses.writes.iter().any(|v| live.contains(v) || tape.values.outlives(*v)) {
            live.extend(uses.reads);
            ops.push(Rc::clone(op));
        }
    }
    ops.reverse();
    ops
}

/// Gives every arena buffer an offset: largest first, each at the lowest place that is free throughout
/// its lifetime. Returns the arena's size.
fn assign(buffers: &mut [Buffer], lifetime: &[Option<(usize, usize)>]) -> u64 {
    let mut order: Vec<usize> =
        (0..buffers.len()).filter(|&b| buffers[b].space == Space::Arena && lifetime[b].is_some()).collect();
    order.sort_by_key(|&b| (std::cmp::Reverse(buffers[b].bytes), lifetime[b], b));
    let mut placed: Vec<(u64, u64, usize, usize)> = Vec::new(); // offset, end, first, last; by offset
    let mut arena = 0;
    for b in order {
        let (first, last) = lifetime[b].expect("filtered");
        let bytes = buffers[b].bytes.next_multiple_of(BUFFER_ALIGN);
        let mut at = 0;
        for &(offset, end, other_first, other_last) in &placed {
            if other_first > last || other_last < first {
                continue;
            }
            if offset >= at + bytes {
                break;
            }
            at = at.max(end);
        }
        buffers[b].offset = at;
        arena = arena.max(at + bytes);
        let slot = placed.partition_point(|p| p.0 <= at);
        placed.insert(slot, (at, at + bytes, first, last));
    }
    arena
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_alive_together_never_overlap_and_dead_ones_share() {
        let sizes = [1000u64, 300, 5000, 300, 1, 2560, 700];
        let lifetime: Vec<_> = [(0, 1), (1, 2), (2, 3), (0, 5), (3, 4), (4, 6), (6, 6)].map(Some).to_vec();
        let mut buffers: Vec<Buffer> = sizes
            .iter()
            .map(|&bytes| Buffer { name: String::new(), space: Space::Arena, offset: 0, bytes })
            .collect();
        let arena = assign(&mut buffers, &lifetime);
        for i in 0..buffers.len() {
            assert_eq!(buffers[i].offset % BUFFER_ALIGN, 0);
            assert!(buffers[i].offset + buffers[i].bytes <= arena);
            for j in 0..i {
                let (a, b) = (lifetime[i].expect("set"), lifetime[j].expect("set"));
                let together = a.0 <= b.1 && b.0 <= a.1;
                let (x, y) = (&buffers[i], &buffers[j]);
                let apart = x.offset + x.bytes <= y.offset || y.offset + y.bytes <= x.offset;
                assert!(!together || apart, "buffers {i} and {j} overlap while both are alive");
            }
        }
        assert!(arena < sizes.iter().sum(), "nothing was shared");
    }
}
