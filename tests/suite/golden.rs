//! Recorded runs: they hold, and `verify` notices when something is off.
//!
//! Without a second implementation a mistake is put into the recording instead of the engine: a changed
//! start or configuration makes the engine do something else than what was recorded.

use std::collections::HashMap;
use std::path::PathBuf;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use ugatit::verify::{FileReport, Golden, check, verify};

fn path(name: &str) -> PathBuf {
    crate::project(&format!("tests/golden/{name}.safetensors"))
}

/// A recording that can be changed.
#[derive(Clone)]
struct Recording {
    metadata: HashMap<String, String>,
    tensors: Vec<(String, safetensors::Dtype, Vec<usize>, Vec<u8>)>,
}

impl Recording {
    fn load(name: &str) -> Self {
        let bytes = std::fs::read(path(name)).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors =
            file.tensors().into_iter().map(|(k, v)| (k, v.dtype(), v.shape().to_vec(), v.data().to_vec()));
        Self { metadata: header.metadata().clone().unwrap(), tensors: tensors.collect() }
    }

    /// Keeps what the run starts from and the tensors whose names begin with one of `prefixes`.
    fn only(mut self, prefixes: &[&str]) -> Self {
        self.tensors.retain(|(k, ..)| {
            k.starts_with("init/") || k.starts_with("image/") || prefixes.iter().any(|p| k.starts_with(p))
        });
        self
    }

    /// Keeps the first steps only.
    fn steps(mut self, steps: usize) -> Self {
        self.metadata.insert("steps".into(), steps.to_string());
        self.metadata.remove("losses");
        self.metadata.remove("lr");
        self.tensors.retain(|(k, ..)| {
            let step = |rest: &str| rest.split(['/', '_']).next().unwrap_or("").parse::<usize>().ok();
            match k.strip_prefix("after").and_then(step) {
                Some(step) => step <= steps,
                None => !k.starts_with("adam_"),
            }
        });
        for (k, _, dims, data) in &mut self.tensors {
            if k == "lr" || k.starts_with("loss/") {
                *dims = vec![steps];
                data.truncate(4 * steps);
            }
        }
        self
    }

