//! The driver's error codes, with their names and words.

use std::ffi::CStr;

/// What a function of the driver returns other than `CUDA_SUCCESS`.
pub type Code = u32;

/// Result of what the driver does.
pub type R<T = ()> = Result<T, Code>;

macro_rules! errors {
    ($($name:ident = $code:literal $text:literal;)*) => {
        $(#[allow(dead_code)] pub const $name: Code = $code;)*

        /// Name and words of a code; None of one that this driver does not know.
        pub fn words(code: Code) -> Option<(&'static CStr, &'static CStr)> {
            let (name, text) = match code {
                0 => ("CUDA_SUCCESS\0", "no error\0"),
                $($code => (concat!("CUDA_ERROR_", stringify!($name), "\0"), concat!($text, "\0")),)*
                _ => return None,
            };
            let c = |text: &'static str| CStr::from_bytes_with_nul(text.as_bytes()).expect("ends with NUL");
            Some((c(name), c(text)))
        }
    };
}

errors! {
    INVALID_VALUE = 1 "invalid argument";
    OUT_OF_MEMORY = 2 "out of memory";
    NOT_INITIALIZED = 3 "initialization error";
    STUB_LIBRARY = 34 "CUDA driver is a stub library";
    DEVICE_UNAVAILABLE = 46 "CUDA-capable device(s) is/are busy or unavailable";
    NO_DEVICE = 100 "no CUDA-capable device is detected";
    INVALID_DEVICE = 101 "invalid device ordinal";
    INVALID_IMAGE = 200 "device kernel image is invalid";
    INVALID_CONTEXT = 201 "invalid device context";
    NO_BINARY_FOR_GPU = 209 "no kernel image is available for execution on the device";
    ECC_UNCORRECTABLE = 214 "uncorrectable ECC error encountered";
    INVALID_PTX = 218 "a PTX JIT compilation failed";
    UNSUPPORTED_PTX_VERSION = 222 "the provided PTX was compiled with an unsupported toolchain.";
    OPERATING_SYSTEM = 304 "OS call failed or operation not supported on this OS";
    INVALID_HANDLE = 400 "invalid resource handle";
    NOT_FOUND = 500 "named symbol not found";
    NOT_READY = 600 "device not ready";
    ILLEGAL_ADDRESS = 700 "an illegal memory access was encountered";
    LAUNCH_OUT_OF_RESOURCES = 701 "too many resources requested for launch";
    LAUNCH_TIMEOUT = 702 "the launch timed out and was terminated";
    CONTEXT_IS_DESTROYED = 709 "context is destroyed";
    ASSERT = 710 "device-side assert triggered";
    HARDWARE_STACK_ERROR = 714 "hardware stack error";
    ILLEGAL_INSTRUCTION = 715 "an illegal instruction was encountered";
    MISALIGNED_ADDRESS = 716 "misaligned address";
    INVALID_ADDRESS_SPACE = 717 "operation not supported on global/shared address space";
    INVALID_PC = 718 "invalid program counter";
    LAUNCH_FAILED = 719 "unspecified launch failure";
    COOPERATIVE_LAUNCH_TOO_LARGE = 720 "too many blocks in cooperative launch";
    NOT_PERMITTED = 800 "operation not permitted";
    NOT_SUPPORTED = 801 "operation not supported";
    SYSTEM_NOT_READY = 802 "system not yet initialized";
    SYSTEM_DRIVER_MISMATCH = 803 "system has unsupported display driver / cuda driver combination";
    STREAM_CAPTURE_UNSUPPORTED = 900 "operation not permitted when stream is capturing";
    STREAM_CAPTURE_INVALIDATED = 901 "operation failed due to a previous error during capture";
    STREAM_CAPTURE_UNMATCHED = 903 "capture was not initiated in this stream";
    CAPTURED_EVENT = 907 "operation not permitted on an event last recorded in a capturing stream";
    STREAM_CAPTURE_WRONG_THREAD = 908 "attempt to terminate a thread-local capture sequence from another thread";
    UNKNOWN = 999 "unknown error";
}

/// Whether a context is lost with this error: every later call in it returns the same.
pub fn is_sticky(code: Code) -> bool {
    matches!(code, ECC_UNCORRECTABLE | ILLEGAL_ADDRESS | LAUNCH_TIMEOUT | ASSERT..=LAUNCH_FAILED | UNKNOWN)
}
