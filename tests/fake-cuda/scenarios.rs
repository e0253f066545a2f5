//! Situations that no command gets a GPU into. `tests/suite/fake.rs` runs this program over the fake driver, whose
//! complaints end it; the first argument names the situation.

use std::env;
use std::process;
use std::sync::Arc;
use std::thread;

use ugatit::bench::adalin::build::Part;
use ugatit::bench::adalin::case::{Case, Kind};
use ugatit::bench::adalin::tensors::Inputs;
use ugatit::device::cuda::Cuda;
use ugatit::device::emulator::{Emulator, Options};
use ugatit::device::executable::DeviceHandle;
use ugatit::device::{Allocation, Buffer, BufferRef, Device, Launch, Prepared, Program, Space, Target};
use ugatit::kernels::arg::{In, Out};
use ugatit::kernels::{args, entry};
use ugatit::tape::NormVariant;
use ugatit::tensor::{DType, Shape};
use ugatit::{ErrorKind, Result};

/// Bytes of the state: two halves, of which the first is copied to the second.
const STATE: u64 = 1 << 20;
const HALF: u64 = STATE / 2;

/// `launches` copies of `floats` floats from byte `from` of the first half to the second.
fn copy(from: u64, floats: i32, launches: usize) -> Arc<Program> {
    let buffer = |name: &str, offset| Buffer { name: name.into(), space: Space::State, offset, bytes: HALF };
    let range = |buffer, offset| BufferRef { buffer, offset, bytes: HALF - offset };
    let args = args::CopyX4 { out: Out(range(1, 0)), inp: In(range(0, from)), n: floats };
    let blocks = (floats as u32 / 4).div_ceil(256);
    let launch = Launch::new(entry::COPY_X4_F32, args).expect("nothing is a gradient");
    let launch = launch.grid([blocks, 1, 1]).block([256, 1, 1]).label("halves");
    Arc::new(Program {
        name: "copy".into(),
        target: Target::default(),
        buffers: vec![buffer("from", 0), buffer("to", HALF)],
        launches: vec![launch; launches],
        arena_bytes: 0,
        state_bytes: STATE,
    })
}

/// A copy of the whole half.
fn whole(launches: usize) -> Arc<Program> {
    copy(0, (HALF / 4) as i32, launches)
}

/// A GPU with a written state and a program over it.
struct Place {
    gpu: Cuda,
    state: Allocation,
    arena: Allocation,
    program: Prepared,
}

fn pattern(seed: u8) -> Vec<u8> {
    (0..HALF).map(|i| (i * 7 + i / 256) as u8 ^ seed).collect()
}

impl Place {
    fn open(ordinal: usize) -> Self {
        let mut gpu = Cuda::open(ordinal).expect("it opens");
        let state = gpu.allocate(STATE).expect("memory");
        let arena = gpu.allocate(0).expect("memory");
        gpu.upload(state, 0, &[pattern(1), vec![0; HALF as usize]].concat()).expect("an upload");
        let program = gpu.prepare(whole(3), state, arena).expect("a program");
        Self { gpu, state, arena, program }
    }

    /// Uploads, runs and checks what the second half is then.
    fn works(&mut self, seed: u8) {
        self.gpu.upload(self.state, 0, &pattern(seed)).expect("an upload");
        self.gpu.run(self.program).expect("a run");
        assert!(self.second_half().expect("a download") == pattern(seed), "the copy of {seed}");
    }

    fn second_half(&mut self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; HALF as usize];
        self.gpu.download(self.state, HALF, &mut bytes)?;
        Ok(bytes)
    }
}

/// Checks that something failed with these words.
#[track_caller]
fn fails<T>(result: Result<T>, words: &str) {
    match result {
        Ok(_) => panic!("nothing says '{words}'"),
        Err(error) => assert!(error.to_string().contains(words), "'{words}' is not in '{error}'"),
    }
}

fn dropped_while_runs_are_pending() {
    let mut place = Place::open(0);
    place.gpu.run(place.program).expect("a run");
    place.gpu.run(place.program).expect("a run");
}

fn released_while_a_run_is_pending() {
    let mut place = Place::open(0);
    place.gpu.run(place.program).expect("a run");
    place.gpu.release(place.state).expect("a release");
    fails(place.gpu.run(place.program), "memory was released");
    fails(place.gpu.release(place.state), "released, or never obtained");
    fails(place.gpu.upload(place.state, 0, &[0]), "released, or never obtained");
}

