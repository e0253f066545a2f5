//! The gradient of a reflect-padded convolution without the padded gradient: what the padding repeats is added to the
//! border by a kernel of its own (`kernels/common/ring.cuh`).

use std::collections::HashMap;
use std::rc::Rc;

use crate::tape::operation::Operations;
use crate::tape::ops::conv::ConvInputGrad;
use crate::tape::ops::pad::PadGrad;
use crate::tape::value::{Value, Values};

/// Moves every padding's gradient into the convolution that alone makes it.
pub(crate) fn fuse(values: &Values, ops: &mut Operations) {
    let mut writers: HashMap<Value, usize> = HashMap::new();
    let mut convolutions: HashMap<Value, ConvInputGrad> = HashMap::new();
    for op in ops.iter() {
        op.uses().writes.into_iter().for_each(|v| *writers.entry(v).or_default() += 1);
        if let Some(&conv) = op.kind::<ConvInputGrad>() {
            convolutions.insert(conv.dinp, conv);
        }
    }
    let mut fused = Vec::new();
    for op in ops.iter_mut() {
        let Some(&PadGrad { dout, dinp, pad, up: 1 }) = op.kind::<PadGrad>() else { continue };
        let Some(conv) = convolutions.get(&dout) else { continue };
        if pad == 0 || writers[&dout] > 1 || values.outlives(dout) {
            continue;
        }
        fused.push(dout);
        *op = Rc::new(conv.through(pad, dinp));
    }
    ops.retain(|op| op.kind::<ConvInputGrad>().is_none_or(|conv| !fused.contains(&conv.dinp)));
}
