//! Runs that are interrupted, killed or out of disk go on as if nothing had happened.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::{Ended, LONGER, Place, assert_same_run, names, read};

/// Waits until the file is there.
#[track_caller]
fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(300), "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn whole_run(flags: &str) -> Place {
    let place = Place::new();
    place.train(flags).expect(0, &["done"]);
    place
}

#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let whole = whole_run(&format!("{LONGER} --steps 6"));
    let place = Place::new();
    // Interrupted by the end of its disk, say: steps 4 and 5 are done, but not saved.
    place.train(&format!("{LONGER} --steps 6 --save-every 3 --keep 0")).expect(0, &[]);
    assert_same_run(&whole.run(), &place.run(), 6);
    std::fs::remove_file(place.checkpoint(6)).expect("exists");
    std::fs::remove_file(place.run().join("samples/step-0000006.png")).expect("exists");
    // A flag that is given again with the same value is no contradiction.
    let ended = place.train(&format!("{LONGER} --steps 6 --resume")).expect(0, &["resuming after step 3"]);
    assert!(!ended.err.contains("warning"), "{}", ended.err);
    assert_same_run(&whole.run(), &place.run(), 6);
}

#[test]
fn a_killed_run_goes_on() {
    let flags = "--steps 24 --save-every 4 --keep 2 --sample-every 8";
    let whole = whole_run(flags);
    let place = Place::new();
    let mut step = 4;
    while !place.checkpoint(24).exists() {
        let resume = if step > 4 { "--resume" } else { "" };
        let mut child = place.train_command(&format!("{flags} {resume}"));
        let mut child = child.stderr(Stdio::null()).spawn().expect("the binary starts");
        let start = Instant::now();
        while !place.checkpoint(step).exists() && child.try_wait().expect("a child").is_none() {
            assert!(start.elapsed() < Duration::from_secs(300), "step {step} does not come");
            std::thread::sleep(Duration::from_millis(2));
        }
        // SIGKILL: nothing can be done against it. Somewhere in the steps after the checkpoint.
        std::thread::sleep(Duration::from_millis(7 * step));
        child.kill().expect("a child");
        child.wait().expect("a child");
        step += 8;
    }
    assert_same_run(&whole.run(), &place.run(), 24);
    assert_eq!(names(&place.run().join("checkpoints")), names(&whole.run().join("checkpoints")));
}

#[test]
fn ctrl_c_ends_the_step_saves_and_keeps_others_out() {
    let flags = "--steps 100000 --sample-every 0";
    let place = Place::new();
    let mut child = place.train_command(flags);
    let child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    wait_for(&place.run().join("config.toml"));
    place.train("--resume").expect(2, &["another training is writing to", "hint: wait for it"]);
    let interrupt = || Command::new("kill").arg("-INT").arg(child.id().to_string()).status().expect("kill");
    std::thread::sleep(Duration::from_millis(500));
    assert!(interrupt().success());
    let ended = Ended::new(&child.wait_with_output().expect("a child"));
    ended.expect(130, &["stopping after this step", "interrupted; add --resume to go on"]);

    let saved = names(&place.run().join("checkpoints"));
    let [name] = &saved[..] else { panic!("one checkpoint, not {saved:?}") };
    let step: u64 = name["step-".len()..][..7].parse().expect("a step");
    let losses = String::from_utf8(read(&place.run().join("losses.csv"))).expect("text");
    assert_eq!(losses.lines().count() as u64, 1 + step);

    // The learning rate falls over the second half, so that another length would be another run: but
    // both are in their first halves at this step.
    let more = step + 2;
    let steps = format!("--steps {} --sample-every 0", 2 * more);
    let note = format!("resuming after step {step}");
    place.train(&format!("{steps} --save-every {more} --keep 0 --resume")).expect(0, &[&note]);
    let whole = whole_run(&format!("{steps} --save-every {more} --keep 0"));
    assert_same_run(&whole.run(), &place.run(), 2 * more);
}

