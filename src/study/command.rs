//! The command line of `ugatit kernels`, `profile` and `study`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::counts::KernelRecord;
use super::listing::Line;
use super::page::Page;
use super::run::{Step, training_step};
use super::{atlas, compile, gpus, ladder, near, own, profile, sass, table, text};
use crate::device::select::Choice;
use crate::kernels::{self, Kernel};
use crate::nn::Config;
use crate::tape::Norms;
use crate::{Error, Result};

/// List the kernels: what they compute, where their source is, what they take of an SM
///
/// Registers, shared memory, spills and stack are the compiler's figures, occupancy is theoretical.
#[derive(Args, Clone, Debug)]
pub struct KernelsArgs {
    /// Kernels to tell all about; the start of a name means all its variants
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What commands that only look at a step tell of a depth that they chose. `train` chooses none: it would
/// make another network than the official one without being asked to.
pub fn depth_note(size: usize, n_dis: Option<usize>) -> Option<String> {
    let (deepest, official) = (Config::deepest_n_dis(size), Config::default().n_dis);
    (n_dis.is_none() && deepest != official)
        .then(|| format!("--n-dis {deepest}: the official {official} needs images larger than {size} pixels"))
}

/// The networks of a step that is run for its counts.
#[derive(Args, Clone, Debug)]
pub struct StepArgs {
    /// Side of the images, pixels
    #[arg(long, default_value_t = 64, value_name = "PIXELS")]
    pub size: usize,
    /// Light mode
    #[arg(long)]
    pub light: bool,
    /// Base width
    #[arg(long, default_value_t = 8, value_name = "CHANNELS")]
    pub ch: usize,
    /// Residual blocks in the encoder, and as many in the decoder
    #[arg(long, default_value_t = 4, value_name = "BLOCKS")]
    pub n_res: usize,
    /// Depth of the discriminators; 6 if not given, or what the size allows
    #[arg(long, value_name = "LAYERS")]
    pub n_dis: Option<usize>,
    /// Images of each domain
    #[arg(long, default_value_t = 1, value_name = "IMAGES")]
    pub batch_size: usize,
    /// Seed of weights and images
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// How norms are computed: fused, composed, elementary
    #[arg(long, value_name = "NORM", default_value_t = Norms::default())]
    pub norm: Norms,
}

impl StepArgs {
    /// What is to be told of a depth that was chosen for the size, where that is not the official one.
    pub fn note(&self) -> Option<String> {
        depth_note(self.size, self.n_dis)
    }

