//! The driver's objects, each destroyed with its owner. Whoever calls a method has made the context current on the
//! thread; dropping wants it, too.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::Arc;

use super::code::DriverResult;
use super::ffi::{
    CAPTURE_THREAD_LOCAL, DeviceAttribute, EVENT_DEFAULT, EVENT_DISABLE_TIMING, Functions, RawContext,
    RawDevice, RawEvent, RawGraph, RawGraphExec, RawStream, STREAM_NON_BLOCKING,
};

/// The primary context of a device, retained.
pub(super) struct Context {
    pub driver: &'static Functions,
    device: RawDevice,
    raw: RawContext,
}

// SAFETY: the driver takes a context's handle on every thread, also on several at a time; nothing here changes.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Retains a device's context and makes it current.
    pub fn retain(driver: &'static Functions, device: RawDevice) -> DriverResult<Arc<Self>> {
        let mut raw = ptr::null_mut();
        // SAFETY: the device is one the driver gave; it writes one handle.
        unsafe { driver.cuDevicePrimaryCtxRetain(&mut raw, device) }?;
        let context = Self { driver, device, raw };
        context.bind()?;
        Ok(Arc::new(context))
    }

    /// Makes it current on this thread.
    pub fn bind(&self) -> DriverResult {
        // SAFETY: the context is retained until `drop`.
        unsafe { self.driver.cuCtxSetCurrent(self.raw) }
    }

    /// Free and total memory of its device, bytes.
    pub fn memory(&self) -> DriverResult<(u64, u64)> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: it writes two sizes.
        unsafe { self.driver.cuMemGetInfo_v2(&mut free, &mut total) }?;
        Ok((free as u64, total as u64))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained once. Whatever lies in it holds an `Arc` of it, and is gone.
        _ = unsafe { self.driver.cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// An attribute of a device.
pub(super) fn attribute(driver: &Functions, device: RawDevice, which: DeviceAttribute) -> DriverResult<i32> {
    let mut value = 0;
    // SAFETY: the device is one the driver gave; it writes one int.
    unsafe { driver.cuDeviceGetAttribute(&mut value, which as u32, device) }?;
    Ok(value)
}

/// A stream that waits for no other.
pub(super) struct Stream {
    pub context: Arc<Context>,
    pub raw: RawStream,
}

impl Stream {
    pub fn new(context: &Arc<Context>) -> DriverResult<Self> {
        let mut raw = ptr::null_mut();
        // SAFETY: it writes one handle.
        unsafe { context.driver.cuStreamCreate(&mut raw, STREAM_NON_BLOCKING) }?;
        Ok(Self { context: Arc::clone(context), raw })
    }

    /// Waits until all that was put on it has ended.
    pub fn synchronize(&self) -> DriverResult {
        // SAFETY: the stream exists.
        unsafe { self.context.driver.cuStreamSynchronize(self.raw) }
    }

    /// From now on what is put on it is recorded instead.
    pub fn begin_capture(&self) -> DriverResult {
        // SAFETY: the stream exists.
        unsafe { self.context.driver.cuStreamBeginCapture_v2(self.raw, CAPTURE_THREAD_LOCAL) }
    }

    /// Ends the recording; None where the driver made no graph of it.
    pub fn end_capture(&self) -> DriverResult<Option<Graph>> {
        let driver = self.context.driver;
        let mut raw = ptr::null_mut();
        // SAFETY: the stream exists; it writes one handle.
        unsafe { driver.cuStreamEndCapture(self.raw, &mut raw) }?;
        Ok((!raw.is_null()).then(|| Graph { context: Arc::clone(&self.context), raw }))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the stream exists, and nothing has its handle any more.
        _ = unsafe { self.context.driver.cuStreamDestroy_v2(self.raw) };
    }
}

/// An event.
pub(super) struct Event {
    context: Arc<Context>,
    raw: RawEvent,
}

impl Event {
    /// An event to wait for.
    pub fn new(context: &Arc<Context>) -> DriverResult<Self> {
        Self::with(context, EVENT_DISABLE_TIMING)
    }

    /// An event that knows when it happened.
    pub fn timed(context: &Arc<Context>) -> DriverResult<Self> {
        Self::with(context, EVENT_DEFAULT)
    }

    fn with(context: &Arc<Context>, flags: u32) -> DriverResult<Self> {
        let mut raw = ptr::null_mut();
        // SAFETY: it writes one handle.
        unsafe { context.driver.cuEventCreate(&mut raw, flags) }?;
        Ok(Self { context: Arc::clone(context), raw })
    }

    /// It happens when the stream gets here.
    pub fn record(&self, stream: &Stream) -> DriverResult {
        // SAFETY: both exist.
        unsafe { self.context.driver.cuEventRecord(self.raw, stream.raw) }
    }

    /// Waits until it happened; at once where it was never recorded.
    pub fn synchronize(&self) -> DriverResult {
        // SAFETY: it exists.
        unsafe { self.context.driver.cuEventSynchronize(self.raw) }
    }

    /// Milliseconds from this event to a later one. Both are timed, and waited for.
    pub fn milliseconds_to(&self, end: &Self) -> DriverResult<f64> {
        let mut milliseconds = 0f32;
        end.synchronize()?;
        // SAFETY: both exist; it writes one float.
        unsafe { self.context.driver.cuEventElapsedTime(&mut milliseconds, self.raw, end.raw) }?;
        Ok(f64::from(milliseconds))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it exists, and nothing has its handle any more.
        _ = unsafe { self.context.driver.cuEventDestroy_v2(self.raw) };
    }
}

/// What was captured.
pub(super) struct Graph {
    context: Arc<Context>,
    raw: RawGraph,
}

impl Graph {
    /// Makes it ready to be launched. The graph itself is not needed any more.
    pub fn instantiate(self) -> DriverResult<GraphExec> {
        let mut raw: RawGraphExec = ptr::null_mut();
        // SAFETY: the graph exists; it writes one handle.
        unsafe { self.context.driver.cuGraphInstantiateWithFlags(&mut raw, self.raw, 0) }?;
        Ok(GraphExec { context: Arc::clone(&self.context), raw })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: it exists, and nothing has its handle any more.
        _ = unsafe { self.context.driver.cuGraphDestroy(self.raw) };
    }
}

/// A graph that can be launched.
pub(super) struct GraphExec {
    context: Arc<Context>,
    raw: RawGraphExec,
}

impl GraphExec {
    /// Puts its work on the device before the first launch.
    pub fn upload(&self, stream: &Stream) -> DriverResult {
        // SAFETY: both exist.
        unsafe { self.context.driver.cuGraphUpload(self.raw, stream.raw) }
    }

    /// Puts it on the stream.
    pub fn launch(&self, stream: &Stream) -> DriverResult {
        // SAFETY: both exist; what its launches use is kept as long as the program that has it.
        unsafe { self.context.driver.cuGraphLaunch(self.raw, stream.raw) }
    }
}

impl Drop for GraphExec {
    fn drop(&mut self) {
        // SAFETY: it exists, and nothing has its handle any more.
        _ = unsafe { self.context.driver.cuGraphExecDestroy(self.raw) };
    }
}
