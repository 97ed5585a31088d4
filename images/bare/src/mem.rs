//! The four memory functions that the compiler emits calls to; the CPU's string instructions do the work.

use core::arch::asm;

/// # Safety
/// As C: `n` bytes readable at `src` and writable at `dst`, not overlapping.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(dst: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller gives `n` valid bytes at both; the ABI has the direction flag clear.
    unsafe {
        asm!("rep movsb", inout("rcx") n => _, inout("rdi") dst => _, inout("rsi") src => _,
            options(nostack, preserves_flags));
    }
    dst
}

/// # Safety
/// As C: `n` bytes readable at `src` and writable at `dst`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(dst: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    if (dst as usize).wrapping_sub(src as usize) >= n {
        // SAFETY: the caller's promise; a forward copy never reads what it has overwritten here.
        return unsafe { memcpy(dst, src, n) };
    }
    // SAFETY: `n` is over 0, so the last bytes are inside; the flag is clear again at the end.
    unsafe {
        asm!("lea rdi, [rdi + rcx - 1]", "lea rsi, [rsi + rcx - 1]", "std", "rep movsb", "cld",
            inout("rcx") n => _, inout("rdi") dst => _, inout("rsi") src => _, options(nostack));
    }
    dst
}

/// # Safety
/// As C: `n` bytes writable at `dst`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(dst: *mut u8, byte: i32, n: usize) -> *mut u8 {
    // SAFETY: the caller gives `n` valid bytes; the ABI has the direction flag clear.
    unsafe {
        asm!("rep stosb", inout("rcx") n => _, inout("rdi") dst => _, in("al") byte as u8,
            options(nostack, preserves_flags));
    }
    dst
}

/// # Safety
/// As C: `n` bytes readable at both.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    for i in 0..n {
        // SAFETY: `i < n`, and the caller gives `n` readable bytes.
        let x = unsafe { a.wrapping_add(i).read() };
        // SAFETY: as above.
        let y = unsafe { b.wrapping_add(i).read() };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
    }
    0
}

/// # Safety
/// As C: `n` bytes readable at both.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the same demands.
    unsafe { memcmp(a, b, n) }
}

/// # Safety
/// As C: a NUL is reached from `s` through readable bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(s: *const u8) -> usize {
    let mut n = 0;
    // SAFETY: no byte before this one was the NUL, so it is readable.
    while unsafe { s.wrapping_add(n).read_volatile() } != 0 {
        n += 1;
    }
    n
}
