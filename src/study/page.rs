//! One kernel as an HTML page that needs nothing else: source, PTX and SASS side by side, with counts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use super::counts::{Counts, KernelRecord};
use super::gpus::{self, Gpu};
use super::listing::{self, Kind, Line, Place};
use super::{table, text};
use crate::model::occupancy;
use crate::format;
use crate::kernels::Kernel;

const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("page.js");

/// The metrics of the heat columns: name, and what it is.
const METRICS: [(&str, &str); 6] = [
    ("executions", "instructions executed, counted once a warp"),
    ("idle", "lanes that stood idle while their warp executed, of 32: divergence and partial warps"),
    ("bytes", "bytes of global memory that threads asked for"),
    ("sectors", "32-byte sectors of global memory that warps touched"),
    ("conflicts", "further passes of shared memory, because lanes met in a bank"),
    ("FLOP", "floating-point operations, two a multiply-add"),
];

/// The metrics' names over the columns.
const HEADS: [&str; 6] = ["exec", "idle", "bytes", "sect", "confl", "flop"];

/// The heat columns of a line that does nothing.
const BLANK: &str = "<i class=e></i>";

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
    /// The roof shown first.
    pub gpu: &'static Gpu,
    /// The text of a source file.
    pub source_of: &'a dyn Fn(&str) -> Option<String>,
    /// The atlas exists.
    pub has_index: bool,
}

/// Whole-document frame of the pages and the atlas.
pub(super) fn document(title: &str, top: &str, body: &str, footer: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<style>\n{CSS}</style>\n</head>\n<body>\n\
         <header class=\"top\">{top}<span class=\"grow\"></span>\
         <button id=\"theme\" title=\"light or dark (t)\">◐</button></header>\n\
         <main>\n{body}</main>\n<footer>{footer}</footer>\n<script>\n{JS}</script>\n</body>\n</html>\n",
        text::escape(title)
    )
}

