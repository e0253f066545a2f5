//! The pages of many kernels and the index that leads to them, with the ladders compared variant by variant.

use std::collections::BTreeMap;
use std::path::Path;

use maud::{Markup, html};

use super::counts::KernelRecord;
use super::ladder::{Ladder, Variant};
use super::listing::Line;
use super::page::{self, Page, figure, heat_bar};
use super::profile::Totals;
use super::run::{Record, Step};
use super::sass::{self, Disassembly};
use super::{table, text};
use crate::format;
use crate::kernels::{self, Kernel};
use crate::model::Machine;
use crate::{Error, ErrorKind, Result};

/// Machine code of modules, disassembled once each.
pub struct Sass {
    tool: Option<std::path::PathBuf>,
    done: BTreeMap<(usize, u32), Option<Disassembly>>,
}

impl Sass {
    /// Looks for the disassembler.
    pub fn new() -> Self {
        Self { tool: sass::disassembler(), done: BTreeMap::new() }
    }

    /// Whether there is one.
    pub fn available(&self) -> bool {
        self.tool.is_some()
    }

    /// A kernel's machine code, by architecture, where it has lines.
    pub fn of(&mut self, kernel: &Kernel) -> Vec<(u32, Vec<Line>)> {
        let Some(tool) = &self.tool else { return Vec::new() };
        let mut out = Vec::new();
        for cubin in kernel.module.cubins.iter().filter(|cubin| cubin.lines) {
            let key = (kernel.module.ptx.as_ptr() as usize, cubin.arch);
            let done = self.done.entry(key).or_insert_with(|| Disassembly::of(tool, cubin.image));
            let lines = done.as_ref().map(|d| d.kernel(kernel.name)).unwrap_or_default();
            if !lines.is_empty() {
                out.push((cubin.arch, lines));
            }
        }
        out
    }
}

impl Default for Sass {
    fn default() -> Self {
        Self::new()
    }
}

/// The text of a file below `kernels/`.
pub fn embedded_source(file: &str) -> Option<String> {
    let module = kernels::modules().iter().find(|m| m.file == file).map(|m| m.source);
    let header = || kernels::headers().iter().find(|h| h.0 == file).map(|h| h.1);
    module.or_else(header).map(str::to_owned)
}

/// What every page shows besides its kernel.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// The GPU that times are predicted for at first.
    pub gpu: &'static Machine,
    /// The command that made the pages.
    pub command: &'a str,
}

/// Writes a page of each kernel, and with `index` the atlas; returns the first file to look at. The index
/// shows the ladders; the variants only lend their runs to kernels that were not run otherwise.
///
/// # Errors
/// When a file cannot be written.
pub fn write(
    folder: &Path,
    record: &Record,
    step: &Step,
    wanted: &[&'static Kernel],
    [ladders, variants]: [&[Ladder]; 2],
    Shown { gpu, command }: Shown<'_>,
    index: bool,
) -> Result<String> {
    std::fs::create_dir_all(folder).map_err(|e| cannot_write(folder, &e))?;
    let mut sass = Sass::new();
    let names: Vec<&str> = wanted.iter().map(|k| k.name).collect();
    let run = step.describe();
    let none: Vec<KernelRecord> = wanted.iter().map(|k| KernelRecord::new(k)).collect();
    for (i, kernel) in wanted.iter().enumerate() {
        let in_step = record.kernels.iter().find(|r| r.kernel.name == kernel.name);
        let variant = ladders.iter().chain(variants).flat_map(|l| l.variants.iter().map(move |r| (l, r)));
        let in_ladder = variant.into_iter().find_map(|(l, r)| {
            let found = r.record.kernels.iter().find(|k| k.kernel.name == kernel.name)?;
            Some((found, format!("the ladder's case, {}", l.case)))
        });
        let (shown, run) = match (in_step, &in_ladder) {
            (Some(shown), _) => (shown, &run),
            (None, Some((shown, case))) => (*shown, case),
            (None, None) => (&none[i], &run),
        };
        let page = Page {
            record: shown,
            run,
            command,
            sass: sass.of(kernel),
            neighbours: [i.checked_sub(1).map(|i| names[i]), names.get(i + 1).copied()],
            gpu,
            source_of: &embedded_source,
            has_index: index,
        };
        write_file(&folder.join(format!("{}.html", kernel.name)), &page.html())?;
    }
    if index {
        write_file(&folder.join("index.html"), &atlas(record, step, wanted, ladders, gpu, command))?;
        return Ok("index.html".into());
    }
    Ok(format!("{}.html", names.first().copied().unwrap_or("index")))
}

fn cannot_write(path: &Path, e: &std::io::Error) -> Error {
    Error::new(format!("cannot write {}: {e}", path.display())).of_kind(ErrorKind::OutputUnusable)
}

pub(super) fn write_file(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| cannot_write(path, &e))
}