fn moved_to_another_thread() {
    let mut place = Place::open(0);
    place.works(2);
    let thread = thread::spawn(move || {
        // Nothing before it has made the context this thread's.
        let more = place.gpu.allocate(4).expect("memory");
        place.gpu.upload(more, 0, &[1, 2, 3, 4]).expect("an upload");
        place.gpu.release(more).expect("a release");
        place.works(3);
        place.gpu.memory().expect("it says");
        place.program = place.gpu.prepare(whole(2), place.state, place.arena).expect("a program");
        place.works(4);
        place
    });
    thread.join().expect("the thread ends well").works(5);
}

/// More than all staging buffers together, after work that takes a while.
fn uploads_after_a_run() {
    let mut place = Place::open(0);
    let large: Vec<u8> = (0..40u64 << 20).map(|i| (i >> 3) as u8).collect();
    let target = place.gpu.allocate(large.len() as u64).expect("memory");
    place.gpu.run(place.program).expect("a run");
    place.gpu.upload(target, 0, &large).expect("an upload");
    let mut back = vec![0; large.len()];
    place.gpu.download(target, 0, &mut back).expect("a download");
    assert!(back == large);
    place.works(6);
}

/// More of it than a block has without asking, and more than there is.
fn much_shared_memory() {
    let mut place = Place::open(0);
    let with = |bytes| {
        let mut program = Program::clone(&whole(2));
        program.launches.iter_mut().for_each(|launch| launch.shared_bytes = bytes);
        Arc::new(program)
    };
    place.program = place.gpu.prepare(with(100 << 10), place.state, place.arena).expect("a program");
    place.works(16);
    place.program = place.gpu.prepare(with(64 << 10), place.state, place.arena).expect("a program");
    place.works(17);
    let words = "copy_x4_f32 needs 307200 bytes of shared memory a block, but cuda:0 (Fake GPU 9.0) has at most 232448";
    fails(place.gpu.prepare(with(300 << 10), place.state, place.arena), words);
}

/// Each variant of the norms in each element type, on a layer for which the cooperative one takes several blocks.
fn norms() {
    let gpu = DeviceHandle::new(Cuda::open(0).expect("it opens"));
    let emulator = DeviceHandle::new(Emulator::new(Options::default()));
    let (target, mut waiting) = (gpu.lock().target(), 0);
    for variant in NormVariant::ALL {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            let case = Case::new(Kind::AdaLin, variant, dtype, Shape::new(1, 2, 23, 25, 32));
            let case = Case { target, ..case };
            let built = case.build().expect("it is planned");
            let program = built.program(Part::Both, 1, 1);
            waiting += program.launches.iter().filter(|l| l.cooperative && l.grid[1] > 1).count();
            let inputs = Inputs::random(&case, 0.5, 1.0, 7);
            let [got, want] = [&gpu, &emulator].map(|device| built.run(device, &inputs).expect("it runs"));
            assert!(got == want, "{} differs", case.describe());
        }
    }
    assert!(waiting >= 6, "{waiting} launches of several blocks that wait for each other");
}

fn timed() {
    let mut place = Place::open(0);
    assert_eq!(place.gpu.elapsed_ms(), Ok(None), "nothing ran yet");
    place.gpu.run(place.program).expect("a run");
    place.gpu.synchronize().expect("it ends");
    let graph = place.gpu.elapsed_ms().expect("it says").expect("a time");
    place.gpu.run_stream(place.program).expect("a run");
    place.gpu.synchronize().expect("it ends");
    let stream = place.gpu.elapsed_ms().expect("it says").expect("a time");
    let launches = place.gpu.time_launches(place.program, 3).expect("it says").expect("times");
    assert_eq!(launches.len(), 3);
    assert!(launches.iter().chain([&graph, &stream]).all(|ms| *ms > 0.0 && *ms < 10_000.0));
}

