//! What every lane-wise opcode gives, held fast by hashes: which forms are known, and their results over operands at
//! the edges of their types.

use std::collections::HashMap;

use super::{Alu, select};
use crate::isa::Ty;

const TYPES: [&str; 20] = [
    "pred", "b8", "b16", "b32", "b64", "u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "f16", "f32",
    "f64", "bf16", "f16x2", "bf16x2", "tf32",
];

/// An opcode, the number of its forms that are known, and the hash of their results.
#[rustfmt::skip]
const KNOWN: [(&str, u32, u64); 47] = [
    ("mov", 800, 0x9ca3_dcf6_7f7c_2685),
    ("add", 526, 0x76c2_0a21_a158_c379),
    ("sub", 526, 0xd6d1_fba5_f8c9_4289),
    ("mul", 1946, 0x4a14_5429_1c0e_2c1a),
    ("mad", 1926, 0x3e02_ff18_dafb_da13),
    ("div", 512, 0x0388_752c_1b78_4fc2),
    ("rem", 480, 0x77b8_2bd0_1bcf_61c0),
    ("neg", 500, 0xc5bc_b677_7fd7_33b7),
    ("abs", 140, 0xaf53_ed06_084e_8cb2),
    ("min", 514, 0x8218_a52d_9106_6683),
    ("max", 514, 0x2785_3c04_07e1_402b),
    ("and", 520, 0x07ed_52d0_de4f_fd87),
    ("or", 520, 0x3d56_78b8_eb75_cadd),
    ("xor", 520, 0x82e7_3692_e997_4c4e),
    ("not", 520, 0x17c6_f623_a804_b97e),
    ("cnot", 520, 0x5c84_911f_217b_a0ba),
    ("lop3", 520, 0x3ac9_4228_00f2_6106),
    ("shl", 360, 0x0b9e_1f90_01c5_a117),
    ("shr", 480, 0x9402_920b_4261_6aa6),
    ("shf", 3120, 0x50d2_4a2e_5fd4_4696),
    ("bfe", 480, 0x10b4_3962_7cd2_8437),
    ("bfi", 480, 0x9d64_1094_8b97_2da8),
    ("prmt", 520, 0x0c9d_1fde_1ba0_3405),
    ("popc", 520, 0x0c70_ab80_cea0_b164),
    ("clz", 520, 0xeeaf_edc8_54bc_4f3f),
    ("brev", 520, 0xce00_d877_f412_c2b1),
    ("bfind", 960, 0xf0e1_ded7_3a07_6041),
    ("sad", 480, 0x3ab0_b0c6_706b_b150),
    ("selp", 800, 0x09f0_e3cc_a3be_cf7d),
    ("slct", 16000, 0xff49_5b2f_939e_b4a4),
    ("dp4a", 10400, 0xb7d5_cb69_be66_155e),
    ("mul24", 520, 0xb5d5_9b87_584c_bfa1),
    ("mad24", 520, 0x9491_b069_e510_daf1),
    ("fma", 26, 0x7ee1_82b4_cf45_8555),
    ("rcp", 20, 0xf4aa_2fd6_dead_c353),
    ("sqrt", 20, 0xb070_a53d_16c5_4690),
    ("rsqrt", 18, 0x8793_ffcf_fab7_c670),
    ("ex2", 28, 0x3fe3_aac6_e23f_61b5),
    ("lg2", 12, 0xa221_0540_4d7c_e903),
    ("sin", 12, 0x7c50_7fe6_d4cd_a49a),
    ("cos", 12, 0x2047_dd82_aa34_0e6a),
    ("tanh", 14, 0x6248_4db3_d229_4976),
    ("copysign", 12, 0xa96d_5778_e3fe_dc55),
    ("testp", 72, 0x60ab_ab66_468c_e040),
    ("cvt", 4743, 0x72f4_e887_be6a_d26e),
    ("setp", 18720, 0xcf19_b026_b891_3ce8),
    ("set", 33840, 0x8145_5b77_e546_caa7),
];

/// Words between the name and the types: none, each that some opcode has, and those that come together.
fn words(name: &str) -> Vec<Vec<&'static str>> {
    let mut out = vec![vec![]];
    if name.starts_with("set") {
        for c in [
            "eq", "ne", "lt", "lo", "le", "ls", "gt", "hi", "ge", "hs", "equ", "neu", "ltu", "leu", "gtu",
            "geu", "num", "nan",
        ] {
            out.extend([vec![c], vec![c, "and"], vec![c, "or"], vec![c, "xor"], vec![c, "strange"]]);
        }
        return out;
    }
    for word in [
        "wide",
        "hi",
        "lo",
        "shiftamt",
        "approx",
        "full",
        "NaN",
        "relu",
        "finite",
        "infinite",
        "number",
        "notanumber",
        "normal",
        "subnormal",
        "strange",
    ] {
        out.push(vec![word]);
    }
    if name == "shf" {
        out.extend([
            vec!["l"],
            vec!["r"],
            vec!["l", "wrap"],
            vec!["r", "wrap"],
            vec!["l", "clamp"],
            vec!["r", "clamp"],
        ]);
    }
    out
}

fn types(name: &str) -> Vec<Vec<&'static str>> {
    let single = TYPES.iter().map(|t| vec![*t]);
    if !matches!(name, "cvt" | "set" | "slct" | "dp4a") {
        return single.collect();
    }
    TYPES.iter().flat_map(|a| TYPES.iter().map(|b| vec![*a, *b])).collect()
}

