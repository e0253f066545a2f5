//! The table of such records.

use std::io::Write;

use super::record::Record;
use crate::format::{Column, Table, three_figures};
use crate::{Error, Result};

const TABLE: Table<13> = Table::new(
    0,
    [
        Column::left("pass", 7),
        Column::right("times", 5).gap(1),
        Column::left("layer", 30).gap(1),
        Column::right("FLOPs", 6).gap(1),
        Column::left("variant", 13).gap(1),
        Column::right("µs", 9).gap(1),
        Column::right("TFLOP/s", 8).gap(1),
        Column::right("% ceiling", 9).gap(1),
        Column::right("predicted", 9).gap(1),
        Column::right("ratio", 5).gap(1),
        Column::left("bound by", 8).gap(1),
        Column::right("L2 bytes", 8).gap(1),
        Column::right("conflicts", 9).gap(1),
    ],
);

/// Prints the records, and what all convolutions of a step take together.
///
/// # Errors
/// When the table cannot be written.
pub(super) fn print(records: &[Record], out: &mut dyn Write) -> Result<()> {
    let mut text = format!("\n{}", TABLE.head());
    for r in records {
        let us = r.measured.as_ref().map(|m| m.microseconds);
        let speed = us.map(|us| r.flops as f64 / us / 1e6);
        let share = r.measured.as_ref().zip(speed).map(|(m, s)| 100.0 * s / m.ceilings.matrix_tflop_per_s);
        let predicted = r.predicted.as_ref();
        let cell =
            |value: Option<f64>, digits: usize| value.map_or(String::new(), |v| format!("{v:.digits$}"));
        text += &TABLE.row([
            r.pass.clone(),
            r.times.to_string(),
            r.layer.clone(),
            three_figures(r.flops),
            r.variant.clone(),
            cell(us, 2),
            cell(speed, 1),
            cell(share, 1),
            cell(predicted.map(|p| p.microseconds), 2),
            cell(us.zip(predicted).map(|(us, p)| us / p.microseconds), 2),
            predicted.map_or(String::new(), |p| p.bound.clone()),
            predicted.map_or(String::new(), |p| three_figures(p.l2_bytes)),
            predicted.map_or(String::new(), |p| p.bank_conflicts.to_string()),
        ]);
    }
    text += &sums(records);
    text +=
        "conflicts: of the sampled blocks. A variant that leaves a shape to another one has no row there.\n";
    out.write_all(text.as_bytes()).map_err(|e| Error::io("cannot write the table", &e))
}

/// Milliseconds of all convolutions of a step, with the fastest variant of each layer.
fn sums(records: &[Record]) -> String {
    let mut layers: Vec<(&str, &str)> = Vec::new();
    for r in records {
        if !layers.contains(&(&r.pass, &r.layer)) {
            layers.push((&r.pass, &r.layer));
        }
    }
    let total = |us: &dyn Fn(&Record) -> Option<f64>| -> Option<f64> {
        let of_layer = |(pass, layer): &(&str, &str)| {
            let rows = records.iter().filter(|r| r.pass == *pass && r.layer == *layer);
            rows.filter_map(|r| Some(us(r)? * r.times as f64)).min_by(f64::total_cmp)
        };
        layers.iter().map(of_layer).sum::<Option<f64>>().map(|us| us / 1e3)
    };
    let measured = total(&|r| r.measured.as_ref().map(|m| m.microseconds)).map(|ms| format!("{ms:.2} ms"));
    let gpu = records.iter().find_map(|r| r.predicted.as_ref()).map_or("", |p| &p.gpu);
    let predicted = total(&|r| r.predicted.as_ref().map(|p| p.microseconds));
    let predicted = predicted.map(|ms| format!("predicted {ms:.2} ms for {gpu}"));
    let parts: Vec<String> = measured.into_iter().chain(predicted).collect();
    format!("\nall of a step, each with its fastest variant: {}\n", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::record::{Measured, Predicted};
    use super::*;
    use crate::bench::ceilings::Ceilings;
    use crate::bench::record::Origin;

    #[test]
    fn a_step_is_the_sum_of_the_fastest_variants_as_often_as_it_has_them() {
        let record = |layer: &str, times, variant: &str, us, predicted| Record {
            origin: Origin::here("Some GPU".into()),
            pass: "forward".into(),
            layer: layer.into(),
            times,
            variant: variant.into(),
            precision: "f32".into(),
            flops: 2_000_000_000,
            measured: Some(Measured {
                microseconds: us,
                ceilings: Ceilings {
                    copy_gb_per_s: 1.0,
                    matrix_tflop_per_s: 40.0,
                    matrix: "tf32 tensor core convolution".into(),
                },
            }),
            predicted: Some(Predicted {
                gpu: "h100".into(),
                microseconds: predicted,
                bound: "tensor".into(),
                l2_bytes: 5_000_000,
                bank_conflicts: 7,
            }),
        };
        let records = [
            record("a", 3, "direct", 400.0, 300.0),
            record("a", 3, "tensor core", 100.0, 125.0),
            record("b", 2, "direct", 50.0, 63.0),
        ];
        let mut text = Vec::new();
        print(&records, &mut text).expect("prints");
        let text = String::from_utf8(text).expect("text");
        assert!(text.contains("fastest variant: 0.40 ms, predicted 0.50 ms for h100"), "{text}");
        let row: Vec<&str> = text.lines().nth(3).expect("a row").split_whitespace().collect();
        let want = "forward 3 a 2.00G tensor core 100.00 20.0 50.0 125.00 0.80 tensor 5.00M 7";
        assert_eq!(row.join(" "), want);
    }
}
