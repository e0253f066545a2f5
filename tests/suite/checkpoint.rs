//! Checkpoint files: what is in them, and what is said of those that cannot be used.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::{Value as Json, json};
use ugatit::device::Target;
use ugatit::nn::Config;
use ugatit::tape::{NormVariant, Precision};
use ugatit::train::checkpoint::{self, Checkpoint, Meta, Newest};
use ugatit::train::{Inference, Recording, TensorId, TensorRole, Trainer};

use crate::command::{names, read};

fn config() -> Config {
    Config { img_size: 16, ch: 4, n_res: 1, n_dis: 2, light: true, lr: 1.0 / 3.0, ..Config::default() }
}

fn meta(config: &Config) -> Meta {
    let images = 0xfedc_ba98_7654_3210;
    Meta {
        config: config.clone(),
        step: 7,
        seed: u64::MAX,
        batch_size: 2,
        images,
        norm: NormVariant::Composed,
        precision: Precision::Tf32,
        target: Target { sms: 108, shared_bytes: 163 << 10 },
    }
}

fn trainer(config: &Config, seed: u64) -> Trainer {
    let mut trainer = Trainer::new(&crate::device(), config, 1, 0, Recording::default()).expect("a trainer");
    trainer.initialise(seed).expect("weights");
    // Moments that are not all 0.
    let id = trainer.model().find("genB2A", "DownBlock.5.weight", TensorRole::FirstMoment).expect("a tensor");
    let n = trainer.model().spec(id).len();
    let values: Vec<f32> = (0..n).map(|i| i as f32 / 7.0).collect();
    trainer.set(id, &values).expect("set");
    trainer
}

/// Saves a trainer's state in a new folder.
fn saved(config: &Config) -> (tempfile::TempDir, std::path::PathBuf, Trainer) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(checkpoint::file_name(7));
    let trainer = trainer(config, 3);
    checkpoint::save(&trainer, &meta(config), &path).expect("saved");
    assert_eq!(names(folder.path()), ["step-0000007.safetensors"]);
    (folder, path, trainer)
}

/// Every tensor of a trainer, as bits.
fn contents(trainer: &Trainer) -> Vec<(String, Vec<u32>)> {
    let saved = [TensorRole::Weight, TensorRole::FirstMoment, TensorRole::SecondMoment];
    let tensor = |id: TensorId| {
        let name = format!("{}/{} {:?}", id.net(), trainer.model().spec(id).key, id.tensor());
        let values = trainer.get(id).expect("a tensor");
        (name, values.into_iter().map(f32::to_bits).collect())
    };
    trainer.model().tensors(&saved).into_iter().map(tensor).collect()
}

/// Rewrites the header of a file; the tensors stay.
fn edit(path: &Path, change: impl FnOnce(&mut Json)) {
    let bytes = read(path);
    let len = u64::from_le_bytes(bytes[..8].try_into().expect("eight")) as usize;
    let mut header: Json = serde_json::from_slice(&bytes[8..8 + len]).expect("a header");
    change(&mut header);
    let text = header.to_string();
    let mut edited = (text.len() as u64).to_le_bytes().to_vec();
    edited.extend(text.as_bytes());
    edited.extend(&bytes[8 + len..]);
    std::fs::write(path, edited).expect("written");
}

/// Changes the hyper-parameters that a file says it was trained with.
fn edit_config(path: &Path, key: &str, value: Json) {
    edit(path, |header| {
        let text = header["__metadata__"]["config"].as_str().expect("text");
        let mut config: Json = serde_json::from_str(text).expect("JSON");
        config[key] = value;
        header["__metadata__"]["config"] = json!(config.to_string());
    });
}

#[track_caller]
fn expect_error<T>(result: ugatit::Result<T>, parts: &[&str]) {
    let error = result.err().expect("an error").to_string();
    for part in parts {
        assert!(error.contains(part), "'{part}' is not in\n{error}");
    }
}

#[test]
fn a_checkpoint_brings_everything_back() {
    for config in [config(), Config { light: false, ..config() }] {
        let (_folder, path, trainer) = saved(&config);
        let mut checkpoint = Checkpoint::open(&path).expect("whole");
        assert_eq!(*checkpoint.meta(), meta(&config));
        let mut other = self::trainer(&config, 4);
        let want = contents(&trainer);
        assert_ne!(contents(&other), want);
        checkpoint.load_into(&mut other).expect("loaded");
        assert!(contents(&other) == want);

        // Saving is a function of what is saved.
        let again = path.with_file_name("again");
        checkpoint::save(&other, &meta(&config), &again).expect("saved");
        assert!(read(&again) == read(&path));
    }
}

