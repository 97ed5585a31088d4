//! Mechanisms changed one at a time: what a knob does inside, and what a comparison of them records.

mod support;

use std::process::Command;

use serde_json::Value;
use support::{busybox, home, run};

fn printed(knobs: &[&str], command: &[&str]) -> String {
    let result = run(&[&["run", "--on", "host"], knobs, &["busybox", "--"], command].concat());
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    result.stdout.trim().to_owned()
}

#[test]
fn a_knob_takes_away_its_mechanism_and_no_other() {
    busybox();
    let ours = std::fs::read_link("/proc/self/ns/net").expect("a namespace").display().to_string();
    let net = ["readlink", "/proc/self/ns/net"];
    for name in ["uts", "ipc", "cgroup"] {
        let ours = std::fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace");
        let link = format!("/proc/self/ns/{name}");
        let knob = format!("{}=host", if name == "cgroup" { "cgroupns" } else { name });
        assert_eq!(printed(&["--knob", &knob], &["readlink", &link]), ours.display().to_string());
        assert_ne!(printed(&[], &["readlink", &link]), ours.display().to_string());
    }
    let filter = ["sed", "-n", "s/^Seccomp:.//p", "/proc/self/status"];
    for (knobs, has_filter, own_net) in [
        (&[][..], true, true),
        (&["--knob", "seccomp=off"], false, true),
        (&["--knob", "net=host"], true, false),
        (&["--knob", "limits=off"], true, true),
    ] {
        assert_eq!(printed(knobs, &filter), if has_filter { "2" } else { "0" }, "{knobs:?}");
        assert_eq!(printed(knobs, &net) != ours, own_net, "{knobs:?}");
    }
    let touch = ["--", "/isolab-work", "touch", "200"];
    let limited = run(&[&["run", "--on", "host", "demo"], &touch[..]].concat());
    assert_eq!(limited.status, Some(137), "{}", limited.stderr);
    let free = run(&[&["run", "--on", "host", "--knob", "limits=off", "demo"], &touch[..]].concat());
    assert_eq!(free.status, Some(0), "{}", free.stderr);
    assert_eq!(free.stderr, "isolab: weaker isolation, for measuring: limits=off\n");
}