/// The first call on a new thread loads a module.
fn prepared_on_another_thread() {
    let mut gpu = Cuda::open(0).expect("it opens");
    let (state, arena) = (gpu.allocate(STATE).expect("memory"), gpu.allocate(0).expect("memory"));
    gpu.upload(state, 0, &vec![0; STATE as usize]).expect("an upload");
    let thread = thread::spawn(move || {
        let program = gpu.prepare(whole(3), state, arena).expect("a program");
        Place { gpu, state, arena, program }
    });
    thread.join().expect("the thread ends well").works(15);
}

fn two_devices() {
    let (mut first, mut second) = (Place::open(0), Place::open(1));
    first.works(7);
    second.works(8);
    first.gpu.run(first.program).expect("a run");
    second.gpu.run(second.program).expect("a run");
    drop(first);
    second.works(9);
}

fn one_device_twice() {
    let (mut first, mut second) = (Place::open(0), Place::open(0));
    first.gpu.run(first.program).expect("a run");
    second.works(10);
    drop(second);
    first.works(11);
}

/// A download of memory of which only the start was written.
fn read_without_being_written() {
    let mut gpu = Cuda::open(0).expect("it opens");
    let state = gpu.allocate(STATE).expect("memory");
    gpu.upload(state, 0, &[1; 4096]).expect("an upload");
    gpu.download(state, 0, &mut vec![0; STATE as usize]).expect("a download");
}

/// With `cuGraphInstantiateWithFlags` or `cuLaunchKernel` failing once.
fn prepared_after_a_failure() {
    let mut gpu = Cuda::open(0).expect("it opens");
    let (state, arena) = (gpu.allocate(STATE).expect("memory"), gpu.allocate(0).expect("memory"));
    fails(gpu.prepare(whole(3), state, arena), "capturing copy");
    gpu.upload(state, 0, &vec![0; STATE as usize]).expect("an upload");
    let program = gpu.prepare(whole(3), state, arena).expect("a program");
    Place { gpu, state, arena, program }.works(12);
}

/// A kernel's fault: what is said, that nothing works from then on, and that all works after opening anew.
fn faults(program: Arc<Program>, words: &str) {
    let mut place = Place::open(0);
    let bad = place.gpu.prepare(program, place.state, place.arena).expect("a program");
    place.gpu.run(bad).expect("it starts");
    let error = place.gpu.synchronize().expect_err("it ends badly");
    assert_eq!(error.kind(), ErrorKind::GpuFault { resumable: false }, "{error}");
    assert!(error.message().starts_with(&format!("running copy on cuda:0: {words}")), "{error}");
    fails(place.gpu.upload(place.state, 0, &[0; 4]), words);
    fails(place.second_half(), words);
    fails(place.gpu.run(place.program), words);
    fails(place.gpu.allocate(4), words);
    fails(place.gpu.elapsed_ms(), words);
    drop(place);
    Place::open(0).works(13);
}

fn faults_launch_by_launch() {
    let mut place = Place::open(0);
    place.gpu.set_launch_by_launch(true);
    place.works(14);
    let mut program = Program::clone(&whole(2));
    program.launches.extend(copy(4, 4, 1).launches.iter().cloned());
    let bad = place.gpu.prepare(Arc::new(program), place.state, place.arena).expect("a program");
    fails(place.gpu.run(bad), "launch 3 of 3 of copy, copy_x4_f32 (halves): CUDA_ERROR_MISALIGNED_ADDRESS");
}

fn main() {
    let name = env::args().nth(1).unwrap_or_default();
    match &*name {
        "dropped" => dropped_while_runs_are_pending(),
        "released" => released_while_a_run_is_pending(),
        "moved" => moved_to_another_thread(),
        "prepared" => prepared_on_another_thread(),
        "uploads" => uploads_after_a_run(),
        "shared-memory" => much_shared_memory(),
        "norms" => norms(),
        "timed" => timed(),
        "two-devices" => two_devices(),
        "twice" => one_device_twice(),
        "prepared-again" => prepared_after_a_failure(),
        "unwritten" => read_without_being_written(),
        "misaligned" => faults(copy(4, 4, 1), "CUDA_ERROR_MISALIGNED_ADDRESS"),
        "out-of-bounds" => faults(copy(0, (STATE / 4) as i32, 1), "CUDA_ERROR_ILLEGAL_ADDRESS"),
        "launch-by-launch" => faults_launch_by_launch(),
        _ => {
            eprintln!("no situation '{name}'; tests/suite/fake.rs names them");
            process::exit(2);
        }
    }
}
