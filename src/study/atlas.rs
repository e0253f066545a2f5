//! The pages of many kernels and the index that leads to them, with the ladders compared variant by variant.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::counts::KernelRecord;
use super::gpus::{self, Gpu};
use super::ladder::{Ladder, Variant};
use super::listing::Line;
use super::page::{self, Dot, Page};
use super::profile::Totals;
use super::run::{Record, Step};
use super::sass::{self, Disassembly};
use super::{table, text};
use crate::format;
use crate::kernels::{self, Kernel};
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

    /// A kernel's machine code, by architecture.
    pub fn of(&mut self, kernel: &Kernel) -> Vec<(u32, Vec<Line>)> {
        let Some(tool) = &self.tool else { return Vec::new() };
        let mut out = Vec::new();
        for cubin in kernel.module.cubins {
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
    /// The GPU of the rooflines.
    pub gpu: &'static Gpu,
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
    gpu: &'static Gpu,
    command: &str,
) -> String {
    let c = record.counts();
    let totals = Totals::of(&record.program);
    let mut body = format!(
        "<div class=\"lead\"><p>Every CUDA kernel of <code>ugatit</code>, as the compiler made it and as {} used it. \
         Counts come from the emulator, which runs the kernels' PTX; they do not depend on the machine.</p></div>\n\
         <div class=\"cards\"><section class=\"card w6\"><h2>The step <small>{}</small></h2><div class=\"big\">",
        text::escape(&step.describe()),
        text::escape(&record.device)
    );
    let mut big = |value: String, what: &str| {
        _ = write!(body, "<div><b>{value}</b><span>{what}</span></div>");
    };
    big(format::grouped(totals.launches), "launches");
    big(record.kernels.len().to_string(), "kernels used");
    big(format::count(c.instructions), "warp instructions");
    big(format!("{}B", format::binary(totals.min_bytes)), "least bytes");
    big(format::ratio(c.moved_bytes(), totals.min_bytes), "of them moved");
    big(format::count(totals.flops), "FLOP planned");
    big(format::ratio(c.flops, totals.flops), "of them counted");
    body += "</div><h2>Where the instructions go</h2>";
    let mut used: Vec<&KernelRecord> = record.kernels.iter().collect();
    used.sort_by_key(|k| std::cmp::Reverse(k.counts().instructions));
    body += "<ol class=\"hot\">";
    for k in used.iter().take(9) {
        let n = k.counts().instructions;
        _ = write!(
            body,
            "<li><span class=num>{}</span><span class=\"bar heat\" style=\"--v:{:.3}\"><span></span></span>\
             <a href=\"{}.html\">{}</a></li>",
            format::percent(n, c.instructions),
            n as f64 / c.instructions.max(1) as f64,
            k.kernel.name,
            k.kernel.name
        );
    }
    body +=
        "</ol></section>\n<section class=\"card w6\"><h2>Roofline <small>predicted, by least bytes</small>";
    body += &page::gpu_select(gpu);
    body += "</h2>";
    for g in &gpus::ALL {
        let on = if g == gpu { " on" } else { "" };
        let dots: Vec<Dot> = record
            .kernels
            .iter()
            .map(|k| Dot {
                name: k.kernel.name,
                flops: k.counts().flops.max(k.flops()),
                least: k.min_bytes(),
                moved: 0,
                matrix: k.uses_matrix(),
                link: true,
            })
            .collect();
        let predicted: f64 = dots.iter().map(|d| g.predicted_ms(d.flops, d.least, d.matrix)).sum();
        _ = write!(
            body,
            "<div class=\"gpu{on}\" data-gpu=\"{}\">{}<p class=\"note\">Predicted for {}: the step takes at least {}, were \
             every kernel on its roof. At these sizes launches and latencies cost more.</p></div>",
            g.key,
            page::roofline(g, &dots),
            g.name,
            format::milliseconds(predicted)
        );
    }
    body += "</section></div>\n";
    for ladder in ladders.iter().filter(|l| !l.variants.is_empty()) {
        body += &ladder_section(ladder, wanted, gpu);
    }
    body += &kernels_section(record, wanted);
    let footer = format!(
        "Counted on the emulator; times are predicted from data sheets, not measured. Made by <code>{}</code>.",
        text::escape(command)
    );
    let top = "<h1>ugatit</h1><span class=\"dim\">atlas of the kernels</span>";
    page::document("ugatit – atlas of the kernels", top, &body, &footer)
}

fn ladder_section(ladder: &Ladder, wanted: &[&'static Kernel], gpu: &Gpu) -> String {
    let mut out = format!(
        "<h2 class=\"section\">The ladder of {}</h2><p class=\"dim\">{}: {}. Predicted times are for {}.</p>\
         <section class=\"card\"><div class=\"wrap\"><table><thead><tr><th>variant</th><th class=n>launches</th>\
         <th class=n>bytes moved, of the least</th><th class=n>instructions</th><th class=n>predicted</th><th class=n>FLOP</th>\
         <th class=n>coalesced</th><th class=n>conflicts</th><th class=n>registers</th></tr></thead><tbody>",
        text::escape(&ladder.name),
        text::escape(&ladder.what),
        text::escape(&ladder.case),
        gpu.name
    );
    let figures = |r: &Variant| -> [f64; 3] {
        let c = r.record.counts();
        let predicted = |k: &KernelRecord| gpu.predicted_ms(k.counts().flops, k.min_bytes(), k.uses_matrix());
        [c.moved_bytes() as f64, c.instructions as f64, r.record.kernels.iter().map(predicted).sum()]
    };
    let most =
        ladder.variants.iter().map(figures).fold([0.0f64; 3], |m, f| [0, 1, 2].map(|i| m[i].max(f[i])));
    for variant in &ladder.variants {
        let (c, values) = (variant.record.counts(), figures(variant));
        let kernels = &variant.record.kernels;
        let registers = kernels
            .iter()
            .filter_map(|k| k.kernel.resources_for(gpu.arch))
            .map(|r| r.registers)
            .max();
        let links: Vec<String> = kernels
            .iter()
            .map(|k| {
                let name = k.kernel.name;
                if wanted.iter().any(|w| w.name == name) {
                    format!("<a href=\"{name}.html\" class=\"mono\">{name}</a>")
                } else {
                    format!("<span class=\"mono\">{name}</span>")
                }
            })
            .collect();
        let cell = |i: usize, text: String| {
            let share = values[i] / most[i].max(1e-30);
            format!(
                "<td class=\"n variant\">{text}<br><span class=\"bar heat\" style=\"--v:{share:.3}\"><span></span></span></td>"
            )
        };
        _ = write!(
            out,
            "<tr><td><b>{}</b><div class=\"dim\">{}</div><details><summary>{} kernels</summary>{}</details></td><td class=n>{}</td>",
            text::escape(&variant.name),
            text::escape(&variant.lesson),
            links.len(),
            links.join("<br>"),
            variant.record.program.launches.len(),
        );
        let bytes = format::binary(c.moved_bytes());
        out += &cell(0, format!("{bytes}B, {}", format::ratio(c.moved_bytes(), variant.least_bytes)));
        out += &cell(1, format::count(c.instructions));
        out += &cell(2, format::milliseconds(values[2]));
        _ = write!(
            out,
            "<td class=n>{}</td><td class=n>{}</td><td class=n>{}</td><td class=n>{}</td></tr>",
            format::count(c.flops),
            format::percent(c.ideal_sectors, c.sectors()),
            format::count(c.conflicts),
            registers.map_or_else(String::new, |r| r.to_string()),
        );
    }
    out + "</tbody></table></div><p class=\"note\">Least bytes: inputs read once and outputs written once by the whole \
           operation. Predicted: the sum over its launches of the slower of arithmetic and each launch's least bytes.</p></section>\n"
}

fn kernels_section(record: &Record, wanted: &[&'static Kernel]) -> String {
    let all = record.counts();
    let mut out = "<h2 class=\"section\">All kernels</h2><p class=\"dim\">A click on a heading sorts.</p>\
                   <section class=\"card\"><div class=\"wrap\"><table><thead><tr><th class=sort>kernel</th><th class=\"n sort\">launches</th><th class=sort>share</th><th class=\"n sort\">moved</th>\
                   <th class=\"n sort\">of least</th><th class=\"n sort\">FLOP</th><th class=\"n sort\">lanes</th><th class=\"n sort\">conflicts</th>\
                   <th class=\"n sort\">registers</th><th class=\"n sort\">stack</th><th class=\"n sort\" title=\"theoretical occupancy on compute capability 8.0\">occ. 8.0</th>\
                   <th class=\"n sort\" title=\"on 9.0\">9.0</th></tr></thead><tbody>"
        .to_owned();
    let share_of = |k: &Kernel| {
        record.kernels.iter().find(|r| r.kernel.name == k.name).map_or(0, |r| r.counts().instructions)
    };
    let mut sorted: Vec<&'static Kernel> = wanted.to_vec();
    sorted.sort_by_key(|k| (std::cmp::Reverse(share_of(k)), k.name));
    for kernel in sorted {
        let found = record.kernels.iter().find(|r| r.kernel.name == kernel.name);
        let c = found.map(KernelRecord::counts).unwrap_or_default();
        let min = found.map_or(0, KernelRecord::min_bytes);
        let launches = found.map_or(0, |r| r.launches.len());
        let share = c.instructions as f64 / all.instructions.max(1) as f64;
        let number = |v: f64, text: String| format!("<td class=n data-v=\"{v}\">{text}</td>");
        let occupancy = |arch: u32| {
            let o = table::occupancy_of(kernel, arch, kernel.max_threads, 0);
            o.map_or_else(
                || "<td></td>".into(),
                |o| {
                    number(
                        o.fraction,
                        format!("<span title=\"{}\">{:.0} %</span>", o.limit.name(), o.fraction * 100.0),
                    )
                },
            )
        };
        let resources = kernel.resources_for(80);
        let (registers, stack) = resources.map_or((0, 0), |r| (r.registers, r.stack));
        let dash = |s: String| if found.is_some() { s } else { "–".into() };
        _ = write!(
            out,
            "<tr class=kernel><td><a href=\"{name}.html\">{name}</a><div class=\"dim\" title=\"{file}:{line}\">{doc}</div></td>",
            name = kernel.name,
            doc = text::escape(&text::first_sentence(kernel.doc)),
            file = text::escape(kernel.module.file),
            line = kernel.line
        );
        out += &number(launches as f64, dash(launches.to_string()));
        _ = write!(
            out,
            "<td data-v=\"{share}\" style=\"white-space:nowrap\"><span class=\"bar heat\" style=\"--v:{share:.3}\"><span></span></span> {}</td>",
            dash(format::percent(c.instructions, all.instructions))
        );
        out += &number(c.moved_bytes() as f64, dash(format!("{}B", format::binary(c.moved_bytes()))));
        out += &number(c.moved_bytes() as f64 / min.max(1) as f64, dash(format::ratio(c.moved_bytes(), min)));
        out += &number(c.flops as f64, dash(format::count(c.flops)));
        let lanes = c.lanes as f64 / c.instructions.max(1) as f64;
        out += &number(lanes, dash(format!("{lanes:.1}")));
        out += &number(c.conflicts as f64, dash(format::count(c.conflicts)));
        out += &number(f64::from(registers), registers.to_string());
        out += &number(f64::from(stack), stack.to_string());
        out += &occupancy(80);
        out += &occupancy(90);
        out += "</tr>\n";
    }
    out + "</tbody></table></div><p class=\"note\">–: not launched by this step.</p></section>\n"
}
