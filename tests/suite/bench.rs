//! `bench step`, `bench infer` and `bench conv` on the emulator, and what they refuse. On a GPU: `fake/bench.rs`.

use std::fs;

use serde_json::Value as Json;
use ugatit::bench::conv::case::Case;
use ugatit::bench::conv::layers;
use ugatit::nn::Config;
use ugatit::tape::{ConvPass, ConvVariant};

use crate::command::{Ended, TINY, ugatit};

/// Runs a benchmark and returns what it printed and its records.
fn bench(words: &str) -> (String, Vec<Json>) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("records.json");
    let Ended { out, .. } =
        ugatit(&format!("bench {words} --device emulator --json"), &[&path]).expect(0, &[]);
    let records = serde_json::from_str(&fs::read_to_string(&path).expect("records")).expect("JSON");
    // What was written is shown again as it was printed.
    let kind = words.split(' ').next().expect("a word");
    let shown = ugatit(&format!("bench {kind} --show"), &[&path]).expect(0, &[]);
    assert!(out.ends_with(&shown.out), "{out}\n{}", shown.out);
    (out, records)
}

#[test]
fn on_the_emulator_a_step_has_seconds_of_its_own_and_predicted_milliseconds() {
    let (out, records) = bench(&format!("step {TINY} --runs 1 --for a100"));
    assert!(out.contains("its seconds are no GPU's; predicted: for A100"), "{out}");
    assert_eq!(records.iter().map(|r| &r["precision"]).collect::<Vec<_>>(), ["f32", "tf32"]);
    for r in records {
        assert!(
            r["emulator"]["seconds"].as_f64().is_some_and(|s| s > 0.0) && r.get("measured").is_none(),
            "{r}"
        );
        let ms = r["predicted"]["milliseconds"].as_f64().expect("predicted");
        // No launch takes less than a node of a graph.
        assert!(ms > 1.34e-3 * r["launches"].as_f64().expect("launches") && ms < 10.0, "{r}");
        assert_eq!((&r["predicted"]["gpu"], &r["device"]), (&"a100".into(), &"emulator".into()));
    }
}

#[test]
fn what_is_too_much_for_the_emulator_is_predicted_and_a_small_network_stands_beside() {
    let words =
        "infer --light --size 256 --batch-size 16 --ch 32 --n-res 1 --precision f32 --runs 1 --for h200";
    let (out, records) = bench(words);
    let [large, small] = &records[..] else { panic!("{out}") };
    assert!(large.get("emulator").is_none() && large["predicted"]["milliseconds"].is_f64(), "{large}");
    assert!(small["emulator"]["seconds"].is_f64() && small["size"] == 32, "{small}");
    assert_eq!(large["batch"], small["batch"]);
}

#[test]
fn records_of_pytorch_stand_in_the_same_table() {
    let torch = r#"[{"source": "torch", "device": "Some GPU (torch 2.15.0)", "date": "2026-11-28", "commit": "abc",
        "work": "step", "variant": "best", "precision": "bf16", "light": true, "size": 32, "ch": 8, "n_res": 2, "n_dis": 4,
        "batch": 1, "measured": {"milliseconds": 4.0, "wall_milliseconds": 5.0, "samples": 20, "peak_bytes": 1048576,
        "ceilings": {"copy_gb_per_s": 3000.0, "matrix_tflop_per_s": 700.0, "matrix": "bf16 matmul 8192"}}}]"#;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("torch.json");
    fs::write(&path, torch).expect("written");
    let shown = ugatit("bench step --show", &[&path]).expect(0, &[]);
    let row = shown.out.lines().find(|l| l.contains("torch")).expect("a row");
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..4], ["step", "torch", "best", "bf16"], "{}", shown.out);
    assert!(row.contains("4.00    500.0   1.00 MiB"), "{}", shown.out);
    assert!(
        shown.out.contains("Some GPU: floor at copy 3000 GB/s, bf16 matmul 8192 700.0 TFLOP/s"),
        "{}",
        shown.out
    );
}

