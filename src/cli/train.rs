//! `ugatit train`

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use ugatit::model::Machine;
use ugatit::nn::Config;
use ugatit::report::Progress;
use ugatit::train::LOSS_NAMES;
use ugatit::train::run::{Event, Outcome, RunStart, Session, Settings};
use ugatit::{Error, Result};

use super::args::{DeviceArgs, NetworkArgs, parse_gpu};
use super::end::{End, say};
use super::words;

/// Where no line can be written over, there is one this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Train on a data set: a folder with the folders trainA and trainB (testA and testB as well, if there
/// are any)
///
/// Writes RUN/config.toml, RUN/losses.csv (a row a step), RUN/samples (sample grids of the same few images
/// each time, so that they can be compared) and RUN/checkpoints. Ctrl-C ends the current step, saves and
/// exits with 130; a second one stops at once. A run that was ended in any way goes on with --resume, and
/// ends as if nothing had happened.
#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    /// The data set's folder
    #[arg(value_name = "DATA")]
    data: PathBuf,

    /// Folder of the run; made if it does not exist
    #[arg(long, value_name = "RUN")]
    out: PathBuf,

    /// Go on with the run in RUN from its newest whole checkpoint
    ///
    /// Everything is as it was, and flags that say otherwise are errors. Only --steps, --save-every,
    /// --sample-every, --keep and --device may change. With other --steps the learning rate falls over the
    /// second half of the new number.
    #[arg(long)]
    resume: bool,

    #[command(flatten)]
    device: DeviceArgs,

    /// Plan for this GPU: h100, h200, a100, 4090, 5090 and others [default: the device's, or h100 on the emulator]
    ///
    /// What differs is how long sums are split, so results differ by rounding. A run keeps what it was started with.
    #[arg(id = "for", long = "for", value_name = "GPU", value_parser = parse_gpu)]
    gpu: Option<&'static Machine>,

    /// Steps of the whole run
    #[arg(long, value_name = "N", default_value_t = Config::default().iterations)]
    steps: u64,

    /// Seed of initial weights, order of the images and augmentation
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: u64,

    /// Steps from checkpoint to checkpoint; 0 for the last step only
    #[arg(long, value_name = "N", default_value_t = Settings::default().save_every)]
    save_every: u64,

    /// Newest checkpoints to keep, older ones are removed; 0 keeps all (7.5 GB each at full size)
    #[arg(long, value_name = "N", default_value_t = Settings::default().keep)]
    keep: usize,

    /// Steps from sample grid to sample grid; 0 for the last step only
    #[arg(long, value_name = "N", default_value_t = Settings::default().sample_every)]
    sample_every: u64,

    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    optimiser: OptimiserArgs,
}

/// Losses and optimisers.
#[derive(Debug, Args)]
#[command(next_help_heading = "Losses and optimisers")]
struct OptimiserArgs {
    /// Learning rate of Adam
    #[arg(long, value_name = "X", default_value_t = Config::default().lr)]
    lr: f64,

    /// Keep the learning rate; otherwise it falls to 0 over the second half of the run
    #[arg(long)]
    no_decay: bool,

    /// L2 penalty on all weights, added to the gradients
    #[arg(long, value_name = "X", default_value_t = Config::default().weight_decay)]
    weight_decay: f64,

    /// Weight of the adversarial losses
    #[arg(long, value_name = "X", default_value_t = Config::default().adv_weight)]
    adv_weight: f64,

    /// Weight of the cycle loss: there and back again
    #[arg(long, value_name = "X", default_value_t = Config::default().cycle_weight)]
    cycle_weight: f64,

    /// Weight of the identity loss: an image of B stays as it is on the way to B
    #[arg(long, value_name = "X", default_value_t = Config::default().identity_weight)]
    identity_weight: f64,

    /// Weight of the generators' CAM loss
    #[arg(long, value_name = "X", default_value_t = Config::default().cam_weight)]
    cam_weight: f64,

    /// Ceiling of AdaLIN's rho; 0.9 gives the smoothed AdaLIN of the TensorFlow release
    #[arg(long, value_name = "X", default_value_t = Config::default().rho_max)]
    rho_max: f64,
}

