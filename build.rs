//! Compiles every `kernels/**/*.cu` with NVRTC and writes the table `$OUT_DIR/kernels.rs` and the structs
//! of the kernels' arguments `$OUT_DIR/args.rs`, which `src/kernels` includes. Downloads nothing:
//! `scripts/install-nvrtc.sh` does that.
//!
//! For compute capability 8.0 it keeps PTX and machine code, for later ones machine code, as far as the NVRTC knows them,
//! and for 7.5 PTX. A file whose text, headers, options and compiler are those of the last build is not compiled again.

#[path = "build/args.rs"]
mod args;
#[path = "build/ptx.rs"]
mod ptx;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{env, fs, process, thread};

use nvrtc::source::{self, Headers};
use nvrtc::{Installation, Nvrtc, Source, ptxas};

/// The oldest NVRTC that is able: earlier ones lack parts of what the kernels need.
const OLDEST_NVRTC: nvrtc::Version = (12, 4);

/// The architectures to compile for; PTX is kept of the first, which devices without machine code take.
const ARCHS: [u32; 2] = [80, 90];

/// Machine code for these as well, where the NVRTC knows them (12.8 and later): PTX would be compiled at the first start.
const NEWER_ARCHS: [u32; 2] = [100, 120];

/// PTX for devices older than the first of [`ARCHS`].
const OLDER_ARCH: u32 = 75;

/// What a file includes that needs compute capability 8.0.
const TENSOR_CORES: &str = "#include \"common/mma.cuh\"";

/// What to do where there is no NVRTC.
const NVRTC_HINT: &str =
    "run `scripts/install-nvrtc.sh` (90 MB, into .nvrtc), or set NVRTC_DIR to the folder of libnvrtc.so";

/// What every kernel is compiled with, besides `-arch`.
const OPTIONS: [&str; 3] = ["-std=c++17", "-lineinfo", "--ptxas-options=-v"];

/// Files below `kernels/`: path with `/`, and text.
type Files = BTreeMap<String, String>;

/// What was compiled, by file and `-arch`.
type Outputs = BTreeMap<(String, String), Output>;

fn main() {
    match build() {
        Ok(instructions) => print!("{instructions}"),
        Err(message) => {
            eprintln!("{message}");
            process::exit(1);
        }
    }
}

/// What to compile each file for.
struct Targets {
    /// Compute capabilities of machine code, times ten. PTX is kept of the first.
    machine: Vec<u32>,
    /// That of the PTX for older devices.
    older: Option<u32>,
}

impl Targets {
    /// As far as an NVRTC knows them.
    fn of(known: &[u32]) -> Self {
        let newer = NEWER_ARCHS.into_iter().filter(|arch| known.contains(arch));
        Self {
            machine: ARCHS.into_iter().chain(newer).collect(),
            older: Some(OLDER_ARCH).filter(|arch| known.contains(arch)),
        }
    }

    /// Those of one file, of such a text: one that needs tensor cores for tf32 is not for devices older than 8.0.
    fn of_file(&self, text: &str) -> Self {
        let older = self.older.filter(|_| !text.contains(TENSOR_CORES));
        Self { machine: self.machine.clone(), older }
    }

    /// What `-arch` says.
    fn all(&self) -> impl Iterator<Item = String> + use<> {
        let machine: Vec<String> = self.machine.iter().map(|&arch| sm(arch)).collect();
        machine.into_iter().chain(self.older.map(compute))
    }
}

/// Machine code and PTX of a compute capability, as `-arch` has it.
fn sm(arch: u32) -> String {
    format!("sm_{arch}")
}

/// PTX of a compute capability, as `-arch` has it.
fn compute(arch: u32) -> String {
    format!("compute_{arch}")
}

/// One file compiled for one architecture.
struct Output {
    ptx: String,
    cubin: Vec<u8>,
    log: String,
}

/// Builds everything; returns what to tell cargo.
fn build() -> Result<String, String> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let installation = Installation::find(OLDEST_NVRTC, &[root.join(".nvrtc")]).map_err(in_words)?;
    let nvrtc = Nvrtc::load(&installation).map_err(in_words)?;
    nvrtc.require(&ARCHS).map_err(in_words)?;
    let targets = Targets::of(nvrtc.architectures());
    let (sources, headers) = read_kernels(&root.join("kernels"))?;
    let headers: Headers<'_> = headers.iter().map(|(name, text)| (&name[..], &text[..])).collect();
    // NVRTC puts the working directory in front of every file name it notes in PTX and machine
    // code; what is built must not depend on where.
    env::set_current_dir("/").map_err(|e| format!("error: cannot change to the root folder: {e}"))?;
    let outputs = compile_all(&nvrtc, &targets, &sources, &headers, &out)?;
    write_table(nvrtc.version(), &targets, &sources, &headers, &outputs, &out)?;

    let mut cargo = String::new();
    for path in ["build.rs", "build", "kernels"] {
        writeln!(cargo, "cargo:rerun-if-changed={path}").unwrap();
    }
    writeln!(cargo, "cargo:rerun-if-changed={}", installation.library().display()).unwrap();
    for name in nvrtc::VARIABLES {
        writeln!(cargo, "cargo:rerun-if-env-changed={name}").unwrap();
    }
    Ok(cargo)
}

