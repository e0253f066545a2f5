//! Streams with what is pending on them, and events.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;
use std::{ptr, slice};

use crate::driver::Driver;
use crate::error::{CAPTURED_EVENT, INVALID_HANDLE, INVALID_VALUE, NOT_READY, R, STREAM_CAPTURE_UNSUPPORTED};
use crate::graph::Capture;
use crate::launch::Launch;
use crate::memory::hash;

/// A stream.
pub struct Stream {
    pub device: usize,
    /// Operations with their numbers.
    pub queue: VecDeque<(u64, Op)>,
    /// The number of the latest operation put on it.
    issued: u64,
    /// The number of the latest operation done.
    done: u64,
    pub capture: Option<Capture>,
}

/// An event.
pub struct Event {
    pub device: usize,
    timed: bool,
    /// The stream and the number of the operation that records it.
    recorded: Option<(u64, u64)>,
    /// It was last recorded in a stream that captured.
    captured: bool,
    time: Option<Instant>,
}

/// Where the bytes of an upload are.
#[derive(Clone)]
pub enum Source {
    /// In pinned memory; what they were at the call, they must be at the copy.
    Pinned { at: usize, hash: u64 },
    /// They were copied at the call.
    Copied(Arc<[u8]>),
}

/// What a stream does.
#[derive(Clone)]
pub enum Op {
    Launch(Arc<Launch>),
    Upload { to: u64, from: Source, bytes: usize },
    Download { to: usize, from: u64, bytes: usize },
    Record { event: u64 },
}

impl Op {
    /// Whether it reads or writes device memory at an address of the range.
    pub fn uses(&self, range: Range<u64>) -> bool {
        match self {
            Self::Launch(launch) => launch.pointers().any(|address| range.contains(&address)),
            Self::Upload { to: address, .. } | Self::Download { from: address, .. } => {
                range.contains(address)
            }
            Self::Record { .. } => false,
        }
    }
}

impl Driver {
    /// A new stream, of the kind that does not wait for the legacy stream.
    pub fn new_stream(&mut self, flags: u32) -> R<u64> {
        match flags {
            1 => {}
            // Such a stream waits for, and keeps waiting, whatever other code puts on the legacy stream.
            0 => self.complain("a stream is made that waits for the legacy stream"),
            _ => return Err(INVALID_VALUE),
        }
        let device = self.here()?;
        let stream = Stream { device, queue: VecDeque::new(), issued: 0, done: 0, capture: None };
        let id = self.new_handle();
        self.streams.insert(id, stream);
        Ok(id)
    }

    /// The stream of a handle.
    pub fn stream(&mut self, id: u64) -> R<&mut Stream> {
        let Some(device) = self.streams.get(&id).map(|s| s.device) else {
            self.complain(&match id {
                0..=2 => {
                    "the default stream is used, and everything ought to be on streams of its own".to_owned()
                }
                _ => format!("{id:#x} is used as a stream, and is none, or one that was destroyed"),
            });
            return Err(INVALID_HANDLE);
        };
        self.belongs(device, "a stream")?;
        Ok(self.streams.get_mut(&id).expect("found above"))
    }

    /// Destroys a stream; what is pending on it is done first.
    pub fn destroy_stream(&mut self, id: u64) -> R {
        if self.stream(id)?.capture.is_some() {
            self.complain("a stream is destroyed while it captures");
        }
        self.drain(id, u64::MAX)?;
        self.streams.remove(&id);
        Ok(())
    }

    /// Refuses what must not happen on a stream that captures; the capture is spoilt.
    pub fn refuse_in_capture(&mut self, id: u64) -> R {
        match &mut self.stream(id)?.capture {
            None => Ok(()),
            Some(capture) => {
                capture.valid = false;
                Err(STREAM_CAPTURE_UNSUPPORTED)
            }
        }
    }

    /// Puts an operation on a stream, or into its capture.
    pub fn enqueue(&mut self, id: u64, op: Op) -> R {
        let stream = self.stream(id)?;
        if let Some(capture) = &mut stream.capture {
            return match capture.add(op) {
                Some(refused) => {
                    self.complain(refused);
                    Err(STREAM_CAPTURE_UNSUPPORTED)
                }
                None => capture.state(),
            };
        }
        stream.issued += 1;
        stream.queue.push_back((stream.issued, op));
        if self.config.late { Ok(()) } else { self.drain(id, u64::MAX) }
    }