#[test]
fn a_run_without_a_checkpoint_starts_over() {
    let place = Place::new();
    place.train("--resume").expect(2, &["no run to resume", "run: no such folder", "hint: without --resume"]);
    place.train("--steps 3 --seed 5").expect(0, &[]);
    let before = read(&place.checkpoint(3));
    std::fs::remove_file(place.checkpoint(3)).expect("exists");
    place.train("--steps 3").expect(2, &["already holds a run that has not saved yet", "--resume"]);
    // What the run was started with is known nevertheless.
    place.train("--resume --seed 6").expect(2, &["--seed 6 contradicts", "started with 5"]);
    place.train("--resume").expect(0, &["no checkpoint in", "starting over"]);
    assert!(read(&place.checkpoint(3)) == before);
    assert_eq!(String::from_utf8(read(&place.run().join("losses.csv"))).expect("text").lines().count(), 4);
}

#[test]
fn a_done_run_is_left_as_it_is_and_can_be_extended() {
    let place = Place::new();
    place.train("--steps 3").expect(0, &[]);
    let before = read(&place.checkpoint(3));
    place.train("--resume").expect(0, &["all 3 steps are done already"]);
    assert!(read(&place.checkpoint(3)) == before);
    place.train("--resume --steps 2").expect(2, &["--steps 2, but step 3 is done already"]);
    place.train("--resume --steps 5").expect(0, &["of 5 steps, not 3", "done: 5 steps"]);
    assert_eq!(names(&place.run().join("checkpoints")).len(), 2);
}

#[test]
fn incomplete_checkpoints_are_passed_over() {
    let place = Place::new();
    place.train("--steps 4 --save-every 1 --keep 3").expect(0, &[]);
    let kept = names(&place.run().join("checkpoints"));
    assert_eq!(kept, ["step-0000002.safetensors", "step-0000003.safetensors", "step-0000004.safetensors"]);
    let whole = read(&place.checkpoint(4));
    let losses = read(&place.run().join("losses.csv"));
    std::fs::write(place.checkpoint(4), &whole[..whole.len() / 2]).expect("written");
    std::fs::write(place.checkpoint(3), b"").expect("written");
    let stale = place.run().join("checkpoints/.step-0000004.safetensors.part");
    std::fs::write(&stale, &whole[..1000]).expect("written");
    let messages = ["step-0000004.safetensors is truncated", "step-0000003.safetensors is truncated"];
    place
        .train("--resume")
        .expect(0, &messages)
        .expect(0, &["warning: passing over", "resuming after step 2", "removed"]);
    assert!(!stale.exists());
    assert!(read(&place.checkpoint(4)) == whole && read(&place.run().join("losses.csv")) == losses);

    for name in names(&place.run().join("checkpoints")) {
        std::fs::write(place.run().join("checkpoints").join(name), &whole[..99]).expect("written");
    }
    place.train("--resume").expect(2, &["has no whole checkpoint", "truncated", "another --out"]);
    // Nothing was lost.
    assert!(read(&place.run().join("losses.csv")) == losses);
}

#[test]
fn a_run_keeps_the_gpu_it_is_planned_for() {
    let flags = "--steps 4 --save-every 2 --keep 0 --for a100";
    let whole = whole_run(flags);
    let config = String::from_utf8(read(&whole.run().join("config.toml"))).expect("text");
    assert!(config.contains("[target]\nsms = 108\nshared_bytes = 166912\n"), "{config}");
    let place = Place::new();
    place.train(flags).expect(0, &[]);
    std::fs::remove_file(place.checkpoint(4)).expect("exists");
    std::fs::remove_file(place.run().join("samples/step-0000004.png")).expect("exists");
    // The checkpoint knows it too.
    std::fs::remove_file(place.run().join("config.toml")).expect("exists");
    let parts = [
        "--for 132 multiprocessors with 227 KiB of shared memory a block contradicts the run",
        "was started with 108 multiprocessors",
        "leave --for out",
    ];
    place.train("--steps 4 --resume --for h100").expect(2, &parts);
    place.train("--steps 4 --resume").expect(0, &["resuming after step 2"]);
    assert_same_run(&whole.run(), &place.run(), 4);
}

#[test]
fn contradictions_are_named() {
    let place = Place::new();
    place.train("--steps 1 --no-decay").expect(0, &[]);
    place.train("").expect(2, &["already holds a run with checkpoints up to step 1", "hint: go on"]);
    for (flags, message) in [
        ("--lr 0.5", "--lr 0.5 contradicts the run in"),
        ("--batch-size 2", "which was started with 1"),
        ("--rho-max 0.9", "--rho-max 0.9 contradicts"),
        ("--seed 1", "--seed 1 contradicts"),
        ("--norm composed", "--norm composed contradicts the run in"),
        ("--cam-weight 1", "which was started with 1000"),
    ] {
        place.train(&format!("{flags} --resume")).expect(2, &[message, "hint: leave --"]);
    }
}

