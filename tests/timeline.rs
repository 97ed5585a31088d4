//! The timeline: each subphase is what it says, on the host's levels and, in one lab, at level vm.

mod support;

use std::collections::BTreeMap;

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::Value;
use support::half_in_lab;
use support::lab::each_in_lab;
use support::{in_lab, run};

/// How much longer a subphase is made.
const DELAY: u64 = 50_000_000;

/// The subphases of each successful sample of a record.
fn samples(json: &str) -> Vec<BTreeMap<String, u64>> {
    let record: Value = serde_json::from_str(json).expect("a record");
    let all = record["samples"].as_array().expect("samples").iter();
    let pieces = all.map(|sample| {
        assert_eq!(sample["ok"], true, "{sample}");
        let pieces: BTreeMap<String, u64> =
            serde_json::from_value(sample["subphase_ns"].clone()).expect("subphases");
        assert_eq!(Some(pieces.values().sum::<u64>()), sample["t_ns"]["clean"].as_u64(), "they add up");
        pieces
    });
    pieces.collect()
}

/// The least that each subphase took: what a busy machine adds is no part of it.
fn least(json: &str) -> BTreeMap<String, u64> {
    let mut least = BTreeMap::new();
    for (name, ns) in samples(json).into_iter().flatten() {
        least.entry(name).and_modify(|known: &mut u64| *known = ns.min(*known)).or_insert(ns);
    }
    least
}

/// The subphases that one process makes which takes one delay at a time: process 1 of a container or guest, and the workload.
const ONE_AT_A_TIME: [&[&str]; 2] = [
    &[
        "init_job",
        "root_mounts",
        "dev_proc",
        "pivot",
        "masks",
        "workspace",
        "caps_seccomp",
        "guest_init",
        "exec",
    ],
    &["workload_ready", "workload_run"],
];

/// What the child takes beyond the launcher's work beside it: a delay of that work would hide it.
const ALONE: &str = "namespaces";

/// Every subphase in just one of some sets, each of which is delayed in one comparison. Neighbours in time are in different
/// sets, so that what is counted to the wrong one of two shows as a growth of none or of twice the delay.
fn sets<'a>(names: &[&'a str]) -> Vec<Vec<&'a str>> {
    let alone = |name: &str| ONE_AT_A_TIME.iter().position(|group| group.contains(&name));
    let most = |group| names.iter().filter(|name| alone(name) == Some(group)).count();
    let mut sets = vec![Vec::new(); most(0).max(most(1)).max(2)];
    let mut taken = [0, 0];
    for (i, name) in names.iter().filter(|name| **name != ALONE).enumerate() {
        let place = alone(name).map_or(i, |group| {
            taken[group] += 1;
            taken[group]
        });
        let count = sets.len();
        sets[place % count].push(*name);
    }
    sets.extend(names.contains(&ALONE).then(|| vec![ALONE]));
    sets
}

/// The options that delay these.
fn delays(set: &[&str]) -> Vec<String> {
    set.iter().map(|name| format!("--test-fault={name}=delay:50")).collect()
}

/// Checks that with a delay of these subphases each of them grew by just that, and no other one grew by much.
fn check(
    level: &str,
    delayed: &[&str],
    without: &BTreeMap<String, u64>,
    with: &BTreeMap<String, u64>,
    slack: u64,
) {
    let names: Vec<_> = with.keys().collect();
    assert_eq!(names, without.keys().collect::<Vec<_>>(), "{level} {delayed:?}");
    for (name, ns) in with {
        let (before, grown) = (without[name], ns.saturating_sub(without[name]));
        let expected = if delayed.contains(&name.as_str()) { DELAY } else { 0 };
        assert!(
            grown.abs_diff(expected) <= slack,
            "{level}, {delayed:?} delayed: {name} went from {before} to {ns} ns"
        );
    }
}

fn compare<'a>(on: &'a str, level: &'a str, pairs: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let common = ["compare", "--on", on, "--levels", level, "--pairs", pairs, "--warmup", "0"];
    [&common[..], &["--quiet", "--json", "-"], more].concat()
}

#[test]
fn a_delay_in_a_subphase_grows_it_and_no_other_on_the_host() {
    for level in ["process", "container"] {
        let of = |more: &[&str]| {
            let done = run(&compare("host", level, "3", &[more, &["demo"]].concat()));
            // A busy machine may refuse the comparison, whose samples are what is looked at here.
            assert!(matches!(done.status, Some(0 | 3)), "{}", done.stderr);
            least(&done.stdout)
        };
        let without = of(&[]);
        assert!(without.len() >= 16, "{without:?}");
        let names: Vec<&str> = without.keys().map(String::as_str).collect();
        for set in sets(&names) {
            let options = delays(&set);
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            check(level, &set, &without, &of(&options), 20_000_000);
        }
    }
}

