//! The loaded library. Calling C is the only `unsafe` here.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};

use crate::source::Headers;
use crate::{Error, Installation, Result, Version};

/// `nvrtcProgram`.
type Program = *mut c_void;

/// `NVRTC_SUCCESS`.
const SUCCESS: c_int = 0;

type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;

/// A loaded NVRTC. It stays loaded until the process ends.
pub struct Nvrtc {
    file: PathBuf,
    version: Version,
    architectures: Vec<u32>,
    create: Symbol<Create>,
    compile: Symbol<Compile>,
    destroy: Symbol<unsafe extern "C" fn(*mut Program) -> c_int>,
    log: Output,
    ptx: Output,
    cubin: Output,
    describe: Symbol<unsafe extern "C" fn(c_int) -> *const c_char>,
}

/// A pair of functions: one gives the size of a result, the other copies it.
struct Output {
    what: &'static str,
    size: Symbol<unsafe extern "C" fn(Program, *mut usize) -> c_int>,
    copy: Symbol<unsafe extern "C" fn(Program, *mut c_char) -> c_int>,
}

/// A text to compile.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its name in messages and line information.
    pub name: &'a str,
    /// CUDA C++.
    pub text: &'a str,
    /// Headers that need no file.
    pub headers: &'a Headers<'a>,
}

/// What one compilation gives.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// PTX.
    pub ptx: String,
    /// Machine code, an ELF image; empty where the architecture was a virtual one.
    pub cubin: Vec<u8>,
    /// Warnings, and what ptxas printed.
    pub log: String,
}

fn symbol<T>(library: &Library, name: &str) -> Result<Symbol<T>> {
    // SAFETY: every caller asks for the type that nvrtc.h declares; its enums are C ints.
    unsafe { library.get(name.as_bytes()) }
        .map_err(|e| Error::Lacks { function: name.to_owned(), reason: e.to_string() })
}

fn open(path: &Path) -> Result<Library> {
    let failed = |reason: String| Error::Load { file: path.to_path_buf(), reason };
    let path = path.canonicalize().map_err(|e| failed(e.to_string()))?;
    // SAFETY: NVIDIA's libraries have no initialisation routines that ask anything of the caller.
    unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }.map_err(|e| failed(e.to_string()))
}

impl Nvrtc {
    /// Loads an installed NVRTC.
    ///
    /// # Errors
    /// [`Error::Load`], [`Error::Lacks`], or [`Error::Silent`] where it does not say what it is.
    pub fn load(installation: &Installation) -> Result<Self> {
        let builtins = open(installation.builtins())?;
        let library = open(installation.library())?;
        std::mem::forget(builtins); // stays loaded, as a symbol's library does
        let output = |what: &'static str| -> Result<Output> {
            Ok(Output {
                what,
                size: symbol(&library, &format!("nvrtcGet{what}Size"))?,
                copy: symbol(&library, &format!("nvrtcGet{what}"))?,
            })
        };
        let version: Symbol<unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int> =
            symbol(&library, "nvrtcVersion")?;
        let count: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int> =
            symbol(&library, "nvrtcGetNumSupportedArchs")?;
        let list: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int> =
            symbol(&library, "nvrtcGetSupportedArchs")?;