impl Page<'_> {
    /// The page.
    pub fn html(&self) -> String {
        let kernel = self.record.kernel;
        let mut top = String::new();
        if self.has_index {
            top += "<a href=\"index.html\">atlas</a><span class=\"dim\">/</span>";
        }
        _ = write!(
            top,
            "<h1>{}</h1><span class=\"dim\">{}:{}</span>",
            text::escape(kernel.name),
            text::escape(kernel.module.file),
            kernel.line
        );
        for (name, rel, sign) in [(self.neighbours[0], "prev", "‹"), (self.neighbours[1], "next", "›")] {
            if let Some(name) = name {
                let key = &rel[..1];
                _ = write!(
                    top,
                    "<a rel=\"{rel}\" href=\"{name}.html\" title=\"{name} ({key})\">{sign} {rel}</a>"
                );
            }
        }
        let ptx = listing::ptx(kernel.module.ptx, kernel.name);
        let mut body = String::new();
        body += &self.lead();
        body += "<div class=\"cards\">\n";
        body += &self.counters_card();
        body += &self.roofline_card();
        let sources = Sources::new(self, &ptx);
        _ = write!(body, "<div class=\"w7 stack\">{}{}</div>", self.launches_card(), sources.hottest_card());
        body += &self.static_card();
        body += "</div>\n";
        body += &sources.viewer(self, &ptx);
        let footer = format!(
            "Counted on the emulator, which ran the PTX shown here; times are predicted from data sheets, not \
             measured. Made by <code>{}</code>.",
            text::escape(self.command)
        );
        document(&format!("{} – ugatit", kernel.name), &top, &body, &footer)
    }

    fn lead(&self) -> String {
        let kernel = self.record.kernel;
        let mut out = "<div class=\"lead\">".to_owned();
        for paragraph in kernel.doc.split("\n\n").filter(|p| !p.trim().is_empty()) {
            _ = write!(out, "<p>{}</p>", text::escape(&paragraph.replace('\n', " ")));
        }
        let params: Vec<&str> = kernel.params.iter().map(|p| p.name).collect();
        _ = writeln!(out, "<p class=\"dim mono\">({})</p></div>", text::escape(&params.join(", ")));
        out
    }

    fn counters_card(&self) -> String {
        let (r, c) = (self.record, self.record.counts());
        if c.instructions == 0 {
            return format!(
                "<section class=\"card w7\"><h2>Counters</h2><p>Not launched by {}, so there is nothing to \
                 count. What stands below comes from the compiler.</p></section>\n",
                text::escape(self.run)
            );
        }
        let mut out = format!(
            "<section class=\"card w7\"><h2>Counters <small>{}, {} launch{}</small></h2><div class=\"big\">",
            text::escape(self.run),
            r.launches.len(),
            if r.launches.len() == 1 { "" } else { "es" }
        );
        let (moved, min) = (c.moved_bytes(), r.min_bytes());
        let mut big = |value: String, what: &str| {
            _ = write!(out, "<div><b>{value}</b><span>{what}</span></div>");
        };
        big(format::count(c.instructions), "warp instructions");
        big(format!("{:.1}", c.lanes as f64 / c.instructions as f64), "of 32 lanes active");
        if min > 0 {
            big(format::ratio(moved, min), "of the least bytes");
        }
        big(format::percent(c.ideal_sectors, c.sectors()), "coalesced");
        if c.shared_accesses > 0 {
            big(format::ratio(c.shared_accesses + c.conflicts, c.shared_accesses), "passes a shared access");
        }
        out += "</div><table><thead><tr><th></th><th class=n>counted</th><th class=n>least</th><th class=n></th>\
                <th>what it is</th></tr></thead><tbody>";
        let mut row = |name: &str, counted: String, least: String, ratio: String, what: &str| {
            _ = write!(
                out,
                "<tr><td>{name}</td><td class=n>{counted}</td><td class=n>{least}</td><td class=n>{ratio}</td>\
                 <td class=dim>{what}</td></tr>"
            );
        };
        let bytes = |n| format!("{}B", format::binary(n));
        row(
            "moved, before caches",
            bytes(moved),
            bytes(min),
            format::ratio(moved, min),
            "32 bytes a sector; caches may serve what exceeds the least",
        );
        row(
            "asked for",
            bytes(c.requested_bytes()),
            bytes(min),
            format::ratio(c.requested_bytes(), min),
            "by threads",
        );
        row(
            "sectors",
            format::count(c.sectors()),
            format::count(c.ideal_sectors),
            format::ratio(c.sectors(), c.ideal_sectors),
            "least: each warp's bytes side by side",
        );
        row(
            "floating-point",
            format!("{} FLOP", format::count(c.flops)),
            format!("{} FLOP", format::count(r.flops())),
            format::ratio(c.flops, r.flops()),
            "least: as planned from the shapes",
        );
        if c.shared_accesses > 0 {
            row(
                "shared memory passes",
                format::count(c.shared_accesses + c.conflicts),
                format::count(c.shared_accesses),
                format::ratio(c.shared_accesses + c.conflicts, c.shared_accesses),
                "least: without conflicts; 16 bytes a lane take four",
            );
        }
        if c.matrix > 0 {
            row(
                "matrix instructions",
                format::count(c.matrix),
                String::new(),
                String::new(),
                "mma.sync and wgmma",
            );
        }
        let divergence = format!("{} of {}", format::count(c.divergent), format::count(c.branches));
        row("divergent branches", divergence, String::new(), String::new(), "the threads of a warp part");
        if c.barriers > 0 {
            row("barriers", format::count(c.barriers), String::new(), String::new(), "arrivals of warps");
        }
        out += "</tbody></table>";
        out += &self.mix();
        out += "</section>\n";
        out
    }

    /// The instructions by class as a bar.
    fn mix(&self) -> String {
        let classes = &self.record.classes;
        let total: u64 = classes.values().sum();
        if total == 0 {
            return String::new();
        }
        let mut sorted: Vec<_> = classes.iter().filter(|(_, n)| **n > 0).collect();
        sorted.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        let colour = |i: usize| format!("hsl({} 55% 52%)", (i * 47 + 205) % 360);
        let mut bar = "<div class=\"mix\" role=\"img\" aria-label=\"instruction mix\">".to_owned();
        let mut legend = "<div class=\"legend\">".to_owned();
        for (i, (class, n)) in sorted.into_iter().enumerate() {
            let share = format::percent(*n, total);
            _ = write!(
                bar,
                "<span style=\"--v:{n};background:{}\" title=\"{class} {share}\"></span>",
                colour(i)
            );
            _ = write!(legend, "<span><i style=\"background:{}\"></i>{class} {share}</span>", colour(i));
        }
        bar + "</div>" + &legend + "</div>"
    }

    fn roofline_card(&self) -> String {
        let (r, c) = (self.record, self.record.counts());
        let matrix = r.uses_matrix();
        let flops = if c.flops > 0 { c.flops } else { r.flops() };
        let mut out = "<section class=\"card w5\"><h2>Roofline <small>predicted</small>".to_owned();
        out += &gpu_select(self.gpu);
        out += "</h2>";
        for gpu in &gpus::ALL {
            let on = if gpu == self.gpu { " on" } else { "" };
            _ = write!(out, "<div class=\"gpu{on}\" data-gpu=\"{}\">", gpu.key);
            let dots = [Dot {
                name: r.kernel.name,
                flops,
                least: r.min_bytes(),
                moved: c.moved_bytes(),
                matrix,
                link: false,
            }];
            out += &roofline(gpu, &dots);
            if c.instructions > 0 {
                let best = gpu.predicted_ms(flops, r.min_bytes(), matrix);
                let worst = gpu.predicted_ms(flops, c.moved_bytes(), matrix);
                let bound = if flops as f64 / (if matrix { gpu.matrix } else { gpu.fp32 })
                    > r.min_bytes() as f64 / gpu.bandwidth
                {
                    "arithmetic"
                } else {
                    "memory"
                };
                _ = write!(
                    out,
                    "<p class=\"note\">Predicted for {}: at least {} in all launches if caches serve every repeated \
                     byte (●, bound by {bound}), {} if none (○). Launch overheads and latencies are not in it.</p>",
                    gpu.name,
                    format::milliseconds(best),
                    format::milliseconds(worst.max(best)),
                );
            }
            out += "</div>";
        }
        out + "</section>\n"
    }

    fn launches_card(&self) -> String {
        let geometries = self.record.geometries();
        let kernel = self.record.kernel;
        let mut out = "<section class=\"card\"><h2>Launches <small>distinct geometries, most work first</small></h2>\
                       <div class=\"wrap\"><table><thead><tr><th class=n>times</th><th>grid</th><th>block</th>\
                       <th class=n>shared</th><th class=n>blocks</th><th class=n>waves</th><th class=n>least bytes</th>\
                       <th class=n>share</th><th>first</th></tr></thead><tbody>"
            .to_owned();
        let all: u64 = geometries.iter().map(|g| g.instructions).sum();
        for g in geometries.iter().take(8) {
            let l = g.first;
            let per_sm = table::occupancy_of(kernel, self.gpu.arch, g.threads(), l.shared_bytes)
                .map_or(0, |o| o.blocks);
            let waves = match u64::from(per_sm * self.gpu.sms) {
                0 => "–".to_owned(),
                n => format!("{:.2}", g.blocks() as f64 / n as f64),
            };
            let shared = kernel.resources.first().map_or(0, |r| r.shared) + l.shared_bytes;
            _ = write!(
                out,
                "<tr><td class=n>{}</td><td>{}</td><td>{}</td><td class=n>{}B</td><td class=n>{}</td>\
                 <td class=n>{waves}</td><td class=n>{}B</td><td class=n>{}</td><td>{}</td></tr>",
                g.times,
                format::extent(l.grid, " x "),
                format::extent(l.block, " x "),
                format::binary(u64::from(shared)),
                format::grouped(g.blocks()),
                format::binary(l.min_bytes),
                format::percent(g.instructions, all),
                text::escape(&l.label)
            );
        }
        out += "</tbody></table></div>";
        if geometries.len() > 8 {
            _ = write!(out, "<p class=\"note\">and {} further geometries.</p>", geometries.len() - 8);
        }
        if geometries.is_empty() {
            out += "<p class=\"note\">None.</p>";
        } else {
            _ = write!(
                out,
                "<p class=\"note\">Waves: blocks over what all {} SMs of {} hold at once.</p>",
                self.gpu.sms, self.gpu.name
            );
        }
        out + "</section>\n"
    }

    fn static_card(&self) -> String {
        let kernel = self.record.kernel;
        let geometries = self.record.geometries();
        let (threads, dynamic) =
            geometries.first().map_or((kernel.max_threads, 0), |g| (g.threads(), g.first.shared_bytes));
        let mut out = format!(
            "<section class=\"card w5\"><h2>On an SM <small>compiler's figures; theoretical occupancy with {threads} \
             threads a block</small></h2><div class=\"wrap\"><table><thead><tr><th>capability</th><th class=n>registers</th>\
             <th class=n>shared</th><th class=n>spills</th><th class=n>stack</th><th>occupancy</th><th>bound by</th></tr>\
             </thead><tbody>"
        );
        for limits in occupancy::ALL {
            let (Some(r), Some(o)) = (
                kernel.resources_for(limits.arch),
                table::occupancy_of(kernel, limits.arch, threads, dynamic),
            ) else {
                continue;
            };
            let built = kernel.resources.iter().any(|r| r.arch == limits.arch);
            let spills = r.spill_stores + r.spill_loads;
            let bad = |n: u32| if n > 0 { " bad" } else { "" };
            _ = write!(
                out,
                "<tr{}><td>{}</td><td class=n>{}</td><td class=n>{}B</td><td class=\"n{}\">{spills}</td>\
                 <td class=\"n{}\">{}</td><td><span class=\"bar\" style=\"--v:{:.3}\"><span></span></span> {:.0} %</td>\
                 <td>{}</td></tr>",
                if built { "" } else { " class=dim" },
                format::capability(limits.arch),
                r.registers,
                format::binary(u64::from(r.shared + dynamic)),
                bad(spills),
                bad(r.stack),
                r.stack,
                o.fraction,
                o.fraction * 100.0,
                o.limit.name(),
            );
        }
        out += "</tbody></table></div>";
        if kernel.resources.is_empty() {
            out += "<p class=\"note\">No machine code was made of this kernel.</p>";
        } else {
            out += "<p class=\"note\">Grey: not compiled for, figures of the nearest older machine code.";
            for (arch, lines) in &self.sass {
                let local = super::sass::local_accesses(lines);
                let instructions = lines.iter().filter(|l| l.kind == Kind::Instruction).count();
                _ = write!(
                    out,
                    " SASS {}: {instructions} instructions, <span class={}>{local}</span> of them on local memory.",
                    format::capability(*arch),
                    if local > 0 { "bad" } else { "good" }
                );
            }
            out += "</p>";
        }
        out + "</section>\n"
    }
}

