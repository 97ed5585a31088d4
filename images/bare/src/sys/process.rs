//! Processes: start, end, identity, limits, signals.

use core::arch::naked_asm;
use core::ffi::CStr;
use core::sync::atomic::{AtomicU32, Ordering};

use super::{Errno, Fd, call, futex};

/// Ends the program.
pub fn exit(code: i32) -> ! {
    loop {
        let _ = call!(231, code);
    }
}

/// A child that shares this program's memory until it executes another or ends; the caller sleeps until then
/// (`CLONE_VM | CLONE_VFORK`). The child runs `body(context)` on `stack`.
///
/// # Errors
/// As `clone(2)`.
pub fn spawn<T>(stack: &mut [u8], body: extern "C" fn(&mut T) -> !, context: &mut T) -> Result<i32, Errno> {
    let top = stack.as_mut_ptr_range().end as usize & !15;
    let (body, context) = (body as usize, core::ptr::from_mut(context) as usize);
    // SAFETY: `body` takes one pointer to T and does not return; the stack is exclusively borrowed, aligned, and
    // not used by the parent, which sleeps (VFORK) while the child can touch it or the context.
    let result = unsafe { spawn_raw(body, context, top) };
    super::check(result).map(|pid| pid as i32)
}

/// `clone(CLONE_VM | CLONE_VFORK | SIGCHLD, stack)`; in the child `body(context)`.
#[unsafe(naked)]
unsafe extern "C" fn spawn_raw(body: usize, context: usize, stack: usize) -> isize {
    naked_asm!(
        "mov r8, rdi",
        "mov r9, rsi",
        "mov rsi, rdx",
        "mov edi, 0x4111",
        "xor edx, edx",
        "xor r10d, r10d",
        "mov eax, 56",
        "syscall",
        "test rax, rax",
        "jnz 2f",
        "xor ebp, ebp",
        "mov rdi, r9",
        "call r8",
        "ud2",
        "2:",
        "ret",
    )
}

/// A thread that ends at once, waited for. It needs a stack only in name.
///
/// # Errors
/// As `clone(2)`.
pub fn thread() -> Result<(), Errno> {
    // The kernel clears the word and wakes us when the thread is done with our memory.
    let alive = AtomicU32::new(1);
    // SAFETY: the thread runs four instructions that touch no memory, and `alive` lives until the kernel has cleared it.
    super::check(unsafe { thread_raw(alive.as_ptr() as usize) })?;
    loop {
        match alive.load(Ordering::Acquire) {
            0 => return Ok(()),
            tid => futex::wait_while(&alive, tid)?,
        }
    }
}

/// `clone(VM | FS | FILES | SIGHAND | THREAD | SYSVSEM | PARENT_SETTID | CHILD_CLEARTID)`; the thread calls `exit`.
#[unsafe(naked)]
unsafe extern "C" fn thread_raw(word: usize) -> isize {
    naked_asm!(
        "mov rdx, rdi",
        "mov r10, rdi",
        "mov edi, 0x350f00",
        // Not used, but without one the thread would have ours.
        "lea rsi, [rsp - 4096]",
        "and rsi, -16",
        "xor r8d, r8d",
        "mov eax, 56",
        "syscall",
        "test rax, rax",
        "jnz 2f",
        "xor edi, edi",
        "mov eax, 60",
        "syscall",
        "ud2",
        "2:",
        "ret",
    )
}

/// Keeps this process, and the children that come from it, on the CPU that it runs on.
///
/// # Errors
/// As `getcpu(2)` and `sched_setaffinity(2)`.
pub fn stay_on_this_cpu() -> Result<(), Errno> {
    let mut cpu = 0_u32;
    call!(309, &mut cpu, 0_usize, 0_usize)?;
    let mut set = [0_u64; 16];
    let word = set.get_mut(cpu as usize / 64).ok_or(Errno::INVAL)?;
    *word = 1 << (cpu % 64);
    call!(203, 0, size_of_val(&set), &set).map(drop)
}

/// Page faults of this process so far that needed no reading from a medium.
#[must_use]
pub fn minor_faults() -> u64 {
    // struct rusage: two times of two words, then maxrss, ixrss, idrss, isrss, minflt.
    let mut usage = [0_u64; 18];
    // With a good pointer the call can't fail.
    let _ = call!(98, 0, &mut usage);
    usage[8]
}

