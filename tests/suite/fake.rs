//! `src/device/cuda/` over the fake driver of `tests/fake-cuda/`: what a GPU machine would do, as far as the driver's
//! rules go. Every case is a process of its own, with the library on its path and on nobody else's.

mod bench;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use crate::command::{Ended, LONGER, Place, TINY, assert_same_run, command, names, read};

/// What cargo built for the tests' profile, from the examples.
fn built(name: &str) -> PathBuf {
    let tests = env::current_exe().expect("this program has a path");
    let profile = tests.parent().and_then(|deps| deps.parent()).expect("it lies in deps");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "there is no {}; `cargo build --examples` makes it", path.display());
    path
}

/// A folder in which the fake driver has the names that programs look for.
struct Fake {
    folder: TempDir,
}

impl Fake {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["libcuda.so", "libcuda.so.1"] {
            symlink(built("libfake_cuda.so"), folder.path().join(name)).expect("a link");
        }
        Self { folder }
    }

    /// Has a command find the fake driver, which these words of the form `NAME=value` describe.
    fn under(&self, command: &mut Command, settings: &str) {
        for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"FAKE_CUDA_"))
        {
            command.env_remove(name);
        }
        command.env_remove("UGATIT_CUDA_SYNC");
        let mut path = OsString::from(self.folder.path());
        if let Some(rest) = env::var_os("LD_LIBRARY_PATH") {
            path.push(":");
            path.push(rest);
        }
        command.env("LD_LIBRARY_PATH", path);
        for setting in settings.split_whitespace() {
            let (name, value) = setting.split_once('=').expect("NAME=value");
            let name =
                if name.starts_with("UGATIT_") { name.to_owned() } else { format!("FAKE_CUDA_{name}") };
            command.env(name, value);
        }
    }

    /// Runs a command with the fake driver, whatever comes of it.
    fn start(&self, mut command: Command, settings: &str) -> Ended {
        self.under(&mut command, settings);
        Ended::new(&command.output().expect("it starts"))
    }

    /// Runs a command with the fake driver, which must have nothing to complain of.
    fn run(&self, command: Command, settings: &str) -> Ended {
        let ended = self.start(command, settings);
        assert!(!ended.err.contains("COMPLAINT"), "{settings}: {}", ended.err);
        ended
    }

    /// Runs `ugatit` with these words.
    fn ugatit(&self, words: &str, settings: &str) -> Ended {
        self.run(command(words), settings)
    }

    /// `ugatit train` in a place, on the fake driver.
    fn train(&self, place: &Place, flags: &str, settings: &str) -> Ended {
        self.run(place.train_command(&format!("{flags} --device cuda")), settings)
    }
}

/// A run on the emulator.
fn emulated(flags: &str) -> Place {
    let place = Place::new();
    place.train(&format!("{flags} --device emulator")).expect(0, &["done"]);
    place
}

/// Takes a checkpoint and its sample grid away.
fn forget_step(place: &Place, step: u64) {
    fs::remove_file(place.checkpoint(step)).expect("exists");
    _ = fs::remove_file(place.run().join(format!("samples/step-{step:07}.png")));
}

#[test]
fn a_run_a_resumed_run_and_a_translation_have_the_emulators_bytes() {
    let flags = format!("{LONGER} --steps 6 --save-every 3 --keep 0");
    let (fake, want, place) = (Fake::new(), emulated(&flags), Place::new());
    fake.train(&place, &flags, "").expect(0, &["Fake GPU 9.0 (cuda:0)", "done"]);
    assert_same_run(&want.run(), &place.run(), 6);
    assert!(read(&want.checkpoint(3)) == read(&place.checkpoint(3)));
    forget_step(&place, 6);
    let ended = fake.train(&place, &format!("{flags} --resume"), "CAPABILITY=8.6 SCHEDULE=eager");
    ended.expect(0, &["Fake GPU 8.6 (cuda:0)", "resuming after step 3", "done"]);
    assert_same_run(&want.run(), &place.run(), 6);

    let translate = |device: &str, settings: &str| {
        let words = format!("translate --direction a2b --heatmap --device {device}");
        let mut translate = command(&words);
        translate.arg(want.run()).arg(want.data().join("testA")).arg("--out").arg(want.path(device));
        fake.run(translate, settings).expect(0, &[]);
        names(&want.path(device))
    };
    let files = translate("emulator", "CAPABILITY=none");
    assert_eq!(translate("cuda", ""), files);
    assert_eq!(files.len(), 2, "an image and its heatmap");
    for name in files {
        assert!(
            read(&want.path("emulator").join(&name)) == read(&want.path("cuda").join(&name)),
            "{name} differs"
        );
    }
}

