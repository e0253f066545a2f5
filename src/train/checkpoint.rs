//! Checkpoints: one safetensors file that holds all a run needs to go on.
//!
//! Tensors have the official state_dict keys and NCHW shapes, below their network's name:
//! `genA2B/DownBlock.1.weight`. Adam's moments are `adam_m/genA2B/DownBlock.1.weight` and `adam_v/…`.
//! Everything else is text in the header, see [`Meta`]; as batches are a pure function of images,
//! seed and step, there is no generator's state among it.
//!
//! **Invariant: a file under a checkpoint's name is whole.** It is written under another name, in the
//! same folder, forced to the disk, and only then renamed. Tensors go from the device to the file and
//! back one by one, so that a full-size model (7.5 GB) needs no memory for a copy of it.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::json;

use super::{Inference, Model, Slot, Trainer};
use crate::error::io_reason;
use crate::nn::Config;
use crate::tape::NormVariant;
use crate::{Error, Result};

/// Version of the file format, in its header.
const FORMAT: &str = "1";

/// Ending of a checkpoint's name.
const EXTENSION: &str = ".safetensors";

/// Ending of the name of a file that is being written; the name begins with a dot.
const TEMPORARY: &str = ".part";

/// No header is longer than this many bytes.
const MAX_HEADER: u64 = 100 << 20;

// The file's byte order, which tensors are copied in as they are.
const _: () = assert!(cfg!(target_endian = "little"), "checkpoints are little-endian, as every CUDA host is");

/// What a checkpoint says of its run.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// Hyper-parameters.
    pub config: Config,
    /// The step after which it was saved.
    pub step: u64,
    /// Seed of the run: initial weights, order of the images, augmentation.
    pub seed: u64,
    /// Images of each domain in a batch.
    pub batch_size: usize,
    /// [`crate::data::Dataset::fingerprint`] of the training images.
    pub images: u64,
    /// Which variant of the norms. They all compute the same, but round differently.
    pub norm: NormVariant,
}

/// A tensor of a file.
struct Entry {
    net: &'static str,
    key: String,
    slot: Slot,
    dims: Vec<usize>,
}

impl Entry {
    fn name(&self) -> String {
        let prefix = match self.slot {
            Slot::M => "adam_m/",
            Slot::V => "adam_v/",
            Slot::Weight | Slot::Grad => "",
        };
        format!("{prefix}{}/{}", self.net, self.key)
    }

    fn bytes(&self) -> u64 {
        4 * self.dims.iter().map(|&d| d as u64).product::<u64>()
    }
}

/// The tensors of these slots in the official order, one slot after the other.
fn entries(model: &Model, slots: &[Slot]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for &slot in slots {
        for (net, key, trained) in model.tensors() {
            if trained || slot == Slot::Weight {
                let dims = model.locate(net, key, slot)?.1.dims.clone();
                entries.push(Entry { net, key: key.to_owned(), slot, dims });
            }
        }
    }
    Ok(entries)
}

/// What a training checkpoint holds: weights, then moments.
const SLOTS: [Slot; 3] = [Slot::Weight, Slot::M, Slot::V];

/// Saves the run as `path`. An existing file is replaced only by a whole one.
///
/// # Errors
/// When the file cannot be written, and when a weight is not a finite number: such a checkpoint is of
/// no use to anyone. Nothing is left behind then.
pub fn save(trainer: &mut Trainer, meta: &Meta, path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}{TEMPORARY}"));
    let entries = entries(trainer.model(), &SLOTS)?;
    let header = header(&entries, meta)?;
    let bytes = header.len() as u64 + entries.iter().map(Entry::bytes).sum::<u64>();
    let cannot = |e: io::Error| {
        let error = Error::new(format!("cannot save the checkpoint {}: {}", path.display(), io_reason(&e)));
        match e.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                error.hint(format!(
                    "it takes {} MB; make room for it, then go on with --resume",
                    bytes.div_ceil(1_000_000)
                ))
            }
            _ => error,
        }
    };
    let written = write(trainer, &entries, &header, &temporary, &cannot)
        .and_then(|()| fs::rename(&temporary, path).map_err(cannot))
        .and_then(|()| sync_folder(path).map_err(cannot));
    if written.is_err() {
        // The error to tell is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// The header with its length in front, padded so that the tensors start on eight bytes.
fn header(entries: &[Entry], meta: &Meta) -> Result<Vec<u8>> {
    let config = serde_json::to_string(&meta.config)
        .map_err(|e| Error::new(format!("the configuration cannot be written as JSON: {e}")))?;
    let mut json = serde_json::Map::new();
    json.insert(
        "__metadata__".into(),
        json!({
            "format": FORMAT,
            "library": concat!("ugatit ", env!("CARGO_PKG_VERSION")),
            "config": config,
            "step": meta.step.to_string(),
            "seed": meta.seed.to_string(),
            "batch_size": meta.batch_size.to_string(),
            "pictures": format!("{:016x}", meta.images),
            "norm_variant": meta.norm.name(),
        }),
    );
    let mut at = 0;
    for entry in entries {
        let end = at + entry.bytes();
        json.insert(entry.name(), json!({ "dtype": "F32", "shape": entry.dims, "data_offsets": [at, end] }));
        at = end;
    }
    let mut text = serde_json::Value::Object(json).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    Ok(header)
}

fn write(
    trainer: &mut Trainer,
    entries: &[Entry],
    header: &[u8],
    path: &Path,
    cannot: &dyn Fn(io::Error) -> Error,
) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(cannot)?);
    out.write_all(header).map_err(cannot)?;
    for entry in entries {
        let data = trainer.get(entry.net, &entry.key, entry.slot)?;
        if data.iter().any(|x| !x.is_finite()) {
            return Err(Error::new(format!("{} is no longer finite, so it is not saved", entry.name()))
                .hint("go on from the last checkpoint with a lower --lr"));
        }
        out.write_all(bytemuck::cast_slice(&data)).map_err(cannot)?;
    }
    let file = out.into_inner().map_err(|e| cannot(e.into_error()))?;
    file.sync_all().map_err(cannot)
}