/// A child with a copy of this program's memory: 0 in the child.
///
/// # Errors
/// As `fork(2)`.
pub fn fork() -> Result<i32, Errno> {
    call!(57).map(|pid| pid as i32)
}

/// The next ended child and its wait status; nothing where none has ended yet (`block` waits instead).
///
/// # Errors
/// No children.
pub fn wait(block: bool) -> Result<Option<(i32, u32)>, Errno> {
    let mut status = 0_u32;
    loop {
        match call!(61, -1, &mut status, i32::from(!block), 0_usize) {
            Err(Errno::INTR) => {}
            other => return other.map(|pid| (pid != 0).then_some((pid as i32, status))),
        }
    }
}

/// Executes a program with 0-terminated lists of pointers to strings.
pub fn execve(path: &CStr, argv: &[usize], env: &[usize]) -> Errno {
    match (argv.last(), env.last()) {
        (Some(0), Some(0)) => call!(59, path, argv, env).err().unwrap_or(Errno::INVAL),
        _ => Errno::INVAL,
    }
}

/// Executes an open program, as [`execve`] does one at a path.
pub fn execute_open(program: Fd, argv: &[usize], env: &[usize]) -> Errno {
    match (argv.last(), env.last()) {
        (Some(0), Some(0)) => call!(322, program, c"".to_bytes_with_nul(), argv, env, super::fs::EMPTY_PATH)
            .err()
            .unwrap_or(Errno::INVAL),
        _ => Errno::INVAL,
    }
}

/// This process's number.
#[must_use]
pub fn pid() -> i32 {
    call!(39).unwrap_or_default() as i32
}

/// The parent's number: a call that does nothing else.
#[must_use]
pub fn parent() -> i32 {
    call!(110).unwrap_or_default() as i32
}

/// User and group numbers: real uid, effective uid, real gid, effective gid.
#[must_use]
pub fn ids() -> [u32; 4] {
    [102, 107, 104, 108].map(|n| call!(n).unwrap_or_default() as u32)
}

/// Supplementary groups, as many as fit.
///
/// # Errors
/// More groups than `into` holds.
pub fn groups(into: &mut [u32]) -> Result<usize, Errno> {
    let len = into.len();
    call!(115, len, into)
}

/// Sends a signal.
///
/// # Errors
/// As `kill(2)`.
pub fn kill(pid: i32, signal: u8) -> Result<(), Errno> {
    call!(62, pid, u32::from(signal)).map(drop)
}

/// Starts a session without a terminal.
///
/// # Errors
/// Already a group leader.
pub fn new_session() -> Result<(), Errno> {
    call!(112).map(drop)
}

/// Whether this process leads its session.
#[must_use]
pub fn leads_session() -> bool {
    call!(124, 0).is_ok_and(|session| session as i32 == pid())
}

/// The blocked signals (bit n-1: signal n).
///
/// # Errors
/// Never for a good pointer.
pub fn blocked_signals() -> Result<u64, Errno> {
    let mut set = 0_u64;
    call!(14, 0, 0_usize, &mut set, size_of::<u64>())?;
    Ok(set)
}

/// Whether a signal is ignored.
///
/// # Errors
/// Not a signal.
pub fn ignores_signal(signal: u8) -> Result<bool, Errno> {
    let mut action = [0_usize; 4];
    call!(13, u32::from(signal), 0_usize, &mut action, 8_usize)?;
    Ok(action[0] == 1)
}

/// Blocks exactly the signals of `set` (bit n-1: signal n).
///
/// # Errors
/// Never for a good pointer.
pub fn block_signals(set: u64) -> Result<(), Errno> {
    const SETMASK: i32 = 2;
    call!(14, SETMASK, &set, 0_usize, size_of_val(&set)).map(drop)
}

/// Waits for a blocked signal of `set`, and takes it; not longer than so many seconds.
///
/// # Errors
/// None came, or another one did.
pub fn await_signal(set: u64, seconds: u64) -> Result<(), Errno> {
    let time = [seconds, 0];
    call!(128, &set, 0_usize, &time, size_of_val(&set)).map(drop)
}

/// Sets a signal's handling to the default (ignored signals would stay ignored over `execve`).
///
/// # Errors
/// Not a signal whose handling can be set.
pub fn default_signal(signal: u8) -> Result<(), Errno> {
    let action = [0_usize; 4];
    call!(13, u32::from(signal), &action, 0_usize, 8_usize).map(drop)
}