/// The list of GPUs.
pub(super) fn gpu_select(chosen: &Gpu) -> String {
    let mut out = "<select class=\"gpus\" aria-label=\"GPU\">".to_owned();
    for gpu in &gpus::ALL {
        let on = if gpu == chosen { " selected" } else { "" };
        _ = write!(out, "<option value=\"{}\"{on}>{}</option>", gpu.key, gpu.name);
    }
    out + "</select>"
}

/// One kernel on a roofline.
pub(super) struct Dot<'a> {
    pub name: &'a str,
    pub flops: u64,
    pub least: u64,
    pub moved: u64,
    pub matrix: bool,
    /// Link to its page.
    pub link: bool,
}

/// A roofline as SVG: operations a byte across, attainable TFLOP/s upwards, both logarithmic.
pub(super) fn roofline(gpu: &Gpu, dots: &[Dot]) -> String {
    let (width, height) = (520.0, 268.0);
    let (left, right, top, bottom) = (44.0, 510.0, 12.0, 230.0);
    let (x0, x1) = (-2.0, 4.0); // powers of ten of FLOP a byte
    let y1 = gpu.matrix.log10().ceil().max(2.0);
    let y0 = y1 - 5.0;
    let x = |intensity: f64| left + (intensity.log10().clamp(x0, x1) - x0) / (x1 - x0) * (right - left);
    let y = |tflops: f64| bottom - (tflops.log10().clamp(y0, y1) - y0) / (y1 - y0) * (bottom - top);
    let mut out = format!(
        "<svg class=\"roof\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"roofline of {}, predicted\">",
        gpu.name
    );
    for power in x0 as i32..=x1 as i32 {
        let at = x(10f64.powi(power));
        _ = write!(
            out,
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 15.0,
            power_of_ten(power)
        );
    }
    for power in y0 as i32..=y1 as i32 {
        let at = y(10f64.powi(power));
        _ = write!(
            out,
            "<line class=\"grid\" x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 5.0,
            at + 4.0,
            power_of_ten(power)
        );
    }
    _ = write!(
        out,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">FLOP a byte</text>\
         <text x=\"10\" y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 10 {:.1})\">TFLOP/s</text>",
        (left + right) / 2.0,
        height - 6.0,
        (top + bottom) / 2.0,
        (top + bottom) / 2.0
    );
    let roof = |peak: f64| {
        let start = 10f64.powf(x0).max(10f64.powf(y0) / gpu.bandwidth);
        let knee = peak / gpu.bandwidth;
        format!("M{:.1} {:.1}L{:.1} {:.1}H{right}", x(start), y(start * gpu.bandwidth), x(knee), y(peak))
    };
    _ = write!(
        out,
        "<path class=\"mat\" d=\"{}\"/><path class=\"mem\" d=\"{}\"/>\
         <text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">fp16 matrix {} TFLOP/s</text>\
         <text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">fp32 {} TFLOP/s</text>\
         <text x=\"{:.1}\" y=\"{:.1}\">{} TB/s</text>",
        roof(gpu.matrix),
        roof(gpu.fp32),
        y(gpu.matrix) + 14.0,
        gpu.matrix,
        y(gpu.fp32) - 5.0,
        gpu.fp32,
        x(0.03) + 8.0,
        y(0.03 * gpu.bandwidth) + 12.0,
        gpu.bandwidth
    );
    for dot in dots {
        if dot.flops == 0 || dot.least == 0 {
            continue;
        }
        let attainable =
            |intensity: f64| (intensity * gpu.bandwidth).min(if dot.matrix { gpu.matrix } else { gpu.fp32 });
        let at = |bytes: u64| {
            let intensity = dot.flops as f64 / bytes.max(1) as f64;
            (x(intensity), y(attainable(intensity)), intensity, attainable(intensity))
        };
        let (bx, by, bi, bt) = at(dot.least);
        if dot.link {
            _ = write!(out, "<a href=\"{}.html\">", dot.name);
        }
        if dot.moved > 0 {
            let (wx, wy, wi, wt) = at(dot.moved);
            if !dot.link {
                _ = write!(
                    out,
                    "<line class=\"span\" x1=\"{wx:.1}\" y1=\"{wy:.1}\" x2=\"{bx:.1}\" y2=\"{by:.1}\"/>\
                     <circle class=\"ring\" cx=\"{wx:.1}\" cy=\"{wy:.1}\" r=\"5\"><title>counted sectors: {wi:.2} FLOP a \
                     byte, {wt:.2} TFLOP/s predicted</title></circle>"
                );
            }
        }
        let r = if dot.link { 4.5 } else { 5.5 };
        _ = write!(
            out,
            "<circle class=\"dot\" cx=\"{bx:.1}\" cy=\"{by:.1}\" r=\"{r}\"><title>{}: {bi:.2} FLOP a least byte, {bt:.2} \
             TFLOP/s predicted</title></circle>",
            dot.name
        );
        if dot.link {
            out += "</a>";
        }
    }
    if let [dot] = dots
        && dot.flops == 0
    {
        _ = write!(
            out,
            "<text class=\"strong\" x=\"{:.1}\" y=\"{:.1}\">no arithmetic: bound by memory alone</text>",
            left + 60.0,
            bottom - 14.0
        );
    }
    out + "</svg>"
}

