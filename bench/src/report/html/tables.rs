//! The tables: headline numbers, environment, arms, checks.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::alone;
use crate::comparability::{Check, CheckLevel, CheckStatus};
use crate::crosscheck::Crosscheck;
use crate::environment::Host;
use crate::record::{Arm, Record, Tool};
use crate::report::quantity::{Shown, factor};
use crate::report::words::{
    bases, capital, class_name, entry_metric, leading_metric, leading_word, memory_is_peak, printable,
    statuses,
};
use crate::statistics::MIN_FOR_INTERVAL;
use crate::summary::{CHARGE, CLEAN, FIRST_INSTRUCTION, Metric, PEAK, READINESS};

pub(super) fn headline(record: &Record) -> Markup {
    let entry = entry_metric(record);
    let entry_title =
        if entry.name == FIRST_INSTRUCTION.name { "First user instruction" } else { "Execve of the command" };
    let columns = [
        (entry_title, entry),
        ("Ready", &READINESS),
        ("Clean", &CLEAN),
        ("Memory charge", &CHARGE),
        (if memory_is_peak(record) { "Peak of memory" } else { "Peak" }, &PEAK),
    ];
    let hidden = |m: &Metric| m.name == CHARGE.name && memory_is_peak(record);
    let shown = |m: &Metric| record.summary_of(m.name).is_some() && !hidden(m);
    let columns: Vec<_> = columns.into_iter().filter(|(_, m)| shown(m)).collect();
    let arms = &record.run.plan.arms;
    let bases = bases(record);
    let lead = leading_metric(record);
    let lead_word = capital(leading_word(record));
    html! {
        section {
            h2 { "Levels side by side" }
            p class="caption" { "Medians over the measured runs, counted from the request, with 95 % bootstrap intervals from " (MIN_FOR_INTERVAL) " runs on." }
            (alone(record))
            div class="scroll" {
                table class="cards" {
                    thead { tr {
                        th { "Level" }
                        @for (title, _) in &columns { th { (title) } }
                        th { "Exit status" }
                        @for base in bases { th { (lead_word) ", times " (printable(base)) } }
                    } }
                    tbody {
                        @for (i, arm) in arms.iter().enumerate() {
                            tr {
                                th { span { span class={ "swatch c-" (i % 5) } {} (printable(arm)) } }
                                @for (title, metric) in &columns { td data-label=(title) { (number(record, metric, arm)) } }
                                td data-label="Exit status" { (statuses(record, arm)) }
                                @for base in bases {
                                    td data-label={ (lead_word) ", times " (printable(base)) } { (ratio(record, lead, base, arm)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn number(record: &Record, metric: &Metric, arm: &str) -> Markup {
    let found = record.summary_of(metric.name).and_then(|s| Some((s.unit, s.arms.get(arm)?)));
    let Some((unit, s)) = found else { return html! { "\u{2013}" } };
    let shown = Shown::of(unit, &record.host);
    html! {
        span { span class="big" { (shown.with_unit(s.median)) } @if let Some(ends) = s.ci95 { span class="interval" { (shown.interval(s.median, ends)) } } }
    }
}

fn ratio(record: &Record, metric: &Metric, base: &str, arm: &str) -> String {
    let median = |arm| record.summary_of(metric.name).and_then(|s| Some(s.arms.get(arm)?.median));
    match (median(base), median(arm)) {
        (Some(a), Some(b)) if a > 0.0 => factor(b / a),
        _ => "\u{2013}".to_owned(),
    }
}

/// The machine, and the arms in this order.
pub(super) fn environment(
    host: &Host,
    tool: &Tool,
    order: &[String],
    arms: &BTreeMap<String, Arm>,
) -> Markup {
    let known = |value: Option<String>| value.map_or_else(|| "not known".to_owned(), |v| printable(&v));
    let yes = |value: Option<bool>| value.map(|v| if v { "yes" } else { "no" }.to_owned());
    let facts = [
        ("Class", Some(class_name(host.class).to_owned())),
        ("Kernel", host.kernel.clone()),
        ("CPU", host.cpu_model.clone()),
        ("CPUs online", host.cpus_online.map(|n| n.to_string())),
        ("Memory", host.mem_total_bytes.map(|b| format!("{} MiB", b >> 20))),
        ("Swap", host.swap_bytes.map(|b| format!("{} MiB", b >> 20))),
        ("Under a hypervisor", yes(host.hypervisor_bit)),
        ("Clock source", host.clocksource.clone()),
        ("Frequency governor", host.governor.clone()),
        ("Transparent huge pages", host.thp.clone()),
        ("Page merging", host.ksm_run.map(|n| n.to_string())),
        ("Memory controller", host.cgroup.memory.clone()),
        (
            "Others waited for a CPU",
            host.noise.psi_cpu_some_us.map(|us| format!("{us} \u{b5}s while measuring")),
        ),
        ("isolab", Some(format!("{} ({})", tool.version, tool.profile))),
    ];
    let unknown = facts.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.to_lowercase());
    let unknown: Vec<String> = unknown.collect();
    html! {
        section {
            h2 { "Where and how" }
            p class="caption" { "The machine and the arms as they were recorded with the run." }
            dl {
                @for (name, value) in facts.iter().filter_map(|(n, v)| Some((n, v.as_deref()?))) {
                    dt { (name) } dd { (printable(value)) }
                }
                @if !unknown.is_empty() { dt { "Not known" } dd { (unknown.join(", ")) } }
            }
            table class="cards words" {
                thead { tr { th { "Arm" } th { "Kernel" } th { "Image" } th { "Limits" } th { "Process 1" } th { "System call filter" } th { "Network" } } }
                tbody {
                    @for name in order {
                        @if let Some(arm) = arms.get(name) {
                            tr {
                                th { (printable(name)) }
                                td data-label="Kernel" { (known(arm.kernel.clone())) }
                                td data-label="Image" { (known(arm.rootfs.fs.clone())) " by " (known(arm.rootfs.via.clone())) }
                                td data-label="Limits" { (limits(arm.cpus, arm.mem_limit_bytes)) }
                                td data-label="Process 1" { (printable(&arm.init)) }
                                td data-label="System call filter" { (printable(&arm.seccomp)) }
                                td data-label="Network" { (printable(&arm.net)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn limits(cpus: Option<u32>, mem_bytes: Option<u64>) -> String {
    let cpus = cpus.map_or_else(|| "all CPUs".to_owned(), |n| format!("{n} CPU"));
    let memory = mem_bytes.map_or_else(|| "no memory limit".to_owned(), |b| format!("{} MiB", b >> 20));
    format!("{cpus}, {memory}")
}

pub(super) fn checks(checks: &[Check], crosschecks: &[Crosscheck]) -> Markup {
    let status = |status| match status {
        CheckStatus::Pass => "pass",
        CheckStatus::Fail => "fail",
        CheckStatus::Unknown => "not known",
    };
    let level = |level| match level {
        CheckLevel::Refuse => "refuses",
        CheckLevel::Flag => "flags",
        CheckLevel::Info => "informs",
    };
    html! {
        section {
            h2 { "Checks" }
            p class="caption" { "What was looked at before any number was set against another, and the instrument's check of itself." }
            table class="cards words" {
                thead { tr { th { "Check" } th { "Result" } th { "A failure" } th { "Seen" } } }
                tbody {
                    @for check in checks {
                        tr {
                            th { code { (printable(&check.id)) } }
                            td data-label="Result" { (status(check.status)) }
                            td data-label="A failure" { (level(check.level)) }
                            td class="words-cell" { (printable(&check.detail)) }
                        }
                    }
                    @for check in crosschecks {
                        tr {
                            th { code { (printable(&check.id)) } }
                            td data-label="Result" { (status(check.status)) }
                            td data-label="A failure" { "is a bug" }
                            td class="words-cell" { (printable(&check.expect)) "; " (printable(&check.observed)) }
                        }
                    }
                }
            }
        }
    }
}
