//! The benchmark's chart: bars laid out once, drawn as SVG or as PNG.

use std::fmt::Write as _;
use std::path::Path;

use super::record::{Record, shape_text};
use crate::data::Rgb8;
use crate::report::font::Font;
use crate::report::{save_png, write_whole};
use crate::tape::NormVariant;
use crate::{Error, Result};

/// Width of a column: forward on the left, backward on the right.
const COLUMN: f64 = 460.0;
/// Height of a line.
const LINE: f64 = 20.0;
/// Where a column's bars begin.
const LEFT: f64 = 150.0;
/// What is kept free behind the longest bar for its number.
const RIGHT: f64 = 80.0;
/// Of the title.
const TOP: f64 = 50.0;
/// Pixels of a PNG for each unit, so that it is sharp on dense screens.
const SCALE: f64 = 2.0;

const INK: [u8; 3] = [0x22, 0x22, 0x22];
const FUSED: [u8; 3] = [0x2a, 0x7f, 0x62];
const UNFUSED: [u8; 3] = [0xa3, 0xab, 0xb5];

/// A file format of charts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text and rectangles, for browsers.
    Svg,
    /// Pixels, with letters of its own.
    Png,
}

impl Format {
    /// The format that a file's ending asks for, in either case.
    ///
    /// # Errors
    /// When it is neither `.svg` nor `.png`.
    pub fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match ending.as_str() {
            "svg" => Ok(Self::Svg),
            "png" => Ok(Self::Png),
            _ => Err(Error::new(format!("{}: no chart can be drawn in this format", path.display()))
                .hint("end the file's name in .svg or .png")),
        }
    }
}

/// Something drawn. Lengths are in units, of which a letter is 15 or so high.
#[derive(Clone, Debug, PartialEq)]
enum Mark {
    Bar {
        x: f64,
        y: f64,
        width: f64,
        colour: [u8; 3],
    },
    /// `y` is the top of its line; `end`: it ends at `x` instead of beginning there.
    Text {
        x: f64,
        y: f64,
        end: bool,
        bold: bool,
        text: String,
    },
}

/// Bars of times where there are any (rotated buffers, in a graph), else of traffic over the minimum.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    width: f64,
    height: f64,
    marks: Vec<Mark>,
}

/// The bars of a layer, shape and element type.
struct Group {
    title: String,
    /// Forward and backward: name, value.
    bars: [Vec<(String, f64)>; 2],
}

impl Chart {
    /// The chart of these records. Nothing stands in for what nobody measured.
    pub fn new(records: &[Record]) -> Self {
        let by_time = records.iter().any(|r| r.time.is_some());
        let value = |r: &Record| -> Option<f64> {
            if by_time {
                let t = r.time.as_ref()?;
                (t.regime == "rotated" && t.mode == "graph").then_some(t.microseconds)
            } else {
                Some(r.counts.as_ref()?.moved() as f64 / r.minimum_traffic as f64)
            }
        };
        let mut groups: Vec<Group> = Vec::new();
        for r in records {
            let Some(v) = value(r) else { continue };
            let title = format!("{}, {} {}", r.kind, shape_text(r.shape), r.dtype);
            let name = if r.origin.source == "ugatit" {
                r.variant.clone()
            } else {
                format!("{} {}", r.origin.source, r.variant)
            };
            let place = groups.iter().position(|g| g.title == title).unwrap_or_else(|| {
                groups.push(Group { title, bars: [Vec::new(), Vec::new()] });
                groups.len() - 1
            });
            groups[place].bars[usize::from(r.pass == "backward")].push((name, v));
        }
        let (unit, title) = if by_time {
            (" µs", "Microseconds a pass, buffers rotated beyond the L2, inside a graph")
        } else {
            ("×", "Traffic over the minimum, counted by the emulator (no time)")
        };
        let mut marks = vec![Mark::Text { x: 12.0, y: 12.0, end: false, bold: true, text: title.into() }];
        let mut top = TOP;
        for Group { title, bars } in &groups {
            for (side, pass) in ["forward", "backward"].into_iter().enumerate() {
                let (x, bars) = (side as f64 * COLUMN, &bars[side]);
                if bars.is_empty() {
                    continue;
                }
                let text = format!("{title}, {pass}");
                marks.push(Mark::Text { x: x + 12.0, y: top, end: false, bold: true, text });
                let most = bars.iter().fold(f64::MIN_POSITIVE, |m, b| m.max(b.1));
                for (row, (name, v)) in bars.iter().enumerate() {
                    let y = top + (row + 1) as f64 * LINE;
                    let width = (COLUMN - LEFT - RIGHT) * v / most;
                    let fused = name.parse().is_ok_and(|v: NormVariant| !v.rounds_intermediates());
                    let colour = if fused { FUSED } else { UNFUSED };
                    let left = x + LEFT;
                    marks.push(Mark::Text { x: left - 8.0, y, end: true, bold: false, text: name.clone() });
                    marks.push(Mark::Bar { x: left, y: y + 3.0, width, colour });
                    let text = format!("{v:.2}{unit}");
                    marks.push(Mark::Text { x: left + width + 6.0, y, end: false, bold: false, text });
                }
            }
            top += (bars.iter().map(Vec::len).max().unwrap_or(0) + 2) as f64 * LINE;
        }
        Self { width: 2.0 * COLUMN, height: top, marks }
    }