        let (mut major, mut minor, mut number) = (0, 0, 0);
        // SAFETY: both write one int through each pointer.
        let status = unsafe { version(&mut major, &mut minor) }.max(unsafe { count(&mut number) });
        let mut supported: Vec<c_int> = vec![0; usize::try_from(number).unwrap_or(0)];
        // SAFETY: it writes as many ints as the count said.
        let status = status.max(unsafe { list(supported.as_mut_ptr()) });
        let file = installation.library().to_path_buf();
        if status != SUCCESS {
            return Err(Error::Silent { file, status });
        }
        let nvrtc = Self {
            file,
            version: (major.unsigned_abs(), minor.unsigned_abs()),
            architectures: supported.into_iter().map(c_int::unsigned_abs).collect(),
            create: symbol(&library, "nvrtcCreateProgram")?,
            compile: symbol(&library, "nvrtcCompileProgram")?,
            destroy: symbol(&library, "nvrtcDestroyProgram")?,
            log: output("ProgramLog")?,
            ptx: output("PTX")?,
            cubin: output("CUBIN")?,
            describe: symbol(&library, "nvrtcGetErrorString")?,
        };
        std::mem::forget(library);
        Ok(nvrtc)
    }

    /// The file it was loaded from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The version it says it is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The compute capabilities it compiles for, times ten: 80, 90.
    pub fn architectures(&self) -> &[u32] {
        &self.architectures
    }

    /// Checks that it compiles for all these compute capabilities, times ten.
    ///
    /// # Errors
    /// [`Error::Architecture`] of the first it does not know.
    pub fn require(&self, architectures: &[u32]) -> Result<()> {
        match architectures.iter().find(|arch| !self.architectures.contains(arch)) {
            None => Ok(()),
            Some(&arch) => Err(Error::Architecture { file: self.file.clone(), version: self.version, arch }),
        }
    }

    /// Compiles one text. Options are those of the NVRTC documentation, such as `-arch=sm_80`, `-lineinfo`,
    /// `-Ifolder`, `--ptxas-options=-v`.
    ///
    /// # Errors
    /// [`Error::Compile`] with the log where the text is not correct; [`Error::Nul`], [`Error::Refused`],
    /// [`Error::Output`], [`Error::NotText`].
    pub fn compile<S: AsRef<str>>(&self, source: &Source<'_>, options: &[S]) -> Result<Compiled> {
        let c = |text: &str| CString::new(text).map_err(|_| Error::Nul);
        let all = |texts: &mut dyn Iterator<Item = &str>| texts.map(c).collect::<Result<Vec<CString>>>();
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let (name, text) = (c(source.name)?, c(source.text)?);
        let header_names = all(&mut source.headers.keys().copied())?;
        let header_texts = all(&mut source.headers.values().copied())?;
        let options = all(&mut options.iter().map(AsRef::as_ref))?;

        let mut program: Program = null_mut();
        // SAFETY: the strings and arrays outlive the program, which ends within this function.
        let status = unsafe {
            (self.create)(
                &mut program,
                text.as_ptr(),
                name.as_ptr(),
                source.headers.len() as c_int,
                pointers(&header_texts).as_ptr(),
                pointers(&header_names).as_ptr(),
            )
        };
        if status != SUCCESS {
            return Err(Error::Refused { status: self.explain(status) });
        }
        // SAFETY: the program is alive; the options are C strings.
        let status = unsafe { (self.compile)(program, options.len() as c_int, pointers(&options).as_ptr()) };
        let result = self.results(program, status);
        // SAFETY: the program is alive and not used again.
        unsafe { (self.destroy)(&mut program) };
        result
    }

    /// What a program gives whose compilation ended with a status.
    fn results(&self, program: Program, status: c_int) -> Result<Compiled> {
        let log = String::from_utf8_lossy(&self.get(program, &self.log)?).trim_end_matches('\0').to_owned();
        if status != SUCCESS {
            return Err(Error::Compile { log, status: self.explain(status) });
        }
        let ptx = self.get(program, &self.ptx)?;
        let ptx = CStr::from_bytes_until_nul(&ptx).ok().and_then(|ptx| ptx.to_str().ok());
        let ptx = ptx.ok_or(Error::NotText)?.to_owned();
        Ok(Compiled { ptx, cubin: self.get(program, &self.cubin)?, log })
    }

    fn get(&self, program: Program, output: &Output) -> Result<Vec<u8>> {
        let mut size = 0;
        // SAFETY: the program is alive; it writes one size.
        let mut status = unsafe { (output.size)(program, &mut size) };
        let mut bytes = vec![0; size];
        if status == SUCCESS && size > 0 {
            // SAFETY: it writes as many bytes as it said.
            status = unsafe { (output.copy)(program, bytes.as_mut_ptr().cast()) };
        }
        if status != SUCCESS {
            return Err(Error::Output { what: output.what, status: self.explain(status) });
        }
        Ok(bytes)
    }

    fn explain(&self, status: c_int) -> String {
        // SAFETY: it returns a static C string for every number.
        unsafe { CStr::from_ptr((self.describe)(status)) }.to_string_lossy().into_owned()
    }
}

impl std::fmt::Debug for Nvrtc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nvrtc")
            .field("file", &self.file)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