#[test]
fn convolutions_have_predicted_times_and_counts_in_every_variant() {
    let (out, records) = bench(&format!("conv {TINY} --pass wgrad --for 4090"));
    for variant in ["direct", "implicit GEMM", "tensor core"] {
        let of_variant: Vec<&Json> = records.iter().filter(|r| r["variant"] == variant).collect();
        assert!(of_variant.len() > 5, "{variant}: {out}");
        for r in of_variant {
            let of = |name: &str| r["predicted"][name].as_f64().expect("a number");
            assert!(r["pass"] == "wgrad" && of("microseconds") > 0.95 && of("l2_bytes") > 0.0, "{r}");
        }
    }
    assert!(out.contains("each with its fastest variant: predicted 0."), "{out}");
}

#[test]
fn every_pass_and_variant_agrees_with_double_precision_and_a_wrong_result_does_not() {
    let device = crate::device();
    let target = device.lock().target();
    let cfg = Config { img_size: 12, ch: 6, n_res: 1, n_dis: 3, light: true, ..Config::default() };
    let layers = layers(&cfg, 1).expect("a network");
    for pass in ConvPass::ALL {
        let strided = layers.iter().find(|(layer, _)| layer.pass == pass && layer.stride == 2);
        let biased = layers.iter().find(|(layer, _)| layer.pass == pass && layer.bias);
        for (layer, _) in strided.into_iter().chain(biased) {
            for variant in ConvVariant::ALL {
                let Some(case) = Case::plan(*layer, variant, target).expect("plans") else { continue };
                let inputs = case.inputs(3);
                let loaded = case.load(&device, &inputs).expect("loads");
                case.check(&loaded, &inputs).expect("agrees");
                // Run over other operands than those it is held against.
                let error = case.check(&loaded, &case.inputs(4)).expect_err("differs");
                assert!(error.message().contains("in double precision"), "{error}");
            }
        }
    }
}

#[test]
fn what_cannot_be_measured_is_refused_by_name() {
    let refused = |words: &str, code: i32, parts: &[&str]| {
        ugatit::<&str>(&format!("bench {words}"), &[]).expect(code, parts);
    };
    refused(
        "step --norm cooperative",
        2,
        &["no network is trained with the norm 'cooperative'", "hint: norms are"],
    );
    refused("step --batch-size 1,0", 2, &["--batch-size 0 is out of range"]);
    refused("step --precision f8", 2, &["unknown precision 'f8'", "precisions are f32, tf32"]);
    refused("infer --size 30", 2, &["--size 30 is not a multiple of 4"]);
    refused("infer --runs 0", 2, &["0 is not in 1..=100000"]);
    refused("conv --pass backward", 2, &["unknown pass 'backward'"]);
    refused("conv --variant winograd", 2, &["convolutions are direct, implicit-gemm, tensor-core"]);
    refused("conv --for voodoo2", 2, &["no constants of a GPU 'voodoo2'"]);
    refused("step --show none.json", 1, &["cannot read none.json"]);
    let other = crate::project("tests/golden/noise.json");
    ugatit("bench step --show", &[&other]).expect(1, &["no benchmark records"]);
}

#[test]
fn a_plan_has_the_convolutions_that_are_asked_for() {
    let files = |flags: &str| {
        let ended = ugatit::<&str>(&format!("plan {TINY} --json {flags}"), &[]).expect(0, &[]);
        let plan: Json = serde_json::from_str(&ended.out).expect("JSON");
        let launches = plan["launches"].as_array().expect("a list");
        let kernel = |l: &Json| l["kernel"].as_str().unwrap_or_default().to_owned();
        let conv = launches.iter().map(kernel).filter(|k| k.starts_with("conv_"));
        (plan["conv"].clone(), conv.collect::<Vec<_>>())
    };
    let (name, direct) = files("--conv direct");
    assert!(
        name == "direct" && !direct.is_empty() && direct.iter().all(|k| k.contains("direct")),
        "{direct:?}"
    );
    let (name, tensor) = files("--conv tensor-core");
    assert!(name == "tensor core" && tensor.iter().all(|k| k.contains("_mma_")), "{tensor:?}");
    let (none, by_shape) = files("");
    assert!(none.is_null() && by_shape != tensor);
}

#[test]
fn a_document_without_a_place_for_the_ladder_is_refused_before_anything_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("page.md");
    fs::write(&path, "no place").expect("written");
    ugatit("plan --ladder --write", &[&path])
        .expect(2, &["page.md", "has no place", "hint: put these two lines"]);
    ugatit("plan --ladder --write", &[&folder.path().join("none.md")]).expect(2, &["cannot read", "none.md"]);
}
