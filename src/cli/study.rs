//! `ugatit kernels`, `ugatit profile` and `ugatit study`

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use ugatit::device::select::Choice;
use ugatit::format;
use ugatit::model::{Machine, machine};
use ugatit::nn::Config;
use ugatit::study::run::{Step, training_step};
use ugatit::study::user_kernel::{self, Argument};
use ugatit::study::{compile, pages, profile, sass, suggest, table};
use ugatit::tape::{NormVariant, Precision};
use ugatit::{Error, Result};

use super::args::{PRECISION_HELP, depth_note, norm_help, parse_precision};
use super::end::{End, say};
use super::words;

/// List the kernels: what they compute, where their source is, what they take of an SM
///
/// Registers, shared memory, spills and stack are the compiler's figures, occupancy is theoretical.
#[derive(Debug, Args)]
pub(super) struct KernelsArgs {
    /// Kernels to tell all about; the start of a name means all its variants
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The networks of a step that is run for its counts.
#[derive(Debug, Args)]
struct StepArgs {
    /// Side of the images, pixels
    #[arg(long, default_value_t = 64, value_name = "PIXELS")]
    size: usize,
    /// Light mode
    #[arg(long)]
    light: bool,
    /// Base width
    #[arg(long, default_value_t = 8, value_name = "CHANNELS")]
    ch: usize,
    /// Residual blocks in the encoder, and as many in the decoder
    #[arg(long, default_value_t = 4, value_name = "BLOCKS")]
    n_res: usize,
    /// Depth of the discriminators; 6 if not given, or what the size allows
    #[arg(long, value_name = "LAYERS")]
    n_dis: Option<usize>,
    /// Images of each domain
    #[arg(long, default_value_t = 1, value_name = "IMAGES")]
    batch_size: usize,
    /// Seed of weights and images
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, value_name = "NORM", default_value_t, help = norm_help(|_| true))]
    norm: NormVariant,
    #[arg(long, value_name = "TYPE", default_value_t, value_parser = parse_precision, help = PRECISION_HELP)]
    precision: Precision,
}

impl StepArgs {
    /// The step they mean.
    fn step(&self) -> Result<Step> {
        let cfg = Config {
            img_size: self.size,
            light: self.light,
            ch: self.ch,
            n_res: self.n_res,
            n_dis: self.n_dis.unwrap_or_else(|| Config::deepest_n_dis(self.size)),
            ..Config::default()
        };
        words::check(&cfg)?;
        if self.batch_size == 0 {
            return Err(Error::new("--batch-size 0 is no batch").hint("give at least one image"));
        }
        Ok(Step {
            cfg,
            batch: self.batch_size,
            seed: self.seed,
            norm: self.norm,
            precision: self.precision,
            target: None,
        })
    }

    fn note(&self) {
        depth_note(self.size, self.n_dis).iter().for_each(|note| say(note));
    }
}

/// The flags that make a step.
fn flags(step: &Step) -> String {
    let c = &step.cfg;
    let mut out = format!(
        "--size {} --ch {} --n-res {} --n-dis {} --batch-size {}",
        c.img_size, c.ch, c.n_res, c.n_dis, step.batch
    );
    if c.light {
        out += " --light";
    }
    if step.norm != NormVariant::default() {
        out += &format!(" --norm {}", step.norm);
    }
    if step.precision != Precision::default() {
        out += &format!(" --precision {}", step.precision);
    }
    out
}

