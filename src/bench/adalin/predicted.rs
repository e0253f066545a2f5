//! What the machine model predicts for a record that a GPU measured.

use super::build::{BEYOND_L2, Part, Regime};
use super::case::Case;
use super::record::Record;
use crate::Result;
use crate::model::{self, machine};
use crate::tensor::{DType, Shape};

/// Predicted microseconds of each record's pass; None where nothing is predicted: records without a time, of another
/// program, of GPUs there are no constants of, of launches one by one (whose cost is the host's), and of variants or types that
/// this version does not know.
///
/// # Errors
/// When a kernel is faulty, or the host has no address space for a case.
pub fn predict(records: &[Record]) -> Result<Vec<Option<f64>>> {
    records.iter().map(|record| predict_one(record).transpose()).collect()
}

fn predict_one(record: &Record) -> Option<Result<f64>> {
    let time =
        record.time.as_ref().filter(|time| time.mode == "graph" && record.origin.source == "ugatit")?;
    let machine = machine::of_driver(&record.origin.device)?;
    let [n, h, w, c] = record.shape;
    let dtype = [DType::F32, DType::F16, DType::Bf16].into_iter().find(|d| d.name() == record.dtype)?;
    let kind = record.kind.parse().ok()?;
    let variant = record.variant.parse().ok()?;
    let case = Case::as_measured(kind, variant, dtype, Shape::new(1, n, h, w, c), machine.target());
    let part = match record.pass.as_str() {
        "forward" => Part::Forward,
        "backward" => Part::Backward,
        _ => return None,
    };
    let regime = Regime::ALL.into_iter().find(|r| r.name() == time.regime)?;
    let round = || {
        let built = case.build()?;
        let sets = built.sets(regime, BEYOND_L2);
        // The second round finds in the L2 what the first has left there.
        let program = built.program(part, 2 * sets, sets);
        let predicted = model::predict(&program, machine, &|_| ())?;
        let second = &predicted[predicted.len() / 2..];
        Ok(second.iter().map(|p| p.time.us).sum::<f64>() / sets as f64)
    };
    Some(round())
}

#[cfg(test)]
mod tests {
    use super::super::record::Time;
    use super::super::record::tests::{origin, record};
    use super::*;

    #[test]
    fn what_an_h100_measured_stands_beside_what_is_predicted_for_it() {
        let timed = |regime: &str, mode: &str, device: &str, variant: &str| {
            let time = Time {
                regime: regime.into(),
                mode: mode.into(),
                microseconds: 50.0,
                gb_per_s: 1.0,
                copy_gb_per_s: 1.0,
            };
            let (time, counts) = (Some(time), None);
            Record {
                origin: origin("ugatit", device),
                time,
                counts,
                shape: [1, 128, 128, 64],
                ..record(variant)
            }
        };
        let h100 = "NVIDIA H100 80GB HBM3 (cuda:0)";
        let records = [
            timed("warm", "graph", h100, "vectorised"),
            timed("rotated", "graph", h100, "vectorised"),
            timed("warm", "stream", h100, "vectorised"),
            timed("warm", "graph", "Tesla T4", "vectorised"),
            timed("warm", "graph", h100, "of a later version"),
            record("vectorised"),
        ];
        let us = predict(&records).unwrap();
        assert_eq!(us[2..], [None; 4]);
        let [warm, rotated] = [us[0].unwrap(), us[1].unwrap()];
        // 4.2 MB in and as many out stay in the L2 of 50 MB; out of memory, and into it, they take 2.8 µs at the least.
        assert!((3.0..20.0).contains(&warm), "{warm}");
        assert!(rotated > warm && rotated > 2.8, "{rotated}, warm {warm}");
    }
}
