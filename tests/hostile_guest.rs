//! A guest kernel that does everything wrong on purpose (`vmm/tests/hostile-kernel/`) against the monitor as it ships, in the lab: nothing of
//! it crashes, hangs or grows the monitor, and each end has a name.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Done, half_in_lab};

/// What stands before the choice in the kernel's file.
const HEAD: &[u8; 16] = b"isolab-hostile: ";
const NAME_LEN: usize = 16;

/// Attacks that leave the machine alive; `rest` does nothing, and is what the others' memory is compared with.
const SURVIVED: [&str; 15] = [
    "rest",
    "ports",
    "registers",
    "nowhere",
    "rings",
    "moved-queues",
    "storm",
    "block",
    "entropy",
    "control",
    "marks",
    "serial",
    "msrs",
    "privileged",
    "controllers",
];

/// Attacks that never end: the deadline ends them.
const ENDLESS: [&str; 3] = ["halt", "spin", "notify-on"];

/// Attacks that end the machine, the status, and what isolab says.
const ENDS: [(&str, i32, &str); 6] = [
    ("triple-fault", 125, "guest kernel reset the machine"),
    ("reset", 125, "guest kernel reset the machine"),
    ("off", 125, "guest kernel switched the machine off"),
    ("device-code", 125, "kvm internal error"),
    ("failed", 125, "ended without a word"),
    // KVM's own tables are the instance's memory, too.
    ("tables", 137, "out of memory"),
];

/// What the monitor may grow by under an attack, beside guest RAM.
const MOST_GROWTH: u64 = 2 << 20;

/// Builds the kernel with the flags of a program that runs on nothing.
fn build() -> PathBuf {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile-kernel");
    let flags = ["relocation-model=static", "target-cpu=x86-64"].map(|flag| format!("-C{flag}"));
    let linker = ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"];
    let linker = linker.map(|argument| format!("-Clink-arg={argument}"));
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--offline", "--quiet", "--target", TARGET])
        .args(["--manifest-path", "vmm/tests/hostile-kernel/Cargo.toml", "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", [&flags[..], &linker[..]].concat().join("\x1f"))
        .output()
        .expect("cargo starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    target_dir.join(TARGET).join("release/isolab-hostile-kernel")
}

#[test]
fn a_hostile_kernel_neither_crashes_nor_hangs_nor_grows_the_monitor() {
    let kernel = build();
    half_in_lab(&["--with", kernel.to_str().expect("plain")], "inside_the_lab_each_attack_is_survived");
}

fn isolab(args: &[&str]) -> Done {
    support::done(Command::new("/lab/isolab").args(args).output().expect("isolab starts"))
}

/// Adds the kernel with this attack chosen, under the attack's name.
fn add(attack: &str) {
    let mut file = fs::read("/lab/with/isolab-hostile-kernel").expect("the kernel");
    let is_choice = |bytes: &[u8]| bytes.starts_with(HEAD) && bytes.ends_with(b"rest");
    let at = file.windows(HEAD.len() + 4).position(is_choice).expect("a choice") + HEAD.len();
    file[at..at + NAME_LEN].copy_from_slice(format!("{attack:NAME_LEN$}").as_bytes());
    let path = format!("/tmp/{attack}");
    fs::write(&path, file).expect("written");
    let added = isolab(&["kernel", "add", &path, "--name", attack]);
    assert_eq!(added.status, Some(0), "{}", added.stderr);
}

/// Charge beside guest RAM when the attack is over, in bytes, without the tables that KVM makes for each place which the guest touches.
fn beside_ram(attack: &str) -> u64 {
    let common = ["compare", "--on", "host", "--levels", "vm", "--pairs", "1", "--warmup", "0", "--quiet"];
    let done = isolab(&[&common[..], &["--kernel", attack, "--json", "-", "demo"]].concat());
    assert!(matches!(done.status, Some(0 | 3)), "{attack}: {:?} {}", done.status, done.stderr);
    let record: Value = serde_json::from_str(&done.stdout).expect("a record");
    let sample = &record["samples"][0];
    assert_eq!((&sample["ok"], &sample["status"]), (&true.into(), &0.into()), "{attack}: {sample}");
    let memory = &sample["mem_bytes"];
    let bytes = |key: &str| memory[key].as_u64().unwrap_or_else(|| panic!("{attack}: no {key} in {memory}"));
    bytes("memcg_current") - bytes("guest_ram_resident") - bytes("secondary_page_tables")
}

#[test]
#[ignore = "the half inside of the lab of the test above"]
fn inside_the_lab_each_attack_is_survived() {
    let mut least = None;
    for attack in SURVIVED {
        add(attack);
        let began = Instant::now();
        let charged = beside_ram(attack);
        let least = *least.get_or_insert(charged);
        println!("{attack}: {} KiB beside guest RAM, {:?}", charged >> 10, began.elapsed());
        assert!(charged < least + MOST_GROWTH, "{attack}: grew from {least} to {charged} bytes");
    }
    for attack in ENDLESS {
        add(attack);
        let began = Instant::now();
        let done = isolab(&[
            "run",
            "--on",
            "host",
            "--level",
            "vm",
            "--kernel",
            attack,
            "--timeout",
            "500ms",
            "demo",
        ]);
        println!("{attack}: {done:?} after {:?}", began.elapsed());
        assert_eq!(done.status, Some(124), "{attack}: {}", done.stderr);
        assert!(began.elapsed() < Duration::from_secs(4), "{attack}");
    }
    for (attack, status, said) in ENDS {
        add(attack);
        let little = ["--memory", "24M", "--kernel", attack, "demo"];
        let done = isolab(&[&["run", "--on", "host", "--level", "vm"], &little[..]].concat());
        println!("{attack}: {done:?}");
        assert_eq!(done.status, Some(status), "{attack}: {}", done.stderr);
        assert_eq!(done.stderr.lines().count(), 1, "{attack}: {}", done.stderr);
        assert!(done.stderr.contains(said), "{attack}: {}", done.stderr);
    }
    let left = isolab(&["gc", "--dry-run"]);
    assert_eq!((left.status, left.stdout.lines().count()), (Some(0), 1), "{left:?}");
}
