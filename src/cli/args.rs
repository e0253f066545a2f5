//! Flags that several commands take.

use clap::Args;
use ugatit::device::select::Choice;
use ugatit::model::{Machine, machine};
use ugatit::nn::Config;
use ugatit::tape::{ConvVariant, NormVariant, Precision};
use ugatit::{Error, Result};

use super::words;

/// What shapes the networks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub(super) struct ShapeArgs {
    /// Light mode: a small gamma/beta network, which sees pooled features only
    #[arg(long)]
    pub(super) light: bool,

    /// Side of the square training images, a multiple of 4
    #[arg(long, value_name = "N", default_value_t = Config::default().img_size)]
    pub(super) size: usize,

    /// Channels of the first convolution; all others are multiples of it
    #[arg(long, value_name = "N", default_value_t = Config::default().ch)]
    pub(super) ch: usize,

    /// Residual blocks in each generator's encoder, and as many in its decoder
    #[arg(long, value_name = "N", default_value_t = Config::default().n_res)]
    pub(super) n_res: usize,

    /// Depth of the discriminators; less depth allows smaller images [default: 6; `plan` and
    /// `bench` take the deepest that the size allows]
    #[arg(long, value_name = "N")]
    pub(super) n_dis: Option<usize>,
}

/// What shapes the networks and their batches, and which kernels they have.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub(super) struct NetworkArgs {
    #[command(flatten)]
    pub(super) shape: ShapeArgs,

    /// Images of each domain in a step
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) batch_size: usize,

    #[arg(long, value_name = "NORM", default_value_t, value_parser = parse_norm, help = norm_help(NormVariant::trains))]
    pub(super) norm: NormVariant,

    #[arg(long, value_name = "TYPE", default_value_t, value_parser = parse_precision, help = PRECISION_HELP)]
    pub(super) precision: Precision,
}

/// What `--precision` chooses.
pub(super) const PRECISION_HELP: &str = "What convolutions multiply: f32, or tf32 on tensor cores, which needs compute \
     capability 8.0. Sums, and all else, are f32";

/// What `--norm` chooses, from some of the variants.
pub(super) fn norm_help(of: impl Fn(NormVariant) -> bool) -> String {
    format!("Kernels of the norms, which compute the same up to rounding: {}", NormVariant::names(of))
}

impl ShapeArgs {
    /// Overwrites what these flags say of a configuration.
    pub(super) fn apply(&self, cfg: &mut Config) {
        cfg.light = self.light;
        cfg.img_size = self.size;
        cfg.ch = self.ch;
        cfg.n_res = self.n_res;
        cfg.n_dis = self.n_dis.unwrap_or(Config::default().n_dis);
    }

    /// The configuration of a command that only looks at a step: checked, as deep as its size allows unless a depth is given.
    pub(super) fn looked_at(&self) -> Result<Config> {
        let mut cfg = Config::default();
        self.apply(&mut cfg);
        if self.n_dis.is_none() {
            cfg.n_dis = Config::deepest_n_dis(cfg.img_size);
        }
        words::check(&cfg)?;
        Ok(cfg)
    }

    /// What such commands say of a depth that they chose. `train` chooses none: it would make another network than the
    /// official one without being asked to.
    pub(super) fn depth_note(&self) -> Option<String> {
        depth_note(self.size, self.n_dis)
    }
}

impl NetworkArgs {
    pub(super) fn check_batch(&self) -> Result<()> {
        check_batch(self.batch_size)
    }
}

/// The size of a batch.
pub(super) fn check_batch(images: usize) -> Result<()> {
    if (1..=1024).contains(&images) {
        return Ok(());
    }
    Err(Error::new(format!("--batch-size {images} is out of range")).hint("give 1 to 1024 images"))
}

#[derive(Debug, Args)]
pub(super) struct DeviceArgs {
    /// What to run on: auto, cuda, cuda:N or emulator [default: $UGATIT_DEVICE, or else auto]
    #[arg(long, value_name = "DEVICE", value_parser = parse_device)]
    device: Option<Choice>,
}

impl DeviceArgs {
    pub(super) fn choice(&self) -> Result<Choice> {
        match self.device {
            Some(choice) => Ok(choice),
            None => Ok(Choice::from_env()?.unwrap_or_default()),
        }
    }
}

/// What commands that only look at a step say of a depth that they chose. `train` chooses none: it would make
/// another network than the official one without being asked to.
pub(super) fn depth_note(size: usize, n_dis: Option<usize>) -> Option<String> {
    let (deepest, official) = (Config::deepest_n_dis(size), Config::default().n_dis);
    (n_dis.is_none() && deepest != official)
        .then(|| format!("--n-dis {deepest}: the official {official} needs images larger than {size} pixels"))
}

/// clap prints it as part of its own message.
fn one_line(e: &Error) -> String {
    match e.hint_text() {
        Some(hint) => format!("{}; {hint}", e.message()),
        None => e.message().to_owned(),
    }
}

fn parse_device(text: &str) -> Result<Choice, String> {
    text.parse().map_err(|e| one_line(&e))
}

/// The GPU of that name, where there are constants of it.
pub(super) fn parse_gpu(text: &str) -> Result<&'static Machine, String> {
    machine::find(text).map_err(|e| one_line(&e))
}

pub(super) fn parse_precision(text: &str) -> Result<Precision, String> {
    text.parse().map_err(|e| one_line(&e))
}

pub(super) fn parse_norm(text: &str) -> Result<NormVariant, String> {
    text.parse().map_err(|e| one_line(&e))
}

pub(super) fn parse_conv(text: &str) -> Result<ConvVariant, String> {
    text.parse().map_err(|e| one_line(&e))
}
