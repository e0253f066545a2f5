//! The file names of a text.

/// The text with the name of each `.file` replaced by what `rename` makes of it.
///
/// A compiler puts the folder it ran in before each name; what is built must not depend on it.
pub fn rename_files(ptx: &str, rename: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(ptx.len());
    for line in ptx.lines() {
        let mut parts = line.splitn(3, '"');
        match (line.trim_start().starts_with(".file"), parts.next(), parts.next(), parts.next()) {
            (true, Some(before), Some(name), Some(after)) => {
                out.extend([before, "\"", &rename(name), "\"", after]);
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_files_change() {
        let text = "mov.u32 %r1, %r2;\n\t.file\t1 \"/a/x.cu\"\n.file 2 \"b.cuh\", 7, 8\n.loc 1 2 \"/a/\"\n";
        let relative = |name: &str| name.trim_start_matches('/').to_owned();
        assert_eq!(rename_files(text, relative), text.replace("\"/a/x.cu\"", "\"a/x.cu\""));
    }
}
