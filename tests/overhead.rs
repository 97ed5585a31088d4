//! What measuring adds to what is measured: the time from a start to the workload's first byte, with and without stamps. The
//! workload is told of no mark pipe, or it would wait for its account to be read, which is none of its phases.

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};

mod support;

/// Name of this test's own half, which runs inside of the lab.
const INSIDE: &str = "inside_the_lab_both_are_timed";
/// The levels, starts of each kind (one more before them is not counted), and how much longer a measured start may be. A process and a container start in so few instructions that what
/// measuring needs (an option, a pipe, its reader) is 1.1 to 2.0 and 0.3 to 1.1 % of them, 0.04 to 0.07 and 0.02 to 0.06 million, by where the
/// linker puts its code. At vm single starts differ by 4 million, whatever measures them.
const LEVELS: [(&str, usize, f64); 3] = [("process", 5, 1.03), ("container", 5, 1.02), ("vm", 3, 1.015)];

#[test]
fn measuring_adds_next_to_nothing() {
    let done = support::half_in_lab(&[], INSIDE);
    let lines: Vec<&str> = done.stdout.lines().filter(|line| line.contains(" measured ")).collect();
    assert_eq!(lines.len(), 3, "{}", done.stdout);
    for (line, (level, _, most)) in lines.iter().zip(LEVELS) {
        assert!(line.contains(level), "{line}");
        let number = |after: &str| -> f64 {
            let rest = line.split(after).nth(1).and_then(|rest| rest.split(' ').next());
            rest.and_then(|number| number.parse().ok()).expect("a figure")
        };
        let (plain, measured) = (number("plain "), number("measured "));
        assert!(measured < plain * most, "{line}");
    }
}

/// From the start of isolab to the first byte of the workload.
fn to_first_byte(level: &str, measured: bool) -> Duration {
    let (mut report, write) = io::pipe().expect("a pipe");
    let mut command = Command::new("/lab/isolab");
    command.args(["run", "--on", "host", "--level", level]);
    if measured {
        fcntl_setfd(&write, FdFlags::empty()).expect("inherited");
        command.args(["--report-fd", &write.as_raw_fd().to_string()]);
    }
    command
        .args(["--env", "ISOLAB_MARK=none", "demo", "--", "/isolab-work", "echo", "here"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    // What the kernel put off after the run before is done by then: in a machine whose clock counts instructions idle time
    // passes at once.
    std::thread::sleep(Duration::from_secs(2));
    let start = Instant::now();
    let mut child = command.spawn().expect("isolab starts");
    drop(write);
    let mut output = child.stdout.take().expect("piped");
    output.read_exact(&mut [0]).expect("a first byte");
    let took = start.elapsed();
    io::copy(&mut output, &mut io::sink()).expect("the rest");
    let said = report.read_to_end(&mut Vec::new()).expect("a report");
    assert!(child.wait().expect("isolab ends").success());
    assert_eq!(said > 0, measured);
    took
}

#[test]
#[ignore = "the half inside of the lab of the test above"]
fn inside_the_lab_both_are_timed() {
    assert!(fs::exists("/lab/isolab").expect("a file system"), "this half runs in the lab");
    for (level, starts, _) in LEVELS {
        let mut took = [vec![], vec![]];
        for start in 0..=starts {
            for measured in [false, true] {
                let time = to_first_byte(level, measured);
                if start > 0 {
                    took[usize::from(measured)].push(time.as_nanos());
                }
            }
        }
        // The least of each: what the kernel does for itself now and then is no part of either.
        let [plain, measured] = took.map(|times| times.into_iter().min().unwrap_or_default());
        println!("{level}: plain {plain} ns, measured {measured} ns");
    }
}