/// What is wrong with NVRTC, and what to do where there is none.
fn in_words(error: nvrtc::Error) -> String {
    match error {
        nvrtc::Error::NotFound { .. } => {
            format!("error: the kernels are compiled with NVRTC, and {error}\nhint: {NVRTC_HINT}")
        }
        _ => format!("error: {error}"),
    }
}

/// Reads `kernels/`: the `.cu` files to compile (none below `common/`) and the `.cuh` headers.
fn read_kernels(folder: &Path) -> Result<(Files, Files), String> {
    let (mut sources, mut headers) = (Files::new(), Files::new());
    let mut pending = vec![folder.to_path_buf()];
    while let Some(dir) = pending.pop() {
        let entries = fs::read_dir(&dir).map_err(|e| format!("error: cannot read {}: {e}", dir.display()))?;
        for entry in entries {
            let path = entry.map_err(|e| format!("error: cannot read {}: {e}", dir.display()))?.path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let below = path.strip_prefix(folder).expect("found below the folder");
            let name = below.to_str().ok_or_else(|| format!("error: {} is not UTF-8", path.display()))?;
            let files = match path.extension().and_then(|x| x.to_str()) {
                Some("cu") if !name.starts_with("common/") => &mut sources,
                Some("cuh") => &mut headers,
                _ => continue,
            };
            let text =
                fs::read_to_string(&path).map_err(|e| format!("error: cannot read kernels/{name}: {e}"))?;
            files.insert(name.to_owned(), text);
        }
    }
    Ok((sources, headers))
}

/// Compiles every source for every architecture, a thread a core, or takes the last build's files.
fn compile_all(
    nvrtc: &Nvrtc,
    targets: &Targets,
    sources: &Files,
    headers: &Headers<'_>,
    out: &Path,
) -> Result<Outputs, String> {
    let jobs: Vec<(&String, &String, String)> = sources
        .iter()
        .flat_map(|(file, text)| targets.of_file(text).all().map(move |arch| (file, text, arch)))
        .collect();
    let next = Mutex::new(jobs.iter());
    let done = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            let Some((file, text, arch)) = next.lock().unwrap().next() else { return };
            let result = compile_cached(nvrtc, file, text, headers, arch, out);
            done.lock().unwrap().insert(((*file).clone(), arch.clone()), result);
        }
    };
    let threads = thread::available_parallelism().map_or(1, |n| n.get()).min(jobs.len());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });

    let mut outputs = BTreeMap::new();
    let mut errors: Vec<String> = Vec::new();
    for (job, result) in done.into_inner().unwrap() {
        match result {
            Ok(output) => _ = outputs.insert(job, output),
            // What is wrong for one architecture is mostly wrong for the others: say it once.
            Err(error) if !errors.contains(&error) => errors.push(error),
            Err(_) => {}
        }
    }
    if errors.is_empty() { Ok(outputs) } else { Err(errors.join("\n")) }
}

