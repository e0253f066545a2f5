//! What the build reads out of NVRTC's PTX.

/// One `.entry`.
#[derive(Debug)]
pub struct Entry {
    pub name: String,
    /// Variants of `ParamKind`, as Rust text.
    pub params: Vec<String>,
    /// The product of `.maxntid`.
    pub max_threads: u32,
}

/// The PTX with its `.file "/conv/1_direct.cu"`s made relative.
pub fn with_relative_files(ptx: &str) -> String {
    ::ptx::rename_files(ptx, |name| name.trim_start_matches('/').to_owned())
}

/// The PTX for drivers that are older than the compiler.
pub fn for_old_drivers(ptx: &str) -> Result<String, String> {
    ::ptx::for_old_drivers(ptx).map_err(|e| {
        format!(
            "{e}\nhint: the drivers of CUDA 12.0 to 12.9 would not compile it; where PTX 8.0 has the word, add it to the list \
             in crates/ptx/src/version.rs"
        )
    })
}

/// The names of the entries.
pub fn names(ptx: &str) -> Result<Vec<String>, String> {
    let module = ::ptx::Module::parse(ptx).map_err(|e| e.to_string())?;
    Ok(module.kernels().map(|k| k.name.clone()).collect())
}

/// The entries, in order.
pub fn entries(ptx: &str) -> Result<Vec<Entry>, String> {
    let module = ::ptx::Module::parse(ptx).map_err(|e| e.to_string())?;
    let entry = |kernel: &::ptx::Function| {
        let name = kernel.name.clone();
        if name.starts_with("_Z") {
            return Err(format!("{name} is not declared extern \"C\""));
        }
        let max_threads = kernel.max_threads.ok_or_else(|| format!("{name} has no __launch_bounds__"))?;
        let params = kernel.params.iter().map(|p| format!("{:?}", p.kind())).collect();
        Ok(Entry { name, params, max_threads })
    };
    module.kernels().map(entry).collect()
}