#[test]
fn each_knob_is_an_arm_with_its_costs_and_no_reason_against_comparing() {
    let result = run(&[
        "compare",
        "--on",
        "host",
        "--pairs",
        "6",
        "--seed",
        "2",
        // A machine that others slow down may refuse, which is not what this is about.
        "--allow-incomparable",
        "--json",
        "-",
        "--vary",
        "seccomp=on,off",
        "--vary",
        "net=private,host",
        "--vary",
        "limits=on,off",
        "--vary",
        "overlay=on,off",
        "--vary",
        "memory=128M,256M,1G",
        "--vary",
        "cpus=1,2",
        "demo",
    ]);
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    let record: Value = serde_json::from_str(&result.stdout).expect("one JSON document");
    let schema =
        serde_json::from_str(include_str!("../bench/schema/result.schema.json")).expect("the schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    assert_eq!(
        validator.iter_errors(&record).map(|e| e.to_string()).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
    let arms: Vec<&str> =
        record["run"]["plan"]["arms"].as_array().expect("arms").iter().filter_map(Value::as_str).collect();
    let changed =
        ["seccomp=off", "net=host", "limits=off", "overlay=off", "memory=256M", "memory=1G", "cpus=2"];
    assert_eq!((arms[0], arms.len()), ("container", 1 + changed.len()));
    let vary = record["vary"].as_array().expect("changes");
    for ((variation, change), arm) in vary.iter().zip(changed).zip(&arms[1..]) {
        let word = |key: &str| variation[key].as_str().expect("a word");
        assert_eq!(format!("{}={}", word("knob"), word("to")), change);
        assert_eq!((word("arm"), *arm), (*arm, format!("container {change}").as_str()));
        let weaker = ["seccomp=off", "net=host", "limits=off"].contains(&change);
        assert_eq!(variation["weaker"], weaker, "{variation}");
        for metric in ["startup.request_to_ready", "startup.request_to_clean", "memory.charge"] {
            assert!(variation["marginal"][metric]["ci95"].is_array(), "{variation}");
        }
    }
    let of = |arm: &str, key: &str| record["arms"][arm][key].clone();
    assert_eq!(
        (of("container", "seccomp"), of("container seccomp=off", "seccomp")),
        ("default".into(), "none".into())
    );
    assert_eq!((of("container", "net"), of("container net=host", "net")), ("none".into(), "host".into()));
    assert_eq!(of("container limits=off", "mem_limit_bytes"), Value::Null);
    assert_eq!(of("container memory=1G", "mem_limit_bytes"), 1_u64 << 30);
    assert_eq!(of("container cpus=2", "cpus"), 2);
    for check in record["comparability"]["checks"].as_array().expect("checks") {
        let id = check["id"].as_str().expect("a name");
        let arms =
            ["T05", "T06", "T07-console", "T08", "T14", "T15", "T18"].iter().any(|trap| id.starts_with(trap));
        assert!(!arms || check["status"] == "pass", "{check}");
        let refuses = check["level"] == "refuse" && check["status"] == "fail";
        assert!(!refuses || id.starts_with("T12"), "{check}");
    }
}

#[test]
fn what_cannot_be_varied_is_refused_before_anything_runs() {
    for (args, why) in [
        (&["--vary", "seccomp=on"][..], "--vary \"seccomp=on\" needs two or more different values"),
        (&["--vary", "cpus=1,1"], "--vary \"cpus=1,1\" needs two or more different values"),
        (&["--vary", "cpus=1,900"], "--cpus 900 is out of range"),
        (
            &["--vary", "net=private,bridge"],
            "knob net has no value \"bridge\"; its values are private and host",
        ),
        (
            &["--vary", "net=private,host", "--levels", "vm"],
            "knob net has no effect at level vm; use level container",
        ),
        (
            &["--vary", "cpus=1,2", "--levels", "container,vm"],
            "--vary changes one level; name one with --levels",
        ),
        (&["--vary", "cpus=1,2", "--vary", "cpus=3,4"], "--vary names cpus twice"),
    ] {
        let result = run(&[&["compare", "--on", "host"], args, &["demo"]].concat());
        assert_eq!((result.status, result.stdout.as_str()), (Some(125), ""));
        assert!(result.stderr.starts_with(&format!("isolab: {why}")), "{}", result.stderr);
    }
}

#[test]
fn a_guests_kernel_and_device_are_varied_in_the_lab_and_an_unknown_kernel_is_refused_before_it_starts() {
    let common = ["compare", "--on", "lab", "--levels", "vm", "--pairs", "1", "--warmup", "0"];
    let refused = run(&[&common[..], &["--vary", "kernel=stock,nosuch", "demo"]].concat());
    assert_eq!((refused.status, refused.stdout.as_str()), (Some(125), ""));
    assert!(refused.stderr.contains("no kernel named nosuch"), "{}", refused.stderr);
    // The same kernel under another name.
    let [stock, copy] = ["stock", "copy"].map(|name| home().join("kernels").join(name));
    let copied = Command::new("cp").arg("-a").args([&stock, &copy]).status();
    assert!(copied.is_ok_and(|status| status.success()));
    let entry = std::fs::read_to_string(copy.join("entry.json")).expect("an entry");
    let entry = entry.replace("\"name\": \"stock\"", "\"name\": \"copy\"");
    std::fs::write(copy.join("entry.json"), entry).expect("written");
    let varied =
        ["--vary", "kernel=stock,copy", "--vary", "free-page-reporting=off,on", "--json", "-", "demo"];
    let result = run(&[&common[..], &varied].concat());
    let record: Value = serde_json::from_str(&result.stdout).expect("one JSON document");
    let samples = record["samples"].as_array().expect("samples");
    assert!(samples.len() == 4 && samples.iter().all(|s| s["ok"] == true), "{}", result.stderr);
    let arms = ["vm", "vm kernel=copy", "vm free-page-reporting=on"];
    assert_eq!(record["run"]["plan"]["arms"], serde_json::json!(arms));
    assert_eq!((&record["vary"][0]["to"], &record["vary"][1]["to"]), (&"copy".into(), &"on".into()));
    let reports = arms.map(|arm| record["arms"][arm]["free_page_reporting"] == true);
    assert_eq!(reports, [false, false, true]);
    let checks = record["comparability"]["checks"].as_array().expect("checks");
    let isolation = checks.iter().find(|check| check["id"] == "T18-isolation").expect("a check");
    assert_eq!(isolation["status"], "pass", "{isolation}");
    std::fs::remove_dir_all(&copy).expect("removed");
}