impl TrainArgs {
    /// The run that these flags describe by themselves.
    fn settings(&self) -> Settings {
        let o = &self.optimiser;
        let mut model = Config {
            iterations: self.steps,
            decay: !o.no_decay,
            lr: o.lr,
            weight_decay: o.weight_decay,
            adv_weight: o.adv_weight,
            cycle_weight: o.cycle_weight,
            identity_weight: o.identity_weight,
            cam_weight: o.cam_weight,
            rho_max: o.rho_max,
            ..Config::default()
        };
        self.network.shape.apply(&mut model);
        Settings {
            data: self.data.clone(),
            seed: self.seed,
            batch_size: self.network.batch_size,
            save_every: self.save_every,
            sample_every: self.sample_every,
            keep: self.keep,
            norm: self.network.norm,
            precision: self.network.precision,
            target: self.gpu.map(Machine::target),
            model,
        }
    }

    /// The run as it was started, with the changes that these flags ask for.
    ///
    /// # Errors
    /// When a flag that was given contradicts the run.
    fn resumed(&self, run: &Settings, given: impl Fn(&str) -> bool) -> Result<Settings> {
        let flags = self.settings();
        for ((id, wanted), (_, is)) in fixed(&flags).into_iter().zip(fixed(run)) {
            if !given(id) || wanted == is {
                continue;
            }
            let flag = id.replace('_', "-");
            let folder = self.out.display();
            let error = Error::new(match wanted.as_str() {
                "true" => format!("--{flag} contradicts the run in {folder}, which was started without"),
                _ => {
                    format!("--{flag} {wanted} contradicts the run in {folder}, which was started with {is}")
                }
            });
            return Err(error.hint(match id {
                "size" if !run.model.light => {
                    "in full mode the weights belong to one image size; leave it out, or give another --out"
                        .to_owned()
                }
                _ => format!("leave --{flag} out to go on, or give another --out to begin anew"),
            }));
        }
        let mut settings = Settings { data: flags.data, ..run.clone() };
        if given("steps") {
            settings.model.iterations = flags.model.iterations;
        }
        if given("save_every") {
            settings.save_every = flags.save_every;
        }
        if given("sample_every") {
            settings.sample_every = flags.sample_every;
        }
        if given("keep") {
            settings.keep = flags.keep;
        }
        Ok(settings)
    }
}

/// What a resumed run cannot change: name of the flag and value.
fn fixed(s: &Settings) -> [(&'static str, String); 18] {
    let m = &s.model;
    [
        ("size", m.img_size.to_string()),
        ("light", m.light.to_string()),
        ("ch", m.ch.to_string()),
        ("n_res", m.n_res.to_string()),
        ("n_dis", m.n_dis.to_string()),
        ("batch_size", s.batch_size.to_string()),
        ("norm", s.norm.to_string()),
        ("precision", s.precision.to_string()),
        ("for", s.target.map_or_else(String::new, |target| target.to_string())),
        ("seed", s.seed.to_string()),
        ("lr", m.lr.to_string()),
        ("no_decay", (!m.decay).to_string()),
        ("weight_decay", m.weight_decay.to_string()),
        ("adv_weight", m.adv_weight.to_string()),
        ("cycle_weight", m.cycle_weight.to_string()),
        ("identity_weight", m.identity_weight.to_string()),
        ("cam_weight", m.cam_weight.to_string()),
        ("rho_max", m.rho_max.to_string()),
    ]
}

pub(super) fn run(args: &TrainArgs, matches: &ArgMatches) -> Result<(), End> {
    let stop = stop_on_signals();
    let session = open(args, matches).map_err(End::Input)?;
    let (done, steps) = (session.done(), session.settings().model.iterations);
    let mut progress = Progress::stderr(done, steps, LINE_EVERY);
    let outcome = session.run(&stop, &mut |event| match event {
        Event::Step { step, losses } => progress.step(step, &LOSS_NAMES, &losses.0),
        other => words::event(&other).iter().for_each(|text| progress.message(text)),
    });
    progress.finish();
    match outcome.map_err(End::Failed)? {
        Outcome::Done => {
            say(&format!("done: {steps} steps"));
            Ok(())
        }
        Outcome::Interrupted => {
            say(&format!("interrupted; add --resume to go on: {}", args.out.display()));
            Err(End::Interrupted)
        }
    }
}

/// Everything up to the first step.
fn open(args: &TrainArgs, matches: &ArgMatches) -> Result<Session> {
    let device = args.device.choice()?;
    args.network.check_batch()?;
    let start = if args.resume { RunStart::resume(&args.out)? } else { RunStart::fresh(&args.out)? };
    let settings = match start.settings() {
        Some(run) => args.resumed(run, |id| matches.value_source(id) == Some(ValueSource::CommandLine))?,
        None => args.settings(),
    };
    words::check(&settings.model)?;
    Session::open(start, settings, device, &mut |event| {
        words::event(&event).iter().for_each(|text| say(text));
    })
}

/// Becomes true at the first Ctrl-C or request to end. The second one ends the process.
fn stop_on_signals() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    keep_ignoring_hangups();
    let flag = Arc::clone(&stop);
    let handler = ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        say("\nstopping after this step; once more stops at once, without saving");
    });
    if let Err(e) = handler {
        say(&format!("warning: Ctrl-C will not save: {e}"));
    }
    stop
}

