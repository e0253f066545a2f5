//! The source of a kernel beside its PTX and SASS, with what each line did.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use maud::{Markup, html};

use super::data::{HEADS, METRICS, Peaks, cells, data, heat_bar};
use super::highlight;
use crate::format;
use crate::kernels::Kernel;
use crate::study::counts::{Counts, KernelRecord};
use crate::study::listing::{Kind, Line, Place};

/// The source files of a kernel with what each line did.
pub(super) struct Sources<'a> {
    record: &'a KernelRecord,
    views: Vec<View<'a>>,
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

impl SourceFile {
    fn rows(&self) -> Range<usize> {
        self.first..self.first + self.lines.len()
    }
}

/// One listing: the PTX, which was counted, or machine code.
struct View<'a> {
    key: String,
    name: String,
    lines: &'a [Line],
    /// Of its rows' ids.
    prefix: char,
}

impl View<'_> {
    fn counted(&self) -> bool {
        self.prefix == 'p'
    }
}

impl<'a> Sources<'a> {
    /// `sass` is machine code by architecture, `source_of` the text of a source file.
    pub(super) fn new(
        record: &'a KernelRecord,
        ptx: &'a [Line],
        sass: &'a [(u32, Vec<Line>)],
        source_of: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let mut views = vec![View { key: "ptx".to_owned(), name: "PTX".to_owned(), lines: ptx, prefix: 'p' }];
        views.extend(sass.iter().zip('q'..).map(|((arch, lines), prefix)| View {
            key: format!("sass{arch}"),
            name: format!("SASS {}", format::capability(*arch)),
            lines,
            prefix,
        }));
        // The kernel's own file first, then the others in the order of the listings.
        let mut names = vec![record.kernel.module.file.to_owned()];
        for place in views.iter().flat_map(|v| v.lines).flat_map(|line| &line.places) {
            if !names.contains(&place.file) {
                names.push(place.file.clone());
            }
        }
        let mut this = Self {
            record,
            views,
            files: Vec::new(),
            ids: HashMap::new(),
            counts: BTreeMap::new(),
            total: Counts::default(),
        };
        let mut next = 1;
        for name in names {
            let Some(text) = source_of(&name) else { continue };
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            for line in 0..lines.len() {
                this.ids.insert(Place { file: name.clone(), line: line as u32 + 1 }, next + line);
            }
            let first = next;
            next += lines.len();
            this.files.push(SourceFile { name, lines, first });
        }
        let rows: HashMap<u32, usize> = ptx.iter().map(|l| (l.number, this.own_row(l))).collect();
        for (number, &counts) in &record.lines {
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

    pub(super) fn hottest_card(&self) -> Markup {
        let all = self.total.instructions;
        let mut rows: Vec<_> = self.counts.iter().filter(|(row, _)| **row > 0).collect();
        rows.sort_by_key(|(row, c)| (std::cmp::Reverse(c.instructions), **row));
        html! {
            @if all > 0 {
                section.card {
                    h2 {
                        "Hottest lines " small { "by warp instructions; " kbd { "x" } " walks through them" }
                    }
                    ol.hot {
                        @for (row, c) in rows.into_iter().take(6) {
                            @if let Some((file, line)) = self.place(*row) {
                                li {
                                    span.num { (format::percent(c.instructions, all)) }
                                    (heat_bar(c.instructions as f64 / all as f64))
                                    a href={ "#s" (row) } {
                                        span.dim { (file.name) ":" (line + 1) } " " (file.lines[line].trim())
                                    }
                                }
                            }
                        }
                    }
                } "\n"
            }
        }
    }

    pub(super) fn viewer(&self) -> Markup {
        html! {
            section.code id="code" aria-label="source and machine code" { "\n"
                (self.tools()) "\n"
                div.panes { "\n"
                    (self.source_pane()) "\n"
                    div.pane.asm.m0 tabindex="0" aria-label="machine code" { "\n"
                        @for (i, view) in self.views.iter().enumerate() { (self.listing(view, i == 0)) }
                    } "\n"
                } "\n"
                div.status {
                    span.dim {
                        "Point at a line to see what it became; click to keep it. " kbd { "j" } " " kbd { "k" }
                        " move, " kbd { "h" } " " kbd { "l" } " change sides, " kbd { "1" } "–" kbd { "6" }
                        " metric, " kbd { "a" } " all columns, " kbd { "x" } " hottest, " kbd { "s" }
                        " PTX or SASS, " kbd { "n" } " " kbd { "p" } " pages, " kbd { "t" } " theme."
                    }
                } "\n"
            } "\n"
        }
    }

    /// The buttons above both panes.
    fn tools(&self) -> Markup {
        html! {
            div.tools {
                span.seg.metric role="group" aria-label="metric" {
                    @for (i, (name, what)) in METRICS.iter().enumerate() {
                        button aria-pressed=(i == 0) title={ (what) " (" (i + 1) ")" } { (name) }
                    }
                }
                button id="all" aria-pressed="false" title="all columns of the source (a)" { "all columns" }
                button id="hottest" title="the next hottest line by the chosen metric (x)" { "next hottest" }
                span.grow {}
                span.seg.tabs role="tablist" {
                    @for (i, view) in self.views.iter().enumerate() {
                        button role="tab" data-view=(view.key) aria-selected=(i == 0) title="switch (s)" {
                            (view.name)
                        }
                    }
                }
            }
        }
    }

    fn source_pane(&self) -> Markup {
        let linked: BTreeSet<usize> =
            self.views.iter().flat_map(|v| v.lines).flat_map(|line| self.rows(line)).collect();
        let peaks = Peaks::of(self.counts.values());
        html! {
            div.pane.src.m0 tabindex="0" data-total=(data(&self.total)) aria-label="source" { "\n"
                @for (index, file) in self.files.iter().enumerate() {
                    (self.file(index, file, &linked, &peaks))
                }
                @if let Some(c) = self.counts.get(&0) {
                    h3 { "no source line " small { "what the compiler adds" } }
                    div.rows {
                        div.r id="s0" data-c=(data(c)) {
                            b {} (cells(Some(c), &peaks)) code { "(no source line)" }
                        }
                    }
                }
            }
        }
    }

    fn file(&self, index: usize, file: &SourceFile, linked: &BTreeSet<usize>, peaks: &Peaks) -> Markup {
        let own: u64 = self.counts.range(file.rows()).map(|(_, c)| c.instructions).sum();
        let share = match self.total.instructions {
            0 => String::new(),
            all => format!("{} of the warp instructions", format::percent(own, all)),
        };
        let mut in_comment = false;
        let code: Vec<Markup> =
            file.lines.iter().map(|line| highlight::cuda(line, &mut in_comment)).collect();
        let shown = shown_lines(self.record.kernel, index == 0, file.rows(), linked);
        let row = |i: usize| self.source_row(file, i, &code[i], linked, peaks);
        html! {
            @if shown.contains(&true) {
                h3 { (file.name) small { (share) } }
                div.rows { "\n"
                    @if index == 0 {
                        div.r.heads {
                            b {}
                            @for (i, ((_, what), head)) in METRICS.iter().zip(HEADS).enumerate() {
                                i class={ "c" (i) } title=(what) { (head) }
                            }
                            code {}
                        } "\n"
                    }
                    @for run in runs(&shown) {
                        @if shown[run.start] {
                            @for i in run { (row(i)) }
                        } @else {
                            details.fold {
                                summary {
                                    "⋯ "
                                    @if run.len() == 1 { "line " (run.end) }
                                    @else { "lines " (run.start + 1) " to " (run.end) }
                                }
                                @for i in run { (row(i)) }
                            }
                        }
                    }
                } "\n"
            }
        }
    }

    fn source_row(
        &self,
        file: &SourceFile,
        i: usize,
        code: &Markup,
        linked: &BTreeSet<usize>,
        peaks: &Peaks,
    ) -> Markup {
        let row = file.first + i;
        let counts = self.counts.get(&row);
        html! {
            div.r.none[counts.is_none() && !linked.contains(&row)] id={ "s" (row) }
                data-at={ (file.name) ":" (i + 1) } data-c=[counts.map(data)] {
                b { (i + 1) } (cells(counts, peaks)) code { (code) }
            } "\n"
        }
    }

    fn listing(&self, view: &View, on: bool) -> Markup {
        let counts = |line: &Line| self.record.lines.get(&line.number);
        let instructions = view.lines.iter().filter(|l| l.kind == Kind::Instruction).count();
        let peaks = Peaks::of(view.lines.iter().filter_map(counts));
        html! {
            div.view.on[on] data-view=(view.key) {
                h3 {
                    (view.name)
                    small { (instructions) " instructions" @if !view.counted() { "; not emulated, so without counts" } }
                }
                div.rows { "\n"
                    @for (at, line) in view.lines.iter().enumerate() { (self.machine_row(view, at, line, &peaks)) }
                }
            } "\n"
        }
    }

    fn machine_row(&self, view: &View, at: usize, line: &Line, peaks: &Peaks) -> Markup {
        let (counted, instruction) = (view.counted(), line.kind == Kind::Instruction);
        let counts = self.record.lines.get(&line.number).filter(|_| counted && instruction);
        let number = match (counted, instruction) {
            (true, _) => line.number.to_string(),
            (false, true) => format!("{:x}", line.number),
            (false, false) => String::new(),
        };
        let rows = instruction.then(|| {
            let rows: Vec<String> = self.rows(line).iter().map(usize::to_string).collect();
            if rows.is_empty() { "0".to_owned() } else { rows.join(" ") }
        });
        html! {
            div.r.label[line.kind == Kind::Label].none[line.kind == Kind::Other]
                id={ (view.prefix) (if counted { line.number as usize } else { at }) }
                data-s=[rows] data-c=[counts.map(data)] {
                b { (number) } @if counted { (cells(counts, peaks)) } code { (highlight::machine(&line.text)) }
            } "\n"
        }
    }
}

/// The runs of equal values.
fn runs(shown: &[bool]) -> Vec<Range<usize>> {
    let mut next = 0;
    let of_run = |run: &[bool]| {
        let start = next;
        next += run.len();
        start..next
    };
    shown.chunk_by(|a, b| a == b).map(of_run).collect()
}

/// Which lines of a file are shown at once: those with code, the kernel's head, and some around.
fn shown_lines(kernel: &Kernel, own_file: bool, rows: Range<usize>, linked: &BTreeSet<usize>) -> Vec<bool> {
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
    for run in runs(&shown) {
        if run.len() <= 3 {
            shown[run].fill(true);
        }
    }
    shown
}
