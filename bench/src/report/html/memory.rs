//! Memory: what the kernel charged to each instance's own cgroup, in parts that add up.

use maud::{Markup, html};

use super::alone;
use super::chart::{Bar, Part, dwarfed, legend, stacked};
use super::timeline::names;
use crate::record::Record;
use crate::report::quantity::{Shown, raw};
use crate::report::words::printable;
use crate::sample::MemBytes;
use crate::summary::{METRICS, median_run};

const PARTS: [(&str, &str); 4] = [
    ("anon", "anonymous (in a vm: also guest RAM in use)"),
    ("file", "page cache"),
    ("kernel", "kernel"),
    ("rest", "rest: charged, not attributed"),
];

pub(super) fn section(record: &Record) -> Markup {
    let of = |arm: &String| {
        let sample = median_run(arm, &METRICS[4], &record.samples)?;
        Some((bar(arm, sample.mem_bytes.as_ref()?), sample.mem_bytes.as_ref()?.at.clone()))
    };
    let (bars, moments): (Vec<Bar>, Vec<String>) = record.run.plan.arms.iter().filter_map(of).unzip();
    if bars.is_empty() {
        return html! {};
    }
    let small = dwarfed(&bars);
    let moment = if moments.iter().all(|at| at == "ready") {
        "when it was ready"
    } else {
        "when it was ready or had ended"
    };
    let entries = PARTS.map(|(key, label)| (key.to_owned(), label.to_owned()));
    html! {
        section {
            h2 { "Memory" }
            (alone(record))
            p class="caption" {
                "What the kernel charged to the instance's own cgroup " (moment) ", in the run nearest to the median; \
                 the mark is the highest charge of that run."
            }
            figure { (stacked("Memory charge of every level, one linear scale", Shown::MiB.name(), &bars)) }
            @if !small.is_empty() {
                figure {
                    h3 { "Enlarged: " (names(&small)) }
                    p class="caption" { "The same charges on a scale of their own, also linear and from zero." }
                    (stacked("Memory charge, enlarged", Shown::MiB.name(), &small))
                }
            }
            (legend(&entries, "peak"))
        }
    }
}

fn bar(arm: &str, memory: &MemBytes) -> Bar {
    let values = [memory.anon, memory.file, memory.kernel, Some(memory.rest())];
    let parts = PARTS.iter().zip(values).filter_map(|((key, label), bytes)| {
        let label = label.split([' ', ':']).next().unwrap_or(label).to_owned();
        Some(Part { key: (*key).to_owned(), label, value: Shown::MiB.scaled(raw(bytes?)) })
    });
    let (charge, peak) =
        (Shown::MiB.with_unit(raw(memory.memcg_current)), Shown::MiB.with_unit(raw(memory.peak)));
    Bar {
        name: printable(arm),
        total: format!("{charge}, peak {peak}"),
        parts: parts.collect(),
        mark: Some((Shown::MiB.scaled(raw(memory.peak)), "peak")),
    }
}