/// The handler takes hang-ups for requests to end, which under `nohup` they are not.
fn keep_ignoring_hangups() {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::signal::{SigSet, Signal};
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        if ignored & (1 << (Signal::SIGHUP as u64 - 1)) != 0 {
            let mut hangup = SigSet::empty();
            hangup.add(Signal::SIGHUP);
            // Threads started from now on inherit it. If it fails, a hang-up ends the run, saved.
            let _ = hangup.thread_block();
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(flags: &[&str]) -> TrainArgs {
        let start = ["ugatit", "train", "data", "--out", "run"];
        match Cli::try_parse_from(start.iter().chain(flags)).expect("flags are fine").command {
            Command::Train(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_the_official_ones() {
        let settings = parse(&[]).settings();
        assert_eq!(settings.model, Config::default());
        assert_eq!(settings, Settings { data: "data".into(), ..Settings::default() });
    }

    #[test]
    fn every_flag_arrives() {
        let flags = "--light --size 64 --ch 8 --n-res 2 --n-dis 4 --batch-size 3 --steps 9 --lr 0.5 \
                     --weight-decay 0.25 --adv-weight 2 --cycle-weight 3 --identity-weight 4 --cam-weight 5 \
                     --no-decay --rho-max 0.9 --save-every 7 --sample-every 6 --keep 0 --seed 11 --norm composed --for a100";
        let settings = parse(&flags.split_whitespace().collect::<Vec<_>>()).settings();
        let model = Config {
            light: true,
            img_size: 64,
            ch: 8,
            n_res: 2,
            n_dis: 4,
            iterations: 9,
            lr: 0.5,
            weight_decay: 0.25,
            adv_weight: 2.0,
            cycle_weight: 3.0,
            identity_weight: 4.0,
            cam_weight: 5.0,
            decay: false,
            rho_max: 0.9,
            ..Config::default()
        };
        let data = "data".into();
        let norm = ugatit::tape::NormVariant::Composed;
        let target = Some(ugatit::device::Target { sms: 108, shared_bytes: 163 << 10 });
        let run = Settings { data, seed: 11, batch_size: 3, ..Settings::default() };
        let want = Settings { save_every: 7, sample_every: 6, keep: 0, norm, target, model, ..run };
        assert_eq!(settings, want);
    }

    #[test]
    fn a_resumed_run_takes_few_changes() {
        let run = parse(&["--lr", "0.5", "--seed", "4"]).settings();
        let all = |_: &str| true;
        let given = |ids: &'static [&str]| move |id: &str| ids.contains(&id);
        // Not given, so not meant, whatever its default is.
        assert_eq!(parse(&[]).resumed(&run, |_| false), Ok(run.clone()));
        let changed = parse(&["--steps", "7", "--save-every", "2", "--lr", "0.5", "--seed", "4"]);
        let settings = changed.resumed(&run, all).expect("same values");
        assert_eq!((settings.model.iterations, settings.save_every, settings.keep), (7, 2, run.keep));
        let error = parse(&["--lr", "0.25"]).resumed(&run, given(&["lr"])).expect_err("another rate");
        assert_eq!(error.message(), "--lr 0.25 contradicts the run in run, which was started with 0.5");
        let error = parse(&["--light"]).resumed(&run, given(&["light"])).expect_err("another mode");
        assert_eq!(error.message(), "--light contradicts the run in run, which was started without");
        for (id, _) in fixed(&run) {
            let command = <Cli as clap::CommandFactory>::command();
            let train = command.find_subcommand("train").expect("exists");
            assert!(train.get_arguments().any(|a| a.get_id() == id), "{id} is no flag");
        }
    }
}