/// Compiles one file for one architecture, unless `$OUT_DIR` has it of these very inputs.
fn compile_cached(
    nvrtc: &Nvrtc,
    file: &str,
    text: &str,
    headers: &Headers<'_>,
    arch: &str,
    out: &Path,
) -> Result<Output, String> {
    let headers = source::included(text, headers);
    let mut options = vec![format!("-arch={arch}")];
    let ptx_only = arch.starts_with("compute");
    let wanted = |option: &&str| match *option {
        "-lineinfo" => has_lines(arch),
        "--ptxas-options=-v" => !ptx_only,
        _ => true,
    };
    options.extend(OPTIONS.into_iter().filter(wanted).map(str::to_owned));

    let mut hasher = DefaultHasher::new();
    // Whatever shapes what is stored.
    let this = [
        include_str!("build.rs"),
        include_str!("build/ptx.rs"),
        include_str!("crates/nvrtc/src/library.rs"),
        include_str!("crates/ptx/src/files.rs"),
        include_str!("crates/ptx/src/version.rs"),
    ];
    (this, nvrtc.version(), file, text, &headers, &options).hash(&mut hasher);
    let key = format!("{:016x}", hasher.finish());

    let stem = out.join(stem(file, arch));
    let path = |extension: &str| stem.with_added_extension(extension);
    let stored = || -> Option<Output> {
        (fs::read_to_string(path("key")).ok()? == key).then_some(())?;
        Some(Output {
            ptx: fs::read_to_string(path("ptx")).ok()?,
            cubin: fs::read(path("cubin")).ok()?,
            log: fs::read_to_string(path("log")).ok()?,
        })
    };
    if let Some(output) = stored() {
        return Ok(output);
    }

    let compiled =
        nvrtc.compile(&Source { name: file, text, headers: &headers }, &options).map_err(|e| match e {
            nvrtc::Error::Compile { log, status } => {
                format!("{}\nerror: kernels/{file}: {status}", ptxas::without_report(&log))
            }
            e => format!("error: kernels/{file}: {e}"),
        })?;
    if compiled.log.lines().any(ptxas::is_warning) {
        return Err(format!("{}\nerror: kernels/{file} has warnings", ptxas::without_report(&compiled.log)));
    }
    let mut output =
        Output { ptx: ptx::with_relative_files(&compiled.ptx), cubin: compiled.cubin, log: compiled.log };
    // Of the others only the machine code is kept.
    if ptx_only || arch == sm(ARCHS[0]) {
        output.ptx = ptx::for_old_drivers(&output.ptx)
            .map_err(|e| format!("error: kernels/{file}, compiled for {arch}: {e}"))?;
    }
    // The key last: without it an interrupted build's files count for nothing.
    _ = fs::remove_file(path("key"));
    write(&path("ptx"), output.ptx.as_bytes())?;
    write(&path("cubin"), &output.cubin)?;
    write(&path("log"), output.log.as_bytes())?;
    write(&path("key"), key.as_bytes())?;
    Ok(output)
}

/// Whether it is compiled with line information, which more than doubles machine code. The pages and the emulator have
/// the lines of the architectures that every build has.
fn has_lines(arch: &str) -> bool {
    ARCHS.iter().any(|&with| arch == sm(with))
}

/// The name in `$OUT_DIR` of what comes from one file for one architecture, without extension.
fn stem(file: &str, arch: &str) -> String {
    format!("{}.{arch}", file.replace('/', "__"))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|e| format!("error: cannot write {}: {e}", path.display()))
}