#[test]
fn checkpoints_of_version_0_1_keep_their_norms() {
    let (_folder, path, _) = saved(&config());
    let bytes = read(&path);
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("a header");
    let mut text = header.metadata().clone().expect("a header");
    let rewritten = |text| {
        let path = path.with_file_name("rewritten.safetensors");
        std::fs::write(&path, safetensors::serialize(file.tensors(), Some(text)).expect("a file"))
            .expect("written");
        Checkpoint::open(&path)
    };
    text.insert("norm_variant".into(), "batch".into());
    expect_error(rewritten(text.clone()), &["its header has an unknown norm 'batch'"]);
    assert_eq!(text.remove("norm_variant").as_deref(), Some("batch"));
    // Before there was a choice.
    assert_eq!(rewritten(text.clone()).expect("whole").meta().norm, NormVariant::PadFused);
    for (choice, norm) in [
        ("fused", NormVariant::PadFused),
        ("composed", NormVariant::Composed),
        ("elementary", NormVariant::Elementary),
    ] {
        text.insert("norm".into(), choice.into());
        assert_eq!(rewritten(text.clone()).expect("whole").meta().norm, norm, "{choice}");
    }
    text.insert("norm".into(), "vectorised".into());
    expect_error(rewritten(text), &["its header has an unknown norm 'vectorised'"]);
}

#[test]
fn other_programs_can_read_a_checkpoint() {
    let config = Config { light: false, ..config() };
    let (_folder, path, trainer) = saved(&config);
    let bytes = read(&path);
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    for (name, shape) in [
        ("genA2B/DownBlock.1.weight", &[4, 3, 7, 7][..]),
        ("genA2B/FC.0.weight", &[16, 256]),
        ("genB2A/UpBlock1_1.norm1.rho", &[1, 16, 1, 1]),
        ("disGA/model.1.weight_orig", &[4, 3, 4, 4]),
        ("disLB/conv.weight_v", &[48]),
        ("adam_m/genB2A/UpBlock2.11.weight", &[3, 4, 7, 7]),
        ("adam_v/disGB/gap_fc.weight_orig", &[1, 8]),
    ] {
        let tensor = file.tensor(name).expect(name);
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, shape), "{name}");
    }
    assert!(file.tensor("adam_m/disGA/model.1.weight_u").is_err(), "a spectral vector has no moments");
    let id = trainer.model().find("genB2A", "DownBlock.5.weight", TensorRole::Weight).expect("a tensor");
    let want = trainer.get(id).expect("its values");
    let tensor = file.tensor("genB2A/DownBlock.5.weight").expect("a tensor");
    assert!(tensor.data() == bytemuck::cast_slice::<f32, u8>(&want));
    assert_eq!(file.len(), contents(&trainer).len());
}

#[test]
fn a_generator_loads_from_a_file_of_its_weights_only() {
    let config = config();
    let (_folder, path, mut trainer) = saved(&config);
    let bytes = read(&path);
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("a header");
    let kept = file.tensors().into_iter().filter(|(name, _)| name.starts_with("genB2A/"));
    let slim = safetensors::serialize(kept, header.metadata().clone()).expect("a file");
    let path = path.with_file_name("slim.safetensors");
    std::fs::write(&path, slim).expect("written");

    let mut checkpoint = Checkpoint::open(&path).expect("whole");
    let mut inference =
        Inference::new(&crate::device(), &config, Precision::F32, 1, 1).expect("an inference");
    checkpoint.load_generator(1, &mut inference).expect("loaded");
    let image = vec![0.25; 16 * 16 * 3];
    let (image, map) = inference.translate(&image).expect("translated");
    assert!(image.iter().all(|x| x.abs() <= 1.0) && map.len() == 16);
    expect_error(checkpoint.load_into(&mut trainer), &["slim.safetensors has no genA2B/"]);
    let mut inference =
        Inference::new(&crate::device(), &config, Precision::F32, 0, 1).expect("an inference");
    expect_error(checkpoint.load_generator(0, &mut inference), &["has no genA2B/gap_fc.weight"]);
}

#[test]
fn truncated_files_are_told_with_what_is_missing() {
    let (_folder, path, _) = saved(&config());
    let bytes = read(&path);
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight")) as usize;
    for (len, parts) in [
        (0, &["is truncated", "0 bytes"][..]),
        (7, &["is truncated", "7 bytes"]),
        (8, &["is truncated", "its header alone has"]),
        (header - 1, &["is truncated", "its header alone has"]),
        (header, &["is truncated", "tensors are missing or cut, from genA2B/gap_fc.weight on"]),
        (bytes.len() - 1, &["is truncated", " 1 of ", "from adam_v/disLB/"]),
    ] {
        std::fs::write(&path, &bytes[..len]).expect("written");
        expect_error(Checkpoint::open(&path), parts);
        expect_error(Checkpoint::open(&path), &["step-0000007.safetensors", "hint: "]);
    }
    std::fs::write(&path, [&bytes[..], b"x"].concat()).expect("written");
    expect_error(Checkpoint::open(&path), &["but its header says"]);
}

