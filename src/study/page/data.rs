//! The counts of a row: as heat columns for the reader, and as numbers for the page's script.

use maud::{Markup, html};

use crate::format;
use crate::study::counts::Counts;

/// The metrics of the heat columns: name, and what it is.
pub(super) const METRICS: [(&str, &str); 6] = [
    ("executions", "instructions executed, counted once a warp"),
    ("idle", "lanes that were idle while their warp executed, of 32: divergence and partial warps"),
    ("bytes", "bytes of global memory that threads asked for"),
    ("sectors", "32-byte sectors of global memory that warps touched"),
    ("conflicts", "further wavefronts of shared memory, because lanes conflict in a bank"),
    ("FLOP", "floating-point operations, two a multiply-add"),
];

/// The metrics' names over the columns.
pub(super) const HEADS: [&str; 6] = ["exec", "idle", "bytes", "sect", "confl", "flop"];

/// Counts as the page's script reads them.
pub(super) fn data(c: &Counts) -> String {
    let all = [
        c.instructions,
        c.lanes,
        c.requested_bytes(),
        c.sectors(),
        c.ideal_sectors,
        c.conflicts,
        c.shared_accesses,
        c.flops,
        c.divergent,
    ];
    all.map(|n| n.to_string()).join(" ")
}

/// The values of the metrics, in order.
fn metrics(c: &Counts) -> [u64; 6] {
    [c.instructions, c.idle_lanes(), c.requested_bytes(), c.sectors(), c.conflicts, c.flops]
}

/// The largest value of each metric.
pub(super) struct Peaks([u64; 6]);

impl Peaks {
    pub(super) fn of<'a>(counts: impl Iterator<Item = &'a Counts>) -> Self {
        let mut peaks = [0; 6];
        for c in counts {
            for (peak, v) in peaks.iter_mut().zip(metrics(c)) {
                *peak = v.max(*peak);
            }
        }
        Self(peaks)
    }
}

/// The heat columns of one row; of a row that does nothing one blank over all of them.
pub(super) fn cells(c: Option<&Counts>, peaks: &Peaks) -> Markup {
    let Some(c) = c else { return html! { i.e {} } };
    html! {
        @for (i, (v, peak)) in metrics(c).into_iter().zip(peaks.0).enumerate() {
            @if v == 0 {
                i class={ "c" (i) } {}
            } @else {
                // The square root keeps the middle of the range visible.
                @let heat = (v as f64 / peak.max(1) as f64).sqrt();
                i class={ "c" (i) } style=(format_args!("--v:{heat:.2}")) {
                    @match i {
                        1 => (format_args!("{:.1}", v as f64 / c.instructions.max(1) as f64)),
                        2 => (format::binary(v)),
                        _ => (format::count(v)),
                    }
                }
            }
        }
    }
}

/// A share from 0 to 1 as a bar in the colour of heat.
pub(in crate::study) fn heat_bar(share: f64) -> Markup {
    html! { span.bar.heat style=(format_args!("--v:{share:.3}")) { span {} } }
}
