//! Predicted times: the terms of a kernel's launches as bars, for one GPU at a time, and the list to choose among them.

use maud::{Markup, html};

use super::data::heat_bar;
use crate::format;
use crate::model::{Machine, Term, Time, machine, range};
use crate::study::counts::{Geometry, KernelRecord, Predicted};
use crate::study::run::Record;

/// Geometries that a kernel's card shows, and kernels that the atlas's does.
const SHOWN: usize = 8;
const KERNELS: usize = 20;

/// The list of GPUs.
fn gpu_select(chosen: &Machine) -> Markup {
    html! {
        select.gpus aria-label="GPU" {
            @for gpu in &machine::ALL {
                option value=(gpu.key) selected[gpu.key == chosen.key] { (gpu.name) }
            }
        }
    }
}

/// For each GPU a part of the page, of which the script shows the chosen one.
fn for_each_gpu(chosen: &Machine, part: impl Fn(&Machine) -> Markup) -> Markup {
    html! {
        @for gpu in &machine::ALL {
            div.gpu.on[gpu.key == chosen.key] data-gpu=(gpu.key) { (part(gpu)) }
        }
    }
}

fn milliseconds(us: f64) -> String {
    format::milliseconds(us / 1e3)
}

fn colour(term: Term) -> String {
    format!("background:hsl({} 60% 52%)", (term as usize * 36 + 205) % 360)
}

/// The terms of a launch, each as the part of its time that it would take by itself.
fn bars(time: &Time) -> Markup {
    html! {
        span.terms {
            @for (term, us) in Term::ALL.into_iter().zip(time.terms) {
                @let share = (us / time.us).min(1.0);
                @if share >= 0.005 {
                    i style={ (format_args!("--v:{share:.3};")) (colour(term)) }
                        title={ (term.name()) " " (milliseconds(us)) " by itself, predicted" } {}
                }
            }
        }
    }
}

/// The predicted time of a kernel's launches, one row for each geometry.
pub(super) fn card(record: &KernelRecord, gpu: &Machine) -> Markup {
    let geometries = record.geometries();
    html! {
        section.card.w5 {
            h2 { "Predicted time " small { "of a launch, and what binds it" } (gpu_select(gpu)) }
            @if record.predicted(gpu).is_some() {
                (for_each_gpu(gpu, |gpu| rows(record, &geometries, gpu)))
                div.legend {
                    @for term in Term::ALL { span { i style=(colour(term)) {} (term.name()) } }
                }
                p.note {
                    "Bars: what each term would take by itself, as a part of the launch's predicted time; they overlap, \
                     and the longest binds."
                }
            } @else if record.launches.is_empty() {
                p.note { "Not launched, so there is nothing to predict." }
            } @else {
                p.note { "There is no prediction: the emulator did not count these launches." }
            }
        }
    }
}

fn rows(record: &KernelRecord, geometries: &[Geometry<'_>], gpu: &Machine) -> Markup {
    let all = record.predicted(gpu).unwrap_or_default();
    let of = |g: &Geometry<'_>| {
        Predicted::of(record.launches.iter().filter(|l| g.has(l)), gpu).map_or(0.0, |p| p.us)
    };
    html! {
        div.wrap {
            table {
                thead {
                    tr {
                        th { "first" } th.n { "predicted" } th { "bound by" } th.n { "waves" } th.n { "tail" }
                        th { "terms" } th.n { "times" } th.n { "together" }
                    }
                }
                tbody {
                    @for g in geometries.iter().take(SHOWN) {
                        @if let Some(time) = g.first.predicted_for(gpu) {
                            tr {
                                td { (g.first.label) }
                                td.n { (milliseconds(time.us)) }
                                td { (time.bound.name()) }
                                td.n { (format_args!("{:.2}", time.waves)) }
                                td.n { (format_args!("{:.0} %", 100.0 * time.tail)) }
                                td { (bars(time)) }
                                td.n { (g.times) }
                                td.n { (milliseconds(of(g))) }
                            }
                        }
                    }
                }
            }
        }
        @if geometries.len() > SHOWN {
            p.note { "and " (geometries.len() - SHOWN) " further geometries." }
        }
        p.note {
            "Predicted for " (gpu.name) ": " (milliseconds(all.us)) " in all launches. Tail: of the time, what the last, \
             partly filled wave takes more than its share."
        }
    }
}

/// The predicted time of a step, and the kernels that have most of it.
pub(in crate::study) fn step_card(record: &Record, gpu: &Machine) -> Markup {
    html! {
        section.card.w6 {
            h2 { "Predicted time " small { "of the step, by kernel" } (gpu_select(gpu)) }
            (for_each_gpu(gpu, |gpu| {
                let mut kernels: Vec<(&str, Predicted)> = record
                    .kernels
                    .iter()
                    .filter_map(|k| Some((k.kernel.name, k.predicted(gpu)?)))
                    .collect();
                kernels.sort_by(|a, b| b.1.us.total_cmp(&a.1.us));
                let most = kernels.first().map_or(1.0, |(_, p)| p.us);
                let all: f64 = kernels.iter().map(|(_, p)| p.us).sum();
                let [from, to] = range(all);
                html! {
                    ol.hot.predicted {
                        @for (name, p) in kernels.iter().take(KERNELS) {
                            li {
                                span.num { (milliseconds(p.us)) }
                                (heat_bar(p.us / most))
                                a href={ (name) ".html" } { (name) }
                                span.dim { (p.bound().name()) }
                            }
                        }
                    }
                    p.note {
                        "Predicted for " (gpu.name) ": the step takes " (milliseconds(all)) ", "
                        (milliseconds(from)) " to " (milliseconds(to))
                        " within the model's error. Right: what binds the kernel most."
                    }
                }
            }))
        }
    }
}
