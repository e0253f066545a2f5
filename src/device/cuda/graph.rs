//! A prepared program: its launches as the driver takes them, and the graph that was captured of them.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use super::code::DriverResult;
use super::driver::title;
use super::failure::{capture_failed, describe, describe_plainly, failed};
use super::ffi::{Address, RawFunction};
use super::handle::{Event, GraphExec, Stream};
use crate::device::{Allocation, Arg, Launch, Program, Space};
use crate::stats::median;
use crate::{Error, ErrorKind, Result};

/// A prepared program.
pub(super) struct Ready {
    pub program: Arc<Program>,
    pub allocations: [Allocation; 2],
    /// In the order of the program's launches.
    pub steps: Vec<Step>,
    /// None where every run goes launch by launch.
    pub graph: Option<GraphExec>,
}

/// A launch as the driver takes it.
pub(super) struct Step {
    function: RawFunction,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    cooperative: bool,
    /// The arguments, each at the start of its eight bytes.
    args: Vec<u64>,
}

impl Step {
    /// A launch of a loaded kernel over buffers whose allocations begin at `base`.
    ///
    /// # Errors
    /// When the launch does not fit the kernel's signature.
    pub fn new(
        launch: &Launch,
        program: &Program,
        function: RawFunction,
        base: impl Fn(Space) -> Address,
    ) -> Result<Self> {
        launch.check(&program.buffers, program.target)?;
        let four = |[a, b, c, d]: [u8; 4]| u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]);
        let value = |arg: &Arg| match *arg {
            Arg::Null => 0,
            Arg::I32(x) => four(x.to_ne_bytes()),
            Arg::U32(x) => four(x.to_ne_bytes()),
            Arg::F32(x) => four(x.to_ne_bytes()),
            Arg::Buffer(range) => {
                let buffer = &program.buffers[range.buffer as usize];
                base(buffer.space) + buffer.offset + range.offset
            }
        };
        Ok(Self {
            function,
            grid: launch.grid,
            block: launch.block,
            shared_bytes: launch.shared_bytes,
            cooperative: launch.cooperative,
            args: launch.args().iter().map(value).collect(),
        })
    }

    /// Puts it on the stream, whose context is current.
    pub fn start(&self, stream: &Stream) -> DriverResult {
        let pointer = |arg: &u64| ptr::from_ref(arg).cast_mut().cast::<c_void>();
        let mut args: Vec<*mut c_void> = self.args.iter().map(pointer).collect();
        let args = args.as_mut_ptr();
        let (function, shared) = (self.function, self.shared_bytes);
        let ([gx, gy, gz], [bx, by, bz]) = (self.grid, self.block);
        let (driver, stream) = (stream.context.driver, stream.raw);
        // SAFETY: the function's module stays loaded. `Launch::check` compared the arguments with
        // the kernel's parameters in number and kind, so the driver reads four or eight bytes of
        // each, during this call. What the kernel does with the addresses is the kernel's.
        unsafe {
            if self.cooperative {
                driver.cuLaunchCooperativeKernel(function, gx, gy, gz, bx, by, bz, shared, stream, args)
            } else {
                driver.cuLaunchKernel(function, gx, gy, gz, bx, by, bz, shared, stream, args, ptr::null_mut())
            }
        }
    }
}

impl Ready {
    /// Starts the launches one by one, and waits for each, so that an error names the launch.
    ///
    /// # Errors
    /// When a launch fails.
    pub fn run_waiting(&self, stream: &Stream) -> Result<()> {
        let launches = &self.program.launches;
        for (number, (step, launch)) in self.steps.iter().zip(launches).enumerate() {
            let done = step.start(stream).and_then(|()| stream.synchronize());
            done.map_err(|error| {
                let (number, count) = (number + 1, launches.len());
                let what = format!("launch {number} of {count} of {}, {}", self.program.name, title(launch));
                describe_plainly(what, error).of_kind(ErrorKind::GpuFault { resumable: false })
            })?;
        }
        Ok(())
    }

    /// Starts the launches one by one; calls `after` after each.
    ///
    /// # Errors
    /// When a launch or `after` fails.
    pub fn run_launches(&self, stream: &Stream, mut after: impl FnMut(usize) -> Result<()>) -> Result<()> {
        for (i, (step, launch)) in self.steps.iter().zip(&self.program.launches).enumerate() {
            step.start(stream).map_err(|e| describe(format!("launching {}", title(launch)), e))?;
            after(i)?;
        }
        Ok(())
    }

    /// What each launch takes by itself: the median of so many runs, milliseconds. `run` starts a run that is not
    /// measured.
    ///
    /// An event stands between any two launches, which costs up to about a microsecond each, so the
    /// sum is more than a run takes. Before each measured run goes one that is not, which keeps the
    /// GPU busy while the launches queue up; what the program changes, it changes twice as often.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn time_launches(
        &self,
        ordinal: usize,
        stream: &Stream,
        repeats: usize,
        mut run: impl FnMut() -> Result<()>,
    ) -> Result<Vec<f64>> {
        let timing = || failed(format!("timing launches on cuda:{ordinal}"));
        let event = |_| Event::timed(&stream.context);
        let events = (0..=self.steps.len()).map(event).collect::<Result<Vec<_>, _>>().map_err(timing())?;
        let mut samples = vec![Vec::with_capacity(repeats); self.steps.len()];
        for _ in 0..repeats.max(1) {
            run()?;
            events[0].record(stream).map_err(timing())?;
            self.run_launches(stream, |i| events[i + 1].record(stream).map_err(timing()))?;
            stream.synchronize().map_err(timing())?;
            for (samples, pair) in samples.iter_mut().zip(events.windows(2)) {
                samples.push(pair[0].milliseconds_to(&pair[1]).map_err(timing())?);
            }
        }
        Ok(samples.into_iter().map(median).collect())
    }
}

/// The steps as a graph, ready to be launched on the stream.
///
/// # Errors
/// When the driver refuses a launch or the graph.
pub(super) fn capture(
    ordinal: usize,
    stream: &Stream,
    program: &Program,
    steps: &[Step],
) -> Result<GraphExec> {
    let capturing = || capture_failed(format!("capturing {} on cuda:{ordinal}", program.name));
    stream.begin_capture().map_err(capturing())?;
    let mut put = Ok(());
    for (step, launch) in steps.iter().zip(&program.launches) {
        put = step.start(stream).map_err(capture_failed(format!("capturing {}", title(launch))));
        if put.is_err() {
            break;
        }
    }
    // The capture ends even where a launch failed, or the stream would stay in it.
    let graph = stream.end_capture();
    put?;
    let graph = graph.map_err(capturing())?;
    let graph =
        graph.ok_or_else(|| Error::new(format!("capturing {}: the driver gave no graph", program.name)))?;
    let graph = graph.instantiate().map_err(capturing())?;
    graph.upload(stream).map_err(capturing())?;
    Ok(graph)
}