    /// As an image of vectors. Text is in the viewer's sans-serif font.
    pub fn svg(&self) -> String {
        let (width, height) = (self.width, self.height);
        let hex = |[r, g, b]: [u8; 3]| format!("#{r:02x}{g:02x}{b:02x}");
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"{}\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
            hex(INK)
        );
        for mark in &self.marks {
            _ = match mark {
                Mark::Bar { x, y, width, colour } => writeln!(
                    out,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
                    LINE - 6.0,
                    hex(*colour)
                ),
                Mark::Text { x, y, end, bold, text } => writeln!(
                    out,
                    "<text x=\"{x:.1}\" y=\"{:.1}\"{}{}>{}</text>",
                    y + 14.0,
                    if *end { " text-anchor=\"end\"" } else { "" },
                    if *bold { " font-weight=\"bold\"" } else { "" },
                    text.replace('&', "&amp;").replace('<', "&lt;")
                ),
            };
        }
        out + "</svg>\n"
    }

    /// As pixels, two for each unit.
    pub fn image(&self) -> Rgb8 {
        let mut image = Rgb8::filled(pixels(self.width), pixels(self.height), [255; 3]);
        for mark in &self.marks {
            match mark {
                Mark::Bar { x, y, width, colour } => {
                    let bar = Rgb8::filled(pixels(*width), pixels(LINE - 6.0), *colour);
                    image.paste(&bar, pixels(*x), pixels(*y));
                }
                Mark::Text { x, y, end, bold, text } => {
                    let font = Font::chart(*bold);
                    let width = text.chars().count() * font.advance();
                    let x = pixels(*x).saturating_sub(if *end { width } else { 0 });
                    font.write(&mut image, text, x, pixels(*y) + (pixels(LINE) - font.line()) / 2, INK);
                }
            }
        }
        image
    }

    /// Writes it in the format that the file's ending asks for.
    ///
    /// # Errors
    /// When there is no such format, or the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        match Format::of(path)? {
            Format::Svg => write_whole(path, self.svg().as_bytes()),
            Format::Png => save_png(path, &self.image()),
        }
    }
}

fn pixels(units: f64) -> usize {
    (units * SCALE).round() as usize
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    fn records() -> Vec<Record> {
        let mut records = vec![record("elementary"), record("fused")];
        // 288 of 192 bytes against 576.
        records[0].counts.as_mut().unwrap().written_bytes += 288;
        records.push(Record { pass: "backward".into(), ..record("fused") });
        records
    }

    #[test]
    fn a_chart_says_what_was_measured() {
        let svg = Chart::new(&records()).svg();
        for text in
            ["adalin, 1x2x3x4 f32, forward", "adalin, 1x2x3x4 f32, backward", ">fused<", ">3.00×<", ">1.50×<"]
        {
            assert!(svg.contains(text), "{text} is not in\n{svg}");
        }
        assert_eq!(svg.matches("<rect ").count(), 1 + 3, "the page and three bars");
        assert!(!svg.contains("composed"), "nobody measured it");
    }

    #[test]
    fn a_image_has_the_bars_and_the_letters() {
        let image = Chart::new(&records()).image();
        assert_eq!((image.width(), image.height()), (1840, 2 * (50 + 4 * 20)));
        let row = |y: f64| image.row(pixels(y)).chunks_exact(3).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let bar = |y: f64, colour: [u8; 3], columns: std::ops::Range<usize>| {
            row(y)[columns].iter().filter(|p| p[..] == colour).count()
        };
        // The first bar is the longest there is; the second moves half as much.
        let longest = pixels(COLUMN - LEFT - RIGHT);
        assert_eq!(bar(TOP + LINE + 10.0, UNFUSED, 0..920), longest);
        assert_eq!(bar(TOP + 2.0 * LINE + 10.0, FUSED, 0..920), longest / 2);
        assert_eq!(bar(TOP + LINE + 10.0, FUSED, 920..1840), longest);
        // Text left of a bar and right of it: dark pixels, and none where nothing is written.
        let dark = |x: std::ops::Range<usize>, y: f64| {
            let rows = pixels(y)..pixels(y + LINE);
            rows.flat_map(|y| image.row(y)[3 * x.start..3 * x.end].to_vec()).filter(|&p| p < 100).count()
        };
        assert!(dark(0..pixels(LEFT - 8.0), TOP + LINE) > 300, "a name");
        assert!(dark(pixels(LEFT) + longest..920, TOP + LINE) > 150, "a number");
        assert!(dark(0..800, 12.0) > 1000, "the title");
        assert_eq!(dark(0..1840, TOP + 3.0 * LINE), 0, "the space below");
    }

    #[test]
    fn every_character_of_a_chart_can_be_drawn() {
        for letter in "Microseconds a pass, 0.12 µs (x-bf16_+/&<)".chars() {
            assert!(Font::chart(false).has(letter) && Font::chart(true).has(letter), "{letter:?}");
        }
    }

    #[test]
    fn the_ending_decides_and_others_are_refused() {
        assert_eq!(Format::of(Path::new("a/b.svg")), Ok(Format::Svg));
        assert_eq!(Format::of(Path::new("b.PNG")), Ok(Format::Png));
        for name in ["b.jpg", "b", ".svg"] {
            let error = Format::of(Path::new(name)).unwrap_err();
            assert!(error.message().starts_with(name), "{error}");
            assert_eq!(error.hint_text(), Some("end the file's name in .svg or .png"));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chart.png");
        let chart = Chart::new(&records());
        chart.save(&path).unwrap();
        assert_eq!(crate::data::load_image(&path).unwrap().pixels(), chart.image().pixels());
    }
}
