//! Rooflines as SVG, one for each GPU, and the list to choose among them.

use maud::{Markup, html};

use crate::study::gpus::{self, Gpu};

/// The list of GPUs.
pub(in crate::study) fn gpu_select(chosen: &Gpu) -> Markup {
    html! {
        select.gpus aria-label="GPU" {
            @for gpu in &gpus::ALL {
                option value=(gpu.key) selected[gpu == chosen] { (gpu.name) }
            }
        }
    }
}

/// One kernel on a roofline.
pub(in crate::study) struct Dot<'a> {
    pub name: &'a str,
    pub flops: u64,
    /// Bytes it must move.
    pub minimum: u64,
    /// Bytes it moves before caches; 0 where that is not shown.
    pub traffic: u64,
    pub matrix: bool,
    /// Link to its page.
    pub link: bool,
}

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 268.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 510.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 230.0;
/// Powers of ten of FLOP a byte at both ends.
const ACROSS: (f64, f64) = (-2.0, 4.0);

/// Where values lie on the chart of one GPU.
struct Scale<'a> {
    gpu: &'a Gpu,
    /// Powers of ten of TFLOP/s at both ends.
    upwards: (f64, f64),
}

impl Scale<'_> {
    fn x(&self, intensity: f64) -> f64 {
        let (x0, x1) = ACROSS;
        LEFT + (intensity.log10().clamp(x0, x1) - x0) / (x1 - x0) * (RIGHT - LEFT)
    }

    fn y(&self, tflops: f64) -> f64 {
        let (y0, y1) = self.upwards;
        BOTTOM - (tflops.log10().clamp(y0, y1) - y0) / (y1 - y0) * (BOTTOM - TOP)
    }

    /// The path of a roof of that height, TFLOP/s: bandwidth up to the knee, then arithmetic.
    fn roof(&self, peak: f64) -> String {
        let bandwidth = self.gpu.bandwidth;
        let start = 10f64.powf(ACROSS.0).max(10f64.powf(self.upwards.0) / bandwidth);
        let knee = peak / bandwidth;
        format!(
            "M{:.1} {:.1}L{:.1} {:.1}H{RIGHT}",
            self.x(start),
            self.y(start * bandwidth),
            self.x(knee),
            self.y(peak)
        )
    }

    fn grid(&self) -> Markup {
        html! {
            @for power in ACROSS.0 as i32..=ACROSS.1 as i32 {
                @let at = self.x(10f64.powi(power));
                line.grid x1=(tenths(at)) y1=(TOP) x2=(tenths(at)) y2=(BOTTOM) {}
                text x=(tenths(at)) y=(BOTTOM + 15.0) text-anchor="middle" { (power_of_ten(power)) }
            }
            @for power in self.upwards.0 as i32..=self.upwards.1 as i32 {
                @let at = self.y(10f64.powi(power));
                line.grid x1=(LEFT) y1=(tenths(at)) x2=(RIGHT) y2=(tenths(at)) {}
                text x=(LEFT - 5.0) y=(tenths(at + 4.0)) text-anchor="end" { (power_of_ten(power)) }
            }
            @let (across, upwards) = ((LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0);
            text x=(tenths(across)) y=(HEIGHT - 6.0) text-anchor="middle" { "FLOP a byte" }
            text x="10" y=(tenths(upwards)) text-anchor="middle"
                transform=(format_args!("rotate(-90 10 {upwards:.1})")) { "TFLOP/s" }
        }
    }

    fn roofs(&self) -> Markup {
        let Gpu { matrix, fp32, bandwidth, .. } = *self.gpu;
        // The bandwidth's name stands beside its slope.
        let (x, y) = (self.x(0.03) + 8.0, self.y(0.03 * bandwidth) + 12.0);
        html! {
            path.mat d=(self.roof(matrix)) {}
            path.mem d=(self.roof(fp32)) {}
            text x=(RIGHT) y=(tenths(self.y(matrix) + 14.0)) text-anchor="end" { "fp16 matrix " (matrix) " TFLOP/s" }
            text x=(RIGHT) y=(tenths(self.y(fp32) - 5.0)) text-anchor="end" { "fp32 " (fp32) " TFLOP/s" }
            text x=(tenths(x)) y=(tenths(y)) { (bandwidth) " TB/s" }
        }
    }

    fn dot(&self, dot: &Dot) -> Markup {
        let peak = if dot.matrix { self.gpu.matrix } else { self.gpu.fp32 };
        let at = |bytes: u64| {
            let intensity = dot.flops as f64 / bytes.max(1) as f64;
            let attainable = (intensity * self.gpu.bandwidth).min(peak);
            (self.x(intensity), self.y(attainable), intensity, attainable)
        };
        let (bx, by, bi, bt) = at(dot.minimum);
        let point = html! {
            circle.dot cx=(tenths(bx)) cy=(tenths(by)) r=(if dot.link { 4.5 } else { 5.5 }) {
                title { (dot.name) (format_args!(": {bi:.2} FLOP a byte of minimum traffic, {bt:.2} TFLOP/s predicted")) }
            }
        };
        html! {
            @if dot.link {
                a href={ (dot.name) ".html" } { (point) }
            } @else {
                @if dot.traffic > 0 {
                    @let (wx, wy, wi, wt) = at(dot.traffic);
                    line.span x1=(tenths(wx)) y1=(tenths(wy)) x2=(tenths(bx)) y2=(tenths(by)) {}
                    circle.ring cx=(tenths(wx)) cy=(tenths(wy)) r="5" {
                        title { (format_args!("counted sectors: {wi:.2} FLOP a byte, {wt:.2} TFLOP/s predicted")) }
                    }
                }
                (point)
            }
        }
    }
}

/// A roofline: operations a byte across, attainable TFLOP/s upwards, both logarithmic.
pub(in crate::study) fn roofline(gpu: &Gpu, dots: &[Dot]) -> Markup {
    let top = gpu.matrix.log10().ceil().max(2.0);
    let scale = Scale { gpu, upwards: (top - 5.0, top) };
    let no_arithmetic = matches!(dots, [dot] if dot.flops == 0);
    html! {
        svg.roof viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img"
            aria-label={ "roofline of " (gpu.name) ", predicted" } {
            (scale.grid())
            (scale.roofs())
            @for dot in dots.iter().filter(|dot| dot.flops > 0 && dot.minimum > 0) {
                (scale.dot(dot))
            }
            @if no_arithmetic {
                text.strong x=(tenths(LEFT + 60.0)) y=(tenths(BOTTOM - 14.0)) {
                    "no arithmetic: bound by memory alone"
                }
            }
        }
    }
}

fn tenths(v: f64) -> String {
    format!("{v:.1}")
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
