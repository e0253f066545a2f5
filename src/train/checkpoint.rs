//! Checkpoints: one safetensors file that holds all a run needs to go on.
//!
//! Tensors have the official state_dict keys and NCHW shapes, below their network's name:
//! `genA2B/DownBlock.1.weight`. Adam's moments are `adam_m/genA2B/DownBlock.1.weight` and `adam_v/…`.
//! Everything else is text in the header, see [`Meta`]; as batches are a pure function of images,
//! seed and step, there is no generator's state among it.
//!
//! **Invariant: a file under a checkpoint's name is whole**, see `src/publish.rs`. Tensors go from the device to
//! the file and back one by one, so that a full-size model (7.5 GB) needs no memory for a copy of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::{Inference, Model, TensorId, TensorRole, Trainer};
use crate::device::Target;
use crate::error::io_reason;
use crate::nn::Config;
use crate::publish::{is_temporary, publish};
use crate::tape::{NormVariant, Precision};
use crate::{Error, ErrorKind, Result};

/// Version of the file format, in its header.
const FORMAT: &str = "1";

/// Where a safetensors header keeps its text.
const METADATA: &str = "__metadata__";

/// Ending of a checkpoint's name.
const EXTENSION: &str = ".safetensors";

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
    /// What convolutions multiply.
    pub precision: Precision,
    /// The GPU that the programs are planned for.
    pub target: Target,
}

/// What a training checkpoint holds: weights, then moments.
const SAVED: [TensorRole; 3] = [TensorRole::Weight, TensorRole::FirstMoment, TensorRole::SecondMoment];

/// The name of a tensor in a file.
fn name(model: &Model, id: TensorId) -> String {
    let prefix = match id.tensor() {
        TensorRole::FirstMoment => "adam_m/",
        TensorRole::SecondMoment => "adam_v/",
        TensorRole::Weight | TensorRole::Gradient => "",
    };
    format!("{prefix}{}/{}", id.net(), model.spec(id).key)
}

/// Saves the run as `path`. An existing file is replaced only by a whole one.
///
/// # Errors
/// When the file cannot be written, and when a weight is not a finite number: such a checkpoint is of
/// no use to anyone. No file is left then.
pub fn save(trainer: &Trainer, meta: &Meta, path: &Path) -> Result<()> {
    let model = trainer.model();
    let ids = model.tensors(&SAVED);
    let (header, bytes) = header(model, &ids, meta)?;
    let cannot = |e: &io::Error| {
        let error = Error::new(format!("cannot save the checkpoint {}: {}", path.display(), io_reason(e)));
        match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                error.hint(format!("it takes {} MB", bytes.div_ceil(1_000_000))).of_kind(ErrorKind::DiskFull)
            }
            _ => error,
        }
    };
    publish(path, cannot, |out| {
        out.write_all(&header).map_err(|e| cannot(&e))?;
        for &id in &ids {
            let data = trainer.get(id)?;
            if data.iter().any(|x| !x.is_finite()) {
                let name = name(model, id);
                return Err(Error::new(format!("{name} is no longer finite, so it is not saved"))
                    .of_kind(ErrorKind::Diverged));
            }
            out.write_all(bytemuck::cast_slice(&data)).map_err(|e| cannot(&e))?;
        }
        Ok(())
    })
}

