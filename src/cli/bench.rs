//! `ugatit bench`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ugatit::bench::adalin::case::Kind;
use ugatit::bench::adalin::chart::Format;
use ugatit::bench::adalin::{self, Options};
use ugatit::bench::network::record::Work;
use ugatit::bench::{conv, network};
use ugatit::model::Machine;
use ugatit::tape::{ConvPass, ConvVariant, NormVariant, Precision};
use ugatit::tensor::{DType, Shape};
use ugatit::{Error, ErrorKind, Result};

use super::args::{
    DeviceArgs, ShapeArgs, check_batch, norm_help, parse_conv, parse_gpu, parse_norm, parse_precision,
};
use super::end::{End, say};

/// Measure layers, networks and training steps: on a GPU time, on the emulator what they move and execute
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
    /// A whole training step: milliseconds, images a second, memory, and the share of the floor
    ///
    /// It is the program that `train` runs, on random weights. On a GPU: milliseconds by events, beside what the same run
    /// reached in a large copy and a large convolution, and the predicted time. Without one the time is predicted, and the
    /// emulator's own seconds are shown for a small network.
    Step(NetworksArgs),
    /// One generator, which translates a batch of images
    ///
    /// The figures are those of `bench step`.
    Infer(NetworksArgs),
    /// Every convolution of a training step, forward, dgrad and wgrad, with each variant of the kernels
    ///
    /// On a GPU each is compared with double precision, then timed by events. Without one: the predicted time, what binds it,
    /// and what one block of each launch moves, counted by the emulator.
    Conv(ConvArgs),
}

#[derive(Debug, Args)]
struct NetworksArgs {
    #[command(flatten)]
    shape: ShapeArgs,
    /// Images; of a step those of each domain. Several sizes: 1,4,16
    #[arg(long, value_name = "N", value_delimiter = ',')]
    batch_size: Vec<usize>,
    #[arg(long, value_name = "NORM", value_delimiter = ',', value_parser = parse_norm, help = norm_help(NormVariant::trains))]
    norm: Vec<NormVariant>,
    /// What convolutions multiply: f32, tf32; all that the device takes if not given
    #[arg(long, value_name = "TYPE", value_delimiter = ',', value_parser = parse_precision)]
    precision: Vec<Precision>,
    #[command(flatten)]
    common: CommonArgs,
    /// Runs that are timed, after as many that are not [default: 20, on the emulator 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: Option<u32>,
}

#[derive(Debug, Args)]
struct ConvArgs {
    #[command(flatten)]
    shape: ShapeArgs,
    /// Images of each domain in the step
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch_size: usize,
    /// Passes: forward, dgrad, wgrad
    #[arg(long, value_name = "PASS", value_delimiter = ',', value_parser = parse_pass)]
    pass: Vec<ConvPass>,
    /// Variants: direct, implicit-gemm, tensor-core
    #[arg(long, value_name = "VARIANT", value_delimiter = ',', value_parser = parse_conv)]
    variant: Vec<ConvVariant>,
    #[command(flatten)]
    common: CommonArgs,
}

/// What the benchmarks of networks and their layers share.
#[derive(Debug, Args)]
struct CommonArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// Predict for this GPU: h100, h200, a100, 4090, 5090 and others; on the emulator the plan is for it too. If not given, the
    /// GPU at hand, or else an H100
    #[arg(long = "for", value_name = "GPU", value_parser = parse_gpu)]
    gpu: Option<&'static Machine>,
    /// Write the records to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure nothing; show the records of these files as one table
    #[arg(long, value_name = "FILE", num_args = 1..)]
    show: Vec<PathBuf>,
}

impl NetworksArgs {
    fn options(&self) -> Result<network::Options> {
        self.batch_size.iter().try_for_each(|&images| check_batch(images))?;
        if let Some(norm) = self.norm.iter().find(|norm| !norm.trains()) {
            return Err(Error::new(format!("no network is trained with the norm '{norm}'"))
                .hint(format!("norms are {}", NormVariant::names(NormVariant::trains))));
        }
        Ok(network::Options {
            cfg: self.shape.looked_at()?,
            batch: self.batch_size.clone(),
            norm: self.norm.clone(),
            precision: self.precision.clone(),
            device: Some(self.common.device.choice()?),
            machine: self.common.gpu,
            samples: self.runs.map(|n| n as usize),
            json: self.common.json.clone(),
            show: self.common.show.clone(),
        })
    }
}

impl ConvArgs {
    fn options(&self) -> Result<conv::Options> {
        check_batch(self.batch_size)?;
        Ok(conv::Options {
            cfg: self.shape.looked_at()?,
            batch: self.batch_size,
            pass: self.pass.clone(),
            variant: self.variant.clone(),
            device: Some(self.common.device.choice()?),
            machine: self.common.gpu,
            json: self.common.json.clone(),
            show: self.common.show.clone(),
        })
    }
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

/// `forward`, `dgrad`, `wgrad`.
fn parse_pass(text: &str) -> Result<ConvPass> {
    ConvPass::ALL
        .into_iter()
        .find(|p| p.name() == text)
        .ok_or_else(|| Error::new(format!("unknown pass '{text}'")).hint("passes are forward, dgrad, wgrad"))
}

pub(super) fn run(args: &BenchArgs) -> Result<(), End> {
    let out = &mut std::io::stdout();
    let networks = |work, args: &NetworksArgs, out: &mut std::io::Stdout| -> Result<_, End> {
        let options = args.options().map_err(End::Input)?;
        note(&args.shape, &args.common);
        Ok(network::run(work, &options, out).map(|_| ()))
    };
    let ended = match &args.what {
        What::Adalin(args) => {
            let options = args.options().map_err(End::Input)?;
            adalin::run(&options, out).map(|_| ())
        }
        What::Step(args) => networks(Work::Step, args, out)?,
        What::Infer(args) => networks(Work::Infer, args, out)?,
        What::Conv(args) => {
            let options = args.options().map_err(End::Input)?;
            note(&args.shape, &args.common);
            conv::run(&options, out).map(|_| ())
        }
    };
    match ended {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(End::Unread),
        Err(e) => Err(End::Failed(e)),
    }
}

/// Says what was chosen for the networks, where some are made.
fn note(shape: &ShapeArgs, common: &CommonArgs) {
    if common.show.is_empty() {
        shape.depth_note().iter().for_each(|note| say(note));
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
