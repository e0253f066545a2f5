//! One kernel as an HTML page that needs nothing else: source, PTX and SASS side by side, with counts.
//!
//! The cards above the source are made here.

mod data;
mod highlight;
mod predicted;
mod sources;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::counts::KernelRecord;
use super::listing::{self, Kind, Line};
use super::{sass, table};
use crate::format;
use crate::model::{Machine, occupancy};
use sources::Sources;

pub(super) use data::heat_bar;
pub(super) use predicted::step_card as predicted_step;

const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("page.js");

/// What a page is made of.
pub struct Page<'a> {
    /// The kernel and what it did.
    pub record: &'a KernelRecord,
    /// What was run to count, in words.
    pub run: &'a str,
    /// The command that makes it again.
    pub command: &'a str,
    /// Machine code by architecture.
    pub sass: Vec<(u32, Vec<Line>)>,
    /// Names of the pages before and after.
    pub neighbours: [Option<&'a str>; 2],
    /// The GPU that times are predicted for at first.
    pub gpu: &'static Machine,
    /// The text of a source file.
    pub source_of: &'a dyn Fn(&str) -> Option<String>,
    /// The atlas exists.
    pub has_index: bool,
}

/// Whole-document frame of the pages and the atlas.
pub(super) fn document(title: &str, top: &Markup, body: &Markup, footer: &Markup) -> String {
    let page = html! {
        (DOCTYPE) "\n"
        html lang="en" { "\n"
            head { "\n"
                meta charset="utf-8"; "\n"
                meta name="viewport" content="width=device-width, initial-scale=1"; "\n"
                title { (title) } "\n"
                link rel="icon" href="data:,"; "\n"
                style { "\n" (PreEscaped(CSS)) } "\n"
            } "\n"
            body { "\n"
                header.top {
                    (top) span.grow {}
                    button id="theme" title="light or dark (t)" { "◐" }
                } "\n"
                main { "\n" (body) } "\n"
                footer { (footer) } "\n"
                script { "\n" (PreEscaped(JS)) } "\n"
            } "\n"
        } "\n"
    };
    page.into_string()
}

/// A large figure with what it is; a row of them stands in `div.big`.
pub(super) fn figure(value: impl AsRef<str>, what: &str) -> Markup {
    html! { div { b { (value.as_ref()) } span { (what) } } }
}

