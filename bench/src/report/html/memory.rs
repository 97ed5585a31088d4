//! Memory: what the kernel charged to each instance's own cgroup, in parts that add up.

use maud::{Markup, html};

use super::alone;
use super::chart::{Bar, Part, dwarfed, legend, stacked};
use super::timeline::names;
use crate::record::Record;
use crate::report::quantity::{Shown, digits, raw};
use crate::report::words::{memory_is_peak, printable};
use crate::sample::MemBytes;
use crate::summary::median_run;

/// A part of the charge, or what a part consists of.
struct PartOf {
    /// Selects its colour: `c-` and this.
    key: &'static str,
    /// For the legend and the table.
    label: &'static str,
    /// Inside a bar.
    short: &'static str,
    /// How much, in bytes; nothing where the kernel does not tell it.
    bytes: fn(&MemBytes) -> Option<u64>,
}

/// The parts, in the order of the bar; they sum to the charge.
const PARTS: [PartOf; 6] = [
    PartOf { key: "guest", label: "guest RAM in use", short: "guest RAM", bytes: guest_ram },
    PartOf {
        key: "anon",
        label: "anonymous",
        short: "anonymous",
        bytes: |m| Some(m.anon?.saturating_sub(guest_ram(m).unwrap_or(0))),
    },
    PartOf { key: "file", label: "page cache", short: "page cache", bytes: |m| m.file },
    PartOf { key: "kernel", label: "kernel", short: "kernel", bytes: |m| m.kernel },
    PartOf {
        key: "sock",
        label: "sockets' buffers",
        short: "sockets",
        bytes: |m| m.parts.get("sock").copied(),
    },
    PartOf { key: "rest", label: "rest: charged, not attributed", short: "rest", bytes: |m| Some(m.rest()) },
];

/// What the kernel's part consists of, by the record's keys.
const OF_KERNEL: [(&str, &str); 6] = [
    ("slab", "slab"),
    ("kernel_stack", "stacks"),
    ("host_page_tables", "page tables"),
    ("secondary_page_tables", "KVM's page tables"),
    ("percpu", "per CPU"),
    ("vmalloc", "vmalloc"),
];

/// What the processes say, by the record's keys: no parts of the charge.
const OF_PROCESSES: [(&str, &str); 3] = [
    ("rss", "RSS: all that is mapped, shared or not"),
    ("pss", "PSS: shared pages divided by their users"),
    ("uss", "USS: pages with no other user"),
];

/// What the kernel inside says: claims.
const CLAIMED: [(&str, &str); 2] = [
    ("claimed_ram", "RAM that the kernel inside says there is (a claim)"),
    ("claimed_free", "RAM that it says is free at the end (a claim)"),
];

/// The only part where the peak is shown.
const PEAK: (&str, &str) = ("rest", "peak charge");

pub(super) fn section(record: &Record) -> Markup {
    let peak = memory_is_peak(record);
    let of = |arm| median_run(arm, record.headline().memory(), &record.samples)?.mem_bytes.as_ref();
    let accounts: Vec<(&String, &MemBytes)> =
        record.run.plan.arms.iter().filter_map(|arm| Some((arm, of(arm)?))).collect();
    if accounts.is_empty() {
        return html! {};
    }
    let bars: Vec<Bar> = accounts
        .iter()
        .map(|(arm, memory)| if peak { peak_bar(arm, memory) } else { bar(arm, memory) })
        .collect();
    let small = dwarfed(&bars);
    let used = PARTS.iter().filter(|part| accounts.iter().any(|(_, m)| (part.bytes)(m).is_some()));
    let mut entries: Vec<_> = used.map(|part| (part.key.to_owned(), part.label.to_owned())).collect();
    if peak {
        entries = vec![(PEAK.0.to_owned(), PEAK.1.to_owned())];
    }
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
                     median; the parts add up to the charge, and the mark is the highest charge of that run."
                    @if accounts.iter().any(|(_, m)| guest_ram(m).is_some()) {
                        " Guest RAM is anonymous memory that stands apart here."
                    } @else if record.arms.values().any(|arm| arm.level == "vm") {
                        " In a vm, anonymous memory holds the guest RAM in use as well."
                    }
                    @if bars.iter().any(|bar| !bar.finer.is_empty()) {
                        " The strip below a bar shows what the kernel's part consists of."
                    }
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
            @if !peak { (table(&accounts)) }
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
        finer: vec![],
        mark: None,
    }
}

fn bar(arm: &str, memory: &MemBytes) -> Bar {
    let parts = PARTS.iter().filter_map(|part| Some(drawn(part.key, part.short, (part.bytes)(memory)?)));
    Bar {
        name: printable(arm),
        total: Shown::MiB.with_unit(raw(memory.memcg_current)),
        parts: parts.collect(),
        finer: finer(memory),
        mark: Some((Shown::MiB.scaled(raw(memory.peak)), "peak")),
    }
}

fn drawn(key: &str, label: &str, bytes: u64) -> Part {
    Part { key: key.to_owned(), label: label.to_owned(), value: Shown::MiB.scaled(raw(bytes)) }
}

/// Guest RAM that is anonymous memory; never more than there is of that.
fn guest_ram(memory: &MemBytes) -> Option<u64> {
    Some((*memory.parts.get("guest_ram_resident")?).min(memory.anon?))
}

