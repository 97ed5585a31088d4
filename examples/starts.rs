//! Programs that start other programs, judged by one clock: commands in turns, and several of the same at once.
//!
//! `bench/figures` runs it on the host (`concurrent`) and inside the lab (`lab-start`, `concurrent`). A sample begins when the
//! starts of its round are released and ends when this one's program has ended. Prints one line of JSON for each sample
//! and then a table in Markdown.
#![forbid(unsafe_code)]

use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use isolab_bench::statistics::{median, quantile};

const USAGE: &str =
    "usage: starts host|lab ROUNDS COUNT[,COUNT]... :: NAME COMMAND... [:: NAME COMMAND...]...";
/// Not counted: the first starts read their files.
const WARM_UPS: usize = 2;
/// In the lab: what the kernel puts off when a container or guest has ended (its network namespace, superblocks, cgroups) is done
/// by then, and is not charged to the next. With a clock of instructions idle time passes at once.
const LAB_PAUSE: Duration = Duration::from_secs(2);
/// Stands in a command for a number that no other start has: the name of a container.
const NUMBER: &str = "{}";

struct Arm {
    name: String,
    command: Vec<String>,
    count: usize,
    samples_ns: Vec<f64>,
}

/// Where it runs: the unit of the table, as its name and in ns, and the pause before each round.
struct Clock {
    unit: &'static str,
    unit_ns: f64,
    pause: Duration,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut groups = args.split(|arg| arg == "::");
    let Some([place, rounds, counts]) = groups.next() else { bail!(USAGE) };
    let clock = match place.as_str() {
        "host" => Clock { unit: "ms", unit_ns: 1e6, pause: Duration::ZERO },
        // 2 ns of lab time for each instruction.
        "lab" => Clock { unit: "Mi", unit_ns: 2e6, pause: LAB_PAUSE },
        _ => bail!(USAGE),
    };
    let rounds: usize = rounds.parse().context(USAGE)?;
    let counts: Vec<usize> = counts.split(',').map(str::parse).collect::<Result<_, _>>().context(USAGE)?;
    let mut arms = Vec::new();
    for group in groups {
        let [name, command @ ..] = group else { bail!(USAGE) };
        for &count in &counts {
            arms.push(Arm { name: name.clone(), command: command.to_vec(), count, samples_ns: Vec::new() });
        }
    }
    for round in 0..rounds + WARM_UPS {
        // Forwards and backwards in turns, so that none always follows the same other.
        let mut order: Vec<&mut Arm> = arms.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for arm in order {
            thread::sleep(clock.pause);
            let samples = together(arm)?;
            if round >= WARM_UPS {
                let line = serde_json::json!({ "name": arm.name, "at_once": arm.count, "ns": samples });
                println!("{line}");
                arm.samples_ns.extend(samples);
            }
        }
    }
    print_table(&arms, &clock);
    Ok(())
}

/// Starts as many as the arm has at the same moment; how long each took until its end, in ns.
fn together(arm: &Arm) -> Result<Vec<f64>> {
    let barrier = Barrier::new(arm.count + 1);
    thread::scope(|scope| {
        let one = || -> Result<Instant> {
            let mut command = command(&arm.command)?;
            barrier.wait();
            let status = command.status();
            let ended = Instant::now();
            let status = status.with_context(|| format!("start {}", arm.name))?;
            if !status.success() {
                bail!("{} ended with {status}", arm.name);
            }
            Ok(ended)
        };
        let starts: Vec<_> = (0..arm.count).map(|_| scope.spawn(one)).collect();
        let released = Instant::now();
        barrier.wait();
        let ends = starts.into_iter().map(|start| start.join().expect("no panic"));
        ends.map(|ended| Ok(ended?.duration_since(released).as_secs_f64() * 1e9)).collect()
    })
}

fn command(words: &[String]) -> Result<Command> {
    static STARTS: AtomicUsize = AtomicUsize::new(0);
    let number = STARTS.fetch_add(1, Ordering::Relaxed).to_string();
    let [program, args @ ..] = words else { bail!(USAGE) };
    let mut command = Command::new(program);
    command.args(args.iter().map(|arg| arg.replace(NUMBER, &number)));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

fn print_table(arms: &[Arm], clock: &Clock) {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let unit = clock.unit;
    let [together, base] = match arms.first() {
        Some(first) if arms.iter().all(|arm| arm.count == first.count) => ["", &format!("{}'s", first.name)],
        _ => [" at once | for each CPU |", "one at once"],
    };
    println!("\n| started |{together} samples | median, {unit} | least to most | to {base} |");
    println!("|{}", "---|".repeat(5 + together.matches('|').count()));
    for arm in arms {
        let counts = format!(" {} | {:.1} |", arm.count, arm.count as f64 / cpus as f64);
        let counts = if together.is_empty() { "" } else { &counts };
        let mid = median(&arm.samples_ns);
        let [low, high] = [0.0, 1.0].map(|at| quantile(&arm.samples_ns, at) / clock.unit_ns);
        let is_base = |other: &&Arm| together.is_empty() || other.name == arm.name && other.count == 1;
        let ratio = arms.iter().find(is_base).map_or(f64::NAN, |base| mid / median(&base.samples_ns));
        println!(
            "| {} |{counts} {} | {:.3} | {low:.3} to {high:.3} | {ratio:.2} |",
            arm.name,
            arm.samples_ns.len(),
            mid / clock.unit_ns,
        );
    }
}