    fn floats(&self, key: &str) -> Vec<f32> {
        let (.., data) = self.tensors.iter().find(|t| t.0 == key).unwrap_or_else(|| panic!("no {key}"));
        data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn change(&mut self, key: &str, f: impl Fn(usize, f32) -> f32) {
        let changed: Vec<f32> = self.floats(key).into_iter().enumerate().map(|(i, x)| f(i, x)).collect();
        let (.., data) = self.tensors.iter_mut().find(|t| t.0 == key).unwrap();
        *data = changed.iter().flat_map(|x| x.to_le_bytes()).collect();
    }

    fn swap(&mut self, a: &str, b: &str) {
        let (x, y) = (self.floats(a), self.floats(b));
        self.change(a, |i, _| y[i]);
        self.change(b, |i, _| x[i]);
    }

    /// Sets an entry of the configuration.
    fn configure(&mut self, key: &str, value: serde_json::Value) {
        let mut config: serde_json::Value = serde_json::from_str(&self.metadata["config"]).unwrap();
        config[key] = value;
        self.metadata.insert("config".into(), config.to_string());
    }

    fn bytes(&self) -> Vec<u8> {
        let views = self
            .tensors
            .iter()
            .map(|(k, dtype, dims, data)| (k.clone(), TensorView::new(*dtype, dims.clone(), data).unwrap()));
        safetensors::serialize(views, Some(self.metadata.clone())).unwrap()
    }

    fn golden(&self) -> Golden {
        Golden::parse("changed", self.bytes()).unwrap()
    }

    fn verify(&self) -> FileReport {
        verify(&self.golden(), &crate::device()).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The groups that deviate.
    fn failing(&self) -> Vec<String> {
        let report = self.verify();
        eprintln!("{}", report.text(false));
        assert_eq!(report.passes(), report.failing().count() == 0);
        report.failing().map(|g| g.name.clone()).collect()
    }

    /// Why the file cannot be used.
    fn refusal(&self) -> String {
        let golden = self.golden();
        let error = check(&golden).expect_err("must be refused");
        assert_eq!(verify(&golden, &crate::device()).expect_err("must be refused"), error);
        error.message().to_owned()
    }
}

fn passes(name: &str) {
    let report = verify(&Golden::open(&path(name)).unwrap(), &crate::device()).unwrap();
    assert!(report.passes(), "{}", report.text(false));
}

#[test]
fn single_operations() {
    passes("ops");
}

#[test]
fn run_light_s32_c4_r2_b1() {
    passes("train_light_s32_c4_r2_b1");
}

#[test]
fn run_full_s32_c4_r1_b2() {
    passes("train_full_s32_c4_r1_b2");
}

#[test]
fn run_full_s32_c8_r2_b1() {
    passes("train_full_s32_c8_r2_b1");
}

#[test]
fn run_light_s40_c4_r1_b2() {
    passes("train_light_s40_c4_r1_b2");
}

#[test]
fn run_light_s96_c4_r1_b1() {
    passes("train_light_s96_c4_r1_b1");
}

#[test]
fn run_decay_s24_c4_r1_b1() {
    passes("train_decay_s24_c4_r1_b1");
}

#[test]
fn run_full_grey_s28_c3_r1_b3() {
    passes("train_full_grey_s28_c3_r1_b3");
}

/// A short run for the mistakes below.
fn short() -> Recording {
    Recording::load("train_light_s32_c4_r2_b1").steps(2)
}

#[test]
fn a_short_run_of_a_file_passes() {
    assert_eq!(short().failing(), [""; 0]);
}

#[test]
fn a_wrong_learning_rate_is_noticed() {
    for (name, factor) in [("1% more", 1.01), ("a tenth", 0.1)] {
        let mut r = short().only(&["after"]);
        r.configure("lr", serde_json::json!(1e-4 * factor));
        let failing = r.failing();
        for group in ["after1/mismatched", "after2/mismatched"] {
            assert!(failing.contains(&group.to_owned()), "{name}: {failing:?}");
        }
    }
}

#[test]
fn wrong_hyper_parameters_are_noticed() {
    for (key, value, group) in [
        ("beta1", 0.49, "after2/uv"),
        ("weight_decay", 1e-3, "after1/mismatched"),
        ("cam_weight", 999.0, "grad_G"),
        // The attention loss, a thousand times weighted, outweighs these two.
        ("cycle_weight", 10.5, "loss/1"),
        ("cycle_weight", 11.0, "grad_G"),
        ("identity_weight", 10.5, "loss/1"),
        ("identity_weight", 11.0, "grad_G"),
        ("adv_weight", 1.001, "grad_D"),
    ] {
        let mut r = short().only(&["after", "grad_", "loss/"]);
        r.configure(key, serde_json::json!(value));
        let failing = r.failing();
        assert!(failing.contains(&group.to_owned()), "{key}: {failing:?}");
    }
}

#[test]
fn a_slightly_wrong_rho_is_noticed() {
    for key in ["UpBlock2.8.rho", "UpBlock1_1.norm2.rho"] {
        let mut r = short();
        r.change(&format!("init/genA2B/{key}"), |_, x| x + 1e-3);
        let failing = r.failing();
        for group in ["grad_G", "after1/mismatched"] {
            assert!(failing.contains(&group.to_owned()), "{key}: {failing:?}");
        }
    }
}

#[test]
fn a_gradient_of_the_other_sign_is_noticed() {
    // The smallest tensors of either group: they would drown in its norm.
    for (key, group) in
        [("grad_G/genB2A/UpBlock2.8.gamma", "grad_G"), ("grad_D/disLA/model.1.bias", "grad_D")]
    {
        let mut r = short();
        r.change(key, |_, x| -x);
        assert_eq!(r.failing(), [group], "{key}");
    }
}

#[test]
fn swapped_spectral_vectors_are_noticed() {
    let mut r = short();
    r.swap("init/disGA/model.4.weight_u", "init/disGB/model.4.weight_u");
    let failing = r.failing();
    assert!(
        failing.contains(&"fwd/D".to_owned()) && failing.contains(&"after1/uv".to_owned()),
        "{failing:?}"
    );
    let mut r = short().only(&["after"]);
    r.swap("after2/disGA/model.4.weight_u", "after2/disGB/model.4.weight_u");
    assert_eq!(r.failing(), ["after2/uv"]);
}

#[test]
fn one_changed_number_is_noticed() {
    for (key, group) in [
        ("fwd/B2A2B/image", "fwd/image"),
        ("fwd/A2A/cam_logit", "fwd/cam_logit"),
        ("fwd/B2B/heatmap", "fwd/heatmap"),
        ("fwd/D/fake_LB/logit", "fwd/D"),
        ("fwd/G/fake_GA/cam_logit", "fwd/G"),
        ("tap/genA2B/UpBlock1_1.norm1", "tap/generator"),
        ("tap/disGA/gmp_fc", "tap/discriminator"),
        ("loss/G_recon_loss_A", "loss/1"),
        ("lr", "lr"),
    ] {
        let mut r = short();
        let (at, largest) = r
            .floats(key)
            .into_iter()
            .enumerate()
            .fold((0, 0.0f32), |a, (i, x)| if x.abs() > a.1 { (i, x.abs()) } else { a });
        // Loss and rate of step 1, else the tensor's largest value.
        let at = if group == "loss/1" || group == "lr" { 0 } else { at };
        r.change(key, |i, x| if i == at { x + 0.01 * largest } else { x });
        assert_eq!(r.failing(), [group], "{key}");
    }
}

#[test]
fn what_is_not_a_number_is_noticed() {
    for (key, group) in [
        ("fwd/A2B/image", "fwd/image"),
        ("after1/genA2B/conv1x1.bias", "after1"),
        ("loss/G_loss_A", "loss/2"),
    ] {
        let mut r = short();
        let last = r.floats(key).len() - 1;
        r.change(key, |i, x| if i == last { f32::NAN } else { x });
        assert!(r.failing().contains(&group.to_owned()), "{key}");
    }
    // And in the engine: everything after this start is NaN.
    let mut r = short();
    r.change("init/genA2B/DownBlock.1.weight", |_, _| f32::NAN);
    assert!(r.failing().contains(&"fwd/image".to_owned()));
}

#[test]
fn a_weight_tensor_that_stays_behind_is_noticed() {
    let mut r = short().only(&["after"]);
    let start = r.floats("init/genB2A/UpBlock2.8.beta");
    r.change("after2/genB2A/UpBlock2.8.beta", |i, _| start[i]);
    assert!(r.failing().contains(&"after2/mismatched".to_owned()));
}

#[test]
fn mistakes_are_noticed_where_rounding_is_amplified() {
    // Here a non-differentiable point relaxes the tolerances of gradients and of everything after them.
    let plain = Recording::load("train_light_s40_c4_r1_b2").steps(2).only(&["grad_", "after"]);
    assert_eq!(plain.failing(), [""; 0]);
    let mut r = plain.clone();
    r.change("grad_G/genA2B/UpBlock2.3.rho", |_, x| -x);
    assert!(r.failing().contains(&"grad_G".to_owned()));
    let mut r = plain;
    r.configure("lr", serde_json::json!(1.1e-4));
    assert!(r.failing().contains(&"after1/mismatched".to_owned()));
}

#[test]
fn losses_in_the_metadata_are_compared() {
    let mut r = Recording::load("train_light_s32_c4_r2_b1").only(&[]);
    let mut losses: serde_json::Value = serde_json::from_str(&r.metadata["losses"]).unwrap();
    losses["G_cam_loss_B"][3] = serde_json::json!(losses["G_cam_loss_B"][3].as_f64().unwrap() * 1.0001);
    r.metadata.insert("losses".into(), losses.to_string());
    assert_eq!(r.failing(), ["loss/4"]);
    r.metadata.remove("losses");
    let mut rates: Vec<f64> = serde_json::from_str(&r.metadata["lr"]).unwrap();
    rates[4] *= 1.0 + 1e-9;
    r.metadata.insert("lr".into(), serde_json::json!(rates).to_string());
    assert_eq!(r.failing(), ["lr"]);
}

#[test]
fn operations_that_are_off_or_unknown_are_noticed() {
    let plain = Recording::load("ops");
    let mut r = plain.clone();
    r.change("14_adalin/d_gamma", |_, x| x * 1.001);
    r.change("33_spectral_norm/d_w1", |_, x| -x);
    r.change("23_global_max_pool/d_x", |i, x| if i == 0 { x + 1e-3 } else { x });
    r.change("42_adam/p3", |i, x| if i == 5 { x + 1e-5 } else { x });
    r.metadata.insert("cases".into(), r.metadata["cases"].replace("\"reflect_pad\"", "\"zero_pad\""));
    let (.., image) = r.tensors.iter_mut().find(|t| t.0 == "44_resize/y").unwrap();
    image[100] ^= 1;
    let mut failing = r.failing();
    failing.sort();
    let mismatched =
        ["14_adalin", "23_global_max_pool", "27_reflect_pad", "33_spectral_norm", "42_adam", "44_resize"];
    assert_eq!(failing, mismatched);
    let report = r.verify();
    assert!(report.text(false).contains("unknown operation 'zero_pad'"));
    assert_eq!(report.json()["pass"], false);
}

#[test]
fn files_that_cannot_be_used_are_refused_with_a_reason() {
    let r = short();
    let changed = |f: &dyn Fn(&mut Recording)| {
        let mut r = r.clone();
        f(&mut r);
        r.refusal()
    };
    let remove = |key: &'static str| changed(&|r| r.tensors.retain(|t| t.0 != key));
    let key = "init/genA2B/gamma.weight";
    assert_eq!(remove(key), format!("changed cannot be used: it has no tensor {key}"));
    assert_eq!(remove("image/B/2"), "changed cannot be used: it has no tensor image/B/2");
    assert_eq!(
        changed(&|r| r.tensors.iter_mut().filter(|t| t.0 == key).for_each(|t| t.2 = vec![8, 32])),
        format!("changed cannot be used: {key} has the shape [8, 32], but the network's is [16, 16]"),
    );
    assert_eq!(
        changed(&|r| r
            .tensors
            .iter_mut()
            .filter(|t| t.0 == "image/A/1")
            .for_each(|t| t.2 = vec![1, 32, 32, 3])),
        "changed cannot be used: image/A/1 has the shape [1, 32, 32, 3], but the network's is [1, 3, 32, 32]",
    );
    assert!(changed(&|r| r.configure("ch", serde_json::json!(8))).contains("but the network's is"));
    assert!(
        changed(&|r| r.configure("img_size", serde_json::json!(20))).contains("img_size 20 is too small")
    );
    assert!(changed(&|r| r.configure("lr", serde_json::json!("fast"))).contains("'config' in its metadata"));
    for entry in ["batch", "steps"] {
        assert_eq!(
            changed(&|r| drop(r.metadata.remove(entry))),
            format!("changed cannot be used: its metadata has no '{entry}'")
        );
        for value in ["0", "-1", "\"one\"", "1e99", "null", "{"] {
            assert!(
                changed(&|r| drop(r.metadata.insert(entry.into(), value.into()))).contains(entry),
                "{value}"
            );
        }
    }
    assert!(changed(&|r| r.metadata.clear()).contains("neither 'config' nor 'cases'"));
    let renamed = changed(&|r| {
        let first = r.tensors.iter_mut().find(|t| t.0.starts_with("init/")).unwrap();
        first.0 = "init/genA2B/other".into();
    });
    assert!(renamed.contains("init/"), "{renamed}");
    assert!(
        changed(&|r| r
            .tensors
            .iter_mut()
            .filter(|t| t.0 == "loss/G_loss_A")
            .for_each(|t| t.0 = "loss/x".into()))
        .contains("no loss term x")
    );
    assert!(
        changed(&|r| r.tensors.iter_mut().filter(|t| t.0.starts_with("after2/")).for_each(|t| {
            t.0 = t.0.replace("after2", "after9");
        }))
        .contains("is not of one of the 2 steps")
    );
}

#[test]
fn unusable_operations_are_refused_with_a_reason() {
    let r = Recording::load("ops");
    let changed = |from: &str, to: &str| {
        let mut r = r.clone();
        let cases = r.metadata["cases"].replacen(from, to, 1);
        assert_ne!(cases, r.metadata["cases"]);
        r.metadata.insert("cases".into(), cases);
        r.refusal()
    };
    assert!(
        changed("\"k\": 7, \"s\": 1, \"p\": 3", "\"k\": 7, \"s\": 1, \"p\": 29")
            .contains("reflect padding 29")
    );
    assert!(changed("\"s\": 1", "\"s\": 0").contains("stride 0"));
    assert!(changed("\"s\": 2", "\"s\": 3").contains("y has the shape"));
    assert!(changed("00_conv", "xx_conv").contains("no tensor xx_conv/x"));
    assert!(changed("\"passes\": 3", "\"passes\": 4").contains("no tensor 33_spectral_norm/y3"));
    assert!(changed("\"steps\": 6", "\"steps\": 7").contains("no rate for step 7"));
    assert!(changed("\"size\": 32", "\"size\": 31").contains("grey_resized has the shape"));
    let mut broken = r.clone();
    broken.metadata.insert("cases".into(), "{}".into());
    assert!(broken.refusal().contains("'cases' in its metadata is no list"));
    for (key, ..) in &r.tensors {
        let mut r = r.clone();
        r.tensors.iter_mut().filter(|t| t.0 == *key).for_each(|t| t.2.push(1));
        // Every tensor's extents are checked; only those of the constant heatmap's stages may be free.
        assert!(check(&r.golden()).is_err(), "{key}");
    }
}

#[test]
fn what_a_file_may_lack_is_not_missed() {
    let inputs = short().only(&[]);
    let report = inputs.verify();
    assert!(!report.passes() && report.groups.is_empty(), "nothing was compared: {}", report.text(false));
    let mut r = short().only(&["loss/"]);
    r.configure("a_new_parameter", serde_json::json!(3));
    r.tensors.push(("extra/thing".into(), safetensors::Dtype::F32, vec![1], vec![0; 4]));
    let report = r.verify();
    assert!(report.passes(), "{}", report.text(false));
    assert_eq!(report.groups.len(), 2);
    assert!(report.notes.iter().any(|n| n.contains("a_new_parameter")), "{:?}", report.notes);
    assert!(report.notes.iter().any(|n| n.contains("extra/thing")), "{:?}", report.notes);
}

/// The bounds let float32 pass, and nothing that rounds as coarsely as tensor cores do.
#[test]
fn bounds_lie_between_float32_and_tf32() {
    use ugatit::verify::tolerance::{CAM_LOGIT, D_STEP, GRAD_D, GRAD_G, HEATMAP, IMAGE};
    let noise = std::fs::read(path("noise").with_extension("json")).unwrap();
    let noise: serde_json::Value = serde_json::from_slice(&noise).unwrap();
    for (case, runs) in noise.as_object().unwrap() {
        for (group, bounds) in [
            ("fwd/image", IMAGE),
            ("fwd/cam_logit", CAM_LOGIT),
            ("fwd/heatmap", HEATMAP),
            ("fwd/D logits", D_STEP),
            ("grad_D", GRAD_D),
            ("grad_G", GRAD_G),
        ] {
            let of = |run: &str| runs[run][group]["rel"].as_f64().unwrap();
            let (float32, tf32) = (of("float32"), of("tf32 conv operands"));
            assert!(8.0 * float32 <= bounds.group, "{case} {group}: {float32:.1e}");
            assert!(4.0 * bounds.group <= tf32, "{case} {group}: {tf32:.1e}");
        }
    }
}

/// Damaged in whatever place: a file is refused with its name, or it can still be used.
#[test]
fn no_damage_to_a_file_makes_it_panic() {
    let bytes = short().only(&["loss/"]).bytes();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let try_it = |bytes: Vec<u8>| match Golden::parse("damaged", bytes).and_then(|g| check(&g)) {
        Ok(()) => 0,
        Err(e) => {
            assert!(e.message().contains("damaged"), "{e}");
            1
        }
    };
    let (mut tried, mut refused) = (0, 0);
    for at in (0..header).step_by(173).chain([0, 1, 7, 8, header - 1, header, bytes.len() - 1]) {
        refused += try_it(bytes[..at].to_vec());
        for value in [0, b'"', b'9', b'{', bytes[at] ^ 1] {
            let mut changed = bytes.clone();
            changed[at] = value;
            refused += try_it(changed);
            tried += 1;
        }
        tried += 1;
    }
    assert!(tried > 500 && 2 * refused > tried && refused < tried, "{refused} of {tried}");
}