/// Forces a rename to the disk.
fn sync_folder(path: &Path) -> io::Result<()> {
    // Other systems do not open folders as files.
    if cfg!(unix) {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// A checkpoint on disk: header read and checked, tensors read when they are asked for.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    file: File,
    meta: Meta,
    tensors: Metadata,
    /// First byte of the tensors.
    start: u64,
}

impl Checkpoint {
    /// Opens a file and checks its header and its length.
    ///
    /// # Errors
    /// Says what is wrong with it: no safetensors file, another program's, cut off and where.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let cannot =
            |e: io::Error| Error::new(format!("cannot read the checkpoint {shown}: {}", io_reason(&e)));
        let foreign = |why: &str| {
            Error::new(format!("{shown} is no checkpoint of ugatit: {why}"))
                .hint("give a file step-….safetensors that ugatit train has written, or its run's folder")
        };
        let truncated = |why: String| {
            Error::new(format!("the checkpoint {shown} is truncated: {why}"))
                .hint("use an earlier one, or copy it again")
        };
        let mut file = File::open(path).map_err(cannot)?;
        let len = file.metadata().map_err(cannot)?.len();
        if len < 8 {
            return Err(truncated(format!("it has {len} bytes, not even the length of its header")));
        }
        let mut first = [0; 8];
        file.read_exact(&mut first).map_err(cannot)?;
        if first.starts_with(b"PK\x03\x04") {
            return Err(foreign("it is a zip file, as PyTorch writes them"));
        }
        let header_len = u64::from_le_bytes(first);
        if header_len > MAX_HEADER {
            return Err(foreign("it does not begin like a safetensors file"));
        }
        let start = 8 + header_len;
        if len < start {
            return Err(truncated(format!("it has {len} bytes, but its header alone has {start}")));
        }
        let mut header = vec![0; header_len as usize];
        file.read_exact(&mut header).map_err(cannot)?;
        let tensors: Metadata = serde_json::from_slice(&header)
            .map_err(|e| foreign(&format!("its header is not that of a safetensors file ({e})")))?;
        let expected = start + tensors.data_len() as u64;
        if len < expected {
            let keys = tensors.offset_keys();
            let missing = keys
                .iter()
                .filter(|k| tensors.info(k).is_some_and(|info| start + info.data_offsets.1 as u64 > len));
            let missing: Vec<&String> = missing.collect();
            return Err(truncated(format!(
                "it has {len} of {expected} bytes, {} of {} tensors are missing or cut, from {} on",
                missing.len(),
                keys.len(),
                missing.first().map_or("", |k| k.as_str()),
            )));
        }
        if len > expected {
            return Err(foreign(&format!("it has {len} bytes, but its header says {expected}")));
        }
        let meta = read_meta(&tensors).map_err(|why| foreign(&why))?;
        Ok(Self { path: path.to_owned(), file, meta, tensors, start })
    }

    /// Opens a checkpoint file, or the newest whole one of a run's folder. The notes name others that
    /// were passed over.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(path: &Path) -> Result<(Self, Vec<String>)> {
        if !path.exists() {
            return Err(Error::new(format!("no such checkpoint: {}", path.display()))
                .hint("give a file step-….safetensors, or the folder of a run"));
        }
        if !path.is_dir() {
            return Ok((Self::open(path)?, Vec::new()));
        }
        let inner = path.join("checkpoints");
        let Newest { checkpoint, broken } = newest_complete(if inner.is_dir() { &inner } else { path })?;
        match checkpoint {
            Some(checkpoint) => Ok((checkpoint, broken.iter().map(|e| e.message().to_owned()).collect())),
            None => Err(broken.into_iter().next().unwrap_or_else(|| {
                Error::new(format!("no checkpoint in {}", path.display()))
                    .hint("give a file step-….safetensors, or the folder of a run that has saved one")
            })),
        }
    }

    /// What it says of its run.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts weights, spectral vectors and moments into a trainer of the same configuration.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or is not of that model: the error names it and both
    /// shapes. Nothing was changed then.
    pub fn load_into(&mut self, trainer: &mut Trainer) -> Result<()> {
        let entries = entries(trainer.model(), &SLOTS)?;
        self.check(&entries, trainer.model())?;
        let known: HashSet<String> = entries.iter().map(Entry::name).collect();
        if let Some(other) = self.tensors.offset_keys().into_iter().find(|k| !known.contains(k)) {
            return Err(
                self.misfit(format!("holds {other}, which this model does not have"), trainer.model())
            );
        }
        for entry in &entries {
            let data = self.read(&entry.name())?;
            trainer.set(entry.net, &entry.key, entry.slot, &data)?;
        }
        Ok(())
    }

    /// Puts the weights of the generator of a direction (0 is A to B) into an inference of that direction.
    /// The other networks and the moments may be absent.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn load_generator(&mut self, direction: usize, inference: &mut Inference) -> Result<()> {
        let net = crate::nn::Role::Generator.nets()[direction.min(1)];
        let mut entries = entries(inference.model(), &[Slot::Weight])?;
        entries.retain(|e| e.net == net);
        self.check(&entries, inference.model())?;
        for entry in &entries {
            let data = self.read(&entry.name())?;
            inference.set(entry.net, &entry.key, &data)?;
        }
        Ok(())
    }

    fn check(&self, entries: &[Entry], model: &Model) -> Result<()> {
        for entry in entries {
            let name = entry.name();
            let Some(info) = self.tensors.info(&name) else {
                return Err(self.misfit(format!("has no {name}"), model));
            };
            if info.dtype != Dtype::F32 {
                return Err(
                    self.misfit(format!("holds {name} as {:?}, but F32 is needed", info.dtype), model)
                );
            }
            if info.shape != entry.dims {
                let what =
                    format!("holds {name} of shape {:?}, but this model's is {:?}", info.shape, entry.dims);
                return Err(self.misfit(what, model));
            }
        }
        Ok(())
    }

    /// The error of a file that does not belong to a model, with the reason where it can be told.
    fn misfit(&self, what: String, model: &Model) -> Error {
        let error = Error::new(format!("the checkpoint {} {what}", self.path.display()));
        let (its, ours) = (&self.meta.config, &model.cfg);
        let differ: Vec<String> = shape_flags(its)
            .into_iter()
            .zip(shape_flags(ours))
            .filter(|(its, ours)| its != ours)
            .map(|((flag, its), (_, ours))| format!("{flag} {its}, not {ours}"))
            .collect();
        match differ.as_slice() {
            [] => {
                error.hint("its header describes another model than its tensors make: use another checkpoint")
            }
            [one] if its.img_size != ours.img_size && !its.light => error.hint(format!(
                "it was trained with {one}: in full mode the weights of FC.0 belong to one image size"
            )),
            many => error.hint(format!("it was trained with {}", many.join(", "))),
        }
    }

    fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let path = self.path.display();
        let info = self.tensors.info(name).ok_or_else(|| Error::new(format!("{path} has no {name}")))?;
        let (first, end) = info.data_offsets;
        let mut data = vec![0f32; (end - first) / 4];
        self.file
            .seek(SeekFrom::Start(self.start + first as u64))
            .and_then(|_| self.file.read_exact(bytemuck::cast_slice_mut(&mut data)))
            .map_err(|e| {
                Error::new(format!("cannot read {name} of the checkpoint {path}: {}", io_reason(&e)))
            })?;
        Ok(data)
    }
}

