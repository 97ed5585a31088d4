//! The demands of the exercise, each judged by the raw samples and not by the record's own summary.

use std::fmt::Debug;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Line;
use super::spec::{Allowed, Bound, Ratio, Spec, Subject};
use crate::plan::pairs_done;
use crate::record::Record;
use crate::report::quantity::{Shown, digits, raw};
use crate::report::words::{class_name, verdict_word};
use crate::statistics::median;
use crate::summary::{Metric, metric};

pub(super) fn lines(record: &Record, spec: &Spec) -> Vec<Line> {
    let mut lines = subject(record, &spec.run);
    lines.extend(allowed(record, &spec.allowed));
    lines.extend(spec.metric.iter().flat_map(|bound| bounds(record, bound)));
    lines.extend(spec.ratio.iter().map(|bound| ratio(record, bound)));
    lines
}

fn subject(record: &Record, asked: &Subject) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(image) = &asked.image {
        let found = &record.workload.image;
        lines.push(Line::new(found == image, format!("image {image}"), found.clone()));
    }
    if let Some(digest) = &asked.image_digest {
        let own = |arm: &String| record.arms.get(arm).and_then(|arm| arm.rootfs.digest.clone());
        let found: Vec<String> = record
            .run
            .plan
            .arms
            .iter()
            .map(|arm| own(arm).unwrap_or_else(|| "not known".to_owned()))
            .collect();
        let passed = !found.is_empty() && found.iter().all(|d| d == digest);
        lines.push(Line::new(passed, format!("image digest {digest} in every arm"), unique(found)));
    }
    if let Some(digest) = &asked.isolab_digest {
        let found = record.run.tool.digest.clone().unwrap_or_else(|| "not known".to_owned());
        lines.push(Line::new(found == *digest, format!("measured by the isolab {digest}"), found));
    }
    if let Some(command) = &asked.command {
        let found = &record.workload.args;
        lines.push(Line::new(found == command, format!("command {}", command.join(" ")), found.join(" ")));
    }
    for arm in &asked.arms {
        let runs = record.samples.iter().filter(|s| s.arm == *arm && s.analysed()).count();
        let planned = record.run.plan.arms.contains(arm);
        lines.push(Line::new(planned && runs > 0, format!("arm {arm}"), format!("{runs} measured runs")));
    }
    if let Some(least) = asked.min_pairs {
        let done = pairs_done(&record.run.plan, &record.samples);
        lines.push(Line::new(done >= least, format!("at least {least} pairs"), format!("{done} measured")));
    }
    if let Some(seed) = asked.seed {
        let found = record.run.plan.seed;
        lines.push(Line::new(found == seed, format!("seed {seed}"), found.to_string()));
    }
    lines
}

fn allowed(record: &Record, allowed: &Allowed) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(classes) = &allowed.host_class {
        let names: Vec<&str> = classes.iter().map(|class| class_name(*class)).collect();
        let demand = format!("host class {}", names.join(" or "));
        lines.push(Line::new(classes.contains(&record.host.class), demand, class_name(record.host.class)));
    }
    if let Some(clocks) = &allowed.clock {
        let passed = clocks.contains(&record.host.clock);
        lines.push(Line::new(passed, format!("clock {}", lower(clocks)), lower(&[record.host.clock])));
    }
    if let Some(verdicts) = &allowed.verdict {
        let names: Vec<&str> = verdicts.iter().map(|verdict| verdict_word(*verdict)).collect();
        let found = record.comparability.verdict;
        let demand = format!("verdict {}", names.join(" or "));
        lines.push(Line::new(verdicts.contains(&found), demand, verdict_word(found)));
    }
    if let Some(most) = allowed.failed_runs {
        let failed = record.samples.iter().filter(|s| !s.warmup && !s.ok).count();
        lines.push(Line::new(
            failed <= most,
            format!("at most {most} failed runs"),
            format!("{failed} failed"),
        ));
    }
    let started = UNIX_EPOCH.checked_add(Duration::from_nanos(record.run.started_unix_ns));
    let bounds = [("not before", &allowed.not_before, true), ("not after", &allowed.not_after, false)];
    for (word, asked, earliest) in bounds {
        let Some(bound) = asked else { continue };
        lines.push(time(word, *bound, earliest, started));
    }
    lines
}

fn time(word: &str, bound: SystemTime, earliest: bool, started: Option<SystemTime>) -> Line {
    let demand = format!("started {word} {}", humantime::format_rfc3339_seconds(bound));
    let Some(started) = started else {
        return Line::new(false, demand, "the record has no time");
    };
    let passed = if earliest { started >= bound } else { started <= bound };
    Line::new(passed, demand, humantime::format_rfc3339_seconds(started).to_string())
}

fn bounds(record: &Record, bound: &Bound) -> Vec<Line> {
    let Some(metric) = metric(&bound.name) else { return vec![unknown(&bound.name)] };
    let arms = if bound.arms.is_empty() { &record.run.plan.arms } else { &bound.arms };
    let line = |arm: &String| {
        let demand = format!("{} of {arm}{}", bound.name, range(bound.at_least, bound.at_most));
        let Some(found) = middle(record, arm, metric) else {
            return Line::new(false, demand, "not measured");
        };
        let shown = Shown::of(metric.unit, &record.host).with_unit(found);
        Line::new(inside(found, bound.at_least, bound.at_most), demand, format!("median {shown}"))
    };
    arms.iter().map(line).collect()
}

fn ratio(record: &Record, bound: &Ratio) -> Line {
    let Some(metric) = metric(&bound.metric) else { return unknown(&bound.metric) };
    let range = range(bound.at_least, bound.at_most);
    let demand = format!("{}, {} / {}{range}", bound.metric, bound.of, bound.to);
    let (Some(of), Some(to)) = (middle(record, &bound.of, metric), middle(record, &bound.to, metric)) else {
        return Line::new(false, demand, "not measured in both");
    };
    if to <= 0.0 {
        return Line::new(false, demand, "the median below the line is 0");
    }
    Line::new(inside(of / to, bound.at_least, bound.at_most), demand, digits(of / to))
}

fn unknown(name: &str) -> Line {
    Line::new(false, format!("metric {name}"), "this isolab knows no such metric")
}

fn middle(record: &Record, arm: &str, metric: &Metric) -> Option<f64> {
    let own = record.samples.iter().filter(|s| s.arm == arm && s.analysed());
    let values: Vec<f64> = own.filter_map(|s| metric.of(s)).map(raw).collect();
    (!values.is_empty()).then(|| median(&values))
}

fn inside(value: f64, least: Option<f64>, most: Option<f64>) -> bool {
    least.is_none_or(|least| value >= least) && most.is_none_or(|most| value <= most)
}

fn range(least: Option<f64>, most: Option<f64>) -> String {
    match (least, most) {
        (None, None) => " measured".to_owned(),
        (Some(least), None) => format!(" at least {least}"),
        (None, Some(most)) => format!(" at most {most}"),
        (Some(least), Some(most)) => format!(" from {least} to {most}"),
    }
}

fn unique(mut words: Vec<String>) -> String {
    words.sort_unstable();
    words.dedup();
    words.join(", ")
}

fn lower<T: Debug>(values: &[T]) -> String {
    values.iter().map(|value| format!("{value:?}").to_lowercase()).collect::<Vec<_>>().join(" or ")
}