#[test]
fn a_recorded_run_passes_on_every_architecture_and_in_either_order_of_events() {
    let (fake, golden) = (Fake::new(), "tests/golden/train_light_s32_c4_r2_b1.safetensors");
    for settings in [
        "CAPABILITY=8.0",
        "CAPABILITY=9.0",
        "CAPABILITY=12.0",
        // There is no machine code for this one, which nobody has made: the driver compiles PTX.
        "CAPABILITY=13.0 SCHEDULE=eager",
        "CAPABILITY=8.9 UGATIT_CUDA_SYNC=1",
        // PTX, on the oldest GPU and with the oldest driver that there may be.
        "CAPABILITY=7.5 DRIVER=12000",
        "CAPABILITY=13.0 DRIVER=12000",
    ] {
        let mut verify = command("verify --device cuda");
        verify.arg(crate::project(golden));
        let ended = fake.run(verify, settings).expect(0, &[]);
        assert!(
            ended.out.contains("1060 quantities") && ended.out.contains(": pass"),
            "{settings}: {}",
            ended.out
        );
    }
}

#[test]
fn tensor_cores_have_the_emulators_bytes_where_there_are_some() {
    let (fake, flags) = (Fake::new(), "--steps 2 --save-every 2 --precision tf32");
    let (want, place) = (emulated(flags), Place::new());
    fake.train(&place, flags, "").expect(0, &["Fake GPU 9.0 (cuda:0)", "convolutions: tf32", "done"]);
    assert_same_run(&want.run(), &place.run(), 2);
    fake.train(&Place::new(), flags, "CAPABILITY=7.5").expect(
        2,
        &[
            "kernels/conv/3_tensor_core.cu needs compute capability 8.0, and cuda:0 (Fake GPU 7.5) has 7.5",
            "hint: it has no tensor cores for tf32: take the precision f32",
        ],
    );
    let ended = fake.ugatit("doctor --device cuda", "CAPABILITY=7.5").expect(0, &[]);
    assert!(ended.out.contains("f32; tf32 needs compute capability 8.0"), "{}", ended.out);
}

#[test]
fn machine_code_of_another_generation_is_not_tried() {
    let fake = Fake::new();
    for (capability, cubins) in [("8.9", true), ("9.0", true), ("13.0", false)] {
        let settings = format!("CAPABILITY={capability} TRACE=1");
        let ended = fake.ugatit(&format!("plan {TINY}"), &settings).expect(0, &[]);
        assert!(!ended.err.contains("cuModuleLoadData"), "a plan loads nothing");
        let ended = fake.ugatit(&format!("profile {TINY} --device cuda"), &settings).expect(0, &[]);
        // CUDA_ERROR_NO_BINARY_FOR_GPU
        assert!(!ended.err.contains("cuModuleLoadData -> 209"), "{capability}: {}", ended.err);
        assert_eq!(ended.err.contains("cuModuleLoadData -> 0"), cubins, "{capability}");
    }
}

