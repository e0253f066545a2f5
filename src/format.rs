//! Numbers and tables in words: the one place that turns bytes, times, counts and shares into text.

use std::fmt::Write as _;

/// A count in at most five characters: `987`, `12.3k`, `4.5M`.
pub fn count(n: u64) -> String {
    scaled(n as f64, 1000.0, &["", "k", "M", "G", "T", "P"])
}

/// Bytes in at most six characters, without the B: `512`, `1.5Ki`, `96.0Mi`.
pub fn binary(n: u64) -> String {
    scaled(n as f64, 1024.0, &["", "Ki", "Mi", "Gi", "Ti", "Pi"])
}

fn scaled(mut v: f64, base: f64, units: &[&str]) -> String {
    let mut at = 0;
    while v >= base * 0.9995 && at + 1 < units.len() {
        v /= base;
        at += 1;
    }
    if at == 0 || v >= 99.95 { format!("{v:.0}{}", units[at]) } else { format!("{v:.1}{}", units[at]) }
}

/// Bytes in a sentence: `512 B`, `1.50 MiB`.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{n} B") } else { format!("{value:.2} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.2} TiB")
}

/// A count to three figures: `999`, `12.3k`, `4.56G`.
pub fn three_figures(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["", "k", "M", "G", "T"] {
        if value < 999.5 {
            return match value {
                _ if unit.is_empty() => n.to_string(),
                v if v < 9.995 => format!("{v:.2}{unit}"),
                v if v < 99.95 => format!("{v:.1}{unit}"),
                v => format!("{v:.0}{unit}"),
            };
        }
        value /= 1000.0;
    }
    format!("{value:.3e}P")
}

/// A value, such as a loss, to four figures or so.
pub fn four_figures(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{value:.3e}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 10.0 => format!("{value:.2}"),
        size if size >= 0.001 || size == 0.0 => format!("{value:.4}"),
        size if size < 0.001 => format!("{value:.2e}"),
        // NaN.
        _ => format!("{value}"),
    }
}

/// A deviation or tolerance: `0`, `3.2e-5`.
pub fn exponent(x: f64) -> String {
    if x == 0.0 { "0".to_owned() } else { format!("{x:.1e}") }
}

/// A whole number in groups of three: `12 345 678`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

/// A ratio: `1.00x`, `12x`; a dash where there is nothing to compare with.
pub fn ratio(a: u64, b: u64) -> String {
    match b {
        0 => "–".into(),
        _ if a as f64 / b as f64 >= 9.995 => format!("{:.0}x", a as f64 / b as f64),
        _ => format!("{:.2}x", a as f64 / b as f64),
    }
}

/// A share in percent: `0 %`, `0.3 %`, `42 %`.
pub fn percent(a: u64, b: u64) -> String {
    let p = if b == 0 { 0.0 } else { 100.0 * a as f64 / b as f64 };
    if p == 0.0 || p >= 9.95 { format!("{p:.0} %") } else { format!("{p:.1} %") }
}

/// A measured or predicted time, given in milliseconds: `1.50 s`, `3.25 ms`, `12.5 µs`, `0.42 µs`.
pub fn milliseconds(ms: f64) -> String {
    match ms {
        _ if ms >= 1000.0 => format!("{:.2} s", ms / 1000.0),
        _ if ms >= 1.0 => format!("{ms:.2} ms"),
        _ if ms >= 0.01 => format!("{:.1} µs", ms * 1000.0),
        _ => format!("{:.2} µs", ms * 1000.0),
    }
}