/// Run one training step on random weights and images, and tell what each kernel did
///
/// The emulator counts instructions, bytes, FLOPs, bank conflicts and divergence; a GPU is timed.
#[derive(Debug, Args)]
pub(super) struct ProfileArgs {
    #[command(flatten)]
    step: StepArgs,
    /// Where to run: auto, cuda, cuda:N, emulator. The emulator counts, a GPU is timed
    #[arg(long, default_value_t = Choice::Emulator)]
    device: Choice,
    /// Plan for this GPU and predict its times: h100, h200, a100, 4090, 5090 and others; if not given, the one it runs on, or h100
    #[arg(long = "for", value_name = "GPU")]
    gpu: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Write pages that show a kernel's source line by line beside its PTX and machine code, with counts
///
/// No GPU is needed: a training step runs on the emulator. The pages need no network. With --source, a
/// CUDA file of your own is compiled, checked and counted.
#[derive(Debug, Args)]
pub(super) struct StudyArgs {
    /// A kernel, the start of a name for all its variants, or `all` for the atlas
    #[arg(value_name = "KERNEL", required_unless_present = "source", conflicts_with = "source")]
    name: Option<String>,
    /// Folder for the pages
    #[arg(long, default_value = "atlas", value_name = "DIR")]
    out: PathBuf,
    /// GPU that the step is planned for, and times are predicted for at first: h100, h200, a100, 4090, 5090 and others
    #[arg(long, default_value = machine::ALL[0].key)]
    gpu: String,
    #[command(flatten)]
    step: StepArgs,
    /// A CUDA file of your own
    #[arg(long, value_name = "FILE.cu", requires = "kernel")]
    source: Option<PathBuf>,
    /// Its kernel to launch
    #[arg(long, value_name = "NAME", requires = "source")]
    kernel: Option<String>,
    /// Blocks: x, x,y or x,y,z
    #[arg(long, default_value = "1", requires = "source")]
    grid: String,
    /// Threads a block: x, x,y or x,y,z
    #[arg(long, default_value = "32", requires = "source")]
    block: String,
    /// Bytes of dynamic shared memory
    #[arg(long, default_value_t = 0, value_name = "BYTES", requires = "source")]
    shared: u32,
    /// An argument, in order: buf:f32:1024, buf:i32:64:iota, i32:5, f32:0.5, null
    #[arg(long = "arg", value_name = "ARG", requires = "source")]
    args: Vec<String>,
    /// Architecture to compile it for
    #[arg(long, default_value = "sm_80", requires = "source")]
    arch: String,
}

/// `x`, `x,y` or `x,y,z`.
fn extent(flag: &str, text: &str) -> Result<[u32; 3]> {
    let fail =
        || Error::new(format!("cannot read {flag} '{text}'")).hint("give one to three numbers: 64, or 8,8,1");
    let mut out = [1; 3];
    let parts: Vec<&str> = text.split([',', 'x']).collect();
    if parts.len() > 3 {
        return Err(fail());
    }
    for (to, part) in out.iter_mut().zip(parts) {
        *to = part.trim().parse().ok().filter(|n| *n > 0).ok_or_else(fail)?;
    }
    Ok(out)
}

/// A user kernel, and how it is launched.
struct UserLaunch<'a> {
    source: &'a Path,
    name: &'a str,
    grid: [u32; 3],
    block: [u32; 3],
    arguments: Vec<Argument>,
}

impl StudyArgs {
    fn user_launch<'a>(&'a self, source: &'a Path) -> Result<UserLaunch<'a>> {
        Ok(UserLaunch {
            source,
            name: self.kernel.as_deref().unwrap_or_default(),
            grid: extent("--grid", &self.grid)?,
            block: extent("--block", &self.block)?,
            arguments: self.args.iter().map(|a| a.parse()).collect::<Result<_>>()?,
        })
    }
}

fn print(text: &str) -> Result<(), End> {
    let mut out = io::stdout().lock();
    Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
}

fn print_json(json: &serde_json::Value) -> Result<(), End> {
    print(&format!("{json:#}\n"))
}

pub(super) fn kernels(args: &KernelsArgs) -> Result<(), End> {
    let chosen = suggest::select_all(&args.names).map_err(End::Input)?;
    if args.json {
        return print_json(&table::json(&chosen));
    }
    if args.names.is_empty() {
        return print(&table::table(&chosen));
    }
    let details: Vec<String> = chosen.iter().map(|k| table::details(k)).collect();
    print(&details.join("\n"))
}

