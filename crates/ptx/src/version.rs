//! Which PTX an older driver compiles: a compiler stamps its own version on what it makes, and a driver refuses every
//! version that is newer than itself, whatever the text holds.

use std::collections::HashSet;

use crate::ast::Module;
use crate::error::Error;

/// The version that [`for_old_drivers`] stamps: that of CUDA 12.0.
const VERSION: (u32, u32) = (8, 0);

/// The words of opcodes that PTX 8.0 has, in every combination that a compiler makes of them for targets before sm_90.
/// What is not here may be newer: NVIDIA's manual says of each instruction which version introduced it.
const OPCODES: &str = "
    abs activemask add addc and atom bar barrier bfe bfi bfind bra brev brkpt brx call clz cnot copysign cos cp cvt cvta
    div ex2 exit fence fma isspacep ld ldmatrix ldu lg2 lop3 mad madc match max membar min mma mov mul mul24 nanosleep
    neg not or pmevent popc prefetch prefetchu prmt rcp red redux rem ret rsqrt sad selp set setp shf shfl shl shr sin
    slct sqrt st sub subc tanh testp trap vote xor

    b8 b16 b32 b64 bf16 bf16x2 f16 f16x2 f32 f64 pred s8 s16 s32 s64 tf32 u8 u16 u32 u64
    const global local param shared
    acq_rel acquire relaxed release sc volatile weak cta gpu sys gl
    ca cg cs cv lu nc wb wt L1 L2 L2::64B L2::128B L2::256B v2 v4
    exch cas dec inc popc

    approx cc full ftz hi lo noftz rm rmi rn rna rni rp rpi rz rzi sat wide nan finite infinite notanumber number normal
    subnormal
    eq equ ge geu gt gtu hs le leu lo ls lt ltu ne neu num to uni l r clamp wrap
    all any ballot bfly down idx up sync aligned arrive
    async commit_group wait_all wait_group m16n8k4 m16n8k8 m16n8k16 m16n8k32 m8n8 x1 x2 x4 trans row col
";

/// The words of directives that PTX 8.0 has.
const DIRECTIVES: &str = "
    address_size align b8 b16 b32 b64 branchtargets callprototype calltargets const entry extern f32 f64 func global
    local maxntid maxnreg minnctapersm noreturn param pragma pred ptr reg reqntid s8 s16 s32 s64 shared target u8 u16 u32
    u64 version visible weak
";

/// The text as one of PTX 8.0, which drivers for CUDA 12.0 and later compile.
///
/// # Errors
/// Names the line and the word that PTX 8.0 may not have.
pub fn for_old_drivers(ptx: &str) -> Result<String, Error> {
    let set = |list: &'static str| list.split_whitespace().collect::<HashSet<&str>>();
    let (opcodes, directive_words) = (set(OPCODES), set(DIRECTIVES));
    let newer = |line: u32, word: &str| {
        let (major, minor) = VERSION;
        Err(Error { line, message: format!("'{word}' is not among the words of PTX {major}.{minor}") })
    };
    for function in &Module::parse(ptx)?.functions {
        for instruction in function.instructions() {
            if let Some(word) = instruction.op.iter().find(|word| !opcodes.contains(&word[..])) {
                return newer(instruction.line, word);
            }
        }
    }
    let mut out = String::with_capacity(ptx.len());
    let mut stamped = false;
    let mut debug = false;
    for (number, line) in (1..).zip(ptx.lines()) {
        let text = line.split("//").next().unwrap_or_default().trim();
        debug |= text.starts_with(".section");
        if let Some(version) = text.strip_prefix(".version") {
            stamped = true;
            let older = parse(version.trim()).is_some_and(|version| version <= VERSION);
            out.push_str(&if older {
                line.to_owned()
            } else {
                format!(".version {}.{}", VERSION.0, VERSION.1)
            });
        } else {
            // Names of files and functions, and tables for debuggers.
            if !debug && !text.starts_with(".file") && !text.starts_with(".loc") {
                if let Some(word) = directives(text).find(|word| !directive_words.contains(word)) {
                    return newer(number, &format!(".{word}"));
                }
                if text.starts_with(".pragma") && !text.contains("\"nounroll\"") {
                    return newer(number, text);
                }
            }
            out.push_str(line);
        }
        out.push('\n');
    }
    if stamped { Ok(out) } else { Err(Error { line: 1, message: "there is no .version".to_owned() }) }
}

/// `8.8`
fn parse(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The words of a line that begin with a dot, without it.
fn directives(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|c: char| c.is_whitespace() || "(),;[]{}<>\"".contains(c));
    let dotted =
        words.filter(|word| word[..].strip_prefix('.').is_some_and(|w| w.starts_with(char::is_alphabetic)));
    dotted.flat_map(|word| word[1..].split('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(version: &str, line: &str) -> String {
        format!(
            "// made by a compiler\n.version {version}\n.target sm_80\n.address_size 64\n\
             .visible .entry k(.param .u64 p)\n.maxntid 256, 1, 1\n{{\n.reg .b64 %rd<2>;\n\
             .pragma \"nounroll\";\n{line}\nret;\n}}\n.file 1 \"a.unknown/x.cu\"\n.section .debug_str\n{{\n.b8 1\n}}\n"
        )
    }

    #[test]
    fn a_newer_version_is_lowered_and_an_older_one_stays() {
        let line = "ld.global.nc.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1];";
        for newer in ["8.1", "8.8", "9.0", "10.2"] {
            assert_eq!(for_old_drivers(&kernel(newer, line)), Ok(kernel("8.0", line)), "{newer}");
        }
        for older in ["6.3", "8.0"] {
            assert_eq!(for_old_drivers(&kernel(older, line)), Ok(kernel(older, line)), "{older}");
        }
    }

    #[test]
    fn what_the_older_version_may_not_have_is_named_with_its_line() {
        for (line, word) in [
            ("ld.global.v8.b32 {%r1}, [%rd1];", "'v8'"),
            ("mov.b128 %rq1, %rq2;", "'b128'"),
            ("add.f32x2 %rd1, %rd1, %rd1;", "'f32x2'"),
            (".pragma \"used_bytes_mask 15\";", "'.pragma \"used_bytes_mask 15\";'"),
        ] {
            let error = for_old_drivers(&kernel("8.8", line)).expect_err(line);
            assert_eq!(error.line, 10, "{error}");
            assert!(error.message.starts_with(word), "{error}");
        }
        let text =
            kernel("8.8", "ret;").replace(".maxntid 256, 1, 1", ".maxntid 256, 1, 1\n.blocksareclusters");
        let error = for_old_drivers(&text).expect_err("newer");
        assert!(error.message.contains("blocksareclusters"), "{error}");
    }

    #[test]
    fn a_text_without_a_version_is_refused() {
        assert!(for_old_drivers(".target sm_80\n.address_size 64\n").is_err());
    }
}
