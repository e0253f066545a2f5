//! `ugatit kernels`: what kernels there are and what they take of an SM.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::text;
use crate::format::{self, Column, Table};
use crate::kernels::{Kernel, ParamKind, Resources};
use crate::model::occupancy::{self, Occupancy};

/// The architectures whose occupancy is shown.
const SHOWN: [u32; 2] = [80, 90];

/// A kernel's name without what tells its variants apart: vector width, tile, element type.
pub fn family(name: &str) -> String {
    let is_variant = |part: &str| {
        let numbered = |c: char| {
            part.strip_prefix(c).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        };
        matches!(part, "f32" | "f16" | "bf16" | "tf32") || numbered('x') || numbered('c') || numbered('v')
    };
    name.split('_').filter(|part| !is_variant(part)).collect::<Vec<_>>().join("_")
}

/// Occupancy with the largest block the kernel allows and its static shared memory.
pub fn occupancy_of(kernel: &Kernel, arch: u32, threads: u32, dynamic_shared: u32) -> Option<Occupancy> {
    let r = kernel.resources_for(arch)?;
    let limits = occupancy::limits_of(arch);
    Some(occupancy::occupancy(&limits, threads, r.registers, r.shared + dynamic_shared))
}

fn both(kernel: &Kernel, f: impl Fn(&Resources) -> u32) -> String {
    let of = |arch| kernel.resources_for(arch).map_or(0, &f);
    let [a, b] = SHOWN.map(of);
    if a == b { a.to_string() } else { format!("{a}/{b}") }
}

