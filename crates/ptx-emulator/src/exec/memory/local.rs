//! Local memory.

use super::lanes::{get, put};
use crate::ErrorKind;
use crate::fault::{Fault, Step};
use crate::isa::MemOp;
use crate::lanes::{Reg64, each};
use crate::warp::Lanes;

/// The offset of a lane in its local memory, checked.
#[inline(always)]
fn local_at(warp: &Lanes, addr: u64, lane: u32, bytes: u32, what: &str) -> Step<u32> {
    let len = warp.local.words.len() as u64 / 32 * 4;
    if addr < len && u64::from(bytes) <= len - addr && addr & u64::from(bytes - 1) == 0 {
        return Ok(addr as u32);
    }
    let inside = addr < len && u64::from(bytes) <= len - addr;
    Err(Fault::lane(
        if inside { ErrorKind::Misaligned } else { ErrorKind::OutOfBounds },
        lane,
        format!(
            "{what} {bytes} bytes out of bounds or misaligned, at byte {} of local memory, of which a thread has {len} bytes",
            addr as i64
        ),
    ))
}

#[inline(never)]
pub(crate) fn load_local(warp: &mut Lanes, op: &MemOp, addr: &Reg64, m: u32) -> Step {
    let bytes = op.size * op.count;
    for l in each(m) {
        let at = local_at(warp, addr[l as usize], l, bytes, "reads")?;
        for k in 0..op.count {
            let from = at + k * op.size;
            let mut v = 0;
            let word = |at: u32| (at / 4 * 32 + l) as usize;
            let mask = ((1u32 << op.size.min(4)) - 1) << (from % 4);
            for part in 0..op.size.div_ceil(4) {
                let w = word(from + 4 * part);
                if u32::from(warp.local.written[w]) & mask != mask {
                    return Err(Fault::lane(
                        ErrorKind::Uninitialized,
                        l,
                        format!(
                            "reads {} bytes of local memory that nothing has written, at byte {from}",
                            op.size
                        ),
                    ));
                }
                v |= u64::from(warp.local.words[w]) << (32 * part);
            }
            v >>= 8 * (from % 4);
            if op.size < 8 {
                v &= (1 << (8 * op.size)) - 1;
            }
            put(warp, op, k, l as usize, v);
        }
    }
    Ok(())
}

#[inline(never)]
pub(crate) fn store_local(warp: &mut Lanes, op: &MemOp, addr: &Reg64, m: u32) -> Step {
    let bytes = op.size * op.count;
    for l in each(m) {
        let at = local_at(warp, addr[l as usize], l, bytes, "writes")?;
        for k in 0..op.count {
            let to = at + k * op.size;
            let v = get(warp, op, k, l as usize);
            for part in 0..op.size.div_ceil(4) {
                let w = ((to / 4 + part) * 32 + l) as usize;
                let byte = 8 * (to % 4);
                let cut = if op.size >= 4 { u32::MAX } else { ((1u32 << (8 * op.size)) - 1) << byte };
                let new = (v >> (32 * part)) as u32;
                let new = if op.size >= 4 { new } else { new << byte };
                warp.local.words[w] = warp.local.words[w] & !cut | new & cut;
                warp.local.written[w] |= (((1u32 << op.size.min(4)) - 1) << (to % 4)) as u8;
            }
        }
    }
    Ok(())
}