/// What the kernel's part consists of, and what is left of it; nothing where it is not told, or more than the whole.
fn of_kernel(memory: &MemBytes) -> Option<(Vec<(&'static str, u64)>, u64)> {
    let known = OF_KERNEL.iter().filter_map(|(key, label)| Some((*label, *memory.parts.get(*key)?)));
    let known: Vec<(&str, u64)> = known.collect();
    let sum = known.iter().try_fold(0_u64, |sum, (_, bytes)| sum.checked_add(*bytes))?;
    let left = memory.kernel?.checked_sub(sum)?;
    (!known.is_empty()).then_some((known, left))
}

/// The bar again with its kernel part taken apart.
fn finer(memory: &MemBytes) -> Vec<Part> {
    let Some((kernel, left)) = of_kernel(memory) else { return vec![] };
    let mut parts = Vec::new();
    for part in &PARTS {
        let Some(bytes) = (part.bytes)(memory) else { continue };
        if part.key == "kernel" {
            let of = |(label, bytes): &(&str, u64)| drawn("kernel", &format!("kernel: {label}"), *bytes);
            parts.extend(kernel.iter().map(of));
            parts.push(drawn("kernel", "kernel: other", left));
        } else {
            parts.push(drawn(part.key, part.short, bytes));
        }
    }
    parts
}

/// The numbers of the bars: parts, their sum, and beside them what the processes say.
fn table(accounts: &[(&String, &MemBytes)]) -> Markup {
    let mib = |bytes: Option<u64>| {
        bytes.map_or_else(|| "\u{2013}".to_owned(), |bytes| digits(Shown::MiB.scaled(raw(bytes))))
    };
    let kernel = |m: &MemBytes, label: &str| {
        let (known, left) = of_kernel(m)?;
        if label == "other" {
            Some(left)
        } else {
            known.iter().find(|(l, _)| *l == label).map(|(_, bytes)| *bytes)
        }
    };
    let row = |class: &str, swatch: Option<&str>, label: &str, of: &dyn Fn(&MemBytes) -> Option<u64>| {
        let cells: Vec<Option<u64>> = accounts.iter().map(|(_, m)| of(m)).collect();
        html! {
            @if cells.iter().any(Option::is_some) {
                tr class=(class) {
                    th { @if let Some(key) = swatch { span class={ "swatch c-" (key) } {} } (label) }
                    @for cell in cells { td { (mib(cell)) } }
                }
            }
        }
    };
    html! {
        div class="scroll" { table class="compact" {
            thead { tr {
                th { "Part, " (Shown::MiB.name()) }
                @for (arm, _) in accounts { th { (printable(arm)) } }
            } }
            tbody {
                @for part in &PARTS {
                    (row("", Some(part.key), part.label, &part.bytes))
                    @if part.key == "kernel" {
                        @for label in OF_KERNEL.iter().map(|(_, label)| *label).chain(["other"]) {
                            (row("inner", None, label, &|m| kernel(m, label)))
                        }
                    }
                }
                (row("sum", None, "charge", &|m| Some(m.memcg_current)))
                (row("", None, "peak of the charge", &|m| Some(m.peak)))
                @for (key, label) in OF_PROCESSES.iter().chain(&CLAIMED) {
                    (row("", None, label, &|m| m.parts.get(*key).copied()))
                }
            }
        } }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn account() -> MemBytes {
        let parts = [("guest_ram_resident", 30), ("slab", 4), ("kernel_stack", 1), ("sock", 2), ("pss", 99)];
        MemBytes {
            at: "ready".to_owned(),
            source: "memcg-v2".to_owned(),
            memcg_current: 60 << 20,
            anon: Some(40 << 20),
            file: Some(3 << 20),
            kernel: Some(10 << 20),
            peak: 70 << 20,
            remainder: 5 << 20,
            parts: BTreeMap::from(parts.map(|(key, mib)| (key.to_owned(), mib << 20))),
        }
    }

    fn values(parts: &[Part]) -> Vec<(&str, f64)> {
        parts.iter().map(|part| (part.label.as_str(), part.value)).collect()
    }

    #[test]
    fn a_bar_has_every_part_and_the_rest_and_adds_up_to_the_charge() {
        let bar = bar("vm", &account());
        let expected = [
            ("guest RAM", 30.0),
            ("anonymous", 10.0),
            ("page cache", 3.0),
            ("kernel", 10.0),
            ("sockets", 2.0),
            ("rest", 5.0),
        ];
        assert_eq!(values(&bar.parts), expected);
        assert_eq!(
            values(&bar.finer)[3..6],
            [("kernel: slab", 4.0), ("kernel: stacks", 1.0), ("kernel: other", 5.0)]
        );
        for parts in [&bar.parts, &bar.finer] {
            assert_eq!(parts.iter().map(|part| part.value).sum::<f64>(), 60.0);
        }
        assert_eq!((bar.mark, bar.total.as_str()), (Some((70.0, "peak")), "60.00 MiB"));
    }

    #[test]
    fn parts_that_are_more_than_their_whole_are_not_drawn() {
        let mut account = account();
        account.parts.insert("slab".to_owned(), 11 << 20);
        account.parts.insert("guest_ram_resident".to_owned(), 50 << 20);
        let bar = bar("vm", &account);
        assert_eq!((bar.finer.len(), values(&bar.parts)[0]), (0, ("guest RAM", 40.0)));
    }

    #[test]
    fn the_table_has_the_kernels_parts_the_sum_and_what_processes_say() {
        let (arm, account) = ("<b>".to_owned(), account());
        let table = table(&[(&arm, &account)]).into_string();
        for row in [
            "<tr class=\"inner\"><th>slab</th><td>4.000</td></tr>",
            "<tr class=\"inner\"><th>other</th><td>5.000</td></tr>",
            "<tr class=\"sum\"><th>charge</th><td>60.00</td></tr>",
            "<td>99.00</td>",
        ] {
            assert!(table.contains(row), "{row}: {table}");
        }
        assert!(!table.contains("<b>") && !table.contains("vmalloc"), "{table}");
    }
}
