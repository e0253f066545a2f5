//! Captures and the graphs that become of them.

use std::sync::Arc;
use std::thread::{self, ThreadId};

use crate::driver::Driver;
use crate::error::{
    INVALID_HANDLE, INVALID_VALUE, R, STREAM_CAPTURE_INVALIDATED, STREAM_CAPTURE_UNMATCHED,
    STREAM_CAPTURE_UNSUPPORTED, STREAM_CAPTURE_WRONG_THREAD,
};
use crate::launch::Launch;
use crate::stream::Op;

/// How much a capture forbids.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Unsafe calls of any thread.
    Global,
    /// Unsafe calls of the thread that began it.
    ThreadLocal,
    /// Nothing outside the stream.
    Relaxed,
}

/// What a stream captures.
pub struct Capture {
    mode: Mode,
    thread: ThreadId,
    /// Nothing has happened that it forbids.
    pub valid: bool,
    nodes: Vec<Arc<Launch>>,
}

impl Capture {
    /// Adds an operation; why not, in words, where graphs here do not have such.
    pub fn add(&mut self, op: Op) -> Option<&'static str> {
        match op {
            Op::Launch(launch) => self.nodes.push(launch),
            _ => return Some("something other than a launch is captured"),
        }
        None
    }

    /// Whether it is still good for anything.
    pub fn state(&self) -> R {
        if self.valid { Ok(()) } else { Err(STREAM_CAPTURE_INVALIDATED) }
    }
}

/// A graph, or an instantiated one: launches one after the other.
pub struct Graph {
    pub device: usize,
    nodes: Vec<Arc<Launch>>,
}

impl Driver {
    /// Refuses what a capture that is going on forbids to this thread, and spoils the capture.
    pub fn invalidate_captures(&mut self) -> R {
        let (here, thread) = (self.here()?, thread::current().id());
        let mut found = Ok(());
        for capture in
            self.streams.values_mut().filter(|s| s.device == here).filter_map(|s| s.capture.as_mut())
        {
            if capture.mode == Mode::Global || capture.mode == Mode::ThreadLocal && capture.thread == thread {
                capture.valid = false;
                found = Err(STREAM_CAPTURE_UNSUPPORTED);
            }
        }
        found
    }

    /// 0 where a stream does not capture, 1 where it does, 2 where its capture is spoilt.
    pub fn capture_status(&mut self, stream: u64) -> R<u32> {
        Ok(self.stream(stream)?.capture.as_ref().map_or(0, |c| if c.valid { 1 } else { 2 }))
    }

    /// From now on what is put on the stream is captured.
    pub fn begin_capture(&mut self, stream: u64, mode: u32) -> R {
        // The legacy stream cannot capture.
        if stream <= 1 {
            return Err(STREAM_CAPTURE_UNSUPPORTED);
        }
        let mode = match mode {
            0 => Mode::Global,
            1 => Mode::ThreadLocal,
            2 => Mode::Relaxed,
            _ => return Err(INVALID_VALUE),
        };
        self.refuse_in_capture(stream)?;
        let capture = Capture { mode, thread: thread::current().id(), valid: true, nodes: Vec::new() };
        self.stream(stream)?.capture = Some(capture);
        Ok(())
    }

    /// Ends the capture of a stream; returns its graph.
    pub fn end_capture(&mut self, stream: u64) -> R<u64> {
        let stream = self.stream(stream)?;
        let device = stream.device;
        let this = thread::current().id();
        if stream.capture.as_ref().is_some_and(|c| c.mode != Mode::Relaxed && c.thread != this) {
            return Err(STREAM_CAPTURE_WRONG_THREAD);
        }
        let capture = stream.capture.take().ok_or(STREAM_CAPTURE_UNMATCHED)?;
        capture.state()?;
        let id = self.new_handle();
        self.graphs.insert(id, Graph { device, nodes: capture.nodes });
        Ok(id)
    }

    /// Makes a graph executable.
    pub fn instantiate(&mut self, graph: u64) -> R<u64> {
        let Some(Graph { device, nodes }) = self.graphs.get(&graph) else {
            self.complain(&format!("{graph:#x} is instantiated, and is no graph, or one that was destroyed"));
            return Err(INVALID_HANDLE);
        };
        self.belongs(*device, "a graph")?;
        let executable = Graph { device: *device, nodes: nodes.clone() };
        let id = self.new_handle();
        self.executables.insert(id, executable);
        Ok(id)
    }

    fn executable(&self, id: u64) -> R<&Graph> {
        let Some(graph) = self.executables.get(&id) else {
            self.complain(&format!(
                "{id:#x} is used as an executable graph, and is none, or one that was destroyed"
            ));
            return Err(INVALID_HANDLE);
        };
        self.belongs(graph.device, "an executable graph")?;
        Ok(graph)
    }

    /// Makes an executable graph ready to be launched on a stream.
    pub fn upload_graph(&mut self, executable: u64, stream: u64) -> R {
        self.executable(executable)?;
        self.refuse_in_capture(stream)
    }

    /// Puts an executable graph on a stream. What its launches point at must still be there.
    pub fn launch_graph(&mut self, executable: u64, stream: u64) -> R {
        let nodes = self.executable(executable)?.nodes.clone();
        self.refuse_in_capture(stream)?;
        for node in nodes {
            if !self.functions.contains_key(&node.function) {
                self.complain(&format!(
                    "a graph is launched after the module of {} was unloaded",
                    node.kernel.name()
                ));
            }
            self.check_pointers(&node);
            self.enqueue(stream, Op::Launch(node))?;
        }
        Ok(())
    }

    /// Destroys an executable graph.
    pub fn destroy_executable(&mut self, id: u64) -> R {
        self.executable(id)?;
        self.executables.remove(&id);
        Ok(())
    }

    /// Destroys a graph; executable ones that were made of it remain.
    pub fn destroy_graph(&mut self, id: u64) -> R {
        if self.graphs.remove(&id).is_none() {
            self.complain(&format!(
                "{id:#x} is destroyed, and is no graph, or one that was destroyed before"
            ));
            return Err(INVALID_HANDLE);
        }
        Ok(())
    }
}