/// The flags that shapes of tensors depend on, with their values.
fn shape_flags(cfg: &Config) -> [(&'static str, String); 5] {
    [
        ("--size", cfg.img_size.to_string()),
        ("--ch", cfg.ch.to_string()),
        ("--n-res", cfg.n_res.to_string()),
        ("--n-dis", cfg.n_dis.to_string()),
        ("--light", cfg.light.to_string()),
    ]
}

/// The header's text; what is wrong with it otherwise.
fn read_meta(tensors: &Metadata) -> Result<Meta, String> {
    let none = BTreeMap::new();
    let text: BTreeMap<&str, &str> = match tensors.metadata() {
        Some(map) => map.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
        None => none,
    };
    let get = |key: &str| text.get(key).copied().ok_or_else(|| format!("its header has no '{key}'"));
    let number = |key: &str| {
        let value = get(key)?;
        value.parse::<u64>().map_err(|_| format!("its header has '{key}' {value}, which is no number"))
    };
    let format = get("format")?;
    if format != FORMAT {
        let library = text.get("library").copied().unwrap_or("another program");
        return Err(format!(
            "its format is {format}, written by {library}, and this version reads format {FORMAT}"
        ));
    }
    let config: Config =
        serde_json::from_str(get("config")?).map_err(|e| format!("its configuration cannot be read: {e}"))?;
    config.check().map_err(|e| format!("its configuration cannot be: {e}"))?;
    if config.img_ch != 3 {
        return Err(format!("its images have {} colour channels, and images are read as RGB", config.img_ch));
    }
    let images = get("pictures")?;
    let norm = match (text.get("norm_variant"), text.get("norm")) {
        (Some(norm), _) => norm.parse(),
        // Version 0.1 had another key, and names that meant other kernels.
        (None, Some(choice)) => NormVariant::of_version_0_1(choice),
        // Before there was a choice the padding was fused.
        (None, None) => Ok(NormVariant::PadFused),
    };
    let batch_size = number("batch_size")?;
    Ok(Meta {
        config,
        step: number("step")?,
        seed: number("seed")?,
        batch_size: usize::try_from(batch_size).map_err(|_| format!("its batch size is {batch_size}"))?,
        images: u64::from_str_radix(images, 16)
            .map_err(|_| format!("its header has 'pictures' {images}, which is no number"))?,
        norm: norm.map_err(|e: Error| format!("its header has an {}", e.message()))?,
    })
}

/// Name of the checkpoint of a step.
pub fn file_name(step: u64) -> String {
    format!("step-{step:07}{EXTENSION}")
}

/// The checkpoints of a folder by their names, oldest first; none if there is no such folder.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found: Vec<(u64, PathBuf)> = names(folder)?
        .into_iter()
        .filter_map(|name| {
            let step = name.strip_prefix("step-")?.strip_suffix(EXTENSION)?.parse().ok()?;
            Some((step, folder.join(name)))
        })
        .collect();
    found.sort();
    Ok(found)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let cannot = |e: io::Error| Error::new(format!("cannot read {}: {}", folder.display(), io_reason(&e)));
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(cannot(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(cannot)?.file_name().into_string().ok());
    }
    Ok(names)
}