/// The kernels as a table, by file and family.
pub fn table(kernels: &[&'static Kernel]) -> String {
    let mut files: BTreeMap<&str, BTreeMap<(u32, String), Vec<&Kernel>>> = BTreeMap::new();
    for &k in kernels {
        let families = files.entry(k.module.file).or_default();
        let name = family(k.name);
        // A family stands where its first variant does.
        let line = kernels.iter().filter(|o| family(o.name) == name).map(|o| o.line).min();
        families.entry((line.unwrap_or(k.line), name)).or_default().push(k);
    }
    let width = kernels.iter().map(|k| k.name.len()).max().unwrap_or(0).max(6);
    let mut out = String::new();
    let table = Table::new(
        2,
        [
            Column::left("kernel", width),
            Column::right("line", 5),
            Column::right("threads", 7),
            Column::right("registers", 9),
            Column::right("shared", 6),
            Column::right("spills", 6),
            Column::right("stack", 5),
            Column::left("occupancy 8.0", 18),
            Column::left("9.0", 0),
        ],
    );
    for (file, families) in &files {
        _ = write!(out, "kernels/{file}\n{}", table.head());
        for variants in families.values() {
            for (i, k) in variants.iter().enumerate() {
                let [older, newer] = SHOWN.map(|arch| {
                    occupancy_of(k, arch, k.max_threads, 0).map_or_else(String::new, |o| {
                        format!("{:3.0} % {}", o.fraction * 100.0, o.limit.name())
                    })
                });
                out += &table.row([
                    k.name.to_owned(),
                    k.line.to_string(),
                    k.max_threads.to_string(),
                    both(k, |r| r.registers),
                    both(k, |r| r.shared),
                    both(k, |r| r.spill_stores + r.spill_loads),
                    both(k, |r| r.stack),
                    older,
                    newer,
                ]);
                let last = i + 1 == variants.len();
                if last && !k.doc.is_empty() {
                    _ = writeln!(out, "      {}", text::first_sentence(k.doc));
                }
            }
        }
        out.push('\n');
    }
    _ = writeln!(
        out,
        "{} kernels. Where two figures stand, they are those for compute capability 8.0 and 9.0. Occupancy is\n\
         theoretical: full blocks, static shared memory, and what binds. Shared, spills and stack in bytes.",
        kernels.len()
    );
    out
}

/// One kernel with its whole comment and its parameters.
pub fn details(kernel: &Kernel) -> String {
    let mut out = format!("{}\n  kernels/{}:{}\n\n", kernel.name, kernel.module.file, kernel.line);
    for line in kernel.doc.lines() {
        _ = writeln!(out, "  {line}");
    }
    _ = writeln!(out, "\n  parameters");
    for p in kernel.params {
        _ = writeln!(out, "    {:8} {}", kind(p.kind), p.name);
    }
    let table = Table::new(
        2,
        [
            Column::right("capability", 10),
            Column::right("registers", 9),
            Column::right("shared", 6),
            Column::right("spills", 6),
            Column::right("stack", 5),
            Column::right("blocks an SM", 12),
            Column::left("occupancy", 0),
        ],
    );
    _ = writeln!(out, "\n{} with {} threads", table.head().trim_end(), kernel.max_threads);
    for limits in occupancy::ALL {
        let (Some(r), Some(o)) =
            (kernel.resources_for(limits.arch), occupancy_of(kernel, limits.arch, kernel.max_threads, 0))
        else {
            continue;
        };
        out += &table.row([
            format::capability(limits.arch),
            r.registers.to_string(),
            r.shared.to_string(),
            (r.spill_stores + r.spill_loads).to_string(),
            r.stack.to_string(),
            o.blocks.to_string(),
            format!("{:3.0} % ({})", o.fraction * 100.0, o.limit.name()),
        ]);
    }
    let built: Vec<String> = kernel.resources.iter().map(|r| format::capability(r.arch)).collect();
    _ = writeln!(
        out,
        "\n  Compiled for {}; other rows take the figures of the nearest older one.",
        built.join(" and ")
    );
    out
}

fn kind(kind: ParamKind) -> String {
    match kind {
        ParamKind::Pointer => "pointer".into(),
        ParamKind::Int32 => "int".into(),
        ParamKind::Float32 => "float".into(),
        ParamKind::Bytes(n) => format!("{n} bytes"),
    }
}

/// The kernels for programs.
pub fn json(kernels: &[&'static Kernel]) -> Json {
    let one = |k: &&'static Kernel| {
        let resources: Vec<Json> = k.resources.iter().map(|r| {
            json!({ "capability": format::capability(r.arch), "registers": r.registers, "shared": r.shared,
                "spill_stores": r.spill_stores, "spill_loads": r.spill_loads, "stack": r.stack })
        }).collect();
        let occupancies: Vec<Json> = occupancy::ALL
            .iter()
            .filter_map(|l| {
                let o = occupancy_of(k, l.arch, k.max_threads, 0)?;
                Some(json!({ "capability": format::capability(l.arch), "blocks": o.blocks, "warps": o.warps,
                "fraction": o.fraction, "limit": o.limit.name() }))
            })
            .collect();
        let params: Vec<Json> =
            k.params.iter().map(|p| json!({ "name": p.name, "kind": kind(p.kind) })).collect();
        json!({ "name": k.name, "family": family(k.name), "file": format!("kernels/{}", k.module.file),
            "line": k.line, "computes": text::first_sentence(k.doc), "doc": k.doc, "parameters": params,
            "threads": k.max_threads, "resources": resources, "occupancy": occupancies })
    };
    json!({ "kernels": kernels.iter().map(one).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels;

    #[test]
    fn variants_have_one_family() {
        assert_eq!(family("conv_forward_direct_x4_c8_f32"), "conv_forward_direct");
        assert_eq!(family("conv_forward_direct_x1_c4_f32"), "conv_forward_direct");
        assert_eq!(family("adalin_forward_bf16"), "adalin_forward");
        assert_eq!(family("cam_fold_f32"), "cam_fold");
    }

    #[test]
    fn the_table_has_every_kernel_once_and_its_place() {
        let all: Vec<&'static Kernel> = kernels::all().iter().collect();
        let table = table(&all);
        for k in &all {
            let rows: Vec<&str> =
                table.lines().filter(|l| l.split_whitespace().next() == Some(k.name)).collect();
            assert_eq!(rows.len(), 1, "{}", k.name);
            assert_eq!(rows[0].split_whitespace().nth(1), Some(&*k.line.to_string()));
        }
        let json = json(&all);
        assert_eq!(json["kernels"].as_array().unwrap().len(), all.len());
    }
}
