//! The document of the PTX that the emulator knows, from the lists that the decoder dispatches on.

use std::fmt::Write;

use crate::{decode, select};

/// Forms of PTX that are known to be missing: each is refused with its line.
const REFUSED: &[&str] = &[
    "{addc,subc,madc}.{u32,s32}",
    "{add,sub,mul,fma}.rn.f32x2",
    "dp2a.{lo,hi}.{u32,s32}.{u32,s32}",
    "{mul24,mad24}.hi.{u32,s32}",
    "prmt.b32.{f4e,b4e,rc8,ecl,ecr,rc16}",
    "bmsk.{clamp,wrap}.b32",
    "szext.{clamp,wrap}.{u32,s32}",
    "fns.b32",
    "{min,max,neg,abs,tanh}.ftz.f32",
    "{min,max}.xorsign.abs.f32",
    "{div,rcp,sqrt}.{rn,rz,rm,rp}.ftz.f32",
    "{div,rcp,sqrt,fma}.{rz,rm,rp}.f64",
    "rcp.approx.ftz.f64",
    "fma.rn.{ftz,sat}.{f16,bf16}",
    "fma.rn.relu.{f16x2,bf16x2}",
    "{setp,set}.{eq,lt}.ftz.f32",
    "setp.{eq,lt}.{f16x2,bf16x2}",
    "cvt.rn.{f16,bf16}.{u64,s64}",
    "cvt.rn.f64.{u8,s8}",
    "cvt.rn{,.satfinite}.{e4m3x2,e5m2x2}.f32",
    "cvt.ftz.f64.f32",
    "{tex,tld4}.2d.v4.f32.f32",
    "{suld,sust}.b.2d.b32",
    "vadd.s32.s32.s32",
    "isspacep.global",
    "mapa.u64",
    "{vote,shfl}.all.pred",
    "match.all.sync.b32",
    "stmatrix.sync.aligned.m8n8.x4.shared.b16",
    "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32",
    "wgmma.fence.sync.aligned",
    "{wmma.load.a.sync.aligned.row.m16n16k16.f16}",
    "tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32",
    "cp.async.bulk.global.shared::cta.bulk_group",
    "mbarrier.expect_tx.relaxed.cta.shared::cta.b64",
    "{atom,red}.global.add.noftz.{f16,bf16,f16x2}",
    "ld.global.v8.f32",
    "barrier.cluster.arrive",
    "{griddepcontrol.wait,setmaxnreg.inc.sync.aligned.u32}",
    "{alloca.u64,stacksave.u64}",
    "{pmevent,clusterlaunchcontrol.query_cancel.is_canceled.pred.b128}",
];

/// The instructions of PTX that the emulator knows, as Markdown.
pub fn instruction_table() -> String {
    let mut out = String::from(
        "# The PTX that the emulator knows\n\n\
         Made from the lists that the decoder dispatches on. Braces are those of a shell: `add{,.sat}.s32` is `add.s32` and \
         `add.sat.s32`. Where the opcode does not tell the operands, an example follows; `d` is a register of the last type, \
         or as many in braces as `.v2` and `.v4` say.\n\n\
         | family | forms | remarks |\n|---|---|---|\n",
    );
    let known = decode::FAMILIES.iter().copied().flatten().map(|f| (f.title, f.forms, f.remarks));
    for (title, forms, remarks) in known.chain(select::FAMILIES.iter().map(|f| (f.title, f.forms, f.remarks)))
    {
        _ = writeln!(out, "| {title} | {} | {remarks} |", cell(forms));
    }
    _ = writeln!(
        out,
        "\nAmong those that are refused, with the line of the PTX: {}.",
        cell(REFUSED).replace("<br>", ", ")
    );
    out
}