#[test]
fn launches_take_no_longer_than_the_command() {
    let fake = Fake::new();
    let started = Instant::now();
    let ended = fake.ugatit(&format!("profile {TINY} --device cuda --json"), "").expect(0, &[]);
    let wall = started.elapsed().as_secs_f64() * 1e3;
    let profile: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    let kernels = profile["kernels"].as_array().expect("a list");
    let times: Vec<f64> = kernels.iter().map(|k| k["milliseconds"].as_f64().expect("a time")).collect();
    let sum: f64 = times.iter().sum();
    assert!(times.len() > 20 && times.iter().all(|ms| *ms > 0.0), "{times:?}");
    // Each launch ran ten times, and half of the samples are at least their median.
    assert!(sum * 5.0 <= wall && sum >= 0.1, "{sum} ms of {wall} ms");
}

#[test]
fn the_norms_are_timed_the_cooperative_one_too() {
    let fake = Fake::new();
    let words = "bench adalin --device cuda --shape 1,4,4,8 --dtype f32 --variant cooperative";
    let ended = fake.ugatit(words, "MEMORY_MIB=16").expect(0, &[]);
    assert!(
        ended.out.contains("copy ceiling") && ended.out.contains("rotated: more than 1 MiB"),
        "{}",
        ended.out
    );
    let rows = ended.out.lines().filter(|line| line.contains("cooperative"));
    assert_eq!(rows.count(), 8, "two passes, warm and rotated, stream and graph: {}", ended.out);
    let refused = "blocks wait for each other, but cuda:0 (Fake GPU 9.0) holds 0 at once";
    fake.ugatit(words, "MEMORY_MIB=16 COOPERATIVE=0").expect(1, &[refused, "hint: take another variant"]);
}

#[test]
fn devices_are_chosen_by_number_and_by_what_they_can() {
    let fake = Fake::new();
    let train = |device: &str, settings: &str, code: i32, words: &[&str]| {
        let place = Place::new();
        let train = place.train_command(&format!("--steps 1 --no-decay --device {device}"));
        fake.run(train, settings).expect(code, words);
    };
    train("cuda", "CAPABILITY=7.0,8.0,9.0", 0, &["Fake GPU 8.0 (cuda:1)"]);
    train("auto", "CAPABILITY=7.0,8.0,9.0", 0, &["Fake GPU 8.0 (cuda:1)"]);
    train("cuda:2", "CAPABILITY=7.0,8.0,9.0", 0, &["Fake GPU 9.0 (cuda:2)"]);
    let old = ["cuda:0 (Fake GPU 7.0) has compute capability 7.0, but the kernels need at least 7.5"];
    train("cuda:0", "CAPABILITY=7.0,8.0,9.0", 2, &old);
    train("cuda", "CAPABILITY=7.0,6.1", 2, &old);
    train(
        "cuda:3",
        "CAPABILITY=8.0,9.0,9.0",
        2,
        &["no cuda:3: there are 3 GPUs, cuda:0 to cuda:2", "hint: "],
    );
    train("cuda:1", "CAPABILITY=8.0", 2, &["no cuda:1: there is one GPU, cuda:0", "hint: "]);
    train("auto", "CAPABILITY=7.0", 0, &["emulator: cuda:0 (Fake GPU 7.0) has compute capability 7.0"]);
    train("auto", "CAPABILITY=none", 0, &["emulator: the NVIDIA driver found no GPU"]);
}

/// What every failure for lack of memory advises.
const MEMORY_HINT: &str = "hint: nvidia-smi lists what else uses the GPU's memory; try --light, a smaller --size, --ch or --batch-size";

/// What is advised where the GPU's memory itself fails.
const ECC_HINT: &str = "hint: its memory has an error that it cannot correct: 'nvidia-smi -q -d ECC'";

