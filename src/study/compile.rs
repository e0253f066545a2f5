//! Compiling a user kernel's `.cu` with NVRTC, as the build compiles the kernels.

use std::env;
use std::path::{Path, PathBuf};

use nvrtc::source::{self, Definition, Headers};
use nvrtc::{Installation, Nvrtc, Source, ptxas};

use super::sass;
use crate::kernels::{self, Cubin, Kernel, Module, Param, Resources};
use crate::{Error, Result};

/// A compiled file.
pub struct Compiled {
    /// Its kernels.
    pub kernels: Vec<&'static Kernel>,
    /// Path, as the listing names it, and text of the file and of those next to it.
    folder: PathBuf,
    prefix: String,
}

impl Compiled {
    /// The text of a source file that a listing names.
    pub fn source_of(&self, file: &str) -> Option<String> {
        let own = self.kernels.first()?.module;
        if file == own.file {
            return Some(own.source.to_owned());
        }
        let embedded = kernels::headers().iter().find(|h| h.0 == file).map(|h| h.1.to_owned());
        embedded
            .or_else(|| std::fs::read_to_string(self.folder.join(file)).ok())
            .or_else(|| std::fs::read_to_string(Path::new("/").join(file)).ok())
    }

    /// A file name of the compiler's without the working folder that it puts in front.
    pub fn relative<'a>(&self, file: &'a str) -> &'a str {
        let file = file.trim_start_matches('/');
        file.strip_prefix(self.prefix.trim_start_matches('/')).unwrap_or(file).trim_start_matches('/')
    }

    /// The kernel of that name.
    ///
    /// # Errors
    /// When there is none; names those there are.
    pub fn find(&self, name: &str) -> Result<&'static Kernel> {
        let found = self.kernels.iter().find(|k| k.name == name || source::unmangled(k.name) == name);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = self.kernels.iter().map(|k| k.name).collect();
            let hint = match names.len() {
                0 => "it has no __global__ function that the compiler kept".to_owned(),
                _ => format!("it has {}", names.join(", ")),
            };
            Error::new(format!("the file has no kernel {name}")).hint(hint)
        })
    }
}

/// Compiles a file for an architecture such as `sm_80`. Headers beside it and those of the project
/// (`common/common.cuh`) can be included.
///
/// # Errors
/// When it cannot be read, NVRTC is missing, it does not compile (NVRTC's words), or its PTX cannot be read.
pub fn compile(path: &Path, arch: &str) -> Result<Compiled> {
    let shown = path.display();
    let source =
        std::fs::read_to_string(path).map_err(|e| Error::new(format!("cannot read {shown}: {e}")))?;
    let file = path.file_name().and_then(|n| n.to_str()).unwrap_or("kernel.cu").to_owned();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();

    let nvrtc = load()?;
    let headers: Headers<'_> = kernels::headers().iter().copied().collect();
    let mut options = vec![format!("-arch={arch}"), format!("-I{}", folder.display())];
    options.extend(kernels::OPTIONS.map(str::to_owned));
    let text = Source { name: &file, text: &source, headers: &headers };
    let compiled = nvrtc.compile(&text, &options).map_err(|e| {
        let log = match e {
            nvrtc::Error::Compile { log, .. } => ptxas::without_report(&log),
            e => e.to_string(),
        };
        Error::new(format!("{shown} does not compile for {arch}\n{log}"))
    })?;
    let prefix = env::current_dir().map(|d| d.display().to_string()).unwrap_or_default();
    let ptx = relative_files(&compiled.ptx, &prefix);
    let parsed = ptx::Module::parse(&ptx).map_err(|e| Error::new(format!("{file}: {e}")))?;
    if parsed.kernels().next().is_none() {
        return Ok(Compiled { kernels: Vec::new(), folder, prefix });
    }
    let number = arch.trim_start_matches(|c: char| !c.is_ascii_digit()).trim_end_matches(char::is_alphabetic);
    let arch = number.parse().unwrap_or(80);
    let definitions = source::definitions(&source, &headers);
    // What is launched lives as long as the process, as the kernels of the build do.
    let module: &'static Module = Box::leak(Box::new(Module {
        file: file.leak(),
        source: source.clone().leak(),
        ptx: ptx.leak(),
        ptx_75: None,
        needs: 80,
        cubins: Box::leak(Box::new([Cubin { arch, lines: true, image: compiled.cubin.leak() }])),
    }));
    let kernel = |f: &ptx::Function| -> &'static Kernel {
        let figures = ptxas::resources(&compiled.log, &f.name).map(|r| Resources {
            arch,
            registers: r.registers,
            spill_stores: r.spill_stores,
            spill_loads: r.spill_loads,
            stack: r.stack,
            shared: r.shared,
        });
        let found = definitions.get(source::unmangled(&f.name));
        Box::leak(Box::new(Kernel {
            name: f.name.clone().leak(),
            module,
            params: params(found, f),
            max_threads: f.max_threads.unwrap_or(1024),
            line: found.map_or(f.first_line().unwrap_or(0), |d| d.line),
            doc: found.map_or("", |d| d.doc.clone().leak()),
            resources: figures.into_iter().collect::<Vec<_>>().leak(),
        }))
    };
    Ok(Compiled { kernels: parsed.kernels().map(kernel).collect(), folder, prefix })
}

/// The NVRTC that [`compile`] takes, in words.
///
/// # Errors
/// When there is none, or it does not load.
pub fn compiler() -> Result<String> {
    let nvrtc = load()?;
    let (major, minor) = nvrtc.version();
    Ok(format!("NVRTC {major}.{minor}, {}", nvrtc.file().display()))
}

/// NVRTC from where the build would take it.
fn load() -> Result<Nvrtc> {
    let folders: Vec<PathBuf> =
        sass::project_folders().into_iter().map(|project| project.join(".nvrtc")).collect();
    Installation::find(kernels::OLDEST_NVRTC, &folders).and_then(|found| Nvrtc::load(&found)).map_err(|e| {
        match e {
            nvrtc::Error::NotFound { .. } => {
                Error::new(format!("the kernels are compiled with NVRTC, and {e}")).hint(kernels::NVRTC_HINT)
            }
            e => Error::new(e.to_string()),
        }
    })
}

/// The PTX with the files of its `.file`s relative to the working folder.
fn relative_files(ptx: &str, prefix: &str) -> String {
    let folder = format!("{}/", prefix.trim_end_matches('/'));
    ptx::rename_files(ptx, |name| name.strip_prefix(&folder).unwrap_or(name).to_owned())
}

/// A kernel's parameters, by their names in the source where it has as many.
fn params(found: Option<&Definition>, kernel: &ptx::Function) -> &'static [Param] {
    let declared = found.filter(|d| d.params.len() == kernel.params.len());
    let param = |(i, p): (usize, &ptx::Variable)| Param {
        name: declared.map_or(&p.name, |d| &d.params[i].name).clone().leak(),
        kind: p.kind(),
    };
    kernel.params.iter().enumerate().map(param).collect::<Vec<_>>().leak()
}
