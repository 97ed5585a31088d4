//! What the instrument costs after and between the runs: a line read, a record judged and summarised, a page made.
#![expect(missing_docs, reason = "criterion's macros make the functions")]

#[path = "../tests/synthetic/mod.rs"]
mod synthetic;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use isolab_bench::environment::{ClockKind, HostClass};
use isolab_bench::record::Record;
use isolab_bench::report::{html, text};
use isolab_bench::run_report::RunReport;
use isolab_bench::summary::summarise;

const LINE: &str = r#"{"level":"vm","main_ns":10,"stamps":[["B",20],["I",25],["E",28],["W",30],["R",31],["X",40]],"end":{"exited":0},"status":0,"memory":null,"clean_ns":90,"detail":{}}"#;

fn hot_paths(c: &mut Criterion) {
    let levels = ["process", "container", "vm"];
    let record: Record = synthetic::record(&levels, 30, HostClass::Hardware, ClockKind::Monotonic, 300);
    c.bench_function("run report: read a line", |b| {
        b.iter(|| RunReport::from_line(black_box(LINE.as_bytes())).map(|r| r.clean_ns).unwrap_or_default());
    });
    let mut group = c.benchmark_group("30 pairs of 3 levels");
    group.sample_size(10);
    group.bench_function("summarise", |b| {
        b.iter(|| summarise(black_box(&record.run.plan), black_box(&record.samples)));
    });
    group.bench_function("text", |b| b.iter(|| text::render(black_box(&record), text::TextStyle::default())));
    group.bench_function("html", |b| {
        b.iter(|| html::render(black_box(&record)).map(|p| p.len()).unwrap_or_default())
    });
    group.finish();
}

criterion_group!(benches, hot_paths);
criterion_main!(benches);