#[test]
fn other_files_are_no_checkpoints() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.safetensors");
    expect_error(Checkpoint::open(&path), &["cannot read the checkpoint", "x.safetensors", "no such file"]);
    expect_error(Checkpoint::find(&path), &["no such checkpoint"]);
    expect_error(Checkpoint::find(folder.path()), &["no checkpoint in"]);
    let garbage = [&[16, 0, 0, 0, 0, 0, 0, 0][..], &[b'{'; 16]].concat();
    let other =
        safetensors::serialize(Vec::<(&str, safetensors::tensor::TensorView)>::new(), None).expect("a file");
    for (bytes, part) in [
        (&b"PK\x03\x04 and so on"[..], "a zip file, as PyTorch"),
        (b"some text of some length", "does not begin like"),
        (&garbage, "its header is not"),
        (&other, "no 'format'"),
    ] {
        std::fs::write(&path, bytes).expect("written");
        expect_error(Checkpoint::open(&path), &["x.safetensors is no checkpoint of ugatit", part, "hint: "]);
    }
    let (_folder, path, _) = saved(&config());
    edit(&path, |header| header["__metadata__"]["format"] = json!("2"));
    expect_error(Checkpoint::open(&path), &["its format is 2, written by ugatit"]);
    let (_folder, path, _) = saved(&config());
    edit_config(&path, "ch", json!(0));
    expect_error(Checkpoint::open(&path), &["its configuration cannot be", "ch 0 is out of range"]);
}

#[test]
fn files_of_another_model_name_the_tensor_and_both_shapes() {
    let (_folder, path, _) = saved(&config());
    let mut wider = trainer(&Config { ch: 8, ..config() }, 1);
    let before = contents(&wider);
    let mut checkpoint = Checkpoint::open(&path).expect("whole");
    let parts = ["genA2B/gap_fc.weight of shape [1, 16]", "[1, 32]", "trained with ch 4, not 8"];
    expect_error(checkpoint.load_into(&mut wider), &parts);
    assert!(contents(&wider) == before, "a misfit changes nothing");
    let mut deeper = trainer(&Config { n_res: 2, n_dis: 3, img_size: 16, ..config() }, 1);
    expect_error(
        checkpoint.load_into(&mut deeper),
        &["has no genA2B/UpBlock1_2.conv1.weight", "n_res 1, not 2, n_dis 2, not 3"],
    );

    edit(&path, |header| header["genA2B/DownBlock.1.weight"]["shape"] = json!([4, 3, 49]));
    let mut checkpoint = Checkpoint::open(&path).expect("whole");
    let mut same = trainer(&config(), 1);
    expect_error(
        checkpoint.load_into(&mut same),
        &["[4, 3, 49]", "[4, 3, 7, 7]", "another model than its tensors"],
    );

    // In full mode the weights belong to one image size.
    let full = Config { light: false, ..config() };
    let (_folder, path, _) = saved(&full);
    let mut checkpoint = Checkpoint::open(&path).expect("whole");
    let mut larger = trainer(&Config { img_size: 24, ..full.clone() }, 1);
    let parts = ["genA2B/FC.0.weight of shape [16, 256]", "[16, 576]", "img_size 16, not 24", "in full mode"];
    expect_error(checkpoint.load_into(&mut larger), &parts);
    edit_config(&path, "img_size", json!(24));
    let mut inference =
        Inference::new(&crate::device(), &Config { img_size: 24, ..full }, Precision::F32, 0, 1)
            .expect("an inference");
    let mut checkpoint = Checkpoint::open(&path).expect("whole");
    expect_error(
        checkpoint.load_generator(0, &mut inference),
        &["genA2B/FC.0.weight of shape [16, 256]", "[16, 576]"],
    );
}

#[test]
fn the_newest_whole_checkpoint_is_found_and_old_ones_go() {
    let (folder, path, _) = saved(&config());
    let folder = folder.path();
    let bytes = read(&path);
    for (name, len) in
        [("step-0000005", bytes.len()), ("step-0000009", 1000), ("step-10000000", 0), ("other", 0)]
    {
        std::fs::write(folder.join(format!("{name}.safetensors")), &bytes[..len]).expect("written");
    }
    let Newest { checkpoint, broken } = checkpoint::newest_complete(folder).expect("readable");
    assert_eq!(checkpoint.expect("one is whole").path(), path);
    let broken: Vec<String> = broken.iter().map(ToString::to_string).collect();
    assert!(broken.len() == 2 && broken[0].contains("step-10000000") && broken[1].contains("step-0000009"));
    assert_eq!(checkpoint::prune(folder, 0).expect("readable").len(), 0);
    assert_eq!(checkpoint::prune(folder, 2).expect("readable").len(), 2);
    assert_eq!(names(folder), ["other.safetensors", "step-0000009.safetensors", "step-10000000.safetensors"]);
    let none = checkpoint::newest_complete(&folder.join("none")).expect("no folder, no checkpoint");
    assert!(none.checkpoint.is_none() && none.broken.is_empty());
}

#[test]
fn weights_that_are_not_finite_are_not_saved() {
    let (folder, path, mut trainer) = saved(&config());
    let before = read(&path);
    let id = trainer.model().find("disLA", "conv1x1.bias", TensorRole::SecondMoment).expect("a tensor");
    let n = trainer.model().spec(id).len();
    trainer.set(id, &vec![f32::NAN; n]).expect("set");
    let result = checkpoint::save(&trainer, &meta(&config()), &path);
    expect_error(result, &["adam_v/disLA/conv1x1.bias is no longer finite"]);
    assert!(read(&path) == before && names(folder.path()).len() == 1);
}