/// A descriptor that reads the signals of `set`.
///
/// # Errors
/// As `signalfd4(2)`.
pub fn signal_fd(set: u64) -> Result<Fd, Errno> {
    const NONBLOCK_CLOEXEC: i32 = 0o2_004_000;
    call!(289, -1, &set, size_of_val(&set), NONBLOCK_CLOEXEC).map(|fd| Fd(fd as i32))
}

/// Sets a resource limit of this process.
///
/// # Errors
/// As `prlimit64(2)`.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    call!(302, 0, resource, &[soft, hard], 0_usize).map(drop)
}

/// Sets supplementary groups.
///
/// # Errors
/// As `setgroups(2)`.
pub fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    call!(116, groups.len(), groups).map(drop)
}

/// Sets real, effective and saved group.
///
/// # Errors
/// As `setresgid(2)`.
pub fn set_gid(gid: u32) -> Result<(), Errno> {
    call!(119, gid, gid, gid).map(drop)
}

/// Sets real, effective and saved user.
///
/// # Errors
/// As `setresuid(2)`.
pub fn set_uid(uid: u32) -> Result<(), Errno> {
    call!(117, uid, uid, uid).map(drop)
}

/// `prctl(2)` with integers only.
///
/// # Errors
/// As `prctl(2)`.
pub fn control(option: Control, a: usize, b: usize) -> Result<(), Errno> {
    call!(157, option as i32, a, b, 0_usize, 0_usize).map(drop)
}

/// The integer-only options of `prctl(2)` that are used.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub enum Control {
    SetDumpable = 4,
    DropBounding = 24,
    SetSecurebits = 28,
    NoNewPrivs = 38,
    Ambient = 47,
}

/// Keeps exactly these capabilities (permitted and effective); nothing is inherited.
///
/// # Errors
/// As `capset(2)`.
pub fn set_capabilities(keep: u64) -> Result<(), Errno> {
    const VERSION_3: [u32; 2] = [0x2008_0522, 0];
    let (low, high) = (keep as u32, (keep >> 32) as u32);
    call!(126, &VERSION_3, &[low, low, 0, high, high, 0]).map(drop)
}

/// Installs a seccomp filter: classic BPF, 8 bytes an instruction.
///
/// # Errors
/// As `seccomp(2)`.
pub fn set_filter(bpf: &[u8]) -> Result<(), Errno> {
    const SET_MODE_FILTER: i32 = 1;
    // struct sock_fprog: 16-bit count, padding, pointer.
    let program = [bpf.len() / 8, bpf.as_ptr() as usize];
    call!(317, SET_MODE_FILTER, 0, &program).map(drop)
}

/// Sets the host name.
///
/// # Errors
/// As `sethostname(2)`.
pub fn set_hostname(name: &[u8]) -> Result<(), Errno> {
    call!(170, name, name.len()).map(drop)
}

/// Sets the file mode mask.
pub fn set_umask(mask: u32) {
    let _ = call!(95, mask);
}

/// Opens I/O ports to this process and the children and programs that come from it.
///
/// # Errors
/// As `ioperm(2)`.
pub fn ioperm(first: u16, count: u16) -> Result<(), Errno> {
    call!(173, u32::from(first), u32::from(count), 1).map(drop)
}

/// Loads a kernel module from an open file.
///
/// # Errors
/// As `finit_module(2)`.
pub fn load_module(file: Fd, compressed: bool) -> Result<(), Errno> {
    call!(313, file, c"", if compressed { 4 } else { 0 }).map(drop)
}

/// Resets the machine; returns only without the right to.
pub fn reset_machine() {
    let _ = call!(169, 0xfee1_dead_u32, 672_274_793, 0x0123_4567, 0_usize);
}

/// Sleeps until a signal.
pub fn pause() {
    let _ = call!(34);
}

/// Executes a program with the environment list of [`crate::start::Start::env_words`].
pub fn execve_inheriting(path: &CStr, argv: &[usize], start: &crate::start::Start) -> Errno {
    match argv.last() {
        Some(0) => call!(59, path, argv, start.env_words()).err().unwrap_or(Errno::INVAL),
        _ => Errno::INVAL,
    }
}

/// The kernel's name (`struct utsname`: six fields of 65 bytes).
///
/// # Errors
/// Never for a good pointer.
pub fn uname() -> Result<[[u8; 65]; 6], Errno> {
    let mut names = [[0; 65]; 6];
    call!(63, &mut names).map(|_| names)
}