fn power_of_ten(power: i32) -> String {
    match power {
        0..=3 => 10i64.pow(power as u32).to_string(),
        4 => "10k".into(),
        -1 => "0.1".into(),
        -2 => "0.01".into(),
        _ => format!("1e{power}"),
    }
}

/// The source files of a kernel with what each line did.
struct Sources {
    files: Vec<SourceFile>,
    /// Row number of a place.
    ids: HashMap<Place, usize>,
    /// Counts of row numbers; 0 is what has no line.
    counts: BTreeMap<usize, Counts>,
    total: Counts,
}

struct SourceFile {
    name: String,
    lines: Vec<String>,
    /// Row number of its first line.
    first: usize,
}

impl Sources {
    fn new(page: &Page, ptx: &[Line]) -> Self {
        let kernel = page.record.kernel;
        // The kernel's own file first, then the others in the order they are met.
        let mut names = vec![kernel.module.file.to_owned()];
        let lists = std::iter::once(ptx).chain(page.sass.iter().map(|(_, lines)| &lines[..]));
        for place in lists.flatten().flat_map(|line| &line.places) {
            if !names.contains(&place.file) {
                names.push(place.file.clone());
            }
        }
        let mut this = Self {
            files: Vec::new(),
            ids: HashMap::new(),
            counts: BTreeMap::new(),
            total: Counts::default(),
        };
        let mut next = 1;
        for name in names {
            let Some(text) = (page.source_of)(&name) else { continue };
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            for line in 0..lines.len() {
                this.ids.insert(Place { file: name.clone(), line: line as u32 + 1 }, next + line);
            }
            let first = next;
            next += lines.len();
            this.files.push(SourceFile { name, lines, first });
        }
        let rows: HashMap<u32, usize> = ptx.iter().map(|l| (l.number, this.own_row(l))).collect();
        for (number, &counts) in &page.record.lines {
            *this.counts.entry(rows.get(number).copied().unwrap_or(0)).or_default() += counts;
            this.total += counts;
        }
        this
    }