/// Forms as a cell of a table.
fn cell(forms: &[&str]) -> String {
    let forms: Vec<String> = forms.iter().map(|f| format!("`{}`", f.replace('|', "\\|"))).collect();
    forms.join("<br>")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::Module;
    use crate::isa::Ty;

    /// What a pattern with braces stands for.
    fn expand(pattern: &str) -> Vec<String> {
        let Some(open) = pattern.find('{') else { return vec![pattern.to_owned()] };
        let mut depth = 0;
        let mut starts = vec![open + 1];
        for (at, c) in pattern.char_indices().skip(open) {
            match c {
                '{' => depth += 1,
                ',' if depth == 1 => starts.push(at + 1),
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let ends = starts[1..].iter().map(|s| s - 1).chain([at]);
                let rest = &pattern[at + 1..];
                let choices = starts.iter().zip(ends).map(|(s, e)| &pattern[*s..e]);
                return choices.flat_map(|c| expand(&format!("{}{c}{rest}", &pattern[..open]))).collect();
            }
        }
        panic!("{pattern}: a brace is open");
    }

    /// Opcodes and operands of a form.
    fn cases(form: &str) -> Vec<(String, String)> {
        let (pattern, operands) = form.split_once(' ').unwrap_or((form, ""));
        expand(pattern).into_iter().map(|op| (op, operands.to_owned())).collect()
    }

    fn register(ty: Ty, number: usize) -> String {
        let file = match (ty, ty.bytes()) {
            (Ty::Pred, _) => "p",
            (Ty::F32, _) => "f",
            (Ty::F64, _) => "fd",
            (_, 1 | 2) => "rs",
            (_, 8) => "rd",
            _ => "r",
        };
        format!("%{file}{number}")
    }

    /// Operands with registers for `d`.
    fn with_registers(op: &str, operands: &str) -> String {
        let ty = op.rsplit('.').find_map(Ty::parse).unwrap_or(Ty::B32);
        let count = op.split('.').find_map(|w| w.strip_prefix('v')?.parse().ok()).unwrap_or(1);
        let registers: Vec<String> = (1..=count).map(|n| register(ty, n)).collect();
        let d = if count == 1 { registers[0].clone() } else { format!("{{{}}}", registers.join(", ")) };
        operands.split(", ").map(|o| if o == "d" { d.as_str() } else { o }).collect::<Vec<_>>().join(", ")
    }

    /// Whether a kernel with that one instruction is decoded.
    fn decodes(instruction: &str) -> crate::Result<()> {
        let text = format!(
            ".version 8.8\n.target sm_90\n.address_size 64\n\
             .func (.param .b64 result) function(.param .b64 argument)\n{{\nret;\n}}\n\
             .visible .entry k(\n.param .u64 k_param_0\n)\n{{\n\
             .reg .pred %p<9>;\n.reg .f32 %f<9>;\n.reg .b32 %r<9>;\n.reg .b64 %rd<9>;\n.reg .f64 %fd<9>;\n\
             .reg .b16 %rs<9>;\n.param .b64 object;\ntable: .branchtargets label;\nlabel:\n{instruction};\nret;\n}}\n"
        );
        Module::from_ptx(&text)?.kernel("k").map(drop)
    }

    /// An instruction of `select`, whose operands follow from their types; `setp` combines with a predicate.
    fn lane_wise(op: &str) -> Option<String> {
        let words: Vec<String> = op.split('.').map(str::to_owned).collect();
        let alu = select::select(&words)?;
        let mut operands = vec![register(alu.dst, 1)];
        operands.extend(alu.src.iter().enumerate().map(|(n, ty)| register(*ty, n + 2)));
        if words[0] == "setp" && select::bool_op_number(&words) != 0 {
            operands.push("!%p2".to_owned());
        }
        Some(format!("{op} {}", operands.join(", ")))
    }

    #[test]
    fn every_form_of_the_instruction_table_decodes() {
        for form in decode::FAMILIES.iter().copied().flatten().flat_map(|f| f.forms) {
            for (op, operands) in cases(form) {
                let line = format!("{op} {}", with_registers(&op, &operands));
                decodes(&line).unwrap_or_else(|e| panic!("{form}: {line}: {e}"));
            }
        }
        for form in select::FAMILIES.iter().flat_map(|f| f.forms) {
            for (op, _) in cases(form) {
                let line = lane_wise(&op).unwrap_or_else(|| panic!("{form}: {op} is not selected"));
                decodes(&line).unwrap_or_else(|e| panic!("{form}: {line}: {e}"));
            }
        }
    }

    #[test]
    fn every_name_of_a_family_has_a_form_and_every_form_a_name() {
        let known = decode::FAMILIES.iter().copied().flatten().map(|f| (f.title, f.names, f.forms));
        for (title, names, forms) in known.chain(select::FAMILIES.iter().map(|f| (f.title, f.names, f.forms)))
        {
            let of_forms: BTreeSet<String> = forms
                .iter()
                .flat_map(|f| cases(f))
                .filter_map(|(op, _)| Some(op.split('.').next()?.to_owned()))
                .collect();
            let names: BTreeSet<String> = names.iter().map(|n| (*n).to_owned()).collect();
            assert_eq!(of_forms, names, "{title}");
        }
    }

    #[test]
    fn what_the_instruction_table_calls_refused_is_refused() {
        for (op, _) in REFUSED.iter().flat_map(|f| cases(f)) {
            let message = decodes(&format!("{op} %r1, %r2, %r3")).expect_err(&op).to_string();
            assert!(message.contains("does not know this instruction"), "{op}: {message}");
        }
    }

    #[test]
    fn the_instruction_table_is_in_the_document() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("INSTRUCTIONS.md");
        let table = instruction_table();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &table).expect("INSTRUCTIONS.md can be written");
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == table,
            "INSTRUCTIONS.md is stale: UPDATE=1 cargo test -p ptx-emulator instruction_table"
        );
    }
}
