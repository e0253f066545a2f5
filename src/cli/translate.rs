//! `ugatit translate`

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rayon::prelude::*;
use ugatit::data::{Folder, MIN_SIDE, Rgb8, from_output, load_image, resize_bilinear, to_input};
use ugatit::device::select;
use ugatit::report::{heatmap, overlay, save_png};
use ugatit::tape::Precision;
use ugatit::train::Inference;
use ugatit::train::checkpoint::Checkpoint;
use ugatit::{Error, Result};

use super::args::{DeviceArgs, parse_precision};
use super::end::{End, say};

/// So many images are decoded and encoded at a time, in parallel.
const AT_ONCE: usize = 8;

/// Share of the heatmap in the overlay.
const OVERLAY: f32 = 0.5;

/// Translate images with a trained generator
///
/// An image of any size is resized to the size the generator was trained with (ignoring the aspect, as in
/// training), translated, and resized back. The results are PNG files that keep the names of their inputs;
/// of two inputs of one name the second becomes name-2.png, and so on. Their paths go to standard output.
#[derive(Debug, Args)]
pub(super) struct TranslateArgs {
    /// A checkpoint, or the folder of a run (then its newest one)
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,

    /// Images, or folders of images
    #[arg(value_name = "INPUT", required = true)]
    inputs: Vec<PathBuf>,

    /// Which generator: from the domain A to B, or back
    #[arg(long, value_enum)]
    direction: Direction,

    /// Folder for the results; made if it does not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Write name.heatmap.png as well: the input under a map of what the generator attended to
    #[arg(long)]
    heatmap: bool,

