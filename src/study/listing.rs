//! Where machine instructions come from: PTX and SASS texts with the source lines their `.loc`s name.

use std::collections::HashMap;

/// A line of a source file: path below `kernels/` (or a user's file) and number from 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: String,
    /// The line; 0 where the compiler gives none.
    pub line: u32,
}

/// What a line of a listing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An instruction.
    Instruction,
    /// A label.
    Label,
    /// A declaration or anything else.
    Other,
}

/// One line of PTX or SASS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number in the module's text, from 1. For SASS the address.
    pub number: u32,
    /// Its text, without indentation.
    pub text: String,
    /// What it is.
    pub kind: Kind,
    /// Where it comes from: the line itself, then the lines it was inlined at, outwards.
    pub places: Vec<Place>,
}

/// The lines of one function (`.entry` or `.func`) of a PTX text, from its name to its closing brace,
/// without `.loc`s and empty lines. Empty where there is no such function, or the text is not PTX.
pub fn ptx(text: &str, function: &str) -> Vec<Line> {
    let Ok(module) = ptx::Module::parse(text) else { return Vec::new() };
    let Some(found) = module.functions.iter().find(|f| f.name == function && f.has_body) else {
        return Vec::new();
    };
    let place = |p: &ptx::Place| {
        Some(Place { file: module.files.get(&p.file)?.trim_start_matches("./").to_owned(), line: p.line })
    };
    let mut kinds: HashMap<u32, (Kind, Vec<Place>)> = HashMap::new();
    for statement in &found.body {
        match statement {
            ptx::Statement::Instruction(i) => {
                _ = kinds.insert(i.line, (Kind::Instruction, i.places.iter().filter_map(place).collect()));
            }
            ptx::Statement::Label(_, line) => _ = kinds.entry(*line).or_insert((Kind::Label, Vec::new())),
            _ => {}
        }
    }
    let (first, last) = found.lines;
    let mut out = Vec::new();
    for (number, line) in (1..).zip(text.lines()).skip(first as usize - 1).take((last - first) as usize + 1) {
        let text = line.split_whitespace().collect::<Vec<_>>().join(" ");
        if !text.is_empty() && !text.starts_with(".loc") {
            let (kind, places) = kinds.remove(&number).unwrap_or((Kind::Other, Vec::new()));
            out.push(Line { number, text, kind, places });
        }
    }
    out
}

/// The lines of one kernel out of what `nvdisasm -gi -c` prints.
pub fn sass(text: &str, kernel: &str) -> Vec<Line> {
    let section = format!(".text.{kernel}:");
    let mut lines = text.lines().skip_while(|line| line.trim() != section).skip(1);
    let mut out = Vec::new();
    let mut places: Vec<Place> = Vec::new();
    let mut fresh = true;
    for line in &mut lines {
        let trimmed = line.trim();
        if trimmed.starts_with("//---") || trimmed.starts_with(".section") {
            break;
        }
        if let Some(rest) = trimmed.strip_prefix("//##") {
            if fresh {
                places.clear();
                fresh = false;
            }
            places.extend(sass_place(rest));
            continue;
        }
        fresh = true;
        if let Some((address, text)) = trimmed.strip_prefix("/*").and_then(|rest| rest.split_once("*/")) {
            let number = u32::from_str_radix(address, 16).unwrap_or(0);
            let text = text.trim().trim_end_matches(';').trim().to_owned();
            if text.starts_with("NOP") {
                continue; // fills up the end
            }
            out.push(Line { number, text, kind: Kind::Instruction, places: places.clone() });
        } else if trimmed.ends_with(':') {
            out.push(Line { number: 0, text: trimmed.to_owned(), kind: Kind::Label, places: Vec::new() });
        }
    }
    // Labels of the end, after the last instruction.
    while out.last().is_some_and(|line| line.kind == Kind::Label) {
        out.pop();
    }
    out
}

/// `File "/common/norm.cuh", line 31 inlined at "/adalin/fused.cu", line 216`: the first of the two; the
/// second has a line of its own below.
fn sass_place(text: &str) -> Option<Place> {
    let (_, rest) = text.split_once('"')?;
    let (file, rest) = rest.split_once('"')?;
    let digits: String = rest.split_once("line ")?.1.chars().take_while(char::is_ascii_digit).collect();
    Some(Place { file: file.trim_start_matches(['/', '.']).to_owned(), line: digits.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &str = r#"
.visible .entry k(
	.param .u64 k_param_0
)
.maxntid 256, 1, 1
{
	.reg .b32 	%r<5>;
	.loc	1 10 5
	mov.u32 	%r1, %tid.x;
	.loc	1 12 9, function_name $L__info_string0, inlined_at 1 11 3
	add.s32 	%r2, %r1, 1;
	.loc	2 7 1, function_name $L__info_string1, inlined_at 1 12 9
$L__BB0_1:
	add.s32 	%r3, %r2, 1;
	ret;

}
.visible .entry k2()
{
	ret;
}
	.file	1 "adalin/x.cu"
	.file	2 "common/y.cuh"
"#;

    #[test]
    fn ptx_lines_name_where_they_were_inlined() {
        let lines = ptx(PTX, "k");
        let of = |text: &str| {
            let line = lines.iter().find(|l| l.text == text).unwrap();
            let places: Vec<_> = line.places.iter().map(|p| format!("{}:{}", p.file, p.line)).collect();
            (line.number, places.join(" "))
        };
        assert_eq!(of("mov.u32 %r1, %tid.x;"), (9, "adalin/x.cu:10".into()));
        assert_eq!(of("add.s32 %r2, %r1, 1;"), (11, "adalin/x.cu:12 adalin/x.cu:11".into()));
        assert_eq!(of("add.s32 %r3, %r2, 1;"), (14, "common/y.cuh:7 adalin/x.cu:12 adalin/x.cu:11".into()));
        let kinds = |kind| lines.iter().filter(|l| l.kind == kind).count();
        assert_eq!((kinds(Kind::Instruction), kinds(Kind::Label)), (4, 1));
        assert_eq!(ptx(PTX, "k2").iter().filter(|l| l.kind == Kind::Instruction).count(), 1);
        assert!(ptx(PTX, "k3").is_empty());
    }

    #[test]
    fn sass_lines_name_where_they_were_inlined() {
        let text = r#"
//--------------------- .text.other --------------------------
.text.other:
        /*0000*/                   EXIT ;
//--------------------- .text.k --------------------------
	.section	.text.k,"ax",@progbits
k:
.text.k:
	//## File "/a/x.cu", line 211
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_1:
	//## File "/common/y.cuh", line 31 inlined at "/a/x.cu", line 216
	//## File "/a/x.cu", line 216
        /*0010*/               @P0 BRA `(.L_x_1) ;
        /*0020*/                   STL [R1], R2 ;
        /*0030*/                   NOP;
.L_x_2:
"#;
        let lines = sass(text, "k");
        let shown: Vec<_> = lines
            .iter()
            .map(|l| {
                let places: Vec<_> = l.places.iter().map(|p| format!("{}:{}", p.file, p.line)).collect();
                format!("{:x} {} {}", l.number, l.text, places.join(" "))
            })
            .collect();
        assert_eq!(
            shown,
            [
                "0 LDC R1, c[0x0][0x28] a/x.cu:211",
                "0 .L_x_1: ",
                "10 @P0 BRA `(.L_x_1) common/y.cuh:31 a/x.cu:216",
                "20 STL [R1], R2 common/y.cuh:31 a/x.cu:216"
            ]
        );
    }
}