    /// The step they mean.
    ///
    /// # Errors
    /// When it makes no network.
    pub fn step(&self) -> Result<Step> {
        let cfg = Config {
            img_size: self.size,
            light: self.light,
            ch: self.ch,
            n_res: self.n_res,
            n_dis: self.n_dis.unwrap_or_else(|| Config::deepest_n_dis(self.size)),
            ..Config::default()
        };
        cfg.check()?;
        if self.batch_size == 0 {
            return Err(Error::new("--batch-size 0 is no batch").hint("give at least one image"));
        }
        Ok(Step { cfg, batch: self.batch_size, seed: self.seed, norm: self.norm })
    }
}

/// Run one training step on random weights and images, and tell what each kernel did
///
/// The emulator counts instructions, bytes, FLOPs, bank conflicts and divergence; a GPU is timed.
#[derive(Args, Clone, Debug)]
pub struct ProfileArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub step: StepArgs,
    /// Where to run: auto, cuda, cuda:N, emulator. The emulator counts, a GPU is timed
    #[arg(long, default_value_t = Choice::Emulator)]
    pub device: Choice,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Write pages that show a kernel's source line by line beside its PTX and machine code, with counts
///
/// No GPU is needed: a training step runs on the emulator. The pages need no network. With --source, a
/// CUDA file of your own is compiled, checked and counted.
#[derive(Args, Clone, Debug)]
pub struct StudyArgs {
    /// A kernel, the start of a name for all its variants, or `all` for the atlas
    #[arg(value_name = "KERNEL", required_unless_present = "source", conflicts_with = "source")]
    pub name: Option<String>,
    /// Folder for the pages
    #[arg(long, default_value = "atlas", value_name = "DIR")]
    pub out: PathBuf,
    /// GPU of the rooflines, such as h200, a100, rtx4090
    #[arg(long, default_value = "h200")]
    pub gpu: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub step: StepArgs,
    /// A CUDA file of your own
    #[arg(long, value_name = "FILE.cu", requires = "kernel")]
    pub source: Option<PathBuf>,
    /// Its kernel to launch
    #[arg(long, value_name = "NAME", requires = "source")]
    pub kernel: Option<String>,
    /// Blocks: x, x,y or x,y,z
    #[arg(long, default_value = "1", requires = "source")]
    pub grid: String,
    /// Threads a block: x, x,y or x,y,z
    #[arg(long, default_value = "32", requires = "source")]
    pub block: String,
    /// Bytes of dynamic shared memory
    #[arg(long, default_value_t = 0, value_name = "BYTES", requires = "source")]
    pub shared: u32,
    /// An argument, in order: buf:f32:1024, buf:i32:64:iota, i32:5, f32:0.5, null
    #[arg(long = "arg", value_name = "ARG", requires = "source")]
    pub args: Vec<String>,
    /// Architecture to compile it for
    #[arg(long, default_value = "sm_80", requires = "source")]
    pub arch: String,
}

impl StudyArgs {
    /// Checks what can be checked before anything runs.
    ///
    /// # Errors
    /// Names the option and what it may be.
    pub fn check(&self) -> Result<()> {
        gpus::find(&self.gpu)?;
        own::extent("--grid", &self.grid)?;
        own::extent("--block", &self.block)?;
        for arg in &self.args {
            arg.parse::<own::Argument>()?;
        }
        match self.name.as_deref() {
            None => Ok(()),
            Some("all") => self.step.step().map(drop),
            Some(name) => near::select(name).and_then(|_| self.step.step().map(drop)),
        }
    }
}

/// Prints a text; a closed pipe is no error.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::new(format!("cannot print: {e}"))),
        _ => Ok(()),
    }
}

fn print_json(json: &serde_json::Value) -> Result<()> {
    print(&format!("{json:#}\n"))
}

/// Runs `ugatit kernels`.
///
/// # Errors
/// When a name is unknown.
pub fn kernels(args: &KernelsArgs) -> Result<()> {
    let chosen = chosen(&args.names)?;
    if args.json {
        return print_json(&table::json(&chosen));
    }
    if args.names.is_empty() {
        return print(&table::table(&chosen));
    }
    let details: Vec<String> = chosen.iter().map(|k| table::details(k)).collect();
    print(&details.join("\n"))
}

fn chosen(names: &[String]) -> Result<Vec<&'static Kernel>> {
    if names.is_empty() {
        return Ok(kernels::all().iter().collect());
    }
    let mut out: Vec<&'static Kernel> = Vec::new();
    for name in names {
        for kernel in near::select(name)? {
            if !out.iter().any(|k| k.name == kernel.name) {
                out.push(kernel);
            }
        }
    }
    Ok(out)
}

/// Runs `ugatit profile`.
///
/// # Errors
/// When the options make no network or the device fails.
pub fn profile(args: &ProfileArgs) -> Result<()> {
    let step = args.step.step()?;
    let record = training_step(&step, args.device)?;
    if args.json {
        print_json(&profile::json(&record, &step))
    } else {
        print(&profile::table(&record, &step))
    }
}