    /// Does what is pending on a stream, up to that number.
    pub fn drain(&mut self, id: u64, until: u64) -> R {
        loop {
            let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
            let device = stream.device;
            let Some((number, op)) = stream.queue.pop_front_if(|(number, _)| *number <= until) else {
                return Ok(());
            };
            let result = self.perform(device, (id, number), &op);
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.done = number;
            }
            if let Err(code) = result {
                self.lose(device, code);
                return Err(code);
            }
        }
    }

    fn perform(&mut self, device: usize, place: (u64, u64), op: &Op) -> R {
        match op {
            Op::Launch(launch) => return self.run(device, launch),
            Op::Upload { to, from, bytes } => {
                let Some((target, at)) = self.find(*to) else {
                    self.complain("a copy to the device is done after its target was freed");
                    return Ok(());
                };
                let data = match from {
                    Source::Copied(data) => data,
                    Source::Pinned { at, hash: before } => {
                        if !self.is_pinned(*at, *bytes) {
                            self.complain("a copy is done after its pinned source was freed");
                            return Ok(());
                        }
                        // SAFETY: memory that `allocate_host` obtained, not freed yet. The caller may write it only
                        // after the copy; that is what the hash is for.
                        let data =
                            unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(*at), *bytes) };
                        if hash(data) != *before {
                            self.complain("pinned memory was changed before the copy out of it was done");
                        }
                        data
                    }
                };
                target.memory.upload(at, data).expect("checked at the call");
            }
            Op::Download { to, from, bytes } => {
                let Some((source, at)) = self.find(*from) else {
                    self.complain("a copy from the device is done after its source was freed");
                    return Ok(());
                };
                if let Some(byte) = source.memory.first_unwritten(at, *bytes as u64) {
                    let (byte, of) = (byte - at, bytes);
                    self.complain(&format!(
                        "byte {byte} of a copy of {of} from the device was never written"
                    ));
                }
                // SAFETY: the caller of the download keeps the memory until the copy is done.
                let data =
                    unsafe { slice::from_raw_parts_mut(ptr::with_exposed_provenance_mut(*to), *bytes) };
                source.memory.download(at, data).expect("checked at the call");
            }
            Op::Record { event } => {
                // It may have been recorded anew since, or destroyed.
                if let Some(event) = self.events.get_mut(event).filter(|e| e.recorded == Some(place)) {
                    event.time = Some(Instant::now());
                }
            }
        }
        Ok(())
    }

    /// Waits for everything on a stream.
    pub fn synchronize(&mut self, id: u64) -> R {
        self.refuse_in_capture(id)?;
        self.drain(id, u64::MAX)
    }

    /// Waits for everything in the current context.
    pub fn synchronize_context(&mut self) -> R {
        let here = self.here()?;
        let streams: Vec<u64> =
            self.streams.iter().filter(|(_, s)| s.device == here).map(|(&id, _)| id).collect();
        streams.into_iter().try_for_each(|id| self.drain(id, u64::MAX))
    }

    /// Whether a stream is done. Every question makes it go on by one operation.
    pub fn query_stream(&mut self, id: u64) -> R {
        self.refuse_in_capture(id)?;
        match self.stream(id)?.queue.front().map(|(number, _)| *number) {
            None => Ok(()),
            Some(next) => self.drain(id, next).and(Err(NOT_READY)),
        }
    }

    /// A new event.
    pub fn new_event(&mut self, flags: u32) -> R<u64> {
        const BLOCKING: u32 = 1;
        const UNTIMED: u32 = 2;
        const INTERPROCESS: u32 = 4;
        if flags & !(BLOCKING | UNTIMED | INTERPROCESS) != 0 {
            return Err(INVALID_VALUE);
        }
        let event = Event {
            device: self.here()?,
            timed: flags & UNTIMED == 0,
            recorded: None,
            captured: false,
            time: None,
        };
        let id = self.new_handle();
        self.events.insert(id, event);
        Ok(id)
    }

    fn event(&mut self, id: u64) -> R<&mut Event> {
        let Some(device) = self.events.get(&id).map(|e| e.device) else {
            self.complain(&format!("{id:#x} is used as an event, and is none, or one that was destroyed"));
            return Err(INVALID_HANDLE);
        };
        self.belongs(device, "an event")?;
        Ok(self.events.get_mut(&id).expect("found above"))
    }

    /// Destroys an event.
    pub fn destroy_event(&mut self, id: u64) -> R {
        self.event(id)?;
        self.events.remove(&id);
        Ok(())
    }

    /// Puts the recording of an event on a stream.
    pub fn record(&mut self, event: u64, stream: u64) -> R {
        self.event(event)?;
        let on = self.stream(stream)?;
        if on.capture.is_some() {
            self.event(event)?.captured = true;
            return Ok(());
        }
        let number = on.issued + 1;
        let recorded = self.event(event)?;
        (recorded.recorded, recorded.captured, recorded.time) = (Some((stream, number)), false, None);
        self.enqueue(stream, Op::Record { event })
    }

    /// Where an event was recorded, if its recording is not done.
    fn unfinished(&mut self, id: u64) -> R<Option<(u64, u64)>> {
        let event = self.event(id)?;
        if event.captured {
            return Err(CAPTURED_EVENT);
        }
        let recorded = event.recorded;
        let pending = |(stream, number)| self.streams.get(&stream).is_some_and(|s: &Stream| s.done < number);
        Ok(recorded.filter(|&place| pending(place)))
    }

    /// Whether an event is done. Every question makes its stream go on by one operation.
    pub fn query(&mut self, id: u64) -> R {
        let Some((stream, _)) = self.unfinished(id)? else { return Ok(()) };
        let next = self.streams.get(&stream).and_then(|s| s.queue.front()).map(|(number, _)| *number);
        next.map_or(Ok(()), |next| self.drain(stream, next)).and(Err(NOT_READY))
    }

    /// Waits for an event.
    pub fn synchronize_event(&mut self, id: u64) -> R {
        self.unfinished(id)?.map_or(Ok(()), |(stream, number)| self.drain(stream, number))
    }

    /// Milliseconds from one event to another.
    pub fn elapsed(&mut self, start: u64, end: u64) -> R<f32> {
        let mut times = [None; 2];
        for (id, time) in [start, end].into_iter().zip(&mut times) {
            let event = self.event(id)?;
            if !event.timed || event.recorded.is_none() {
                return Err(INVALID_HANDLE);
            }
            if self.unfinished(id)?.is_some() {
                return Err(NOT_READY);
            }
            *time = self.event(id)?.time;
        }
        let [Some(start), Some(end)] = times else { return Err(NOT_READY) };
        let seconds = end.saturating_duration_since(start).as_secs_f64()
            - start.saturating_duration_since(end).as_secs_f64();
        Ok((seconds * 1e3) as f32)
    }
}
