//! Memory: what the kernel charged to each instance's own cgroup, in parts that add up.

use maud::{Markup, html};

use super::alone;
use super::chart::{Bar, Part, dwarfed, legend, stacked};
use super::timeline::names;
use crate::record::Record;
use crate::report::quantity::{Shown, raw};
use crate::report::words::{memory_is_peak, printable};
use crate::sample::MemBytes;
use crate::summary::median_run;

const PARTS: [(&str, &str); 4] = [
    ("anon", "anonymous (in a vm: also guest RAM in use)"),
    ("file", "page cache"),
    ("kernel", "kernel"),
    ("rest", "rest: charged, not attributed"),
];

/// The only part where the peak is shown.
const PEAK: (&str, &str) = ("rest", "peak charge");

pub(super) fn section(record: &Record) -> Markup {
    let peak = memory_is_peak(record);
    let of = |arm: &String| {
        let sample = median_run(arm, record.headline().memory(), &record.samples)?;
        sample.mem_bytes.as_ref().map(|memory| if peak { peak_bar(arm, memory) } else { bar(arm, memory) })
    };
    let bars: Vec<Bar> = record.run.plan.arms.iter().filter_map(of).collect();
    if bars.is_empty() {
        return html! {};
    }
    let small = dwarfed(&bars);
    let parts = if peak { &[PEAK][..] } else { &PARTS };
    let entries: Vec<_> = parts.iter().map(|(key, label)| ((*key).to_owned(), (*label).to_owned())).collect();
    html! {
        section {
            h2 { "Memory" }
            (alone(record))
            p class="caption" {
                @if peak {
                    "The most that the kernel charged to the instance's own cgroup at any moment, in the run nearest to the \
                     median: the command does not say when it is ready."
                } @else {
                    "What the kernel charged to the instance's own cgroup when it was ready, in the run nearest to the \
                     median; the mark is the highest charge of that run."
                }
            }
            figure { (stacked("Memory charge of every level, one linear scale", Shown::MiB.name(), &bars)) }
            @if !small.is_empty() {
                figure {
                    h3 { "Enlarged: " (names(&small)) }
                    p class="caption" { "The same charges on a scale of their own, also linear and from zero." }
                    (stacked("Memory charge, enlarged", Shown::MiB.name(), &small))
                }
            }
            (legend(&entries, (!peak).then_some("peak")))
        }
    }
}

/// The high-water mark is one number and has no parts.
fn peak_bar(arm: &str, memory: &MemBytes) -> Bar {
    let (key, value) = (PEAK.0.to_owned(), Shown::MiB.scaled(raw(memory.peak)));
    Bar {
        name: printable(arm),
        total: Shown::MiB.with_unit(raw(memory.peak)),
        parts: vec![Part { key, label: "peak".to_owned(), value }],
        mark: None,
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
