//! Snapshots: guests of one template are not alike where they must not be, and what can't be continued is refused.

mod support;

use std::collections::BTreeSet;
use std::process::Stdio;

use support::lab::{Session, WALL};
use support::{Done, done, in_lab, isolab, run};

/// Guests of one template, where `ISOLAB_TEST_RESTORES` names no other number.
const GUESTS: usize = 25;
/// How far the clocks of guest and host may drift apart while a guest runs.
const DRIFT_NS: u64 = 50_000_000;

/// The value of a line.
fn value<'a>(result: &'a Done, name: &str) -> &'a str {
    let line = result.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {:?} {:?}", result.stdout, result.stderr))
}

fn nanoseconds(result: &Done) -> u64 {
    value(result, "realtime_ns").parse().expect("a number")
}

/// A guest of a template, and the host's clock before it was started and after it had ended.
struct Restored {
    guest: Done,
    before: u64,
    after: u64,
}

/// Guests of one template in one lab; where a lab gets stuck, the others of another one.
fn restored(wanted: usize) -> Vec<Restored> {
    let fresh = ["demo", "--", "/isolab-work", "fresh"];
    let host = [&["run", "--level", "process"], &fresh[..]].concat();
    let guest = [&["run", "--level", "vm", "--from-snapshot"], &fresh[..]].concat();
    let mut seen = Vec::new();
    for lab in 1..=8 {
        let mut session = Session::start(&[], &WALL);
        let mut serve = || {
            let made = session.run(&["snapshot", "demo"])?;
            assert_eq!(made.status, Some(0), "{}", made.stderr);
            let mut before = nanoseconds(&session.run(&host)?);
            while seen.len() < wanted {
                let guest = session.run(&guest)?;
                let after = nanoseconds(&session.run(&host)?);
                seen.push(Restored { guest, before, after });
                before = after;
            }
            Some(())
        };
        let served = serve().is_some();
        session.end(served);
        if served {
            println!("{wanted} guests in {lab} labs");
            return seen;
        }
    }
    panic!("the lab got stuck eight times");
}

#[test]
fn guests_of_one_template_have_random_numbers_of_their_own_and_the_time_of_day() {
    let asked = std::env::var("ISOLAB_TEST_RESTORES");
    let wanted = asked.map_or(GUESTS, |text| text.parse().expect("ISOLAB_TEST_RESTORES is a number"));
    let seen = restored(wanted);
    let different =
        |name: &str| seen.iter().map(|one| value(&one.guest, name)).collect::<BTreeSet<_>>().len();
    assert_eq!((different("getrandom"), different("urandom")), (wanted, wanted));
    // 31 random bits: two of a thousand are alike once in four thousand times.
    assert!(different("stack") + 1 >= wanted, "{} of {wanted} stacks", different("stack"));
    let mut late = Vec::new();
    for Restored { guest, before, after } in &seen {
        let now = nanoseconds(guest);
        assert!(now + DRIFT_NS > *before, "{now} is before {before}");
        assert!(now < after + DRIFT_NS, "{now} is after {after}");
        late.push(after.saturating_sub(now));
    }
    late.sort_unstable();
    let [least, median, most] = [0, wanted / 2, wanted - 1].map(|i| late[i] / 1_000_000);
    println!("the host's clock after it ended less the guest's: {least} to {most} ms, median {median}");
}

#[test]
fn a_snapshot_is_for_the_machine_and_the_root_that_it_was_made_of() {
    let restored = |options: &[&'static str]| {
        [&["run", "--level", "vm", "--from-snapshot"], options, &["demo", "--", "/isolab-work", "mounts"]]
            .concat()
    };
    let commands = [
        vec!["snapshot", "--read-only", "demo"],
        vec!["snapshot", "ls", "--json"],
        restored(&["--read-only"]),
        vec!["snapshot", "rm", "demo@stock,128M,1,read-only"],
        vec!["snapshot", "ls", "--json"],
        vec!["snapshot", "rm", "demo@stock,128M,1,read-only"],
        vec!["snapshot", "rm", "../images"],
    ];
    let results = in_lab(&WALL, &[], &commands);
    let [made, listed, read_only, removed, empty, again, outside] = &results[..] else {
        panic!("seven results")
    };
    assert_eq!(made.status, Some(0), "{}", made.stderr);
    let list: serde_json::Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!(list[0]["name"], "demo@stock,128M,1,read-only");
    assert_eq!(list[0]["memory_bytes"], 128 << 20);
    assert!(read_only.stdout.contains(" / erofs ro"), "{} {}", read_only.stdout, read_only.stderr);
    assert_eq!(removed.status, Some(0), "{}", removed.stderr);
    assert_eq!(empty.stdout, "[]\n");
    for refused in [again, outside] {
        assert_eq!(refused.status, Some(125));
        assert!(refused.stderr.contains("isolab snapshot ls"), "{}", refused.stderr);
    }
}

