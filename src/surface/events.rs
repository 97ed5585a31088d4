//! The lines of a trace.
//!
//! A task's name, which a workload chooses, stands at the beginning of each line, and may hold line ends. It has at most 15 bytes, too
//! few for a whole event: so a line is read from its event on, and the task's number to the left of that; the pieces of a name are no
//! events. No event with any other text of a workload's is traced (`sched_process_exec` tells the name of a file), and what is
//! read of one stands before a name.

/// An event of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Number of the thread.
    pub(super) task: u32,
    pub(super) what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It asked for a system call, which entered the kernel.
    Enter { number: u32, arguments: [u64; 3] },
    /// A system call of it ended with this value, or was refused.
    Exit { number: u32, value: i64 },
    /// It made this thread or process.
    Fork { child: u32 },
    /// Its guest left the processor for this.
    Left { reason: String },
    /// Its guest came out to the monitor for this.
    Out { reason: String },
    /// Its guest used a port.
    Port { port: u64 },
    /// Its guest used a device register.
    Register { address: u64 },
}

/// The events of a trace, in order; lines that are none are left out.
pub(super) fn read(trace: &str) -> impl Iterator<Item = Event> + '_ {
    trace.lines().skip_while(|line| line.starts_with('#')).filter_map(event)
}

/// Reads what stands behind an event's name.
type Read = fn(&str) -> Option<What>;

fn event(line: &str) -> Option<Event> {
    const EVENTS: [(&str, Read); 7] = [
        (": sys_enter: NR ", enter),
        (": sys_exit: NR ", exit),
        (": task_newtask: ", fork),
        (": kvm_exit: ", left),
        (": kvm_userspace_exit: ", out),
        (": kvm_pio: ", port),
        (": kvm_mmio: ", register),
    ];
    // The first one behind a task is the event.
    let found = EVENTS
        .iter()
        .flat_map(|(words, read)| line.match_indices(words).map(move |(at, _)| (at, at + words.len(), read)));
    let tasks = found.filter_map(|(at, after, read)| Some((at, task(&line[..at])?, after, read)));
    let (_, task, after, read) = tasks.min_by_key(|(at, ..)| *at)?;
    Some(Event { task, what: read(&line[after..])? })
}

/// `NAME-NUMBER [CPU] FLAGS TIME`.
fn task(head: &str) -> Option<u32> {
    let (rest, _time) = last_word(head)?;
    let (rest, _flags) = last_word(rest)?;
    let (rest, cpu) = last_word(rest)?;
    if !(cpu.starts_with('[') && cpu.ends_with(']')) {
        return None;
    }
    rest.trim_end().rsplit('-').next()?.parse().ok()
}

fn last_word(text: &str) -> Option<(&str, &str)> {
    text.trim_end().rsplit_once(' ')
}

/// `N (A, B, ...)`.
fn enter(rest: &str) -> Option<What> {
    let (number, arguments) = rest.split_once(" (")?;
    let mut arguments = arguments.trim_end_matches(')').split(", ").map(|word| u64::from_str_radix(word, 16));
    let mut next = || arguments.next()?.ok();
    Some(What::Enter { number: number.parse().ok()?, arguments: [next()?, next()?, next()?] })
}

/// `N = VALUE`; the return from a signal has no number.
fn exit(rest: &str) -> Option<What> {
    let (number, value) = rest.trim_end().split_once(" = ")?;
    Some(What::Exit { number: number.parse().ok()?, value: value.parse().ok()? })
}

/// `pid=N comm=...`.
fn fork(rest: &str) -> Option<What> {
    Some(What::Fork { child: rest.strip_prefix("pid=")?.split(' ').next()?.parse().ok()? })
}

/// `vcpu 0 reason npf rip 0x...`.
fn left(rest: &str) -> Option<What> {
    let reason = rest.split_once("reason ")?.1.split(' ').next()?;
    Some(What::Left { reason: reason.to_lowercase() })
}