/// Writes `kernels.rs` and the texts it includes.
fn write_table(
    nvrtc: nvrtc::Version,
    targets: &Targets,
    sources: &Files,
    headers: &Headers<'_>,
    outputs: &Outputs,
    out: &Path,
) -> Result<(), String> {
    let mut modules = String::new();
    let mut kernels: BTreeMap<String, Row> = BTreeMap::new();
    let unmarked: BTreeMap<&str, String> =
        headers.iter().map(|(&name, text)| (name, args::without_markers(text))).collect();
    let unmarked: Headers = unmarked.iter().map(|(&name, text)| (name, &text[..])).collect();
    for (index, (file, text)) in sources.iter().enumerate() {
        let targets = targets.of_file(text);
        let copy = format!("{}.txt", file.replace('/', "__"));
        write(&out.join(&copy), text.as_bytes())?;
        let mut cubins = String::new();
        for &arch in &targets.machine {
            let cubin = format!("{}.cubin", stem(file, &sm(arch)));
            let lines = has_lines(&sm(arch));
            write!(cubins, "Cubin {{ arch: {arch}, lines: {lines}, image: include_bytes!({cubin:?}) }}, ")
                .unwrap();
        }
        let ptx = format!("{}.ptx", stem(file, &sm(targets.machine[0])));
        let older = match targets.older {
            Some(arch) => format!("Some(include_str!({:?}))", format!("{}.ptx", stem(file, &compute(arch)))),
            None => "None".to_owned(),
        };
        writeln!(
            modules,
            "    Module {{ file: {file:?}, source: include_str!({copy:?}), ptx: include_str!({ptx:?}), \
             ptx_75: {older}, needs: {}, cubins: &[{cubins}] }},",
            if text.contains(TENSOR_CORES) { ARCHS[0] } else { OLDER_ARCH }
        )
        .unwrap();

        let definitions = source::definitions(text, &unmarked);
        let output = |arch: &str| &outputs[&(file.clone(), arch.to_owned())];
        let entries = ptx::entries(&output(&sm(targets.machine[0])).ptx)
            .map_err(|e| format!("error: kernels/{file}: {e}"))?;
        for arch in targets.all().skip(1) {
            check_same_kernels(file, &entries, &arch, &output(&arch).ptx)?;
        }
        for entry in entries {
            let mut resources = String::new();
            for &arch in &targets.machine {
                let r = ptxas::resources(&output(&sm(arch)).log, &entry.name).ok_or_else(|| {
                    format!("error: kernels/{file}: ptxas reported no registers of {} for {arch}", entry.name)
                })?;
                write!(
                    resources,
                    "Resources {{ arch: {arch}, registers: {}, spill_stores: {}, spill_loads: {}, stack: {}, \
                     shared: {} }}, ",
                    r.registers, r.spill_stores, r.spill_loads, r.stack, r.shared
                )
                .unwrap();
            }
            let found = definitions.get(&entry.name);
            let declared = found.map_or(&[][..], |d| &d.params);
            if declared.len() != entry.params.len() {
                let name = &entry.name;
                return Err(format!("error: kernels/{file}: cannot read the parameters of {name}"));
            }
            let mut params = String::new();
            for (param, kind) in declared.iter().zip(&entry.params) {
                write!(params, "Param {{ name: {:?}, kind: ParamKind::{kind} }}, ", param.name).unwrap();
            }
            let rust = format!(
                "    Kernel {{ name: {:?}, module: &MODULES[{index}], params: &[{params}], max_threads: {}, \
                 line: {}, doc: {:?}, resources: &[{resources}] }},",
                entry.name,
                entry.max_threads,
                found.map_or(0, |d| d.line),
                found.map_or("", |d| &d.doc),
            );
            let row = Row { file: file.clone(), rust, kinds: entry.params, params: declared.to_vec() };
            if let Some(other) = kernels.insert(entry.name.clone(), row) {
                return Err(format!(
                    "error: two kernels are named {}: in kernels/{} and in kernels/{file}",
                    entry.name, other.file
                ));
            }
        }
    }

    let mut header_list = String::new();
    for (name, text) in headers {
        let copy = format!("{}.txt", name.replace('/', "__"));
        write(&out.join(&copy), text.as_bytes())?;
        writeln!(header_list, "    ({name:?}, include_str!({copy:?})),").unwrap();
    }
    let kernel_list: Vec<&str> = kernels.values().map(|row| &row.rust[..]).collect();
    let table = format!(
        "// Generated by build.rs.\n\
         pub static MODULES: &[Module] = &[\n{modules}];\n\
         pub static KERNELS: &[Kernel] = &[\n{}\n];\n\
         pub static HEADERS: &[(&str, &str)] = &[\n{header_list}];\n\
         /// The NVRTC that compiled them.\n\
         pub const NVRTC_VERSION: (u32, u32) = {nvrtc:?};\n\
         /// The oldest NVRTC that compiles the kernels.\n\
         pub const OLDEST_NVRTC: (u32, u32) = {OLDEST_NVRTC:?};\n\
         /// What to do where there is no NVRTC.\n\
         pub const NVRTC_HINT: &str = {NVRTC_HINT:?};\n\
         /// What the kernels are compiled with, besides `-arch`.\n\
         pub const OPTIONS: [&str; {}] = {OPTIONS:?};\n",
        kernel_list.join("\n"),
        OPTIONS.len()
    );
    write(&out.join("kernels.rs"), table.as_bytes())?;
    let typed: Vec<args::Kernel> = kernels
        .iter()
        .map(|(name, row)| args::Kernel { name, file: &row.file, kinds: &row.kinds, params: &row.params })
        .collect();
    write(&out.join("args.rs"), args::generate(&typed)?.as_bytes())
}

/// A kernel of the table.
struct Row {
    file: String,
    /// Its entry, as Rust text.
    rust: String,
    /// What PTX says of its parameters: variants of `ParamKind`, as Rust text.
    kinds: Vec<String>,
    params: Vec<source::Parameter>,
}

/// A kernel must exist on every architecture: the table is made from the first one's.
fn check_same_kernels(file: &str, entries: &[ptx::Entry], arch: &str, text: &str) -> Result<(), String> {
    let first: BTreeSet<&str> = entries.iter().map(|e| &e.name[..]).collect();
    let names = ptx::names(text).map_err(|e| format!("error: kernels/{file}: {e}"))?;
    let other: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    match first.symmetric_difference(&other).next() {
        None => Ok(()),
        Some(name) => Err(format!(
            "error: kernels/{file}: {name} is compiled for only one of sm_{} and {arch}; give it an empty body there",
            ARCHS[0]
        )),
    }
}
