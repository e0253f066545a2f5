//! The benchmarks of networks, as `scripts/measure.sh` runs them on a GPU.

use std::fs;
use std::process::Command;

use serde_json::Value as Json;

use super::Fake;
use crate::command::{Ended, command};

fn records(path: &std::path::Path) -> Vec<Json> {
    let text = fs::read_to_string(path).expect("records");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn everything_is_measured_by_one_script_and_stands_in_one_table() {
    let (fake, folder) = (Fake::new(), tempfile::tempdir().expect("a folder"));
    let measured = folder.path().join("measured");
    let mut script = Command::new(crate::project("scripts/measure.sh"));
    script.arg(command("").get_program());
    script.args("--size 8 --ch 4 --n-res 1 --n-dis 2 --runs 2".split(' '));
    script.env("OUT_DIR", &measured).env("PARTS", "step infer").env("UGATIT_DEVICE", "cuda");
    // As little memory as a run may have, so that little is copied for the ceilings.
    let ended = fake.run(script, "MEMORY_MIB=280");
    let Ended { code, out, err } = &ended;
    assert_eq!(*code, Some(0), "{out}{err}");
    let steps = records(&measured.join("step.json"));
    assert_eq!(steps.len(), 2, "one for each precision");
    for record in steps {
        let measured = &record["measured"];
        let number = |name: &str| measured[name].as_f64().expect("a number");
        assert!(number("milliseconds") > 0.0 && number("wall_milliseconds") > 0.0, "{record}");
        // All that was planned, and no more than the modules and graphs of a stand-in besides.
        let (peak, planned) = (number("peak_bytes"), record["planned_bytes"].as_f64().expect("bytes"));
        assert!((0.9 * planned..2.0 * planned + 1e6).contains(&peak), "{record}");
        assert!(measured["ceilings"]["copy_gb_per_s"].as_f64().is_some_and(|v| v > 0.0), "{record}");
        assert!(measured["ceilings"]["matrix_tflop_per_s"].as_f64().is_some_and(|v| v > 0.0), "{record}");
        assert!(record.get("emulator").is_none() && record.get("predicted").is_none(), "{record}");
    }
    assert_eq!(records(&measured.join("infer.json")).len(), 6, "three batches in two precisions");
    let rows: Vec<&str> = out.lines().filter(|l| l.starts_with("step") && l.contains("ugatit")).collect();
    assert!(rows.len() == 2 && rows[1].contains("tf32  light 8 px, ch 4, 1/2"), "{out}");
    assert!(out.contains("Fake GPU 9.0: floor at copy ") && !out.contains("failed:"), "{out}");
}

#[test]
fn convolutions_are_compared_and_timed_in_every_variant() {
    let (fake, folder) = (Fake::new(), tempfile::tempdir().expect("a folder"));
    let path = folder.path().join("conv.json");
    let words =
        "bench conv --light --size 8 --ch 4 --n-res 1 --n-dis 2 --pass dgrad --device cuda --for a100 --json";
    let mut bench = command(words);
    bench.arg(&path);
    fake.run(bench, "MEMORY_MIB=16").expect(0, &[]);
    let records = records(&path);
    for variant in ["direct", "implicit GEMM", "tensor core"] {
        let of_variant: Vec<&Json> = records.iter().filter(|r| r["variant"] == variant).collect();
        assert!(of_variant.len() > 5, "{variant}");
        for record in of_variant {
            assert!(record["measured"]["microseconds"].as_f64().is_some_and(|us| us > 0.0), "{record}");
            assert!(record["predicted"]["microseconds"].as_f64().is_some_and(|us| us > 1.0), "{record}");
            assert_eq!(record["predicted"]["gpu"], "a100");
        }
    }
    // A launch that does nothing leaves results that are refused, and no time of them.
    let words = "bench conv --light --size 8 --ch 4 --n-res 1 --n-dis 2 --variant direct --device cuda";
    let nothing = fake.start(command(words), "MEMORY_MIB=16 FAIL=cuLaunchKernel:0:0 COMPLAINTS=warn");
    nothing.expect(1, &["in double precision, and "]);
}