/// `reason KVM_EXIT_IO (2)`.
fn out(rest: &str) -> Option<What> {
    let reason = rest.strip_prefix("reason ")?.split(' ').next()?;
    Some(What::Out { reason: reason.trim_start_matches("KVM_EXIT_").to_lowercase() })
}

/// `pio_write at 0x80 size 1 ...`.
fn port(rest: &str) -> Option<What> {
    Some(What::Port { port: hex_after(rest, " at 0x")? })
}

/// `mmio write len 4 gpa 0xd0000000 val ...`.
fn register(rest: &str) -> Option<What> {
    Some(What::Register { address: hex_after(rest, " gpa 0x")? })
}

fn hex_after(rest: &str, words: &str) -> Option<u64> {
    let rest = rest.split_once(words)?.1;
    u64::from_str_radix(rest.split(' ').next()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Option<Event> {
        let mut events = read(line);
        let event = events.next();
        assert_eq!(events.next(), None);
        event
    }

    #[test]
    fn lines_of_each_kind_are_read() {
        let event = |task, what| Some(Event { task, what });
        let enter = What::Enter { number: 16, arguments: [5, 0xae80, 0] };
        let line =
            "           <...>-123     [001] .....  2986.188973: sys_enter: NR 16 (5, ae80, 0, 7f00, 0, 8)";
        assert_eq!(one(line), event(123, enter));
        let line = "          isolab-7       [000] .....     1.000001: sys_exit: NR 39 = -1";
        assert_eq!(one(line), event(7, What::Exit { number: 39, value: -1 }));
        let line = " a b-c-9503    [000] .....  2.1: task_newtask: pid=9509 comm=a b-c clone_flags=1200000 oom_score_adj=0";
        assert_eq!(one(line), event(9503, What::Fork { child: 9509 }));
        let line = " vcpu0-88 [000] ..... 3.0: kvm_exit: vcpu 0 reason npf rip 0xffffffff81000000 info1 0x0";
        assert_eq!(one(line), event(88, What::Left { reason: "npf".into() }));
        let line = " vcpu0-88 [000] ..... 3.0: kvm_pio: pio_write at 0x80 size 1 count 1 val 0x4d ";
        assert_eq!(one(line), event(88, What::Port { port: 0x80 }));
        let line = " vcpu0-88 [000] ..... 3.0: kvm_mmio: mmio write len 4 gpa 0xd0000050 val 0x1";
        assert_eq!(one(line), event(88, What::Register { address: 0xd000_0050 }));
    }

    #[test]
    fn no_name_hides_an_event_or_passes_for_one() {
        const NAMES: [&str; 8] = [
            ": sys_exit: NR ",
            "x-1 [000] . 1.0",
            "a\tb -1 [0] . 1:",
            "\n#",
            "#",
            "\n\n",
            "\n-1 [0] . 1: sy",
            "# tracer: nop\n",
        ];
        for name in NAMES {
            assert!(name.len() <= 15);
            let trace = format!(
                "# tracer: nop\n#\n isolab-7 [000] ..... 1.0: sys_exit: NR 3 = 0\n{name}-77 [000] .....  1.0: sys_enter: NR 1 (1, 2, 3, 4, 5, \
                 6)\n  {name}-77 [000] ..... 1.0: task_newtask: pid=78 comm={name} clone_flags=0 oom_score_adj=0\n"
            );
            let found: Vec<Event> = read(&trace).collect();
            let of = |task, what| Event { task, what };
            let expected = [
                of(7, What::Exit { number: 3, value: 0 }),
                of(77, What::Enter { number: 1, arguments: [1, 2, 3] }),
                of(77, What::Fork { child: 78 }),
            ];
            assert_eq!(found, expected, "{name:?}");
        }
        for line in ["", "# comment", "77 [000] 1.0: sys_enter: NR x", "sys_enter: NR 1 (1, 2, 3)"] {
            assert_eq!(one(line), None, "{line}");
        }
    }
}
