//! NVRTC, the CUDA C++ compiler as a library: finding it, loading it, calling it.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};

/// The environment variables that say where it is.
pub const VARIABLES: [&str; 4] = ["NVRTC_DIR", "CUDA_PATH", "CUDA_HOME", "VIRTUAL_ENV"];

/// The oldest that is able: earlier ones lack parts of what the kernels need.
const OLDEST: (u32, u32) = (12, 4);

/// Compute capabilities it must compile for.
const NEEDED: [c_int; 2] = [80, 90];

/// The two files of one installed NVRTC.
#[derive(Debug)]
pub struct Files {
    /// `libnvrtc.so…`
    pub nvrtc: PathBuf,
    /// `libnvrtc-builtins.so…`, which the former opens by name, so it must be loaded before.
    builtins: PathBuf,
    /// As the name of the builtins says.
    version: (u32, u32),
}

/// Looks for an NVRTC that is able, from the most explicit place to the least.
pub fn find(project: &Path) -> Result<Files, String> {
    let variable = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = variable("NVRTC_DIR") {
        return match look_in(&dir) {
            Some(files) if files.version >= OLDEST => Ok(files),
            Some(files) => Err(format!("error: NVRTC_DIR={}: {}", dir.display(), too_old(files.version))),
            None => Err(format!(
                "error: NVRTC_DIR={} holds no NVRTC (libnvrtc.so and libnvrtc-builtins.so)",
                dir.display()
            )),
        };
    }
    let mut roots: Vec<PathBuf> = ["CUDA_PATH", "CUDA_HOME"].into_iter().filter_map(variable).collect();
    roots.push("/usr/local/cuda".into());
    roots.extend(
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"].map(Into::into),
    );
    roots.push("/opt/cuda".into());
    roots.push(project.join(".nvrtc"));
    if let Some(environment) = variable("VIRTUAL_ENV") {
        let pythons = list(&environment.join("lib"));
        roots.extend(pythons.iter().map(|python| environment.join("lib").join(python).join("site-packages")));
    }

    let mut unable = String::new();
    for root in roots {
        match look_in(&root) {
            Some(files) if files.version >= OLDEST => return Ok(files),
            Some(files) => {
                unable += &format!("note: {}: {}\n", files.nvrtc.display(), too_old(files.version))
            }
            None => {}
        }
    }
    Err(format!(
        "error: the kernels are compiled with NVRTC, and no NVRTC was found\n{unable}\
         hint: run `scripts/install-nvrtc.sh` (90 MB, into .nvrtc), or set NVRTC_DIR to the folder of libnvrtc.so"
    ))
}

fn too_old((major, minor): (u32, u32)) -> String {
    format!("NVRTC {major}.{minor} is too old, at least {}.{} is needed", OLDEST.0, OLDEST.1)
}

/// The newest NVRTC in a folder, or in one of its subfolders where toolkits and wheels put it.
fn look_in(root: &Path) -> Option<Files> {
    let below = [
        "",
        "lib64",
        "lib",
        "targets/x86_64-linux/lib",
        "targets/sbsa-linux/lib",
        "nvidia/cuda_nvrtc/lib",
        "nvidia/cu12/lib",
        "nvidia/cu13/lib",
    ];
    below.iter().filter_map(|folder| look_at(&root.join(folder))).next()
}

/// The newest NVRTC of which both files lie in this folder.
fn look_at(folder: &Path) -> Option<Files> {
    let names = list(folder);
    // `libnvrtc-builtins.so.12.9` and `libnvrtc.so.12`, perhaps with the patch level behind them.
    let newest = |prefix: &str, version: &[u32]| {
        let of = |name: &String| -> Option<(Vec<u32>, String)> {
            let numbers: Option<Vec<u32>> =
                name.strip_prefix(prefix)?.split('.').skip(1).map(|x| x.parse().ok()).collect();
            let numbers = numbers?;
            version.iter().zip(&numbers).all(|(a, b)| a == b).then(|| (numbers, name.clone()))
        };
        names.iter().filter_map(of).max()
    };
    let (numbers, builtins) = newest("libnvrtc-builtins.so", &[])?;
    let &[major, minor, ..] = &numbers[..] else { return None };
    let (_, nvrtc) = newest("libnvrtc.so", &[major, minor])?;
    Some(Files { nvrtc: folder.join(nvrtc), builtins: folder.join(builtins), version: (major, minor) })
}

/// The names in a folder; none where it cannot be read.
fn list(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str().map(str::to_owned)).collect()
}

type Program = *mut std::ffi::c_void;

/// The functions of a loaded NVRTC.
pub struct Nvrtc {
    /// Major and minor.
    pub version: (c_int, c_int),
    create: Symbol<
        unsafe extern "C" fn(
            *mut Program,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> c_int,
    >,
    compile: Symbol<unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int>,
    destroy: Symbol<unsafe extern "C" fn(*mut Program) -> c_int>,
    log: Output,
    ptx: Output,
    cubin: Output,
    describe: Symbol<unsafe extern "C" fn(c_int) -> *const c_char>,
}

/// A pair of functions that tell the size of a result and copy it.
struct Output {
    what: &'static str,
    size: Symbol<unsafe extern "C" fn(Program, *mut usize) -> c_int>,
    copy: Symbol<unsafe extern "C" fn(Program, *mut c_char) -> c_int>,
}

/// What one compilation gives.
pub struct Compiled {
    pub ptx: String,
    pub cubin: Vec<u8>,
    pub log: String,
}

/// The value of NVRTC's success.
const SUCCESS: c_int = 0;

impl Nvrtc {
    /// Loads it and checks that it is able.
    pub fn load(files: &Files) -> Result<Self, String> {
        let open = |path: &Path| {
            let path =
                path.canonicalize().map_err(|e| format!("error: cannot find {}: {e}", path.display()))?;
            // SAFETY: NVIDIA's libraries have no initialisation routines that ask anything of us.
            unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }
                .map_err(|e| format!("error: cannot load {}: {e}", path.display()))
        };
        let builtins = open(&files.builtins)?;
        let library = open(&files.nvrtc)?;
        std::mem::forget(builtins); // stays loaded, as a symbol's library does

