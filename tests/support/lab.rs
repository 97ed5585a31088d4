//! One lab machine, spoken to line by line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use super::{Done, answer, isolab};

/// The faster clock, for where nothing is measured.
pub(crate) const WALL: [&str; 2] = ["--lab-clock", "wall"];

/// A lab session.
#[derive(Debug)]
pub(crate) struct Session {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Session {
    /// Starts one with these images and options of the lab.
    pub(crate) fn start(images: &[&str], options: &[&str]) -> Self {
        let mut child = isolab(&[&["lab"], options, &["--", "batch"], images].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("isolab starts");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, stdin, stdout }
    }

    /// Asks for one command; nothing where the lab got stuck.
    pub(crate) fn ask(&mut self, request: &Value) -> Option<Value> {
        writeln!(self.stdin, "{request}").ok()?;
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).ok()
    }

    /// Runs one command; nothing where the lab got stuck.
    pub(crate) fn run(&mut self, args: &[&str]) -> Option<Done> {
        self.ask(&json!({ "args": args })).as_ref().map(answer)
    }

    /// Ends it; a lab that did not serve to the end must have got stuck.
    pub(crate) fn end(self, served: bool) {
        drop((self.stdin, self.stdout));
        let output = self.child.wait_with_output().expect("isolab ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(served && output.status.success() || said.contains("is stuck"), "{said}");
    }
}

/// Runs commands that do not depend on each other in two labs with these options at a time (a machine has two CPUs or more,
/// a lab uses one); where one gets stuck, the rest of its commands in a new one. In each lab `warm_up` runs first.
pub(crate) fn each_in_lab(options: &[&str], warm_up: &[Vec<&str>], commands: &[Vec<&str>]) -> Vec<Done> {
    let (one, two) = commands.split_at(commands.len().div_ceil(2));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| one_lab(options, warm_up, two));
        let mut results = one_lab(options, warm_up, one);
        results.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        results
    })
}

/// Runs commands that do not depend on each other in one lab after its `warm_up`; where it gets stuck, the rest of them in a new one.
pub(crate) fn one_lab(options: &[&str], warm_up: &[Vec<&str>], commands: &[Vec<&str>]) -> Vec<Done> {
    let mut results = Vec::new();
    for _ in 0..8 {
        if results.len() == commands.len() {
            return results;
        }
        let mut session = Session::start(&[], options);
        if warm_up.iter().all(|args| session.run(args).is_some()) {
            results.extend(commands[results.len()..].iter().map_while(|args| session.run(args)));
        }
        session.end(results.len() == commands.len());
    }
    assert_eq!(results.len(), commands.len(), "the lab got stuck eight times");
    results
}
