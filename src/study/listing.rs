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

type Spot = (u32, u32, u32); // file, line, column

/// The lines of one function (`.entry` or `.func`) of a PTX text, from its name to its closing brace,
/// without `.loc`s and empty lines. Empty where there is no such function.
pub fn ptx(text: &str, function: &str) -> Vec<Line> {
    let files = ptx_files(text);
    let mut out = Vec::new();
    let (mut inside, mut depth) = (false, 0i32);
    let mut inlined_at: HashMap<Spot, Spot> = HashMap::new();
    let mut places: Vec<Place> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if !inside {
            let declares = trimmed.contains(".entry ") || trimmed.contains(".func ");
            inside = declares && names(trimmed, function) && !trimmed.ends_with(';');
            if !inside {
                continue;
            }
            places.clear();
        }
        if let Some(rest) = trimmed.strip_prefix(".loc") {
            places = loc(rest, &files, &mut inlined_at);
            continue;
        }
        depth += braces(trimmed);
        if !trimmed.is_empty() {
            let kind = if depth == 0 {
                Kind::Other
            } else if trimmed.ends_with(':') {
                Kind::Label
            } else if is_instruction(trimmed) {
                Kind::Instruction
            } else {
                Kind::Other
            };
            let places = if kind == Kind::Instruction { places.clone() } else { Vec::new() };
            let text = trimmed.split_whitespace().collect::<Vec<_>>().join(" ");
            out.push(Line { number: index as u32 + 1, text, kind, places });
        }
        if depth == 0 && trimmed.ends_with('}') {
            return out;
        }
    }
    out
}

/// Whether a declaration is of the function of that name.
fn names(declaration: &str, function: &str) -> bool {
    declaration.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).any(|w| w == function)
}

/// Whether a line of a body holds an instruction: not declarations, braces and comments alone.
fn is_instruction(line: &str) -> bool {
    let starts = |statement: &str| {
        let statement = statement.trim_start_matches(|c: char| c == '{' || c == '}' || c.is_whitespace());
        statement.starts_with(|c: char| c.is_ascii_alphabetic() || c == '@')
    };
    !line.starts_with("//") && line.split(';').any(starts)
}

/// Braces opened less closed; those around vectors cancel out.
fn braces(line: &str) -> i32 {
    let code = line.split("//").next().unwrap_or(line);
    code.chars().map(|c| i32::from(c == '{') - i32::from(c == '}')).sum()
}

/// The `.file` table.
fn ptx_files(text: &str) -> HashMap<u32, String> {
    let file = |line: &str| {
        let (number, rest) = line.trim().strip_prefix(".file")?.trim().split_once(char::is_whitespace)?;
        let name = rest.trim().strip_prefix('"')?.split('"').next()?;
        Some((number.parse().ok()?, name.trim_start_matches("./").to_owned()))
    };
    text.lines().filter_map(file).collect()
}

/// The places of a `.loc 1 20 5, function_name $L, inlined_at 1 29 5`. Where that was inlined in turn,
/// an earlier `.loc` of the place says so.
fn loc(rest: &str, files: &HashMap<u32, String>, inlined_at: &mut HashMap<Spot, Spot>) -> Vec<Place> {
    let spot = |text: &str| -> Option<Spot> {
        let mut numbers = text.split_whitespace().map(|n| n.trim_end_matches(',').parse::<u32>().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next()??))
    };
    let Some(here) = spot(rest) else { return Vec::new() };
    let mut chain = vec![here];
    if let Some(outer) = rest.split_once("inlined_at").and_then(|(_, outer)| spot(outer)) {
        inlined_at.insert(here, outer);
        let mut next = Some(outer);
        while let Some(at) = next.filter(|at| chain.len() < 32 && !chain.contains(at)) {
            chain.push(at);
            next = inlined_at.get(&at).copied();
        }
    } else {
        inlined_at.remove(&here);
    }
    let place = |(file, line, _): Spot| Some(Place { file: files.get(&file)?.clone(), line });
    chain.into_iter().filter_map(place).collect()
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
    // Labels of the end, behind the last instruction.
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