pub(super) fn profile(args: &ProfileArgs) -> Result<(), End> {
    let wanted = args.gpu.as_deref().map(machine::find).transpose().map_err(End::Input)?;
    let step = Step { target: wanted.map(Machine::target), ..args.step.step().map_err(End::Input)? };
    args.step.note();
    let record = training_step(&step, args.device).map_err(End::Failed)?;
    let gpu = wanted.or_else(|| machine::of_driver(&record.device)).unwrap_or(&machine::ALL[0]);
    if args.json {
        print_json(&profile::json(&record, &step, gpu))
    } else {
        print(&profile::table(&record, &step, gpu))
    }
}

pub(super) fn study(args: &StudyArgs) -> Result<(), End> {
    let gpu = machine::find(&args.gpu).map_err(End::Input)?;
    match &args.source {
        Some(source) => {
            let launch = args.user_launch(source).map_err(End::Input)?;
            print(&study_user_kernel(args, &launch, gpu).map_err(End::Failed)?)?;
        }
        None => {
            let name = args.name.as_deref().unwrap_or("all");
            let wanted = if name == "all" { suggest::select_all(&[]) } else { suggest::select(name) };
            let wanted = wanted.map_err(End::Input)?;
            let step = Step { target: Some(gpu.target()), ..args.step.step().map_err(End::Input)? };
            args.step.note();
            let command = format!("ugatit study {name} {}", flags(&step));
            let written = pages::of_kernels(&wanted, &step, gpu, &args.out, &command).map_err(End::Failed)?;
            let plural = if written.pages == 1 { "" } else { "s" };
            print(&format!("{} page{plural}; open {}\n", written.pages, written.first.display()))?;
        }
    }
    if sass::disassembler().is_none() {
        print(
            "no machine code on the pages: `scripts/install-nvrtc.sh --tools` installs NVIDIA's disassembler\n",
        )?;
    }
    Ok(())
}

/// Compiles and launches the kernel and writes its page; what is printed of it.
fn study_user_kernel(args: &StudyArgs, launch: &UserLaunch<'_>, gpu: &'static Machine) -> Result<String> {
    let compiled = compile::compile(launch.source, &args.arch)?;
    let kernel = compiled.find(launch.name)?;
    let (takes, given) = (kernel.params.len(), launch.arguments.len());
    if takes != given {
        let name = kernel.name;
        return Err(Error::new(format!("{name} takes {takes} arguments, but there are {given}"))
            .hint(format!("give {}", user_kernel::wanted(kernel, "--arg ").join(" "))));
    }
    let record =
        user_kernel::run(kernel, launch.grid, launch.block, args.shared, &launch.arguments, args.step.seed)?;
    let mut command = format!(
        "ugatit study --source {} --kernel {} --grid {} --block {}",
        launch.source.display(),
        launch.name,
        args.grid,
        args.block
    );
    args.args.iter().for_each(|a| command += &format!(" --arg {a}"));
    let path = pages::of_user_kernel(&compiled, launch.name, &record, gpu, &args.out, &command)?;
    let c = record.counts();
    Ok(format!(
        "{}: {} warp instructions, {:.1} of 32 lanes, {}B asked for, {}B of traffic, {} bank conflicts, {} FLOP\nopen {}\n",
        kernel.name,
        format::grouped(c.instructions),
        c.lanes as f64 / c.instructions.max(1) as f64,
        format::binary(c.requested_bytes()),
        format::binary(c.traffic_bytes()),
        format::grouped(c.conflicts),
        format::grouped(c.flops),
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_have_one_to_three_numbers() {
        assert_eq!(extent("--grid", "3,4"), Ok([3, 4, 1]));
        for bad in ["", "0", "1,2,3,4", "a"] {
            assert!(extent("--grid", bad).is_err(), "{bad}");
        }
    }
}