fn atlas(
    record: &Record,
    step: &Step,
    wanted: &[&'static Kernel],
    ladders: &[Ladder],
    gpu: &'static Machine,
    command: &str,
) -> String {
    let body = html! {
        div.lead {
            p {
                "Every CUDA kernel of " code { "ugatit" } ", as the compiler made it and as " (step.describe())
                " used it. Counts come from the emulator, which runs the kernels' PTX; they do not depend on the \
                 machine."
            }
        } "\n"
        div.cards { (step_card(record)) "\n" (page::predicted_step(record, gpu)) } "\n"
        @for ladder in ladders.iter().filter(|l| !l.variants.is_empty()) {
            (ladder_section(ladder, wanted, gpu)) "\n"
        }
        (kernels_section(record, wanted)) "\n"
    };
    let footer = html! {
        "Counted on the emulator; times are predicted by a model of each GPU, not measured. Made by "
        code { (command) } "."
    };
    let top = html! { h1 { "ugatit" } span.dim { "atlas of the kernels" } };
    page::document("ugatit – atlas of the kernels", &top, &body, &footer)
}

/// The step in figures, and the kernels with most instructions.
fn step_card(record: &Record) -> Markup {
    let c = record.counts();
    let totals = Totals::of(&record.program);
    let mut used: Vec<&KernelRecord> = record.kernels.iter().collect();
    used.sort_by_key(|k| std::cmp::Reverse(k.counts().instructions));
    html! {
        section.card.w6 {
            h2 { "The step " small { (record.device) } }
            div.big {
                (figure(format::grouped(totals.launches), "launches"))
                (figure(record.kernels.len().to_string(), "kernels used"))
                (figure(format::count(c.instructions), "warp instructions"))
                (figure(format!("{}B", format::binary(totals.min_bytes)), "minimum traffic"))
                (figure(format::ratio(c.traffic_bytes(), totals.min_bytes), "of it counted"))
                (figure(format::count(totals.flops), "FLOP planned"))
                (figure(format::ratio(c.flops, totals.flops), "of them counted"))
            }
            h2 { "Where the instructions go" }
            ol.hot {
                @for k in used.iter().take(9) {
                    @let n = k.counts().instructions;
                    li {
                        span.num { (format::percent(n, c.instructions)) }
                        (heat_bar(n as f64 / c.instructions.max(1) as f64))
                        a href={ (k.kernel.name) ".html" } { (k.kernel.name) }
                    }
                }
            }
        }
    }
}

fn ladder_section(ladder: &Ladder, wanted: &[&'static Kernel], gpu: &Machine) -> Markup {
    let figures = |r: &Variant| -> [f64; 3] {
        let c = r.record.counts();
        let predicted = r.record.predicted(gpu).map_or(0.0, |p| p.us / 1e3);
        [c.traffic_bytes() as f64, c.instructions as f64, predicted]
    };
    let most =
        ladder.variants.iter().map(figures).fold([0.0f64; 3], |m, f| [0, 1, 2].map(|i| m[i].max(f[i])));
    html! {
        h2.section { "The ladder of " (ladder.name) }
        p.dim { (ladder.what) ": " (ladder.case) ". Predicted times are for " (gpu.name) "." }
        section.card {
            div.wrap {
                table {
                    thead {
                        tr {
                            th { "variant" } th.n { "launches" } th.n { "traffic, x minimum" } th.n { "instructions" }
                            th.n { "predicted" } th.n { "FLOP" } th.n { "coalesced" } th.n { "conflicts" }
                            th.n { "registers" }
                        }
                    }
                    tbody {
                        @for variant in &ladder.variants {
                            (variant_row(variant, figures(variant), most, wanted, gpu))
                        }
                    }
                }
            }
            p.note {
                "Minimum traffic: inputs read once and outputs written once by the whole operation. Predicted: its \
                 launches one after the other."
            }
        }
    }
}

/// `values` are traffic, instructions and predicted milliseconds, drawn as parts of `most`.
fn variant_row(
    variant: &Variant,
    values: [f64; 3],
    most: [f64; 3],
    wanted: &[&'static Kernel],
    gpu: &Machine,
) -> Markup {
    let c = variant.record.counts();
    let kernels = &variant.record.kernels;
    let resources = kernels.iter().filter_map(|k| k.kernel.resources_for(gpu.arch));
    let registers = resources.map(|r| r.registers).max();
    let cell = |i: usize, text: String| {
        let share = values[i] / most[i].max(1e-30);
        html! { td.n.variant { (text) br; (heat_bar(share)) } }
    };
    let traffic = c.traffic_bytes();
    let beside = format!("{}B, {}", format::binary(traffic), format::ratio(traffic, variant.minimum_traffic));
    html! {
        tr {
            td {
                b { (variant.name) }
                div.dim { (variant.lesson) }
                details {
                    summary { (kernels.len()) " kernels" }
                    @for (i, name) in kernels.iter().map(|k| k.kernel.name).enumerate() {
                        @if i > 0 { br; }
                        @if wanted.iter().any(|w| w.name == name) {
                            a.mono href={ (name) ".html" } { (name) }
                        } @else {
                            span.mono { (name) }
                        }
                    }
                }
            }
            td.n { (variant.record.program.launches.len()) }
            (cell(0, beside))
            (cell(1, format::count(c.instructions)))
            (cell(2, format::milliseconds(values[2])))
            td.n { (format::count(c.flops)) }
            td.n { (format::percent(c.ideal_sectors, c.sectors())) }
            td.n { (format::count(c.conflicts)) }
            td.n { @if let Some(registers) = registers { (registers) } }
        }
    }
}

fn kernels_section(record: &Record, wanted: &[&'static Kernel]) -> Markup {
    let all = record.counts().instructions;
    let found = |k: &Kernel| record.kernels.iter().find(|r| r.kernel.name == k.name);
    let instructions = |k: &Kernel| found(k).map_or(0, |r| r.counts().instructions);
    let mut sorted: Vec<&'static Kernel> = wanted.to_vec();
    sorted.sort_by_key(|k| (std::cmp::Reverse(instructions(k)), k.name));
    html! {
        h2.section { "All kernels" }
        p.dim { "A click on a heading sorts." }
        section.card {
            div.wrap {
                table {
                    thead {
                        tr {
                            th.sort { "kernel" } th.n.sort { "launches" } th.sort { "share" } th.n.sort { "traffic" }
                            th.n.sort { "x minimum" } th.n.sort { "FLOP" } th.n.sort { "lanes" }
                            th.n.sort { "conflicts" } th.n.sort { "registers" } th.n.sort { "stack" }
                            th.n.sort title="theoretical occupancy on compute capability 8.0" { "occ. 8.0" }
                            th.n.sort title="on 9.0" { "9.0" }
                        }
                    }
                    tbody {
                        @for kernel in sorted { (kernel_row(kernel, found(kernel), all)) "\n" }
                    }
                }
            }
            p.note { "–: not launched by this step." }
        }
    }
}

/// A kernel with what it did in the step, of whose `all` warp instructions it has a share.
fn kernel_row(kernel: &Kernel, found: Option<&KernelRecord>, all: u64) -> Markup {
    let c = found.map(KernelRecord::counts).unwrap_or_default();
    let minimum = found.map_or(0, KernelRecord::min_bytes);
    let launches = found.map_or(0, |r| r.launches.len());
    let share = c.instructions as f64 / all.max(1) as f64;
    let traffic = c.traffic_bytes();
    let lanes = c.lanes as f64 / c.instructions.max(1) as f64;
    let (registers, stack) = kernel.resources_for(80).map_or((0, 0), |r| (r.registers, r.stack));
    let dash = |text: String| if found.is_some() { text } else { "–".into() };
    // The script sorts by the value, not by what is shown.
    let counted = |v: f64, text: String| html! { td.n data-v=(v) { (dash(text)) } };
    let occupancy = |arch: u32| {
        let o = table::occupancy_of(kernel, arch, kernel.max_threads, 0);
        html! {
            @if let Some(o) = o {
                td.n data-v=(o.fraction) {
                    span title=(o.limit.name()) { (format_args!("{:.0} %", o.fraction * 100.0)) }
                }
            } @else {
                td {}
            }
        }
    };
    html! {
        tr.kernel {
            td {
                a href={ (kernel.name) ".html" } { (kernel.name) }
                div.dim title={ (kernel.module.file) ":" (kernel.line) } { (text::first_sentence(kernel.doc)) }
            }
            (counted(launches as f64, launches.to_string()))
            td data-v=(share) style="white-space:nowrap" {
                (heat_bar(share)) " " (dash(format::percent(c.instructions, all)))
            }
            (counted(traffic as f64, format!("{}B", format::binary(traffic))))
            (counted(traffic as f64 / minimum.max(1) as f64, format::ratio(traffic, minimum)))
            (counted(c.flops as f64, format::count(c.flops)))
            (counted(lanes, format!("{lanes:.1}")))
            (counted(c.conflicts as f64, format::count(c.conflicts)))
            td.n data-v=(registers) { (registers) }
            td.n data-v=(stack) { (stack) }
            (occupancy(80))
            (occupancy(90))
        }
    }
}
