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
    let relative = |line: &str| match line.trim_start().strip_prefix(".file") {
        Some(_) => line.replacen("\"/", "\"", 1),
        None => line.to_owned(),
    };
    ptx.lines().map(|line| relative(line) + "\n").collect()
}

/// The names of the entries.
pub fn names(ptx: &str) -> impl Iterator<Item = &str> {
    ptx.lines().filter_map(|line| {
        let (_, rest) = line.split_once(".entry ")?;
        Some(rest.split('(').next().unwrap_or(rest).trim())
    })
}

/// The entries, in order.
pub fn entries(ptx: &str) -> Result<Vec<Entry>, String> {
    let starts: Vec<usize> = ptx.match_indices(".entry ").map(|(at, found)| at + found.len()).collect();
    let mut entries = Vec::new();
    for (i, &start) in starts.iter().enumerate() {
        let text = &ptx[start..starts.get(i + 1).copied().unwrap_or(ptx.len())];
        let name = text.split(['(', '\n']).next().unwrap_or_default().trim().to_owned();
        if name.starts_with("_Z") {
            return Err(format!("{name} is not declared extern \"C\""));
        }
        let (head, _) = text.split_once('{').ok_or_else(|| format!("{name} has no body"))?;
        let (list, directives) = match head.split_once('(') {
            Some((_, rest)) => {
                rest.split_once(')').ok_or_else(|| format!("{name}: parameters do not end"))?
            }
            None => ("", head),
        };
        let params = list.split(',').map(str::trim).filter(|param| !param.is_empty());
        let params = params.map(|param| kind(param).ok_or_else(|| format!("{name}: cannot read `{param}`")));
        let params = params.collect::<Result<_, _>>()?;
        let max_threads = directives
            .lines()
            .find_map(|line| line.trim().strip_prefix(".maxntid"))
            .and_then(|sizes| {
                sizes.split(',').map(|size| size.trim().parse::<u32>().ok()).product::<Option<u32>>()
            })
            .ok_or_else(|| format!("{name} has no __launch_bounds__"))?;
        entries.push(Entry { name, params, max_threads });
    }
    Ok(entries)
}

/// `.param .u64 .ptr .align 1 name_param_0` and the like.
fn kind(param: &str) -> Option<String> {
    let mut words = param.split_whitespace().skip(1);
    let mut word = words.next()?;
    while word == ".align" {
        words.next()?;
        word = words.next()?;
    }
    Some(match word {
        ".u64" | ".b64" => "Pointer".into(),
        ".u32" | ".s32" | ".b32" => "Int32".into(),
        ".f32" => "Float32".into(),
        ".s64" | ".f64" => "Bytes(8)".into(),
        ".b8" => {
            let (_, size) = param.rsplit_once('[')?;
            format!("Bytes({})", size.trim_end_matches(']').parse::<u32>().ok()?)
        }
        ".u8" | ".s8" => "Bytes(1)".into(),
        ".u16" | ".s16" | ".b16" | ".f16" => "Bytes(2)".into(),
        _ => return None,
    })
}