/// What [`newest_complete`] found.
#[derive(Debug)]
pub struct Newest {
    /// The newest checkpoint that is whole.
    pub checkpoint: Option<Checkpoint>,
    /// What is wrong with the newer ones, newest first.
    pub broken: Vec<Error>,
}

/// The newest whole checkpoint of a folder.
///
/// # Errors
/// When the folder cannot be read.
pub fn newest_complete(folder: &Path) -> Result<Newest> {
    let mut broken = Vec::new();
    for (_, path) in list(folder)?.into_iter().rev() {
        match Checkpoint::open(&path) {
            Ok(checkpoint) => return Ok(Newest { checkpoint: Some(checkpoint), broken }),
            Err(error) => broken.push(error),
        }
    }
    Ok(Newest { checkpoint: None, broken })
}

/// Removes what a run that was killed while writing a file has left behind; returns what it was.
///
/// # Errors
/// When the folder cannot be read or a file not be removed.
pub fn remove_temporary(folder: &Path) -> Result<Vec<PathBuf>> {
    let stale = names(folder)?.into_iter().filter(|n| n.starts_with('.') && n.ends_with(TEMPORARY));
    stale.map(|name| remove(folder.join(name))).collect()
}

/// Removes all but the newest `keep` checkpoints (0 keeps all); returns what it removed.
///
/// # Errors
/// When the folder cannot be read or a file not be removed.
pub fn prune(folder: &Path, keep: usize) -> Result<Vec<PathBuf>> {
    let mut old = list(folder)?;
    old.truncate(if keep == 0 { 0 } else { old.len().saturating_sub(keep) });
    old.into_iter().map(|(_, path)| remove(path)).collect()
}

fn remove(path: PathBuf) -> Result<PathBuf> {
    match fs::remove_file(&path) {
        Ok(()) => Ok(path),
        Err(e) => Err(Error::new(format!("cannot remove {}: {}", path.display(), io_reason(&e)))),
    }
}
