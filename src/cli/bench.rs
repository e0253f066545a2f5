//! `ugatit bench`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ugatit::bench::adalin::case::Kind;
use ugatit::bench::adalin::chart::Format;
use ugatit::bench::adalin::{self, Options};
use ugatit::tape::NormVariant;
use ugatit::tensor::{DType, Shape};
use ugatit::{Error, ErrorKind, Result};

use super::args::DeviceArgs;
use super::end::End;

/// Measure single layers: on a GPU time, on the emulator what they move and execute
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// AdaLIN, ILN and instance norm: fused against unfused
    ///
    /// Every variant is compared with a computation in double precision before a number of it is shown. On a
    /// GPU: microseconds by events and GB/s, with warm and with rotated buffers, launched one by one and
    /// as a graph, against the speed of a copy measured in the same run. On the emulator: bytes, sectors,
    /// launches and instructions, which are counts and no time; the default shapes take about a minute.
    Adalin(AdalinArgs),
}

#[derive(Debug, Args)]
struct AdalinArgs {
    /// Images, height, width, channels, such as 1,64,64,256; may be given several times
    #[arg(long, value_name = "N,H,W,C", value_parser = parse_shape)]
    shape: Vec<Shape>,
    /// Element types: f32, f16, bf16
    #[arg(long, value_name = "TYPE", value_delimiter = ',', value_parser = parse_dtype)]
    dtype: Vec<DType>,
    #[arg(long, value_name = "VARIANT", value_delimiter = ',', help = format!("Variants: {}", NormVariant::names(|_| true)))]
    variant: Vec<NormVariant>,
    /// Layers: adalin, iln, in
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    kind: Vec<Kind>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Write the records to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw a chart into this file, as its ending says: .svg or .png
    #[arg(long, value_name = "FILE", value_parser = parse_plot)]
    plot: Option<PathBuf>,
    /// Measure nothing; write chart and table of benches/records/adalin-*.json into README.md and docs
    #[arg(long)]
    readme: bool,
    /// Measure nothing; show the records of these files as one table
    #[arg(long, value_name = "FILE", num_args = 1..)]
    show: Vec<PathBuf>,
}

impl AdalinArgs {
    fn options(&self) -> Result<Options> {
        Ok(Options {
            shape: self.shape.clone(),
            dtype: self.dtype.clone(),
            variant: self.variant.clone(),
            kind: self.kind.clone(),
            device: Some(self.device.choice()?),
            json: self.json.clone(),
            plot: self.plot.clone(),
            readme: self.readme,
            show: self.show.clone(),
        })
    }
}

/// `1,64,64,256`.
fn parse_shape(text: &str) -> Result<Shape> {
    let numbers: Option<Vec<usize>> =
        text.split([',', 'x']).map(|t| t.trim().parse().ok().filter(|&n| n > 0)).collect();
    match numbers.as_deref() {
        Some(&[n, h, w, c]) => Ok(Shape::new(1, n, h, w, c)),
        _ => Err(Error::new(format!("'{text}' is no shape")).hint("a shape is N,H,W,C, such as 1,64,64,256")),
    }
}

/// `f32`, `f16`, `bf16`.
fn parse_dtype(text: &str) -> Result<DType> {
    [DType::F32, DType::F16, DType::Bf16].into_iter().find(|d| d.name() == text).ok_or_else(|| {
        Error::new(format!("unknown element type '{text}'")).hint("element types are f32, f16, bf16")
    })
}

/// A file for a chart. An ending of no format is refused now, not after minutes of measuring.
fn parse_plot(text: &str) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    Format::of(&path)?;
    Ok(path)
}

pub(super) fn run(args: &BenchArgs) -> Result<(), End> {
    let What::Adalin(args) = &args.what;
    let options = args.options().map_err(End::Input)?;
    match adalin::run(&options, &mut std::io::stdout()) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(End::Unread),
        Err(e) => Err(End::Failed(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_four_numbers() {
        assert_eq!(parse_shape("1,64,64,256"), Ok(Shape::new(1, 1, 64, 64, 256)));
        assert_eq!(parse_shape("2x3x5x7"), Ok(Shape::new(1, 2, 3, 5, 7)));
        for bad in ["", "1,2,3", "1,2,3,0", "1,2,3,4,5", "a,2,3,4"] {
            assert!(parse_shape(bad).is_err(), "{bad}");
        }
    }
}