#[test]
fn other_images_are_noted() {
    let place = Place::new();
    place.train("--steps 2 --save-every 1").expect(0, &[]);
    std::fs::remove_file(place.checkpoint(2)).expect("exists");
    let extra = place.data().join("trainA/zzz.png");
    std::fs::copy(crate::command::images("trainB").remove(5), extra).expect("a copy");
    place.train("--resume").expect(0, &["warning: the training images in", "not those"]);
}

/// A shell that limits the size of files, without the signal that would end the process.
#[cfg(unix)]
fn limited(place: &Place, blocks: u64, flags: &str) -> Ended {
    let train = place.train_command(flags);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""));
    shell.arg(train.get_program()).args(train.get_args()).stdin(Stdio::null());
    for (key, value) in train.get_envs() {
        shell.env(key, value.unwrap_or_default());
    }
    Ended::new(&shell.output().expect("sh"))
}

#[cfg(unix)]
#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_earlier_one() {
    let place = Place::new();
    place.train("--steps 2").expect(0, &[]);
    let before = read(&place.checkpoint(2));
    let ended = limited(&place, 100, "--steps 4 --resume --sample-every 0");
    ended
        .expect(1, &["cannot save the checkpoint", "step-0000004.safetensors", "hint: it takes", "--resume"]);
    assert_eq!(names(&place.run().join("checkpoints")), ["step-0000002.safetensors"]);
    assert!(read(&place.checkpoint(2)) == before);
    place.train("--resume").expect(0, &["resuming after step 2", "done: 4 steps"]);
}

/// A file system of its own that has room for one checkpoint, not for two.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fills_up_stops_the_run_with_the_earlier_checkpoint_whole() {
    let mut probe = Command::new("unshare");
    let probe = probe.args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).stderr(Stdio::null());
    if !probe.status().is_ok_and(|status| status.success()) {
        eprintln!("passed over: this user cannot mount a file system");
        return;
    }
    let place = Place::new();
    place.train("--steps 1 --no-decay").expect(0, &[]);
    let kilobytes = read(&place.checkpoint(1)).len() * 3 / 2 / 1024;
    std::fs::remove_dir_all(place.run()).expect("exists");
    std::fs::create_dir(place.path("disk")).expect("a folder");
    // The first checkpoint and what is left of the file system come out through `kept`.
    let script = format!(
        "mount -t tmpfs -o size={kilobytes}k none {disk} && {{ \"$0\" \"$@\"; code=$?; cp -r {disk}/run {kept}; exit $code; }}",
        disk = place.path("disk").display(),
        kept = place.path("kept").display(),
    );
    let train = crate::command::command(&format!("train {} --steps 4 --save-every 2", crate::command::TINY));
    let mut shell = Command::new("unshare");
    shell.args(["-rm", "sh", "-c", &script]).arg(train.get_program()).args(train.get_args());
    shell.arg(place.data()).arg("--out").arg(place.path("disk/run")).args(["--sample-every", "0"]);
    for (key, value) in train.get_envs() {
        shell.env(key, value.unwrap_or_default());
    }
    let ended = Ended::new(&shell.output().expect("unshare"));
    ended.expect(1, &["cannot save the checkpoint", "no space left on device", "make room for it"]);
    std::fs::rename(place.path("kept"), place.run()).expect("kept");
    assert_eq!(names(&place.run().join("checkpoints")), ["step-0000002.safetensors"]);
    place.train("--resume").expect(0, &["resuming after step 2", "done: 4 steps"]);
}

#[test]
fn losses_that_are_not_finite_stop_the_run() {
    let place = Place::new();
    let ended = place.train("--steps 50 --lr 1e30 --save-every 1 --sample-every 0");
    let ended = ended.expect(1, &["hint: "]);
    assert!(
        ended.err.contains("is NaN")
            || ended.err.contains("is inf")
            || ended.err.contains("no longer finite")
    );
    for name in names(&place.run().join("checkpoints")) {
        let bytes = read(&place.run().join("checkpoints").join(name));
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("a whole file");
        for (name, tensor) in file.tensors() {
            let values =
                tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four")));
            assert!(values.into_iter().all(f32::is_finite), "{name}");
        }
    }
}
