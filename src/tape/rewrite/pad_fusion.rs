//! A norm and the padding that follows it in one pass, for the variants of the norm that can
//! (`kernels/adalin/5_pad_fused.cu`).

use std::collections::HashMap;
use std::rc::Rc;

use crate::tape::operation::Operations;
use crate::tape::ops::norm::{Norm, PaddedOutput};
use crate::tape::ops::pad::Pad;
use crate::tape::value::{Value, Values};

/// Moves into every norm the first padding of its output. The output itself is written only where something
/// else reads it.
pub(crate) fn fuse(values: &Values, ops: &mut Operations) {
    let mut readers: HashMap<Value, usize> = HashMap::new();
    let mut paddings: HashMap<Value, Pad> = HashMap::new();
    for op in ops.iter() {
        op.uses().reads.into_iter().for_each(|v| *readers.entry(v).or_default() += 1);
        if let Some(&pad) = op.kind::<Pad>() {
            paddings.entry(pad.inp).or_insert(pad);
        }
    }
    let mut fused = Vec::new();
    for op in ops.iter_mut() {
        let Some(norm) = op.kind::<Norm>() else { continue };
        let Some(&padding) = paddings.get(&norm.out) else { continue };
        let read = readers[&norm.out] > 1 || values.info(norm.out).kept;
        fused.push(padding.out);
        *op = Rc::new(norm.with_padding(PaddedOutput { padding, read }));
    }
    ops.retain(|op| op.kind::<Pad>().is_none_or(|pad| !fused.contains(&pad.out)));
}
