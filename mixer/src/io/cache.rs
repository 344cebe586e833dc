//! Asking for memory before it is needed.

#![expect(unsafe_code, reason = "the instruction takes a pointer; it reads nothing")]

use std::ops::Range;

/// Brings a value's cache lines near, without waiting for them.
#[inline(always)]
pub fn prefetch<T: ?Sized>(value: &T) {
    prefetch_part(value, 0..size_of_val(value));
}

/// Brings the cache lines of some bytes of a value near, those that there are, without waiting for them.
#[inline(always)]
pub fn prefetch_part<T: ?Sized>(value: &T, bytes: Range<usize>) {
    let start = std::ptr::from_ref(value).cast::<u8>();
    for offset in (bytes.start..bytes.end.min(size_of_val(value))).step_by(LINE) {
        line(start.wrapping_add(offset));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn line(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch of any address is allowed, and this one lies within a live value.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn line(at: *const u8) {
    // SAFETY: a prefetch of any address is allowed, and this one lies within a live value.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(readonly, nostack, preserves_flags))
    };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline(always)]
fn line(_at: *const u8) {}

const LINE: usize = 64;
