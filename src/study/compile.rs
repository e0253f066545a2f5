//! Compiling a user's own `.cu` with NVRTC, as the build compiles the kernels.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use super::sass;
use crate::device::emulator::leak_module;
use crate::kernels::{self, Cubin, Kernel, Module, Param, Resources};
use crate::{Error, Result};

#[allow(dead_code)]
#[path = "../../build/nvrtc.rs"]
mod nvrtc;
#[allow(dead_code)]
#[path = "../../build/ptx.rs"]
mod ptx;

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
        let mangled = format!("_Z{}{name}", name.len());
        let found = self.kernels.iter().find(|k| k.name == name || k.name.starts_with(&mangled));
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
/// When it cannot be read, NVRTC is missing, it does not compile (NVRTC's words), or the emulator does
/// not know an instruction of it.
pub fn compile(path: &Path, arch: &str) -> Result<Compiled> {
    let shown = path.display();
    let source =
        std::fs::read_to_string(path).map_err(|e| Error::new(format!("cannot read {shown}: {e}")))?;
    let file = path.file_name().and_then(|n| n.to_str()).unwrap_or("kernel.cu").to_owned();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();

    let nvrtc = load()?;
    let headers: BTreeMap<&str, &str> = kernels::headers().iter().copied().collect();
    let options = [
        format!("-arch={arch}"),
        "-std=c++17".into(),
        "-lineinfo".into(),
        "--ptxas-options=-v".into(),
        format!("-I{}", folder.display()),
    ];
    let compiled = nvrtc.compile(&file, &source, &headers, &options).map_err(|log| {
        // The last line is of this project's build.
        let log = log.replace(&format!("error: kernels/{file}: "), "");
        let log = log.lines().filter(|l| !l.starts_with("NVRTC_ERROR")).collect::<Vec<_>>().join("\n");
        Error::new(format!("{shown} does not compile for {arch}\n{}", log.trim_end()))
    })?;
    let prefix = env::current_dir().map(|d| d.display().to_string()).unwrap_or_default();
    let ptx = relative_files(&compiled.ptx, &prefix);
    let made = leak_module(&file, &source, &ptx)?;
    let number = arch.trim_start_matches(|c: char| !c.is_ascii_digit()).trim_end_matches(char::is_alphabetic);
    let arch = number.parse().unwrap_or(80);
    let Some(first) = made.first() else {
        return Ok(Compiled { kernels: Vec::new(), folder, prefix });
    };
    let image: &'static [u8] = Box::leak(compiled.cubin.into_boxed_slice());
    let module: &'static Module = Box::leak(Box::new(Module {
        file: first.module.file,
        source: first.module.source,
        ptx: first.module.ptx,
        cubins: Box::leak(Box::new([Cubin { arch, image }])),
    }));
    let with_figures = |k: &&'static Kernel| -> &'static Kernel {
        let figures = ptx::resources(&compiled.log, k.name).map(|r| Resources {
            arch,
            registers: r.registers,
            spill_stores: r.spill_stores,
            spill_loads: r.spill_loads,
            stack: r.stack,
            shared: r.shared,
        });
        Box::leak(Box::new(Kernel {
            name: k.name,
            module,
            params: params(module.source, k),
            max_threads: k.max_threads,
            line: definition_line(module.source, k.name).unwrap_or(k.line),
            doc: Box::leak(comment_above(module.source, k.name).into_boxed_str()),
            resources: Box::leak(figures.into_iter().collect::<Vec<_>>().into_boxed_slice()),
        }))
    };
    Ok(Compiled { kernels: made.iter().map(with_figures).collect(), folder, prefix })
}

/// NVRTC from where the build would take it.
fn load() -> Result<nvrtc::Nvrtc> {
    let project = sass::project_folders().into_iter().next().unwrap_or_else(|| ".".into());
    let told = |text: String| {
        let mut lines = text.lines().map(|l| l.trim_start_matches("error: "));
        let message = lines.next().unwrap_or("NVRTC cannot be loaded").to_owned();
        match text.lines().find_map(|l| l.strip_prefix("hint: ")) {
            Some(hint) => Error::new(message).hint(hint),
            None => Error::new(message),
        }
    };
    nvrtc::find(&project).and_then(|files| nvrtc::Nvrtc::load(&files)).map_err(told)
}

/// The PTX with the files of its `.file`s relative to the working folder.
fn relative_files(ptx: &str, prefix: &str) -> String {
    let relative = |line: &str| match line.trim_start().starts_with(".file") {
        true => line.replacen(&format!("\"{}/", prefix.trim_end_matches('/')), "\"", 1),
        false => line.to_owned(),
    };
    ptx.lines().map(|line| relative(line) + "\n").collect()
}

/// A kernel's parameters, by their names in the source where they can be told.
fn params(source: &str, kernel: &'static Kernel) -> &'static [Param] {
    let call = format!("{}(", source_name(kernel.name));
    let list =
        source.split_once(&call).and_then(|(_, rest)| rest.split_once(')')).map_or("", |(list, _)| list);
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let name = |p: &str| p.trim().rsplit(|c| !is_name(c)).next().unwrap_or_default().to_owned();
    let names: Vec<String> = list.split(',').map(name).filter(|n| !n.is_empty()).collect();
    if names.len() != kernel.params.len() {
        return kernel.params;
    }
    let named = kernel.params.iter().zip(names).map(|(p, name)| Param { name: name.leak(), kind: p.kind });
    Box::leak(named.collect::<Vec<_>>().into_boxed_slice())
}

/// The kernel's name as the source has it.
fn source_name(name: &str) -> &str {
    let Some(rest) = name.strip_prefix("_Z") else { return name };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let length: usize = rest[..digits].parse().unwrap_or(0);
    rest.get(digits..digits + length).unwrap_or(name)
}

/// The line a kernel's name first stands on with a parenthesis behind it.
fn definition_line(source: &str, name: &str) -> Option<u32> {
    let call = format!("{}(", source_name(name));
    let at = source.lines().position(|l| l.contains(&call) && !l.trim_start().starts_with("//"))?;
    Some(at as u32 + 1)
}

/// The `//` lines above its definition.
fn comment_above(source: &str, name: &str) -> String {
    let Some(line) = definition_line(source, name) else { return String::new() };
    let lines: Vec<&str> = source.lines().take(line as usize - 1).collect();
    let is_head = |l: &&&str| l.contains("__global__") || l.contains("template");
    let heads = lines.iter().rev().take_while(is_head).count();
    let above = lines[..lines.len() - heads].iter().rev();
    let mut comment: Vec<&str> = above
        .map_while(|l| l.trim_start().strip_prefix("//"))
        .map(|l| l.trim_start_matches('/').trim())
        .collect();
    comment.reverse();
    comment.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_comments_of_a_users_kernel() {
        let source = "// Doubles.\n// In place.\n__global__ void twice(float *x) {}\n";
        assert_eq!(source_name("_Z5twicePf"), "twice");
        assert_eq!(definition_line(source, "_Z5twicePf"), Some(3));
        assert_eq!(comment_above(source, "_Z5twicePf"), "Doubles.\nIn place.");
    }
}