/// Calls that fail, the exit code and the words that come of it.
const FAILURES: &[(&str, i32, &[&str])] = &[
    (
        "DRIVER=11080",
        2,
        &["the NVIDIA driver supports CUDA 11.8, but at least 12.0", "hint: update the driver"],
    ),
    ("CAPABILITY=none", 2, &["the NVIDIA driver found no GPU", "/dev/nvidia*", "; --device emulator"]),
    ("FAIL=cuInit:0:100", 2, &["the NVIDIA driver found no GPU", "/dev/nvidia*", "; --device emulator"]),
    // A driver whose files the user may not open says one or the other.
    (
        "FAIL=cuInit:0:304",
        2,
        &["CUDA_ERROR_OPERATING_SYSTEM (OS call failed", "hint: this user may lack", "--device emulator"],
    ),
    ("FAIL=cuDevicePrimaryCtxRetain:0:800", 2, &["CUDA_ERROR_NOT_PERMITTED", "hint: this user may lack"]),
    (
        "FAIL=cuInit:0:803",
        2,
        &["CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "hint: the driver's library and its kernel"],
    ),
    (
        "FAIL=cuInit:0:916",
        2,
        &["starting the NVIDIA driver: error 916, for which", "hint: --device emulator"],
    ),
    ("FAIL=cuInit:0:4242", 2, &["starting the NVIDIA driver: error 4242, for which the driver has no name"]),
    ("FAIL=cuInit:0:919", 2, &["starting the NVIDIA driver: error 919", "hint: ", "nvidia-fabricmanager"]),
    ("FAIL=cuInit:0:802", 2, &["CUDA_ERROR_SYSTEM_NOT_READY", "hint: ", "nvidia-fabricmanager"]),
    (
        "FAIL=cuInit:0:999",
        2,
        &["CUDA_ERROR_UNKNOWN", "hint: the kernel module nvidia_uvm", "--device emulator"],
    ),
    (
        "FAIL=*:0:34",
        2,
        &["no NVIDIA driver found, only a stand-in", "hint: LD_LIBRARY_PATH", "--device emulator"],
    ),
    ("FAIL=cuDeviceGetCount:0:3", 2, &["starting the NVIDIA driver: CUDA_ERROR_NOT_INITIALIZED"]),
    (
        "FAIL=cuDevicePrimaryCtxRetain:0:46",
        2,
        &["opening cuda:0: CUDA_ERROR_DEVICE_UNAVAILABLE (CUDA-capable", "hint: another process may have"],
    ),
    (
        "FAIL=cuDevicePrimaryCtxRetain:0:999",
        2,
        &["opening cuda:0: CUDA_ERROR_UNKNOWN", "hint: the kernel module nvidia_uvm", "--device emulator"],
    ),
    ("FAIL=cuDevicePrimaryCtxRetain:0:214", 2, &["opening cuda:0: CUDA_ERROR_ECC_UNCORRECTABLE", ECC_HINT]),
    ("FAIL=cuMemHostAlloc:3:2", 2, &["out of memory while allocating pinned memory: ", MEMORY_HINT]),
    (
        "FAIL=cuMemAlloc_v2:2:2",
        2,
        &[
            "out of memory while allocating ",
            " on Fake GPU 9.0 (cuda:0), where ",
            "of 8.00 GiB are free",
            MEMORY_HINT,
        ],
    ),
    ("FAIL=cuModuleLoadData:2:2", 2, &["out of memory while loading kernels/", MEMORY_HINT]),
    (
        "FAIL=cuGraphInstantiateWithFlags:1:2",
        2,
        &[
            "out of memory while capturing training step",
            "hint: nvidia-smi",
            "; UGATIT_CUDA_SYNC=1 runs without a graph",
        ],
    ),
    ("FAIL=cuDevicePrimaryCtxRetain:0:2", 2, &["out of memory while opening cuda:0: ", MEMORY_HINT]),
    ("FAIL=cuStreamCreate:1:2", 2, &["out of memory while opening cuda:0: ", MEMORY_HINT]),
    ("FAIL=cuEventCreate:9:2", 2, &["out of memory while opening cuda:0: ", MEMORY_HINT]),
    (
        "CAPABILITY=13.0 FAIL=cuModuleLoadDataEx:1:2",
        2,
        &["out of memory while compiling kernels/", MEMORY_HINT],
    ),
    ("FAIL=cuModuleGetFunction:1:2", 2, &["out of memory while loading ", MEMORY_HINT]),
    (
        "FAIL=cuLaunchKernel:3:2",
        2,
        &["out of memory while capturing ", "hint: nvidia-smi", "UGATIT_CUDA_SYNC=1", "; try --light"],
    ),
    (
        "FAIL=cuGraphUpload:1:2",
        2,
        &["out of memory while capturing training step", "hint: nvidia-smi", "; try --light"],
    ),
    ("FAIL=cuMemcpyHtoDAsync_v2:1:2", 2, &["out of memory while uploading ", MEMORY_HINT]),
    ("FAIL=cuGraphLaunch:1:2", 1, &["out of memory while running training step on cuda:0", MEMORY_HINT]),
    ("FAIL=cuStreamSynchronize:1:2", 1, &["out of memory while running training step", MEMORY_HINT]),
    (
        "FAIL=cuModuleLoadData:1:200",
        2,
        &["loading kernels/", "for sm_90: CUDA_ERROR_INVALID_IMAGE", "hint: the driver is older"],
    ),
    (
        "CAPABILITY=13.0 FAIL=cuModuleLoadDataEx:2:222",
        2,
        &["from PTX: ", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "hint: "],
    ),
    (
        "FAIL=cuModuleGetFunction:3:500",
        2,
        &["loading ", " on cuda:0: CUDA_ERROR_NOT_FOUND (named symbol not found)"],
    ),
    ("FAIL=cuFuncGetAttribute:2:1", 2, &["loading ", " on cuda:0: CUDA_ERROR_INVALID_VALUE"]),
    ("FAIL=cuStreamBeginCapture_v2:1:1", 2, &["capturing training step on cuda:0: CUDA_ERROR_INVALID_VALUE"]),
    (
        "FAIL=cuLaunchKernel:7:701",
        2,
        &["capturing ", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES (too many resources"],
    ),
    (
        "FAIL=cuGraphInstantiateWithFlags:2:1",
        2,
        &["capturing sample grid on cuda:0: CUDA_ERROR_INVALID_VALUE"],
    ),
    ("FAIL=cuGraphUpload:1:1", 2, &["capturing training step on cuda:0: CUDA_ERROR_INVALID_VALUE"]),
    // What the driver makes no graph of runs without one, and code that it does not take, from PTX.
    ("FAIL=cuGraphInstantiateWithFlags:0:1 UGATIT_CUDA_SYNC=1", 0, &["done"]),
    ("FAIL=cuModuleLoadData:0:209", 0, &["done"]),
    ("FAIL=cuMemcpyHtoDAsync_v2:2:1", 2, &["uploading ", " to cuda:0: CUDA_ERROR_INVALID_VALUE"]),
    (
        "FAIL=cuMemcpyDtoHAsync_v2:1:700",
        1,
        &["running training step on cuda:0: CUDA_ERROR_ILLEGAL_ADDRESS", "hint: UGATIT_CUDA_SYNC=1"],
    ),
    (
        "FAIL=cuMemcpyDtoHAsync_v2:1:4242",
        1,
        &["running training step on cuda:0: error 4242, for which the driver has no name"],
    ),
];

/// Runs two steps under each setting and holds code and words against what was wanted.
#[track_caller]
fn check_failures(failures: &[(&str, i32, &[&str])]) {
    let fake = Fake::new();
    for (settings, code, words) in failures {
        let place = Place::new();
        let ended = fake.train(&place, "--steps 2", settings);
        assert_eq!(ended.code, Some(*code), "{settings}: {}", ended.err);
        ended.expect(*code, words);
        assert!(*code != 2 || !place.run().exists(), "{settings}: a refused run leaves nothing");
    }
}

#[test]
fn what_fails_is_named_with_the_way_out() {
    check_failures(FAILURES);
}

#[test]
fn a_run_that_does_not_fit_is_refused_before_its_first_step() {
    let (fake, place) = (Fake::new(), Place::new());
    let ended = fake.train(&place, "--size 64 --ch 8 --n-dis 5 --steps 2", "MEMORY_MIB=8");
    ended.expect(2, &["memory", "7.50 MiB", "hint: try --light, a smaller --size"]);
    assert!(!place.run().exists());
}

#[test]
fn a_run_whose_gpu_is_lost_goes_on_with_the_same_bytes() {
    let fake = Fake::new();
    let flags = "--steps 6 --save-every 2 --keep 0 --sample-every 0";
    let want = emulated(flags);
    let traced = fake.train(&Place::new(), flags, "TRACE=1").expect(0, &["done"]);
    let waits_until_saved = |step: u64| {
        let name = format!("step-{step:07}.safetensors");
        let (before, _) = traced.err.split_once(&name).expect("it is saved");
        before.matches("cuStreamSynchronize -> 0").count()
    };
    let third_step = waits_until_saved(2) + 1;
    let second_checkpoint = waits_until_saved(4) - 1;
    for (settings, words) in [
        ("FAIL=cuGraphLaunch:5:719".to_owned(), "running training step on cuda:0: CUDA_ERROR_LAUNCH_FAILED"),
        (
            format!("FAIL=cuStreamSynchronize:{third_step}:999"),
            "running training step on cuda:0: CUDA_ERROR_UNKNOWN",
        ),
        (format!("FAIL=cuStreamSynchronize:{second_checkpoint}:719"), "CUDA_ERROR_LAUNCH_FAILED"),
        (format!("FAIL=cuStreamSynchronize:{third_step}:214"), ECC_HINT),
    ] {
        let place = Place::new();
        let resume = "--resume goes on from the newest checkpoint";
        fake.train(&place, flags, &settings).expect(1, &[words, resume]);
        let ended = fake.train(&place, &format!("{flags} --resume"), "").expect(0, &["resuming after step "]);
        assert!(!ended.err.contains("starting over"), "{}", ended.err);
        assert_same_run(&want.run(), &place.run(), 6);
    }
}

#[test]
fn a_library_for_linking_does_not_hide_the_driver() {
    let fake = Fake::new();
    // A library without any function of the driver's, before the driver's on the path, as a toolkit's stubs may be.
    let maps = fs::read_to_string("/proc/self/maps").expect("Linux");
    let other = maps.split_whitespace().find(|word| word.contains("/libc.so.6")).expect("the C library");
    let train = |name: &str| {
        let (stubs, place) = (tempfile::tempdir().expect("a folder"), Place::new());
        symlink(other, stubs.path().join(name)).expect("a link");
        let mut command = place.train_command("--steps 1 --no-decay --device cuda");
        fake.under(&mut command, "");
        let mut path = OsString::from(stubs.path());
        path.push(":");
        path.push(fake.folder.path());
        command.env("LD_LIBRARY_PATH", path);
        Ended::new(&command.output().expect("it starts"))
    };
    train("libcuda.so").expect(0, &["Fake GPU 9.0 (cuda:0)", "done"]);
    let words = ["too old: libcuda.so.1 has no function cuInit", "hint: update the driver", "12.0"];
    train("libcuda.so.1").expect(2, &words);
}

/// One of `tests/fake-cuda/scenarios.rs`.
fn command_of(scenario: &str) -> Command {
    let mut command = Command::new(built("fake_scenarios"));
    command.arg(scenario);
    command
}

/// Runs one of them to its good end.
fn scenario(name: &str, settings: &str) -> Ended {
    Fake::new().run(command_of(name), settings).expect(0, &[])
}

#[test]
fn complaints_end_the_process() {
    let fake = Fake::new();
    // A call that returns 0 and does nothing is one that was forgotten; one that returns 1 has failed.
    for (name, settings, words) in [
        (
            "uploads",
            "FAIL=cuEventSynchronize:0:0",
            "pinned memory was changed before the copy out of it was done",
        ),
        ("uploads", "FAIL=cuEventRecord:0:0", "pinned memory was changed before the copy out of it was done"),
        ("dropped", "FAIL=cuStreamSynchronize:0:0", "is unloaded while launches of its kernels are pending"),
        ("released", "FAIL=cuStreamSynchronize:0:0", "device memory is freed while work on it is pending"),
        (
            "dropped",
            "FAIL=cuMemFree_v2:2:1",
            "the context of device 0 goes, and there are left: 1 allocations",
        ),
        ("dropped", "FAIL=cuMemFreeHost:0:1", "there are left: 8 pinned buffers"),
        ("dropped", "FAIL=cuModuleUnload:0:0", "there are left: 1 modules"),
        ("dropped", "FAIL=cuGraphExecDestroy:0:0", "there are left: 1 executable graphs"),
        ("dropped", "FAIL=cuGraphDestroy:0:0", "there are left: 1 graphs"),
        ("dropped", "FAIL=cuEventDestroy_v2:1:1", "there are left: 1 events"),
        ("dropped", "FAIL=cuStreamDestroy_v2:0:0", "there are left: 1 streams"),
        (
            "dropped",
            "FAIL=cuDevicePrimaryCtxRelease_v2:0:0",
            "the process ends with 1 references to the context",
        ),
        ("prepared-again", "FAIL=cuStreamEndCapture:1:901", "something other than a launch is captured"),
        ("unwritten", "", "byte 4096 of a copy of 1048576 from the device was never written"),
    ] {
        let ended = fake.start(command_of(name), settings);
        let text = format!("{name} {settings}: {:?} {}", ended.code, ended.err);
        let complains = |text: &str| text.contains("fake-cuda: COMPLAINT: ") && text.contains(words);
        assert!(ended.code.is_none() && complains(&ended.err), "{text}");
        let warned = fake.start(command_of(name), &format!("{settings} COMPLAINTS=warn"));
        assert!(warned.code.is_some() && complains(&warned.err), "{text}\n{}", warned.err);
    }
}

#[test]
fn nothing_goes_while_work_on_it_is_pending() {
    for name in ["dropped", "released", "uploads"] {
        scenario(name, "");
    }
}

#[test]
fn a_gpu_works_from_any_thread_beside_others_and_opened_twice() {
    scenario("moved", "");
    scenario("prepared", "");
    scenario("twice", "");
    scenario("two-devices", "CAPABILITY=8.0,9.0");
}

#[test]
fn a_block_gets_the_shared_memory_it_asks_for() {
    scenario("shared-memory", "");
}

#[test]
fn every_norm_has_the_emulators_bytes_those_whose_blocks_wait_for_each_other_too() {
    scenario("norms", "");
    scenario("norms", "CAPABILITY=8.0 SMS=108");
}

#[test]
fn nvrtc_compiles_beside_it() {
    let (fake, place) = (Fake::new(), Place::new());
    let source = place.path("mine.cu");
    let text = "extern \"C\" __global__ void one(float* x) { x[threadIdx.x] = 1.0f; }";
    fs::write(&source, text).expect("written");
    let mut study = command("study --kernel one --grid 1 --block 32 --arg buf:f32:32:empty --source");
    study.arg(source).arg("--out").arg(place.path("pages"));
    // It starts the driver, and asks for tables that only the real one has.
    let ended = fake.run(study, "TRACE=1").expect(0, &["cuInit -> 0", "cuGetExportTable -> 500"]);
    assert!(place.path("pages").is_dir(), "{}", ended.err);
}

#[test]
fn times_are_those_of_what_ran() {
    scenario("timed", "");
    scenario("timed", "SCHEDULE=eager");
}

#[test]
fn a_gpu_is_of_use_after_a_failed_capture() {
    for call in ["cuGraphInstantiateWithFlags:1:1", "cuLaunchKernel:2:701", "cuGraphUpload:1:1"] {
        scenario("prepared-again", &format!("FAIL={call}"));
    }
}

#[test]
fn a_kernels_fault_is_told_apart_and_ends_with_its_context() {
    for (name, words) in
        [("misaligned", "reads 16 bytes misaligned"), ("out-of-bounds", "writes 16 bytes out of bounds")]
    {
        let ended = scenario(name, "");
        assert!(ended.err.contains(words), "{}", ended.err);
    }
    scenario("launch-by-launch", "");
}

#[test]
fn the_doctor_says_what_is_wrong_and_what_to_do() {
    let fake = Fake::new();
    let ended = fake.ugatit("doctor --device auto", "CAPABILITY=9.0,7.5 DRIVER=12080").expect(0, &[]);
    for words in [
        "for CUDA 12.8, 2 GPUs\n",
        "cuda:1       Fake GPU 7.5, compute capability 7.5, 132 multiprocessors, 8.00 GiB",
        "all variants; the GPU holds the 132 blocks of the cooperative one at once\n",
        "self-check pass: ",
        "training can run on cuda:0 (Fake GPU 9.0)",
    ] {
        assert!(ended.out.contains(words), "'{words}' is not in\n{}", ended.out);
    }
    let ended = fake.ugatit("doctor --device cuda:1", "CAPABILITY=9.0 COOPERATIVE=0").expect(1, &[]);
    for words in ["FAIL: no cuda:1: there is one GPU, cuda:0", "training can NOT run here"] {
        assert!(ended.out.contains(words), "'{words}' is not in\n{}", ended.out);
    }
    let ended = fake.ugatit("doctor --device cuda --json", "COOPERATIVE=0 SMS=20").expect(0, &[]);
    let found: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    let opened = &found["gpus"][0]["opened"];
    let why = opened["cooperative_blocks"]["error"].as_str().unwrap_or_default();
    assert!(why.contains("20 blocks wait for each other, but cuda:0 (Fake GPU 9.0) holds 0"), "{found}");
    assert!(opened["self_check"]["pass"] == true && found["trains"] == true, "{found}");
    for (settings, words) in [
        ("FAIL=cuModuleLoadData:2:200", ["FAIL: kernels/", "hint: the driver is older"]),
        ("FAIL=cuInit:0:802", ["FAIL: starting the NVIDIA driver", "hint: GPUs that are joined"]),
        ("FAIL=cuDevicePrimaryCtxRetain:0:46", ["FAIL: opening cuda:0", "hint: another process"]),
        ("FAIL=cuMemcpyDtoHAsync_v2:1:719", ["FAIL: running ", "hint: UGATIT_CUDA_SYNC=1"]),
        ("FAIL=cuLaunchKernel:0:0 COMPLAINTS=warn", ["self-check FAIL", "hint: the GPU or its driver"]),
    ] {
        let ended = fake.start(command("doctor --device auto"), settings);
        assert!(words.iter().all(|w| ended.out.contains(w)), "{settings}: {}{}", ended.out, ended.err);
        assert!(ended.out.contains("training can NOT run here"), "{settings}: {}", ended.out);
        ended.expect(1, &[]);
    }
}

#[test]
fn the_doctor_runs_on_the_emulator_where_there_is_no_gpu() {
    let fake = Fake::new();
    for settings in ["CAPABILITY=none", "FAIL=*:0:34"] {
        let ended = fake.ugatit("doctor --device auto --json", settings).expect(0, &[]);
        let found: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
        assert_eq!(found["trains"], true, "{settings}: {}", ended.out);
        assert_eq!(found["emulator"]["pass"], true, "{settings}: {}", ended.out);
        assert_eq!(found["gpus"].as_array().map(Vec::len), Some(0));
        let ended = fake.ugatit("doctor --device cuda", settings).expect(1, &[]);
        for words in ["FAIL: ", "hint: ", "--device emulator needs no GPU", "training can NOT run here"] {
            assert!(ended.out.contains(words), "{settings}: {}", ended.out);
        }
    }
}