        fn symbol<T>(library: &Library, name: &str) -> Result<Symbol<T>, String> {
            // SAFETY: the types are those of nvrtc.h; its enums are C ints.
            unsafe { library.get(name.as_bytes()) }.map_err(|e| format!("error: NVRTC lacks {name}: {e}"))
        }
        let output = |what: &'static str| -> Result<Output, String> {
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
        let archs: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int> =
            symbol(&library, "nvrtcGetSupportedArchs")?;

        let (mut major, mut minor, mut number) = (0, 0, 0);
        // SAFETY: both write one int through each pointer.
        let status = unsafe { version(&mut major, &mut minor) }.max(unsafe { count(&mut number) });
        let mut supported = vec![0; usize::try_from(number).unwrap_or(0)];
        // SAFETY: it writes as many ints as the count said.
        let status = status.max(unsafe { archs(supported.as_mut_ptr()) });
        let name = files.nvrtc.display();
        if status != SUCCESS {
            return Err(format!("error: {name} does not answer (status {status})"));
        }
        if let Some(missing) = NEEDED.iter().find(|arch| !supported.contains(arch)) {
            return Err(format!("error: {name} (NVRTC {major}.{minor}) cannot compile for sm_{missing}"));
        }

        let nvrtc = Self {
            version: (major, minor),
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

    /// Compiles one file. The error is NVRTC's log.
    pub fn compile(
        &self,
        file: &str,
        text: &str,
        headers: &BTreeMap<&str, &str>,
        options: &[String],
    ) -> Result<Compiled, String> {
        let c = |text: &str| {
            CString::new(text).map_err(|_| format!("error: kernels/{file} or one of its headers has a NUL"))
        };
        let all =
            |texts: &mut dyn Iterator<Item = &str>| texts.map(c).collect::<Result<Vec<CString>, String>>();
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let (name, text) = (c(file)?, c(text)?);
        let header_names = all(&mut headers.keys().copied())?;
        let header_texts = all(&mut headers.values().copied())?;
        let options = all(&mut options.iter().map(String::as_str))?;

        let mut program: Program = null_mut();
        // SAFETY: the strings and arrays outlive the program, which ends within this function.
        let status = unsafe {
            (self.create)(
                &mut program,
                text.as_ptr(),
                name.as_ptr(),
                headers.len() as c_int,
                pointers(&header_texts).as_ptr(),
                pointers(&header_names).as_ptr(),
            )
        };
        if status != SUCCESS {
            return Err(format!(
                "error: kernels/{file}: NVRTC makes no program of it: {}",
                self.explain(status)
            ));
        }
        // SAFETY: the program is alive; the options are C strings.
        let status = unsafe { (self.compile)(program, options.len() as c_int, pointers(&options).as_ptr()) };
        let result = (|| {
            let log =
                String::from_utf8_lossy(&self.get(program, &self.log)?).trim_end_matches('\0').to_owned();
            if status != SUCCESS {
                return Err(format!(
                    "{}\nerror: kernels/{file}: {}",
                    without_report(&log),
                    self.explain(status)
                ));
            }
            let ptx = self.get(program, &self.ptx)?;
            let ptx = CStr::from_bytes_until_nul(&ptx).ok().and_then(|ptx| ptx.to_str().ok());
            let ptx =
                ptx.ok_or_else(|| format!("error: kernels/{file}: NVRTC's PTX is not text"))?.to_owned();
            Ok(Compiled { ptx, cubin: self.get(program, &self.cubin)?, log })
        })();
        // SAFETY: the program is alive and not used again.
        unsafe { (self.destroy)(&mut program) };
        result
    }

    fn get(&self, program: Program, output: &Output) -> Result<Vec<u8>, String> {
        let mut size = 0;
        // SAFETY: the program is alive; it writes one size.
        let mut status = unsafe { (output.size)(program, &mut size) };
        let mut bytes = vec![0; size];
        if status == SUCCESS && size > 0 {
            // SAFETY: it writes as many bytes as it said.
            status = unsafe { (output.copy)(program, bytes.as_mut_ptr().cast()) };
        }
        if status != SUCCESS {
            return Err(format!("error: NVRTC gives no {}: {}", output.what, self.explain(status)));
        }
        Ok(bytes)
    }

    fn explain(&self, status: c_int) -> String {
        // SAFETY: it returns a static C string for every number.
        unsafe { CStr::from_ptr((self.describe)(status)) }.to_string_lossy().into_owned()
    }
}

/// Whether a line of the log is a warning, or what ptxas says in place of one.
pub fn is_warning(line: &str) -> bool {
    line.contains("): warning")
        || line.starts_with("ptxas warning")
        || line.contains("Potential Performance Loss")
}

/// The log without ptxas's report of registers.
pub fn without_report(log: &str) -> String {
    let report =
        |line: &str| line.starts_with("ptxas  ") || line.starts_with("ptxas info") && !is_warning(line);
    log.lines().filter(|line| !report(line)).collect::<Vec<_>>().join("\n").trim_end().to_owned()
}
