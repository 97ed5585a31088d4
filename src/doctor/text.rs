//! The report for people.

use std::fmt::Write;

use super::facts::TEST_TOOLS;
use crate::explain;

use super::{Check, Place, Report, State};

/// Aligned lines, each with one fact; no colours, so that it can be pasted anywhere.
pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    let facts = &report.facts;
    let user = if facts.euid == 0 { "root".to_owned() } else { format!("euid {}", facts.euid) };
    let memory = gib(facts.memory_bytes);
    let distribution = if facts.distribution.name.is_empty() { "Linux" } else { &facts.distribution.name };
    line(&mut out, format_args!("host   {distribution}, kernel {}, {user}", facts.kernel));
    let cpus = if facts.cpus == 1 { "1 CPU".to_owned() } else { format!("{} CPUs", facts.cpus) };
    line(&mut out, format_args!("       {}, {cpus}, {memory}", facts.cpu_model));
    paragraph(&mut out, "class  ", &format!("{}: {}", report.host_class, report.kvm.reason));
    if let Some(numbers) = numbers(report) {
        line(&mut out, format_args!("       {numbers}"));
    }
    line(&mut out, format_args!("\n{:<11}{:<6}{}", "level", "on", "state"));
    for level in &report.levels {
        let (name, place) = match level.on {
            Place::Host => (level.level.as_str(), "host"),
            // One machine for all of them: what its vm level needs, the lab needs.
            Place::Lab => ("all three", "lab"),
        };
        line(&mut out, format_args!("{name:<11}{place:<6}{}", word(level.state)));
        for problem in &level.problems {
            let state = word(problem.state);
            paragraph(&mut out, &format!("{:<17}{state}: ", ""), &problem.reason);
            paragraph(&mut out, &format!("{:<17}-> ", ""), &problem.remedy);
        }
    }
    line(&mut out, format_args!("\nseen"));
    let mut seen: Vec<&Check> = Vec::new();
    for check in report.levels.iter().flat_map(|level| &level.evidence) {
        // The class is above in full.
        if !seen.contains(&check) && check.check != "KVM class" {
            seen.push(check);
        }
    }
    let width = seen.iter().map(|check| check.check.len()).max().unwrap_or(0);
    for check in seen {
        let mark = if check.ok { ' ' } else { '!' };
        line(&mut out, format_args!("{mark} {:<width$}  {}", check.check, check.observed));
    }
    let missing = missing_test_tools(report);
    if !missing.is_empty() {
        out.push('\n');
        paragraph(&mut out, "only for isolab's own tests, not installed: ", &missing.join(" "));
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    let _ = writeln!(out, "{text}");
}

/// A text after its prefix, wrapped and indented by it.
fn paragraph(out: &mut String, prefix: &str, text: &str) {
    out.push_str(prefix);
    out.push_str(&explain::wrapped(text, prefix.len()));
}

const fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Limited => "limited",
        State::No => "no",
    }
}

fn gib(bytes: u64) -> String {
    // One decimal, in integers.
    let tenths = (bytes >> 20).saturating_mul(10) >> 10;
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

/// What the probe measured, where it ran.
fn numbers(report: &Report) -> Option<String> {
    let kvm = &report.kvm;
    let user = kvm.alu_ratio_user?;
    let mut parts = vec![format!("guest/host time of one loop: ring 3 {user:.2}")];
    parts.extend(kvm.alu_ratio_kernel.map(|kernel| format!("ring 0 {kernel:.2}")));
    parts.extend(
        kvm.exit_roundtrip_ns_p50.map(|ns| format!("port write {}.{} us", ns / 1000, ns % 1000 / 100)),
    );
    parts.push(format!("probed in {} ms", kvm.elapsed_ns / 1_000_000));
    Some(parts.join(", "))
}

/// Debian packages of the test tools that are not there.
fn missing_test_tools(report: &Report) -> Vec<&'static str> {
    let missing = |program: &str| report.facts.test_tools.get(program) == Some(&false);
    TEST_TOOLS.iter().filter(|(program, _)| missing(program)).map(|(_, package)| *package).collect()
}