    /// What convolutions multiply: f32 or tf32; the run's if not given
    #[arg(long, value_name = "TYPE", value_parser = parse_precision)]
    precision: Option<Precision>,

    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Direction {
    #[value(name = "a2b")]
    AToB,
    #[value(name = "b2a")]
    BToA,
}

/// An image to translate.
struct Job {
    input: PathBuf,
    /// Where the result goes.
    output: PathBuf,
    /// Where the heatmap goes.
    heatmap: PathBuf,
}

pub(super) fn run(args: &TranslateArgs) -> Result<(), End> {
    let mut skipped = Vec::new();
    let (mut inference, jobs) = prepare(args, &mut skipped).map_err(End::Input)?;
    fs::create_dir_all(&args.out)
        .map_err(|e| End::Failed(Error::new(format!("cannot create {}: {e}", args.out.display()))))?;
    let mut translated = 0;
    for jobs in jobs.chunks(AT_ONCE) {
        translated += translate(args, &mut inference, jobs, &mut skipped).map_err(End::Failed)?;
    }
    match (translated, skipped.len()) {
        (0, _) => Err(End::Input(nothing_usable(&skipped))),
        (n, 0) => {
            say(&format!("translated {}", images(n)));
            Ok(())
        }
        (n, left) => {
            say(&format!("translated {}, skipped {left}", images(n)));
            Err(End::Partly)
        }
    }
}

fn images(n: usize) -> String {
    if n == 1 { "1 image".to_owned() } else { format!("{n} images") }
}

/// Opens everything that is given, before anything is written.
fn prepare(args: &TranslateArgs, skipped: &mut Vec<String>) -> Result<(Inference, Vec<Job>)> {
    let choice = args.device.choice()?;
    if args.out.exists() && !args.out.is_dir() {
        return Err(Error::new(format!("cannot write into {}: it is a file", args.out.display()))
            .hint("give a folder as --out"));
    }
    let (mut checkpoint, passed_over) = Checkpoint::find(&args.checkpoint)?;
    passed_over.iter().for_each(|why| say(&format!("warning: passing over a checkpoint: {why}")));
    let jobs = name_outputs(find_inputs(&args.inputs, skipped), &args.out, args.heatmap);
    if jobs.is_empty() {
        return Err(nothing_usable(skipped));
    }
    refuse_overwriting(&jobs, &args.out)?;
    let meta = checkpoint.meta().clone();
    let (device, which) = select::open(choice)?;
    say(&format!("device: {which}"));
    say(&format!("checkpoint: {}, step {}", checkpoint.path().display(), meta.step));
    let direction = args.direction as usize;
    let precision = args.precision.unwrap_or(meta.precision);
    let mut inference = Inference::new(&device, &meta.config, precision, direction, 1)?;
    checkpoint.load_generator(direction, &mut inference)?;
    Ok((inference, jobs))
}

fn skip(skipped: &mut Vec<String>, why: String) {
    say(&format!("warning: skipping {why}"));
    skipped.push(why);
}

fn nothing_usable(skipped: &[String]) -> Error {
    match skipped {
        [one] => Error::new(format!("nothing to translate: {one}")),
        many => Error::new(format!("nothing to translate: none of {} inputs can be used", many.len())),
    }
    .hint("give images that other programs can show, or folders of them")
}

/// All images that were given, in order: those of a folder by name.
fn find_inputs(inputs: &[PathBuf], skipped: &mut Vec<String>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for input in inputs {
        if !input.is_dir() {
            found.push(input.clone());
            continue;
        }
        match Folder::open(input) {
            Ok(folder) => {
                found.extend(folder.images.into_iter().map(|p| p.path));
                for s in folder.skipped {
                    skip(skipped, format!("{}: {}", input.join(s.name).display(), s.reason));
                }
            }
            Err(e) => skip(skipped, e.message().to_owned()),
        }
    }
    found
}

/// Gives each input its outputs: its own name where that is free, or else the first free `name-2`,
/// `name-3`, …. Names that differ in case only count as one, as they are one file on some systems.
fn name_outputs(inputs: Vec<PathBuf>, out: &Path, heatmap: bool) -> Vec<Job> {
    let mut taken = HashSet::new();
    let mut jobs = Vec::new();
    for input in inputs {
        let stem = input.file_stem().unwrap_or_default();
        let named = |n: usize, ending: &str| {
            let mut name = OsString::from(stem);
            if n > 1 {
                name.push(format!("-{n}"));
            }
            name.push(ending);
            name
        };
        let key = |name: &OsString| name.to_string_lossy().to_lowercase();
        let mut n = 1;
        let (image, map) = loop {
            let (image, map) = (named(n, ".png"), named(n, ".heatmap.png"));
            let free = |name: &OsString| !taken.contains(&key(name));
            if free(&image) && (!heatmap || free(&map)) {
                break (image, map);
            }
            n += 1;
        };
        taken.insert(key(&image));
        if heatmap {
            taken.insert(key(&map));
        }
        jobs.push(Job { output: out.join(image), heatmap: out.join(map), input });
    }
    jobs
}

/// # Errors
/// When a result would take the place of an input.
fn refuse_overwriting(jobs: &[Job], out: &Path) -> Result<()> {
    let inputs: HashSet<PathBuf> = jobs.iter().filter_map(|job| job.input.canonicalize().ok()).collect();
    for path in jobs.iter().flat_map(|job| [&job.output, &job.heatmap]) {
        if path.canonicalize().is_ok_and(|path| inputs.contains(&path)) {
            return Err(Error::new(format!("{} is an input, and would be overwritten", path.display()))
                .hint(format!("give another --out than {}", out.display())));
        }
    }
    Ok(())
}

/// Translates some images and writes the results; returns how many.
fn translate(
    args: &TranslateArgs,
    inference: &mut Inference,
    jobs: &[Job],
    skipped: &mut Vec<String>,
) -> Result<usize> {
    let size = inference.model().cfg.img_size;
    let decoded: Vec<Result<Rgb8>> = jobs.par_iter().map(|job| load(&job.input)).collect();
    let mut made = Vec::new();
    for (job, image) in jobs.iter().zip(decoded) {
        match image {
            Ok(image) => {
                let (translated, map) = inference.translate(&to_input(&image, size))?;
                made.push((job, image, translated, map));
            }
            Err(e) => skip(skipped, e.message().trim_start_matches("cannot read ").to_owned()),
        }
    }
    made.par_iter().try_for_each(|(job, image, translated, map)| {
        let result = from_output(translated, size, size)?;
        save_png(&job.output, &resize_bilinear(&result, image.width(), image.height()))?;
        if args.heatmap {
            let map = heatmap(map, size / 4, size / 4, size)?;
            save_png(&job.heatmap, &overlay(image, &map, OVERLAY))?;
        }
        Ok::<(), Error>(())
    })?;
    for (job, ..) in &made {
        // Whoever closed standard output still gets the files.
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{}", job.output.display());
        if args.heatmap {
            let _ = writeln!(out, "{}", job.heatmap.display());
        }
    }
    Ok(made.len())
}

fn load(path: &Path) -> Result<Rgb8> {
    let image = load_image(path)?;
    let (width, height) = (image.width(), image.height());
    if width.min(height) < MIN_SIDE {
        return Err(Error::new(format!(
            "{}: only {width} x {height} pixels, at least {MIN_SIDE} x {MIN_SIDE} are needed",
            path.display()
        )));
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(inputs: &[&str], heatmap: bool) -> Vec<String> {
        let inputs = inputs.iter().map(PathBuf::from).collect();
        let jobs = name_outputs(inputs, Path::new("out"), heatmap);
        jobs.iter().map(|job| job.output.display().to_string()).collect()
    }

    #[test]
    fn outputs_keep_their_names_and_never_clash() {
        assert_eq!(
            names(&["a/x.jpg", "b/x.png", "y.v2.png"], false),
            ["out/x.png", "out/x-2.png", "out/y.v2.png"]
        );
        assert_eq!(
            names(&["a/x-2.png", "x.png", "X.png"], false),
            ["out/x-2.png", "out/x.png", "out/X-3.png"]
        );
        // An image may be called like another one's heatmap.
        assert_eq!(names(&["x.png", "x.heatmap.png"], false), ["out/x.png", "out/x.heatmap.png"]);
        assert_eq!(names(&["x.png", "x.heatmap.png"], true), ["out/x.png", "out/x.heatmap-2.png"]);
    }
}
