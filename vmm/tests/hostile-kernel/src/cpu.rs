//! The processor: entry, page tables, ports, device memory, model-specific registers, and faults that are survived.

use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

const STACK_LEN: usize = 64 << 10;
/// Present, writable, large.
const GIB_PAGE: u64 = 0b1000_0011;
const GATES: usize = 32;

#[repr(C, align(4096))]
struct Pages<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: there is one processor and no interrupt handler that touches it.
unsafe impl<const N: usize> Sync for Pages<N> {}

static STACK: Pages<STACK_LEN> = Pages(UnsafeCell::new([0; STACK_LEN]));
static PML4: Pages<4096> = Pages(UnsafeCell::new([0; 4096]));
static PDPT: Pages<4096> = Pages(UnsafeCell::new([0; 4096]));
static IDT: Pages<4096> = Pages(UnsafeCell::new([0; 4096]));

/// Where a faulting instruction goes on, and how many faulted.
static RECOVERY: AtomicU64 = AtomicU64::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);

/// The 64-bit entry of the boot protocol: a stack, the extensions that compiled code uses, then [`begin`].
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    naked_asm!(
        "cli",
        "lea rsp, [rip + {stack} + {len}]",
        "mov rax, cr0",
        "and rax, -5",
        "or rax, 2",
        "mov cr0, rax",
        "mov rax, cr4",
        "or rax, 0x600",
        "mov cr4, rax",
        "call {begin}",
        "ud2",
        stack = sym STACK,
        len = const STACK_LEN,
        begin = sym begin,
    )
}

extern "C" fn begin() -> ! {
    map_all();
    catch_faults();
    crate::main()
}

fn write<const N: usize>(pages: &Pages<N>, at: usize, value: u64) {
    let to = pages.0.get().cast::<u64>().wrapping_add(at);
    // SAFETY: callers give an index of a word inside of the pages.
    unsafe { to.write_volatile(value) }
}

/// Maps the first 512 GiB of guest physical memory one to one.
fn map_all() {
    let pdpt = PDPT.0.get() as u64;
    write(&PML4, 0, pdpt | 0b11);
    for gib in 0..512 {
        write(&PDPT, gib, (gib as u64) << 30 | GIB_PAGE);
    }
    // SAFETY: what runs stays mapped where it is.
    unsafe { asm!("mov cr3, {}", in(reg) PML4.0.get() as u64, options(nostack)) }
}

/// An exception goes on where [`RECOVERY`] says. Two kinds of gate: with and without an error code on the stack.
fn catch_faults() {
    for vector in 0..GATES {
        let coded = matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30);
        let handler = if coded { fault_with_code as *const () } else { fault as *const () } as u64;
        // Code segment 0x10, present, interrupt gate.
        write(
            &IDT,
            vector * 2,
            handler & 0xffff | 0x10 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48,
        );
        write(&IDT, vector * 2 + 1, handler >> 32);
    }
    load_idt(IDT.0.get() as u64, (GATES * 16 - 1) as u16);
}

/// Loads an interrupt table.
pub fn load_idt(base: u64, limit: u16) {
    let descriptor = u128::from(limit) | u128::from(base) << 16;
    // SAFETY: ten bytes are read; whoever gives a table that is none wants the machine to end.
    unsafe { asm!("lidt [{}]", in(reg) &raw const descriptor, options(readonly, nostack)) }
}

#[unsafe(naked)]
extern "C" fn fault_with_code() -> ! {
    naked_asm!("add rsp, 8", "jmp {fault}", fault = sym fault)
}

#[unsafe(naked)]
extern "C" fn fault() -> ! {
    naked_asm!(
        "push rax",
        "mov rax, [rip + {recovery}]",
        "mov [rsp + 8], rax",
        "pop rax",
        "lock inc qword ptr [rip + {faults}]",
        "iretq",
        recovery = sym RECOVERY,
        faults = sym FAULTS,
    )
}

/// How many exceptions there were.
pub fn faults() -> u64 {
    FAULTS.load(Ordering::Relaxed)
}

/// An instruction (the first argument) that may fault, with its operands; then it goes on behind it.
macro_rules! surviving {
    ($code:literal $(, $($operands:tt)*)?) => {
        // SAFETY: a fault goes on behind the instruction; what it may read and write, each caller says.
        unsafe {
            asm!(
                "lea {go_on}, [rip + 2f]",
                "mov [rip + {recovery}], {go_on}",
                $code,
                "2:",
                go_on = out(reg) _,
                recovery = sym RECOVERY,
                $($($operands)*)?
            )
        }
    };
}

/// Writes a byte to a port.
pub fn out8(port: u16, value: u8) {
    // SAFETY: a port is no memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) }
}

/// Writes two bytes to a port.
pub fn out16(port: u16, value: u16) {
    // SAFETY: a port is no memory.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack)) }
}

/// Writes four bytes to a port.
pub fn out32(port: u16, value: u32) {
    // SAFETY: a port is no memory.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack)) }
}

/// Reads a byte from a port.
pub fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: a port is no memory.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) }
    value
}

/// Reads four bytes from a port.
pub fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: a port is no memory.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack)) }
    value
}

/// Writes `count` bytes from `from` to a port with one instruction, wherever they lie.
pub fn outs(port: u16, from: u64, count: u64) {
    // Reads memory of this machine; a fault goes on behind it.
    surviving!("rep outsb", inout("rsi") from => _, inout("rcx") count => _, in("dx") port);
}