#[test]
fn a_delay_in_a_subphase_grows_it_and_no_other_in_a_guest() {
    let names = [
        "exec_self",
        "image_open",
        "job",
        "kernel_files",
        "cgroup",
        "channels",
        "clone",
        "job_block",
        "namespaces",
        "cgroup_join",
        "ram",
        "kernel_load",
        "initramfs_load",
        "boot_params",
        "create_vm",
        "ram_register",
        "irqchip",
        "devices",
        "vcpus",
        "vcpu_start",
        "guest_kernel",
        "guest_init",
        "exec",
        "workload_ready",
        "reading",
        "workload_run",
        "teardown",
    ];
    let sets = sets(&names);
    let options: Vec<Vec<String>> = sets.iter().map(|set| delays(set)).collect();
    let mut commands = vec![compare("host", "vm", "1", &["demo"])];
    commands.extend(options.iter().map(|options| {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        compare("host", "vm", "1", &[&options[..], &["demo"]].concat())
    }));

    let done = each_in_lab(&[], &commands[..1], &commands);

    assert!(done.iter().all(|d| matches!(d.status, Some(0 | 3))), "{done:?}");
    let without = least(&done[0].stdout);
    let mut known: Vec<&str> = names.to_vec();
    known.sort_unstable();
    assert_eq!(without.keys().collect::<Vec<_>>(), known);
    // One run each: what waits for its kernel's periods of grace (an end of a machine, of namespaces) ends a few ticks of 4 ms
    // earlier or later.
    for (set, done) in sets.iter().zip(&done[1..]) {
        check("vm", set, &without, &least(&done.stdout), 20_000_000);
    }
}

#[test]
fn a_workload_that_is_ready_after_a_second_and_a_half_reads_so() {
    let command = ["demo", "--", "/isolab-work", "ready-after", "1500"];
    let mut all = Vec::new();
    for level in ["process", "container"] {
        let done = run(&compare("host", level, "1", &command));
        assert!(matches!(done.status, Some(0 | 3)), "{}", done.stderr);
        all.push(least(&done.stdout));
    }
    all.push(least(&in_lab(&[], &[], &[compare("host", "vm", "1", &command)])[0].stdout));
    for pieces in all {
        assert!((1_500_000_000..1_530_000_000).contains(&pieces["workload_ready"]), "{pieces:?}");
    }
}

/// Name of this test's own half, which runs inside of the lab.
const INSIDE: &str = "inside_the_lab_stamps_agree_with_tracepoints";

#[test]
fn stamps_of_marks_agree_with_the_tracepoint_of_port_writes() {
    // From the tracepoint to the VMM it is some 2500 instructions: microseconds on a processor, and on the clock that counts
    // them; an emulated processor takes longer by the wall.
    for (clock, most_ns) in [("instructions", 20_000), ("wall", 500_000)] {
        let done = half_in_lab(&["--lab-clock", clock], INSIDE);
        let median = done.stdout.split("median distance ").nth(1).and_then(|rest| rest.split(' ').next());
        let median: u64 = median.and_then(|ns| ns.parse().ok()).expect("a figure");
        assert!(median < most_ns, "{}", done.stdout);
    }
}

/// Absolute times of the marks of one run: the letter, nanoseconds of `CLOCK_MONOTONIC`.
fn marks_of_a_run() -> Vec<(char, u64)> {
    let (mut read, write) = std::io::pipe().expect("a pipe");
    fcntl_setfd(&write, FdFlags::empty()).expect("inherited");
    let number = write.as_raw_fd().to_string();
    let status = std::process::Command::new("/lab/isolab")
        .args(["run", "--on", "host", "--level", "vm", "--report-fd", &number, "demo"])
        .status()
        .expect("isolab starts");
    drop(write);
    let mut line = String::new();
    read.read_to_string(&mut line).expect("a report");
    assert!(status.success(), "{line}");
    let report: Value = serde_json::from_str(&line).expect("a report");
    serde_json::from_value(report["stamps"].clone()).expect("stamps")
}

/// Code and time of each write to the mark port in a trace: `NAME-PID [CPU] FLAGS SECONDS.MICROS: kvm_pio: pio_write at 0x510
/// size 1 count 1 val 0x49`.
fn port_writes(trace: &str) -> Vec<(char, u64)> {
    let write = |line: &str| {
        let (head, value) = line.split_once(": kvm_pio: pio_write at 0x510 ")?;
        let (seconds, micros) = head.rsplit(' ').next()?.split_once('.')?;
        let code = u8::from_str_radix(value.rsplit("val 0x").next()?.split(' ').next()?, 16).ok()?;
        let at = seconds.parse::<u64>().ok()? * 1_000_000_000 + micros.parse::<u64>().ok()? * 1000;
        Some((char::from(code), at))
    };
    trace.lines().filter_map(write).collect()
}

#[test]
#[ignore = "the half inside of the lab of the test above"]
fn inside_the_lab_stamps_agree_with_tracepoints() {
    let tracing = Path::new("/sys/kernel/tracing");
    let flags = rustix::mount::MountFlags::empty();
    if !tracing.join("instances").exists() {
        rustix::mount::mount("tracefs", tracing, "tracefs", flags, None).expect("a kernel with tracefs");
    }
    let ours = tracing.join("instances/isolab");
    fs::create_dir(&ours).expect("an instance of our own");
    fs::write(ours.join("trace_clock"), "mono").expect("the monotonic clock");
    fs::write(ours.join("events/kvm/kvm_pio/enable"), "1").expect("the tracepoint of port writes");
    let mut distances = Vec::new();
    for _ in 0..3 {
        fs::write(ours.join("trace"), "").expect("emptied");
        let marks = marks_of_a_run();
        let writes = port_writes(&fs::read_to_string(ours.join("trace")).expect("a trace"));
        for (code, at) in marks.into_iter().filter(|(code, _)| "IEWRX".contains(*code)) {
            let traced = writes.iter().find(|(written, _)| *written == code).map(|(_, at)| *at);
            distances.push(at.abs_diff(traced.expect("each mark is a port write")));
        }
    }
    distances.sort_unstable();
    let (n, median) = (distances.len(), distances[distances.len() / 2]);
    println!("median distance {median} ns, largest {} ns, of {n} stamps", distances[n - 1]);
    assert!(n >= 15, "{distances:?}");
}