/// Runs `ugatit study`.
///
/// # Errors
/// When the kernel is unknown, a file cannot be written, or a user's kernel is faulty.
pub fn study(args: &StudyArgs) -> Result<()> {
    let gpu = gpus::find(&args.gpu)?;
    if let Some(source) = &args.source {
        return study_source(args, source, gpu);
    }
    let name = args.name.as_deref().unwrap_or("all");
    let wanted = if name == "all" { chosen(&[])? } else { near::select(name)? };
    let step = args.step.step()?;
    let record = training_step(&step, Choice::Emulator)?;
    let launched = |k: &Kernel| record.kernels.iter().any(|r| r.kernel.name == k.name);
    let index = wanted.len() > 1;
    let ladders = if index || !wanted.iter().all(|k| launched(k)) { ladder::all()? } else { Vec::new() };
    let known = |k: &Kernel| {
        let runs = ladders.iter().flat_map(|l| &l.variants).flat_map(|r| &r.record.kernels);
        launched(k) || runs.into_iter().any(|r| r.kernel.name == k.name)
    };
    let variants = if wanted.iter().all(|k| known(k)) { Vec::new() } else { ladder::variants()? };
    let first = atlas::write(&args.out, &record, &step, &wanted, [&ladders, &variants], gpu, index)?;
    let pages = wanted.len();
    let plural = if pages == 1 { "" } else { "s" };
    print(&format!("{pages} page{plural}; open {}\n", args.out.join(first).display()))?;
    tell_of_disassembler()
}

fn tell_of_disassembler() -> Result<()> {
    if sass::disassembler().is_none() {
        print(
            "no machine code on the pages: `scripts/install-nvrtc.sh --tools` installs NVIDIA's disassembler\n",
        )?;
    }
    Ok(())
}

fn study_source(args: &StudyArgs, source: &Path, gpu: &'static gpus::Gpu) -> Result<()> {
    let name = args.kernel.as_deref().unwrap_or_default();
    let grid = own::extent("--grid", &args.grid)?;
    let block = own::extent("--block", &args.block)?;
    let arguments = args.args.iter().map(|a| a.parse()).collect::<Result<Vec<own::Argument>>>()?;
    let compiled = compile::compile(source, &args.arch)?;
    let kernel = compiled.find(name)?;
    let record = own::run(kernel, grid, block, args.shared, &arguments, args.step.seed)?;
    let one = record.kernels.first().cloned().unwrap_or_else(|| KernelRecord::new(kernel));
    let mut sass = atlas::Sass::new().of(kernel);
    let relative = |lines: &mut Vec<Line>| {
        for place in lines.iter_mut().flat_map(|l| &mut l.places) {
            place.file = compiled.relative(&place.file).to_owned();
        }
    };
    sass.iter_mut().for_each(|(_, lines)| relative(lines));
    let run = format!("one launch of {} blocks of {} threads", text::extent(grid), text::extent(block));
    let mut command = format!(
        "ugatit study --source {} --kernel {name} --grid {} --block {}",
        source.display(),
        args.grid,
        args.block
    );
    args.args.iter().for_each(|a| command += &format!(" --arg {a}"));
    let page = Page {
        record: &one,
        run: &run,
        command: &command,
        sass,
        neighbours: [None, None],
        gpu,
        source_of: &|file| compiled.source_of(file),
        has_index: false,
    };
    std::fs::create_dir_all(&args.out).map_err(|e| {
        Error::new(format!("cannot write {}: {e}", args.out.display())).hint("give another folder with --out")
    })?;
    let path = args.out.join(format!("{name}.html"));
    atlas::write_file(&path, &page.html())?;
    let c = record.counts();
    print(&format!(
        "{}: {} warp instructions, {:.1} of 32 lanes, {}B asked for, {}B moved, {} bank conflicts, {} FLOP\nopen {}\n",
        kernel.name,
        text::grouped(c.instructions),
        c.lanes as f64 / c.instructions.max(1) as f64,
        text::bytes(c.requested_bytes()),
        text::bytes(c.moved_bytes()),
        text::grouped(c.conflicts),
        text::grouped(c.flops),
        path.display()
    ))?;
    tell_of_disassembler()
}
