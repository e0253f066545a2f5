//! The table of such records.

use std::io::Write;

use super::record::{Record, ceilings_of};
use crate::format::{self, Column, Table};
use crate::{Error, Result};

const TABLE: Table<15> = Table::new(
    0,
    [
        Column::left("work", 5),
        Column::left("source", 6).gap(1),
        Column::left("variant", 11).gap(1),
        Column::left("type", 5).gap(1),
        Column::left("network", 24).gap(1),
        Column::right("batch", 5).gap(1),
        Column::right("launches", 8).gap(1),
        Column::right("ms", 8).gap(1),
        Column::right("images/s", 8).gap(1),
        Column::right("memory", 10).gap(1),
        Column::right("% of floor", 10).gap(1),
        Column::right("emulator, s", 11).gap(1),
        Column::right("predicted", 9).gap(1),
        Column::left("for", 4).gap(1),
        Column::right("ratio", 5).gap(1),
    ],
);

/// `light 256 px, ch 64, 4 + 6`.
fn network(r: &Record) -> String {
    let mode = if r.light { "light" } else { "full" };
    format!("{mode} {} px, ch {}, {}/{}", r.size, r.ch, r.n_res, r.n_dis)
}

/// Prints the records, and below them what the columns are.
///
/// # Errors
/// When a record's configuration makes no network, or the table cannot be written.
pub(super) fn print(records: &[Record], out: &mut dyn Write) -> Result<()> {
    let mut text = format!("\n{}", TABLE.head());
    let mut held = Vec::new();
    for r in records {
        let ceilings = ceilings_of(r, records);
        let share = match &ceilings {
            Some(ceilings) => r.share_of_floor(ceilings)?,
            None => None,
        };
        if let Some(c) = &ceilings {
            let gpu = r.origin.device.split(" (").next().unwrap_or_default();
            let line = format!(
                "{gpu}: floor at copy {:.0} GB/s, {} {:.1} TFLOP/s",
                c.copy_gb_per_s, c.matrix, c.matrix_tflop_per_s
            );
            if !held.contains(&line) {
                held.push(line);
            }
        }
        let cell =
            |value: Option<f64>, digits: usize| value.map_or(String::new(), |v| format!("{v:.digits$}"));
        let ms = r.measured.as_ref().map(|m| m.milliseconds);
        let predicted = r.predicted.as_ref().map(|p| p.milliseconds);
        let bytes = r.measured.as_ref().map(|m| m.peak_bytes).or(r.planned_bytes);
        text += &TABLE.row([
            r.work.name().to_owned(),
            r.origin.source.clone(),
            r.variant.clone(),
            r.precision.clone(),
            network(r),
            r.batch.to_string(),
            r.launches.map_or(String::new(), |n| n.to_string()),
            cell(ms, 2),
            cell(r.images_per_s(), 1),
            bytes.map_or(String::new(), format::bytes),
            cell(share, 1),
            cell(r.emulator.as_ref().map(|e| e.seconds), 2),
            cell(predicted, 2),
            r.predicted.as_ref().map_or(String::new(), |p| p.gpu.clone()),
            cell(ms.zip(predicted).map(|(ms, predicted)| ms / predicted), 2),
        ]);
    }
    text += "\nnetwork: side of the images, channels, residual blocks / depth of the discriminators. images/s: a step takes its \
             batch of both domains. ";
    if records.iter().any(|r| r.measured.is_some()) {
        text += "memory: what was taken of the GPU's. floor: the time that the lean schedule's operations, or each weight and \
                 moment in and out once, take at the ceilings; ratio: measured over predicted.\n";
        text += &held.iter().map(|line| format!("{line}\n")).collect::<String>();
    } else {
        text += "memory: as planned. predicted: ms.\n";
    }
    out.write_all(text.as_bytes()).map_err(|e| Error::io("cannot write the table", &e))
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::measured;
    use super::*;

    #[test]
    fn a_row_has_what_was_measured_beside_what_was_predicted() {
        let ours = measured("ugatit", "Some GPU (cuda:0)", 1.0, "tf32 tensor core convolution");
        let mut torch = measured("torch", "Some GPU (torch 2.15.0)", 4.0, "bf16 matmul");
        (torch.predicted, torch.launches) = (None, None);
        let mut text = Vec::new();
        print(&[ours, torch], &mut text).expect("prints");
        let text = String::from_utf8(text).expect("text");
        let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(rows[2][..3], ["step", "ugatit", "pad-fused"], "{text}");
        assert!(rows[2].ends_with(&["0.80", "h100", "1.25"]), "{text}");
        assert!(rows[3].contains(&"torch") && rows[3].contains(&"4000.0"), "{text}");
        assert!(text.contains("Some GPU: floor at copy 2000 GB/s, bf16 matmul 4.0 TFLOP/s"), "{text}");
    }
}