/// The header with its length in front, padded so that the tensors start on eight bytes; and the bytes of the file.
fn header(model: &Model, ids: &[TensorId], meta: &Meta) -> Result<(Vec<u8>, u64)> {
    let cannot =
        |e: &dyn std::fmt::Display| Error::new(format!("a checkpoint's header cannot be written: {e}"));
    let text = [
        ("format", FORMAT.to_owned()),
        ("library", concat!("ugatit ", env!("CARGO_PKG_VERSION")).to_owned()),
        ("config", serde_json::to_string(&meta.config).map_err(|e| cannot(&e))?),
        ("step", meta.step.to_string()),
        ("seed", meta.seed.to_string()),
        ("batch_size", meta.batch_size.to_string()),
        ("pictures", format!("{:016x}", meta.images)),
        ("norm_variant", meta.norm.name().to_owned()),
        ("precision", meta.precision.name().to_owned()),
        ("target", serde_json::to_string(&meta.target).map_err(|e| cannot(&e))?),
    ];
    let text: HashMap<String, String> = text.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let mut at = 0;
    let mut tensors = Vec::with_capacity(ids.len());
    for &id in ids {
        let spec = model.spec(id);
        let end = at + 4 * spec.len();
        let info = TensorInfo { dtype: Dtype::F32, shape: spec.dims.clone(), data_offsets: (at, end) };
        tensors.push((name(model, id), info));
        at = end;
    }
    let metadata = Metadata::new(Some(text), tensors).map_err(|e| cannot(&e))?;
    // A hash map has another order each time; the same run writes the same bytes.
    let mut json = serde_json::to_value(&metadata).map_err(|e| cannot(&e))?;
    if let Some(text) = json.get_mut(METADATA).and_then(serde_json::Value::as_object_mut) {
        text.sort_keys();
    }
    let mut json = json.to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    let bytes = header.len() as u64 + at as u64;
    Ok((header, bytes))
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
        let model = trainer.model();
        let ids = model.tensors(&SAVED);
        let names = self.check(&ids, model)?;
        let known: HashSet<&String> = names.iter().collect();
        if let Some(other) = self.tensors.offset_keys().into_iter().find(|k| !known.contains(k)) {
            return Err(self.misfit(format!("holds {other}, which this model does not have"), model));
        }
        for (&id, name) in ids.iter().zip(&names) {
            trainer.set(id, &self.read(name)?)?;
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
        let mut ids = inference.model().tensors(&[TensorRole::Weight]);
        ids.retain(|id| id.net() == net);
        let names = self.check(&ids, inference.model())?;
        for (&id, name) in ids.iter().zip(&names) {
            inference.set(id, &self.read(name)?)?;
        }
        Ok(())
    }

    /// Looks for tensors of a model; returns their names in the file.
    fn check(&self, ids: &[TensorId], model: &Model) -> Result<Vec<String>> {
        let mut names = Vec::with_capacity(ids.len());
        for &id in ids {
            let (name, dims) = (name(model, id), &model.spec(id).dims);
            let Some(info) = self.tensors.info(&name) else {
                return Err(self.misfit(format!("has no {name}"), model));
            };
            if info.dtype != Dtype::F32 {
                return Err(
                    self.misfit(format!("holds {name} as {:?}, but F32 is needed", info.dtype), model)
                );
            }
            if info.shape != *dims {
                let what = format!("holds {name} of shape {:?}, but this model's is {dims:?}", info.shape);
                return Err(self.misfit(what, model));
            }
            names.push(name);
        }
        Ok(names)
    }

    /// The error of a file that does not belong to a model, with the reason where it is known.
    fn misfit(&self, what: String, model: &Model) -> Error {
        let error = Error::new(format!("the checkpoint {} {what}", self.path.display()));
        let (its, ours) = (&self.meta.config, &model.cfg);
        let differ: Vec<String> = shape_fields(its)
            .into_iter()
            .zip(shape_fields(ours))
            .filter(|(its, ours)| its != ours)
            .map(|((field, its), (_, ours))| format!("{field} {its}, not {ours}"))
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

/// The fields that shapes of tensors depend on, with their values.
fn shape_fields(cfg: &Config) -> [(&'static str, String); 5] {
    [
        ("img_size", cfg.img_size.to_string()),
        ("ch", cfg.ch.to_string()),
        ("n_res", cfg.n_res.to_string()),
        ("n_dis", cfg.n_dis.to_string()),
        ("light", cfg.light.to_string()),
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
    // Before there was a choice it was f32.
    let precision = text.get("precision").map_or(Ok(Precision::F32), |text| text.parse());
    // Before plans had a target they were those for an H100.
    let target = text.get("target").map_or(Ok(Target::default()), |text| serde_json::from_str(text));
    let batch_size = number("batch_size")?;
    Ok(Meta {
        config,
        step: number("step")?,
        seed: number("seed")?,
        batch_size: usize::try_from(batch_size).map_err(|_| format!("its batch size is {batch_size}"))?,
        images: u64::from_str_radix(images, 16)
            .map_err(|_| format!("its header has 'pictures' {images}, which is no number"))?,
        norm: norm.map_err(|e: Error| format!("its header has an {}", e.message()))?,
        precision: precision.map_err(|e: Error| format!("its header has an {}", e.message()))?,
        target: target.map_err(|e| format!("its header has a 'target' that cannot be read: {e}"))?,
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
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
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

/// Removes what a run that was killed while writing a file has left; returns what it was.
///
/// # Errors
/// When the folder cannot be read or a file not be removed.
pub fn remove_temporary(folder: &Path) -> Result<Vec<PathBuf>> {
    let stale = names(folder)?.into_iter().filter(|name| is_temporary(name));
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