/// Reads `count` bytes from a port to `to` with one instruction.
pub fn ins(port: u16, to: u64, count: u64) {
    // Callers give scratch memory or addresses that hold nothing of this program; a fault goes on behind it.
    surviving!("rep insb", inout("rdi") to => _, inout("rcx") count => _, in("dx") port);
}

/// Reads 1, 2, 4 or 8 bytes at a physical address.
pub fn read(at: u64, width: u64) -> u64 {
    let value: u64;
    // A read of device memory or of RAM; a fault goes on behind it.
    match width {
        1 => surviving!("mov {v:l}, [{at}]", at = in(reg) at, v = inout(reg) 0_u64 => value),
        2 => surviving!("mov {v:x}, [{at}]", at = in(reg) at, v = inout(reg) 0_u64 => value),
        4 => surviving!("mov {v:e}, [{at}]", at = in(reg) at, v = inout(reg) 0_u64 => value),
        _ => surviving!("mov {v}, [{at}]", at = in(reg) at, v = inout(reg) 0_u64 => value),
    }
    value
}

/// Writes 1, 2, 4 or 8 bytes to a physical address.
pub fn write_at(at: u64, width: u64, value: u64) {
    // Callers give device memory, scratch memory or addresses that hold nothing of this program; a fault goes on.
    match width {
        1 => surviving!("mov [{at}], {v:l}", at = in(reg) at, v = in(reg) value),
        2 => surviving!("mov [{at}], {v:x}", at = in(reg) at, v = in(reg) value),
        4 => surviving!("mov [{at}], {v:e}", at = in(reg) at, v = in(reg) value),
        _ => surviving!("mov [{at}], {v}", at = in(reg) at, v = in(reg) value),
    }
}

/// Copies `count` bytes with one string instruction, from and to wherever.
pub fn movs(to: u64, from: u64, count: u64) {
    // As `write_at`.
    surviving!("rep movsb", inout("rsi") from => _, inout("rdi") to => _, inout("rcx") count => _);
}

/// Reads a model-specific register; 0 where that faults.
pub fn rdmsr(index: u32) -> u64 {
    let (low, high): (u32, u32);
    // Reading changes nothing of this program; a fault goes on behind it.
    surviving!("rdmsr", in("ecx") index, inout("eax") 0_u32 => low, inout("edx") 0_u32 => high);
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
pub fn wrmsr(index: u32, value: u64) {
    // Callers leave out those that this program runs by; a fault goes on behind it.
    surviving!("wrmsr", in("ecx") index, in("eax") value as u32, in("edx") (value >> 32) as u32);
}

/// A hypercall with these numbers.
pub fn hypercall(number: u64, a: u64, b: u64, c: u64) {
    // What the host does for it is what is tried; a fault goes on behind it.
    surviving!("vmmcall", inout("rax") number => _, in("rcx") a, in("rdx") c, in("rsi") b);
}

macro_rules! instructions {
    ($($name:ident: $code:literal),* $(,)?) => {
        /// Instructions that ask for what a guest has no right to, or that the monitor can't see: by name.
        pub const PRIVILEGED: &[(&str, fn(u64))] = &[$((stringify!($name), |value| {
            // None of them writes this program's memory; a fault goes on behind it.
            surviving!($code, inout("rax") value => _, inout("rcx") value => _, inout("rdx") 0_u64 => _);
        })),*];
    };
}

instructions! {
    vmrun: "vmrun rax",
    vmload: "vmload rax",
    vmsave: "vmsave rax",
    skinit: ".byte 0x0f, 0x01, 0xde",
    stgi: "stgi",
    clgi: "clgi",
    vmxon: ".byte 0xf3, 0x0f, 0xc7, 0x30",
    vmcall: "vmcall",
    invlpga: ".byte 0x0f, 0x01, 0xdf",
    rsm: "rsm",
    xsetbv: "xsetbv",
    monitor: "monitor",
    mwait: "mwait",
    rdpmc: "rdpmc",
    wbinvd: "wbinvd",
    invd: "invd",
    undefined: "ud2",
    cr8: "mov cr8, rax",
    dr7: "mov dr7, rax; xor eax, eax; mov dr7, rax",
    // With what this program itself needs: PAE, OSFXSR, OSXMMEXCPT.
    cr4: "or rax, 0x620; mov cr4, rax",
    cr3: "mov rcx, cr3; mov cr3, rcx",
}

/// Stops the processor for good.
pub fn halt() -> ! {
    loop {
        // SAFETY: nothing goes on after it.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

/// Computes without an end, in a loop so long that whoever looks sees it at another place each time: at one place, the lab takes it for a
/// fault of its emulator.
pub fn spin() -> ! {
    // SAFETY: changes nothing.
    unsafe { asm!("2:", ".rept 4096", "nop", ".endr", "jmp 2b", options(nomem, nostack, noreturn)) }
}

/// Goes on at an address.
pub fn jump(to: u64) -> ! {
    // SAFETY: whoever asks for it wants the machine to end.
    unsafe { asm!("jmp {}", in(reg) to, options(noreturn)) }
}

/// Raises an exception.
pub fn undefined() -> ! {
    // SAFETY: whoever asks for it wants the machine to end.
    unsafe { asm!("ud2", options(noreturn)) }
}

/// What stands in memory, which the compiler does not know.
pub fn read_from_memory<const N: usize>(from: &'static [u8; N]) -> [u8; N] {
    // SAFETY: a reference to bytes of that length.
    unsafe { core::ptr::from_ref(from).read_volatile() }
}