/// A time in the two largest units that matter: `42s`, `3m 05s`, `2h 40m`, `7d 03h`.
pub fn duration(seconds: f64) -> String {
    // `as` saturates, and takes NaN to 0.
    let seconds = seconds.round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    if days > 0 {
        format!("{days}d {:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h {:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m {:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

/// Blocks or threads in as many dimensions as are used: `256`, `32x8`.
pub fn extent(e: [u32; 3], times: &str) -> String {
    let last = e.iter().rposition(|&n| n != 1).unwrap_or(0);
    e[..=last].iter().map(u32::to_string).collect::<Vec<_>>().join(times)
}

/// Compute capability: 80 is 8.0.
pub fn capability(arch: u32) -> String {
    format!("{}.{}", arch / 10, arch % 10)
}

/// One column of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub struct Column {
    head: &'static str,
    width: usize,
    right: bool,
    gap: usize,
}

impl Column {
    /// Flush left, two blanks after the column before. A cell longer than `width` characters moves the rest
    /// of its row.
    pub const fn left(head: &'static str, width: usize) -> Self {
        Self { head, width, right: false, gap: 2 }
    }

    /// Flush right.
    pub const fn right(head: &'static str, width: usize) -> Self {
        Self { right: true, ..Self::left(head, width) }
    }

    /// Another number of blanks between it and the column before.
    pub const fn gap(self, gap: usize) -> Self {
        Self { gap, ..self }
    }
}

/// A table of text whose rows are written one by one.
#[derive(Clone, Debug)]
pub struct Table<const N: usize>([Column; N]);

impl<const N: usize> Table<N> {
    /// A table indented by `indent` blanks.
    pub const fn new(indent: usize, mut columns: [Column; N]) -> Self {
        columns[0].gap = indent;
        Self(columns)
    }

    /// The line of the heads, with its line break.
    pub fn head(&self) -> String {
        self.row(self.0.map(|column| column.head.to_owned()))
    }

    /// A row, with its line break and without blanks before that.
    pub fn row(&self, cells: [String; N]) -> String {
        let mut out = String::new();
        for (Column { width, right, gap, .. }, cell) in self.0.iter().zip(cells) {
            _ = match right {
                true => write!(out, "{:gap$}{cell:>width$}", ""),
                false => write!(out, "{:gap$}{cell:<width$}", ""),
            };
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let shown = [0, 999, 1000, 12_345, 4_500_000, 999_999, 250_000].map(count);
        assert_eq!(shown, ["0", "999", "1.0k", "12.3k", "4.5M", "1.0M", "250k"]);
        assert_eq!([7, 1234, 12_345_678].map(grouped), ["7", "1 234", "12 345 678"]);
        assert_eq!([ratio(3, 2), ratio(30, 2), ratio(1, 0)], ["1.50x", "15x", "–"]);
        assert_eq!([percent(0, 3), percent(1, 300), percent(1, 2)], ["0 %", "0.3 %", "50 %"]);
        let shown = [0, 999, 1000, 9_994, 12_345, 999_499, 999_500, 4_560_000_000, u64::MAX];
        let shown = shown.map(three_figures);
        assert_eq!(shown.join(" "), "0 999 1.00k 9.99k 12.3k 999k 1.00M 4.56G 1.845e4P");
        assert!(shown.iter().all(|s| s.len() <= 8));
    }

    #[test]
    fn sizes() {
        assert_eq!([512, 1536, 96 << 20].map(binary), ["512", "1.5Ki", "96.0Mi"]);
        let words = [0, 1023, 1024, 1 << 20, 3 << 29, 5 << 40].map(bytes);
        assert_eq!(words.join(", "), "0 B, 1023 B, 1.00 KiB, 1.00 MiB, 1.50 GiB, 5.00 TiB");
    }

    #[test]
    fn values() {
        let values = [0.0, 1.0, 99.999, 123.456, 2945.61, 1e9, 1e-5, -0.5, f64::NAN, f64::INFINITY];
        let shown = "0.0000 1.0000 100.00 123.5 2945.6 1.000e9 1.00e-5 -0.5000 NaN inf";
        assert_eq!(values.map(four_figures).join(" "), shown);
        assert_eq!([0.0, 0.000_032, f64::INFINITY].map(exponent), ["0", "3.2e-5", "inf"]);
    }

    #[test]
    fn times() {
        let shown = [1500.0, 3.25, 0.0125, 0.00042].map(milliseconds);
        assert_eq!(shown, ["1.50 s", "3.25 ms", "12.5 µs", "0.42 µs"]);
        let shown = [0.2, 59.0, 59.7, 185.0, 9600.0, 617_000.0, -3.0, f64::NAN].map(duration);
        assert_eq!(shown.join(", "), "0s, 59s, 1m 00s, 3m 05s, 2h 40m, 7d 03h, 0s, 0s");
    }

    #[test]
    fn extents() {
        assert_eq!([[7, 1, 1], [7, 1, 2], [1, 1, 1]].map(|e| extent(e, "x")), ["7", "7x1x2", "1"]);
        assert_eq!(extent([32, 8, 1], " x "), "32 x 8");
        assert_eq!(capability(90), "9.0");
    }

    #[test]
    fn tables_line_up() {
        let table = Table::new(
            2,
            [
                Column::left("kernel", 7),
                Column::right("µs", 4),
                Column::left("", 1).gap(0),
                Column::left("where", 0).gap(1),
            ],
        );
        let row = |cells: [&str; 4]| table.row(cells.map(str::to_owned));
        assert_eq!(table.head(), "  kernel     µs  where\n");
        assert_eq!(row(["pad", "12.5", "*", "here"]), "  pad      12.5* here\n");
        assert_eq!(row(["a long name", "1", "", ""]), "  a long name     1\n");
    }
}