/// Alters one file of the snapshot at a time, and puts it back.
const ALTERED: &str = r#"
I=/lab/isolab; S=$ISOLAB_HOME/snapshots/demo@stock,128M,1; B=/lab/with/busybox
try() { echo "== $1"; $I run --on host --level vm --from-snapshot $2 demo -- /isolab-work echo alive 2>&1; echo "status $?"; }
$I snapshot demo
try whole
for f in state memory; do
    $B cp -p $S/$f /tmp/$f
    printf X | $B dd of=$S/$f bs=1 seek=5000 conv=notrunc 2>/dev/null; try "$f: a byte"
    $B cp -p /tmp/$f $S/$f; try "$f: put back"
    $B truncate -s 4096 $S/$f; try "$f: cut short"
    $B cp -p /tmp/$f $S/$f; echo more >> $S/$f; try "$f: longer"
    $B cp -p /tmp/$f $S/$f; $B chmod 644 $S/$f; try "$f: readable by all"
    $B rm $S/$f; $B ln -s /tmp/$f $S/$f; try "$f: a link"
    $B rm $S/$f; try "$f: missing"
    $B cp -p /tmp/$f $S/$f
done
$B cp -p $S/entry.json /tmp/entry.json
$B sed -i 's/"kernel_sha256": "...../"kernel_sha256": "00000/' $S/entry.json; try "another kernel"
$B cp -p /tmp/entry.json $S/entry.json; $B sed -i 's/"image": "sha256:...../"image": "sha256:00000/' $S/entry.json; try "another image"
$B cp -p /tmp/entry.json $S/entry.json; $B sed -i 's/"format": [0-9]*/"format": 99/' $S/entry.json; try "another format"
$B cp -p /tmp/entry.json $S/entry.json; $B sed -i 's/"init_sha256": "...../"init_sha256": "00000/' $S/entry.json; try "another init"
echo '{' > $S/entry.json; try "no entry"
$B cp -p /tmp/entry.json $S/entry.json
try "put back"
"#;

#[test]
fn an_altered_snapshot_is_refused_in_one_line_with_the_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    let script = dir.path().join("altered.sh");
    std::fs::write(&script, ALTERED).expect("write");
    let script = script.to_str().expect("UTF-8");
    let options = [&["lab", "--with", "/bin/busybox", "--with", script], &WALL[..]].concat();
    let program = ["--exec", "--", "/lab/with/busybox", "sh", "/lab/with/altered.sh"];
    let once = |_| {
        let mut command = isolab(&[&options[..], &program].concat());
        let result = done(command.stdin(Stdio::null()).output().expect("isolab starts"));
        (!result.stderr.contains("is stuck")).then_some(result)
    };
    let result = (0..8).find_map(once).expect("one session in eight that does not get stuck");
    let tries: Vec<&str> = result.stdout.split("== ").skip(1).collect();
    assert_eq!(tries.len(), 21, "{} {}", result.stdout, result.stderr);
    for tried in tries {
        let (name, said) = tried.split_once('\n').expect("lines");
        if name == "whole" || name.ends_with("put back") {
            assert_eq!(said, "alive\nstatus 0\n", "{name}");
            continue;
        }
        let lines: Vec<&str> = said.lines().collect();
        let [refusal, "status 125"] = lines[..] else { panic!("{name}: {said}") };
        assert!(
            refusal.starts_with("isolab: the snapshot demo@stock,128M,1 can't be used: "),
            "{name}: {refusal}"
        );
        assert!(refusal.contains("make it anew: `isolab snapshot "), "{name}: {refusal}");
    }
}

#[test]
fn restored_and_cold_starts_are_not_compared() {
    let refused = run(&["compare", "--from-snapshot", "--levels", "container,vm", "demo"]);
    assert_eq!(refused.status, Some(125));
    assert!(refused.stderr.contains("T15") && refused.stderr.contains("--levels vm"), "{}", refused.stderr);
    let refused = run(&["run", "--from-snapshot", "demo"]);
    assert_eq!(refused.status, Some(125));
    assert!(refused.stderr.contains("--level vm"), "{}", refused.stderr);
}