/// Values at the edges of a type: zeros, ones, infinities, NaNs, subnormals, and the ends of the integers.
fn values(ty: Ty, few: bool) -> Vec<u64> {
    let all: &[u64] = match ty.bytes() {
        0 => &[0, 1],
        1 => &[0, 1, 0x7f, 0x80, 0xff, 0x55, 0x83],
        2 => &[
            0, 1, 0x7fff, 0x8000, 0xffff, 0x3c00, 0xbc00, 0x7c00, 0xfc00, 0x7e00, 0x3f80, 0xbf80, 0x7f80,
            0xff80, 0x7fc0, 0x03ff, 0x83ff, 0x0400, 0x7bff, 0x5555, 0x1234, 31, 16, 15, 0x4248, 0x3555,
        ],
        4 => &[
            0,
            0x8000_0000,
            0x3f80_0000,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0000,
            0xffff_ffff,
            1,
            0x7fff_ffff,
            0x007f_ffff,
            0x8000_0001,
            0x3eaa_aaab,
            31,
            32,
            33,
            0xbf00_0000,
            0x4049_0fdb,
            0x7f7f_ffff,
            0x0080_0000,
            0x3fc0_0000,
            0x4b00_0001,
            0xc2f7_0000,
            0x3c01_bc00,
            0x7c00_fc00,
            0x7fc0_3f80,
            0x1234_5678,
            0xdead_beef,
            0x3400_0001,
            0x4f00_0000,
            0x4f80_0000,
            0xff,
            0x3210,
            0x8888,
            0x40a0_0000,
            0xc020_0000,
            0x3eff_ffff,
        ],
        _ => &[
            0,
            1 << 63,
            0x3ff0_0000_0000_0000,
            0x7ff0_0000_0000_0000,
            0xfff0_0000_0000_0000,
            0x7ff8_0000_0000_0000,
            u64::MAX,
            1,
            i64::MAX as u64,
            0x000f_ffff_ffff_ffff,
            0x3fd5_5555_5555_5555,
            0x4009_21fb_5444_2d18,
            0x7fef_ffff_ffff_ffff,
            0x8000_0000_0000_0001,
            0x8000_0000,
            0xffff_ffff,
            0x7fff_ffff,
            0xffff_ffff_8000_0000,
            0x1_0000_0000,
            63,
            64,
            0x36a0_0000_0000_0001,
            0x47ef_ffff_f000_0000,
            0x0123_4567_89ab_cdef,
            0xbff8_0000_0000_0000,
            0x4330_0000_0000_0001,
            0x43e0_0000_0000_0000,
            0xfedc_ba98_7654_3211,
            0x4004_0000_0000_0000,
            0x0010_0000_0000_0000,
        ],
    };
    all[..if few { all.len().min(14) } else { all.len() }].to_vec()
}

fn mix(hash: u64, v: u64) -> u64 {
    let x = (hash ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^ x >> 29
}

/// The hash of what a lane gives over all its operands. The sign and the payload of a NaN are the host's.
fn results(name: &str, alu: &Alu) -> u64 {
    let mut operands: Vec<Vec<u64>> = alu.src.iter().map(|t| values(*t, alu.src.len() > 2)).collect();
    if name == "setp" {
        operands.extend([vec![0, 1], vec![0, 1, 2, 3]]);
    }
    operands.resize(4, vec![0]);
    let [first, second, third, fourth] = operands.as_slice() else { panic!("more than four operands") };
    let mut hash = 1;
    for a in first {
        for b in second {
            for c in third {
                for d in fourth {
                    let r = (alu.lane)([*a, *b, *c, *d]);
                    let nan = match alu.dst {
                        Ty::F32 => f32::from_bits(r as u32).is_nan(),
                        Ty::F64 => f64::from_bits(r).is_nan(),
                        _ => false,
                    };
                    hash = mix(hash, if nan { u64::MAX } else { r });
                }
            }
        }
    }
    hash
}

/// Number of forms and hash of an opcode.
fn known(name: &str) -> (u32, u64) {
    // The host's mathematics library computes these, and may differ in a last bit.
    let of_host = matches!(name, "ex2" | "lg2" | "sin" | "cos" | "tanh");
    let mut seen: HashMap<(usize, String), u64> = HashMap::new();
    let (mut forms, mut hash) = (0, 1);
    for words in words(name) {
        for types in types(name) {
            for round in ["", "rn", "rz", "rm", "rp", "rna", "rni", "rzi", "rmi", "rpi"] {
                for flags in [&[][..], &["ftz"], &["sat"], &["ftz", "sat"]] {
                    let op: Vec<String> = [name]
                        .iter()
                        .chain(&words)
                        .chain(Some(&round).filter(|r| !r.is_empty()))
                        .chain(flags)
                        .chain(&types)
                        .map(|w| (*w).to_owned())
                        .collect();
                    let Some(alu) = select(&op) else { continue };
                    let about = format!("{:?} {:?} {:?}", alu.fast, alu.dst, alu.src);
                    for byte in op.join(".").bytes().chain(about.bytes()) {
                        hash = mix(hash, u64::from(byte));
                    }
                    forms += 1;
                    // PTX has no `.wide` product of 64 bits times 64.
                    let too_wide = words == ["wide"] && alu.src[0].bytes() == 8;
                    if !of_host && !too_wide {
                        let of_lane = seen.entry((alu.lane as usize, about));
                        hash = mix(hash, *of_lane.or_insert_with(|| results(name, &alu)));
                    }
                }
            }
        }
    }
    (forms, hash)
}

#[test]
fn every_lane_wise_opcode_gives_the_bits_it_gave() {
    let now: Vec<(&str, u32, u64)> = KNOWN
        .iter()
        .map(|(name, ..)| {
            let (forms, hash) = known(name);
            (*name, forms, hash)
        })
        .collect();
    for (now, before) in now.iter().zip(&KNOWN) {
        assert_eq!(now, before, "name, forms, hash (0x{:016x})", now.2);
    }
}
