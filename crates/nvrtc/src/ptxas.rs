//! What ptxas, which makes machine code of PTX, prints into the log: warnings, and with
//! `--ptxas-options=-v` what each kernel takes of a multiprocessor.

/// What one kernel takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Registers a thread.
    pub registers: u32,
    /// Bytes of spill stores.
    pub spill_stores: u32,
    /// Bytes of spill loads.
    pub spill_loads: u32,
    /// Bytes of stack frame.
    pub stack: u32,
    /// Bytes of static shared memory.
    pub shared: u32,
}

/// What a log says of one kernel, by its name in the PTX; `None` where it does not name it.
pub fn resources(log: &str, kernel: &str) -> Option<Resources> {
    // The number before a unit, as in `24 bytes stack frame`.
    let before = |line: &str, unit: &str| -> u32 {
        let found =
            line.split(',').find_map(|part| part.trim().strip_suffix(unit)?.rsplit(' ').next()?.parse().ok());
        found.unwrap_or(0)
    };
    let mut resources = Resources::default();
    let (mut inside, mut properties_of) = (false, "");
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            inside = rest.split('\'').next() == Some(kernel);
        } else if let Some((_, name)) = line.split_once("Function properties for ") {
            properties_of = name.trim();
        } else if inside && properties_of == kernel && line.contains("bytes stack frame") {
            resources.stack = before(line, " bytes stack frame");
            resources.spill_stores = before(line, " bytes spill stores");
            resources.spill_loads = before(line, " bytes spill loads");
        } else if inside && line.contains("Used ") {
            resources.registers = before(line, " registers");
            resources.shared = before(line, " bytes smem");
            return Some(resources);
        }
    }
    None
}

/// Whether a line of the log is a warning, or what ptxas prints in place of one.
pub fn is_warning(line: &str) -> bool {
    line.contains("): warning")
        || line.starts_with("ptxas warning")
        || line.contains("Potential Performance Loss")
}

/// The log without ptxas' report of registers.
pub fn without_report(log: &str) -> String {
    let report =
        |line: &str| line.starts_with("ptxas  ") || line.starts_with("ptxas info") && !is_warning(line);
    log.lines().filter(|line| !report(line)).collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
x.cu(3): warning #177-D: variable \"i\" was declared but never referenced
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'fold' for 'sm_80'
ptxas info    : Function properties for fold
ptxas         .     24 bytes stack frame, 16 bytes spill stores, 20 bytes spill loads
ptxas info    : Function properties for helper
ptxas         .     8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 24 bytes cumulative stack size, 1024 bytes smem, 400 bytes cmem[0]
ptxas info    : Compiling entry function 'fold_x4' for 'sm_80'
ptxas info    : Function properties for fold_x4
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, 380 bytes cmem[0]
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized
";

    #[test]
    fn a_kernels_figures_are_its_own() {
        let fold = Resources { registers: 40, spill_stores: 16, spill_loads: 20, stack: 24, shared: 1024 };
        assert_eq!(resources(LOG, "fold"), Some(fold));
        assert_eq!(resources(LOG, "fold_x4"), Some(Resources { registers: 12, ..Resources::default() }));
        assert_eq!(resources(LOG, "fol"), None);
        assert_eq!(resources(LOG, "helper"), None, "a function that is called is no kernel");
    }

    #[test]
    fn warnings_stay_and_the_report_goes() {
        assert_eq!(LOG.lines().filter(|line| is_warning(line)).count(), 2);
        let rest = without_report(LOG);
        let all: Vec<&str> = LOG.lines().collect();
        assert_eq!(rest, format!("{}\n{}", all[0], all[all.len() - 1]));
    }
}