impl Page<'_> {
    /// The page.
    pub fn html(&self) -> String {
        let kernel = self.record.kernel;
        let ptx = listing::ptx(kernel.module.ptx, kernel.name);
        let sources = Sources::new(self.record, &ptx, &self.sass, self.source_of);
        let [before, after] = self.neighbours;
        let top = html! {
            @if self.has_index { a href="index.html" { "atlas" } span.dim { "/" } }
            h1 { (kernel.name) }
            span.dim { (kernel.module.file) ":" (kernel.line) }
            @for (name, rel, key, sign) in [(before, "prev", "p", "‹"), (after, "next", "n", "›")] {
                @if let Some(name) = name {
                    a rel=(rel) href={ (name) ".html" } title={ (name) " (" (key) ")" } { (sign) " " (rel) }
                }
            }
        };
        let body = html! {
            (self.lead()) "\n"
            div.cards { "\n"
                (self.counters_card()) "\n"
                (predicted::card(self.record, self.gpu)) "\n"
                div.w7.stack { (self.launches_card()) "\n" (sources.hottest_card()) }
                (self.static_card()) "\n"
            } "\n"
            (sources.viewer())
        };
        let footer = html! {
            "Counted on the emulator, which ran the PTX shown here; times are predicted by a model of each GPU, not \
             measured. Made by " code { (self.command) } "."
        };
        document(&format!("{} – ugatit", kernel.name), &top, &body, &footer)
    }

    fn lead(&self) -> Markup {
        let kernel = self.record.kernel;
        let params: Vec<&str> = kernel.params.iter().map(|p| p.name).collect();
        html! {
            div.lead {
                @for paragraph in kernel.doc.split("\n\n").filter(|p| !p.trim().is_empty()) {
                    p { (paragraph.replace('\n', " ")) }
                }
                p.dim.mono { "(" (params.join(", ")) ")" }
            }
        }
    }

    fn counters_card(&self) -> Markup {
        let (r, c) = (self.record, self.record.counts());
        if c.instructions == 0 {
            return html! {
                section.card.w7 {
                    h2 { "Counters" }
                    p {
                        "Not launched by " (self.run) ", so there is nothing to count. What stands below comes from \
                         the compiler."
                    }
                }
            };
        }
        let (traffic, minimum) = (c.traffic_bytes(), r.min_bytes());
        let launches = r.launches.len();
        html! {
            section.card.w7 {
                h2 {
                    "Counters "
                    small { (self.run) ", " (launches) " launch" @if launches != 1 { "es" } }
                }
                div.big {
                    (figure(format::count(c.instructions), "warp instructions"))
                    (figure(format!("{:.1}", c.lanes as f64 / c.instructions as f64), "of 32 lanes active"))
                    @if minimum > 0 { (figure(format::ratio(traffic, minimum), "the minimum traffic")) }
                    (figure(format::percent(c.ideal_sectors, c.sectors()), "coalesced"))
                    @if c.shared_accesses > 0 {
                        (figure(format::ratio(c.wavefronts(), c.shared_accesses), "wavefronts a shared access"))
                    }
                }
                (self.counters())
                (self.mix())
            }
        }
    }

    /// What was counted beside its minimum.
    fn counters(&self) -> Markup {
        let (r, c) = (self.record, self.record.counts());
        let (traffic, minimum) = (c.traffic_bytes(), r.min_bytes());
        let row = |name: &str, counted: String, minimum: String, ratio: String, what: &str| {
            html! {
                tr { td { (name) } td.n { (counted) } td.n { (minimum) } td.n { (ratio) } td.dim { (what) } }
            }
        };
        let number =
            |name: &str, counted: String, what: &str| row(name, counted, String::new(), String::new(), what);
        let beside = |name: &str, [counted, minimum]: [u64; 2], unit: &dyn Fn(u64) -> String, what: &str| {
            row(name, unit(counted), unit(minimum), format::ratio(counted, minimum), what)
        };
        let bytes = |n| format!("{}B", format::binary(n));
        let flops = |n| format!("{} FLOP", format::count(n));
        let sector_note = "32 bytes a sector; caches may serve what exceeds the minimum";
        let shared_note = "minimum: without conflicts; 16 bytes a lane take four";
        let divergence = format!("{} of {}", format::count(c.divergent), format::count(c.branches));
        html! {
            table {
                thead { tr { th {} th.n { "counted" } th.n { "minimum" } th.n {} th { "what it is" } } }
                tbody {
                    (beside("traffic, before caches", [traffic, minimum], &bytes, sector_note))
                    (beside("asked for", [c.requested_bytes(), minimum], &bytes, "by threads"))
                    (beside("sectors", [c.sectors(), c.ideal_sectors], &format::count,
                        "minimum: each warp's bytes side by side"))
                    (beside("floating-point", [c.flops, r.flops()], &flops, "minimum: as planned from the shapes"))
                    @if c.shared_accesses > 0 {
                        (beside("shared memory wavefronts", [c.wavefronts(), c.shared_accesses], &format::count,
                            shared_note))
                    }
                    @if c.matrix > 0 {
                        (number("matrix instructions", format::count(c.matrix), "mma.sync and wgmma"))
                    }
                    (number("divergent branches", divergence, "the threads of a warp part"))
                    @if c.barriers > 0 {
                        (number("barriers", format::count(c.barriers), "arrivals of warps"))
                    }
                }
            }
        }
    }

    /// The instructions by class as a bar.
    fn mix(&self) -> Markup {
        let classes = &self.record.classes;
        let total: u64 = classes.values().sum();
        let mut sorted: Vec<_> = classes.iter().filter(|(_, n)| **n > 0).collect();
        sorted.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        let colour = |i: usize| format!("background:hsl({} 55% 52%)", (i * 47 + 205) % 360);
        let name = |class: &str, n: u64| format!("{class} {}", format::percent(n, total));
        html! {
            @if total > 0 {
                div.mix role="img" aria-label="instruction mix" {
                    @for (i, (class, n)) in sorted.iter().enumerate() {
                        span style={ "--v:" (n) ";" (colour(i)) } title=(name(class, **n)) {}
                    }
                }
                div.legend {
                    @for (i, (class, n)) in sorted.iter().enumerate() {
                        span { i style=(colour(i)) {} (name(class, **n)) }
                    }
                }
            }
        }
    }

    fn launches_card(&self) -> Markup {
        const SHOWN: usize = 8;
        let geometries = self.record.geometries();
        let kernel = self.record.kernel;
        let all: u64 = geometries.iter().map(|g| g.instructions).sum();
        let waves = |threads: u32, dynamic: u32, blocks: u64| {
            let per_sm = table::occupancy_of(kernel, self.gpu.arch, threads, dynamic).map_or(0, |o| o.blocks);
            match u64::from(per_sm * self.gpu.sms) {
                0 => "–".to_owned(),
                n => format!("{:.2}", blocks as f64 / n as f64),
            }
        };
        let fixed_shared = kernel.resources.first().map_or(0, |r| r.shared);
        html! {
            section.card {
                h2 { "Launches " small { "distinct geometries, most work first" } }
                div.wrap {
                    table {
                        thead {
                            tr {
                                th.n { "times" } th { "grid" } th { "block" } th.n { "shared" } th.n { "blocks" }
                                th.n { "waves" } th.n { "minimum traffic" } th.n { "share" } th { "first" }
                            }
                        }
                        tbody {
                            @for g in geometries.iter().take(SHOWN) {
                                @let l = g.first;
                                tr {
                                    td.n { (g.times) }
                                    td { (format::extent(l.grid, " x ")) }
                                    td { (format::extent(l.block, " x ")) }
                                    td.n { (format::binary(u64::from(fixed_shared + l.shared_bytes))) "B" }
                                    td.n { (format::grouped(g.blocks())) }
                                    td.n { (waves(g.threads(), l.shared_bytes, g.blocks())) }
                                    td.n { (format::binary(l.min_bytes)) "B" }
                                    td.n { (format::percent(g.instructions, all)) }
                                    td { (l.label) }
                                }
                            }
                        }
                    }
                }
                @if geometries.len() > SHOWN {
                    p.note { "and " (geometries.len() - SHOWN) " further geometries." }
                }
                p.note {
                    @if geometries.is_empty() { "None." }
                    @else {
                        "Waves: blocks over what all " (self.gpu.sms) " SMs of " (self.gpu.name) " hold at once."
                    }
                }
            }
        }
    }

    fn static_card(&self) -> Markup {
        let kernel = self.record.kernel;
        let geometries = self.record.geometries();
        let (threads, dynamic) =
            geometries.first().map_or((kernel.max_threads, 0), |g| (g.threads(), g.first.shared_bytes));
        let rows = occupancy::ALL.iter().filter_map(|limits| {
            let r = kernel.resources_for(limits.arch)?;
            Some((limits.arch, r, table::occupancy_of(kernel, limits.arch, threads, dynamic)?))
        });
        html! {
            section.card.w5 {
                h2 {
                    "On an SM "
                    small { "compiler's figures; theoretical occupancy with " (threads) " threads a block" }
                }
                div.wrap {
                    table {
                        thead {
                            tr {
                                th { "capability" } th.n { "registers" } th.n { "shared" } th.n { "spills" }
                                th.n { "stack" } th { "occupancy" } th { "bound by" }
                            }
                        }
                        tbody {
                            @for (arch, r, o) in rows {
                                @let spills = r.spill_stores + r.spill_loads;
                                tr class=[(r.arch != arch).then_some("dim")] {
                                    td { (format::capability(arch)) }
                                    td.n { (r.registers) }
                                    td.n { (format::binary(u64::from(r.shared + dynamic))) "B" }
                                    td.n.bad[spills > 0] { (spills) }
                                    td.n.bad[r.stack > 0] { (r.stack) }
                                    td {
                                        span.bar style=(format_args!("--v:{:.3}", o.fraction)) { span {} }
                                        (format_args!(" {:.0} %", o.fraction * 100.0))
                                    }
                                    td { (o.limit.name()) }
                                }
                            }
                        }
                    }
                }
                p.note {
                    @if kernel.resources.is_empty() { "No machine code was made of this kernel." }
                    @else {
                        "Grey: not compiled for, figures of the nearest older machine code."
                        @for (arch, lines) in &self.sass { (machine_code(*arch, lines)) }
                    }
                }
            }
        }
    }
}

/// How long the machine code is, and how often it goes to local memory.
fn machine_code(arch: u32, lines: &[Line]) -> Markup {
    let local = sass::local_accesses(lines);
    let instructions = lines.iter().filter(|l| l.kind == Kind::Instruction).count();
    html! {
        " SASS " (format::capability(arch)) ": " (instructions) " instructions, "
        span class=(if local > 0 { "bad" } else { "good" }) { (local) } " of them on local memory."
    }
}