    /// The row of the line an instruction belongs to; 0 where it has none.
    fn own_row(&self, line: &Line) -> usize {
        line.places.first().and_then(|p| self.ids.get(p)).copied().unwrap_or(0)
    }

    /// The rows of an instruction's line and of those it was inlined at.
    fn rows(&self, line: &Line) -> Vec<usize> {
        let mut rows: Vec<usize> = Vec::new();
        for place in &line.places {
            let row = self.ids.get(place).copied().unwrap_or(0);
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        rows
    }

    fn place(&self, row: usize) -> Option<(&SourceFile, usize)> {
        let file = self.files.iter().rfind(|f| f.first <= row)?;
        Some((file, row - file.first))
    }

    fn hottest_card(&self) -> String {
        if self.total.instructions == 0 {
            return String::new();
        }
        let mut out = "<section class=\"card\"><h2>Hottest lines <small>by warp instructions; \
                       <kbd>x</kbd> walks through them</small></h2><ol class=\"hot\">"
            .to_owned();
        let mut rows: Vec<_> = self.counts.iter().filter(|(row, _)| **row > 0).collect();
        rows.sort_by_key(|(row, c)| (std::cmp::Reverse(c.instructions), **row));
        for (row, c) in rows.into_iter().take(6) {
            let Some((file, line)) = self.place(*row) else { continue };
            _ = write!(
                out,
                "<li><span class=num>{}</span><span class=\"bar heat\" style=\"--v:{:.3}\"><span></span></span>\
                 <a href=\"#s{row}\"><span class=dim>{}:{}</span> {}</a></li>",
                format::percent(c.instructions, self.total.instructions),
                c.instructions as f64 / self.total.instructions as f64,
                text::escape(&file.name),
                line + 1,
                text::escape(file.lines[line].trim())
            );
        }
        out + "</ol></section>\n"
    }

    fn viewer(&self, page: &Page, ptx: &[Line]) -> String {
        let mut out = "<section id=\"code\" class=\"code\" aria-label=\"source and machine code\">\n<div class=\"tools\">\
                       <span class=\"seg metric\" role=\"group\" aria-label=\"metric\">"
            .to_owned();
        for (i, (name, what)) in METRICS.iter().enumerate() {
            _ = write!(
                out,
                "<button aria-pressed=\"{}\" title=\"{what} ({})\">{name}</button>",
                i == 0,
                i + 1
            );
        }
        out += "</span><button id=\"all\" aria-pressed=\"false\" title=\"all columns of the source (a)\">all columns</button>\
                <button id=\"hottest\" title=\"the next hottest line by the chosen metric (x)\">next hottest</button>\
                <span class=\"grow\"></span><span class=\"seg tabs\" role=\"tablist\">";
        let mut views = vec![("ptx".to_owned(), "PTX".to_owned(), ptx, 'p')];
        for (i, (arch, lines)) in page.sass.iter().enumerate() {
            let name = format!("SASS {}", format::capability(*arch));
            views.push((format!("sass{arch}"), name, &lines[..], (b'q' + i as u8) as char));
        }
        for (i, (key, name, _, _)) in views.iter().enumerate() {
            _ = write!(
                out,
                "<button role=\"tab\" data-view=\"{key}\" aria-selected=\"{}\" title=\"switch (s)\">{name}</button>",
                i == 0
            );
        }
        _ = write!(
            out,
            "</span></div>\n<div class=\"panes\">\n<div class=\"pane src m0\" tabindex=\"0\" data-total=\"{}\" \
             aria-label=\"source\">\n",
            data(&self.total)
        );
        let linked: BTreeSet<usize> =
            views.iter().flat_map(|v| v.2).flat_map(|line| self.rows(line)).collect();
        let peaks = Peaks::of(self.counts.values());
        for (index, file) in self.files.iter().enumerate() {
            out += &self.file(page, index, file, &linked, &peaks);
        }
        if let Some(c) = self.counts.get(&0) {
            _ = write!(
                out,
                "<h3>no source line <small>what the compiler adds</small></h3><div class=\"rows\"><div class=\"r\" id=\"s0\" \
                 data-c=\"{}\"><b></b>{}<code>(no source line)</code></div></div>",
                data(c),
                cells(c, &peaks)
            );
        }
        out += "</div>\n<div class=\"pane asm m0\" tabindex=\"0\" aria-label=\"machine code\">\n";
        for (i, (key, name, lines, prefix)) in views.iter().enumerate() {
            out += &self.listing(page, (i, key, name), lines, *prefix);
        }
        out += "</div>\n</div>\n<div class=\"status\"><span class=\"dim\">Point at a line to see what it became; click to \
                keep it. <kbd>j</kbd> <kbd>k</kbd> move, <kbd>h</kbd> <kbd>l</kbd> change sides, <kbd>1</kbd>–<kbd>6</kbd> \
                metric, <kbd>a</kbd> all columns, <kbd>x</kbd> hottest, <kbd>s</kbd> PTX or SASS, <kbd>n</kbd> <kbd>p</kbd> \
                pages, <kbd>t</kbd> theme.</span></div>\n</section>\n";
        out
    }

    fn file(
        &self,
        page: &Page,
        index: usize,
        file: &SourceFile,
        linked: &BTreeSet<usize>,
        peaks: &Peaks,
    ) -> String {
        let rows = file.first..file.first + file.lines.len();
        let own: u64 = self.counts.range(rows.clone()).map(|(_, c)| c.instructions).sum();
        let shown = shown_lines(page.record.kernel, index == 0, rows.clone(), linked);
        if !shown.contains(&true) {
            return String::new();
        }
        let share = match self.total.instructions {
            0 => String::new(),
            all => format!("{} of the warp instructions", format::percent(own, all)),
        };
        let mut out =
            format!("<h3>{}<small>{share}</small></h3><div class=\"rows\">\n", text::escape(&file.name));
        if index == 0 {
            out += "<div class=\"r heads\"><b></b>";
            for (i, ((_, what), head)) in METRICS.iter().zip(HEADS).enumerate() {
                _ = write!(out, "<i class=\"c{i}\" title=\"{what}\">{head}</i>");
            }
            out += "<code></code></div>\n";
        }
        let mut comment = false;
        let mut at = 0;
        while at < file.lines.len() {
            let end = (at..file.lines.len()).find(|&i| shown[i] != shown[at]).unwrap_or(file.lines.len());
            if !shown[at] {
                let what =
                    if end - at == 1 { format!("line {end}") } else { format!("lines {} to {end}", at + 1) };
                _ = write!(out, "<details class=\"fold\"><summary>⋯ {what}</summary>");
            }
            for i in at..end {
                let row = file.first + i;
                let html = text::cuda(&file.lines[i], &mut comment);
                let place = format!("{}:{}", file.name, i + 1);
                match self.counts.get(&row) {
                    Some(c) => {
                        _ = writeln!(
                            out,
                            "<div class=\"r\" id=\"s{row}\" data-at=\"{}\" data-c=\"{}\"><b>{}</b>{}<code>{html}</code></div>",
                            text::escape(&place),
                            data(c),
                            i + 1,
                            cells(c, peaks)
                        );
                    }
                    None => {
                        let class = if linked.contains(&row) { "r" } else { "r none" };
                        let blank = BLANK;
                        let id = format!(" id=\"s{row}\" data-at=\"{}\"", text::escape(&place));
                        _ = writeln!(
                            out,
                            "<div class=\"{class}\"{id}><b>{}</b>{blank}<code>{html}</code></div>",
                            i + 1
                        );
                    }
                }
            }
            if !shown[at] {
                out += "</details>";
            }
            at = end;
        }
        out + "</div>\n"
    }

    fn listing(
        &self,
        page: &Page,
        (i, key, name): (usize, &str, &str),
        lines: &[Line],
        prefix: char,
    ) -> String {
        let counted = prefix == 'p';
        let on = if i == 0 { " on" } else { "" };
        let instructions = lines.iter().filter(|l| l.kind == Kind::Instruction).count();
        let mut out = format!(
            "<div class=\"view{on}\" data-view=\"{key}\"><h3>{name}<small>{instructions} instructions{}</small></h3>\
             <div class=\"rows\">\n",
            if counted { "" } else { "; not emulated, so without counts" }
        );
        let peaks = Peaks::of(lines.iter().filter_map(|l| page.record.lines.get(&l.number)));
        for (at, line) in lines.iter().enumerate() {
            let html = text::machine(&line.text);
            let counts =
                page.record.lines.get(&line.number).filter(|_| counted && line.kind == Kind::Instruction);
            let class = match line.kind {
                Kind::Label => "r label",
                Kind::Instruction => "r",
                Kind::Other => "r none",
            };
            let number = match (counted, line.kind) {
                (true, _) => line.number.to_string(),
                (false, Kind::Instruction) => format!("{:x}", line.number),
                _ => String::new(),
            };
            let id = if counted { line.number as usize } else { at };
            let mut attributes = format!(" id=\"{prefix}{id}\"");
            if line.kind == Kind::Instruction {
                let rows: Vec<String> = self.rows(line).iter().map(usize::to_string).collect();
                let rows = if rows.is_empty() { "0".to_owned() } else { rows.join(" ") };
                _ = write!(attributes, " data-s=\"{rows}\"");
            }
            let mut columns = String::new();
            if counted {
                match counts {
                    Some(c) => {
                        _ = write!(attributes, " data-c=\"{}\"", data(c));
                        columns = cells(c, &peaks);
                    }
                    None => columns += BLANK,
                }
            }
            _ = writeln!(
                out,
                "<div class=\"{class}\"{attributes}><b>{number}</b>{columns}<code>{html}</code></div>"
            );
        }
        out + "</div></div>\n"
    }
}

/// Which lines of a file are shown at once: those with code, the kernel's head, and some around.
fn shown_lines(
    kernel: &Kernel,
    own_file: bool,
    rows: std::ops::Range<usize>,
    linked: &BTreeSet<usize>,
) -> Vec<bool> {
    const AROUND: usize = 3;
    let length = rows.len();
    let mut shown = vec![false; length];
    let mut mark = |from: usize, to: usize| (from..to.min(length)).for_each(|i| shown[i] = true);
    for &row in linked.range(rows.clone()) {
        let at = row - rows.start;
        mark(at.saturating_sub(AROUND), at + AROUND + 1);
    }
    if own_file && kernel.line > 0 {
        let at = kernel.line as usize - 1;
        mark(at.saturating_sub(kernel.doc.lines().count().min(12)), at + 2);
    }
    // A gap of a line or three is not worth folding.
    let mut at = 0;
    while at < length {
        let end = (at..length).find(|&i| shown[i] != shown[at]).unwrap_or(length);
        if !shown[at] && end - at <= 3 {
            shown[at..end].fill(true);
        }
        at = end;
    }
    shown
}

/// Counts as the page's script reads them.
fn data(c: &Counts) -> String {
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
struct Peaks([u64; 6]);

impl Peaks {
    fn of<'a>(counts: impl Iterator<Item = &'a Counts>) -> Self {
        let mut peaks = [0; 6];
        for c in counts {
            for (peak, v) in peaks.iter_mut().zip(metrics(c)) {
                *peak = v.max(*peak);
            }
        }
        Self(peaks)
    }
}

/// The heat columns of one row.
fn cells(c: &Counts, peaks: &Peaks) -> String {
    let mut out = String::new();
    for (i, (v, peak)) in metrics(c).into_iter().zip(peaks.0).enumerate() {
        if v == 0 {
            _ = write!(out, "<i class=c{i}></i>");
            continue;
        }
        // The square root keeps the middle of the range visible.
        let heat = (v as f64 / peak.max(1) as f64).sqrt();
        let shown = match i {
            1 => format!("{:.1}", v as f64 / c.instructions.max(1) as f64),
            2 => format::binary(v),
            _ => format::count(v),
        };
        _ = write!(out, "<i class=c{i} style=\"--v:{heat:.2}\">{shown}</i>");
    }
    out
}
