//! G.711 mu-law and A-law (ITU-T G.711; boundaries between steps as in the ITU-T software tools
//! library G.191, which sees -1 as the mirror image of 0).
//!
//! A segment number and its four-bit step are the exponent and the top of the mantissa of a
//! binary floating-point number. Both directions go through `f32`, every value of which is exact
//! here: the loops are free of branches, tables and shifts by a variable, so that they vectorise
//! on every target.

use crate::codec::wide::convert;

/// Bits of an `f32` below its exponent and the four mantissa bits that a G.711 step keeps.
const STEP_SHIFT: u32 = 19;

/// Bits of 2^23. From there on the mantissa is the integer itself, which converts small integers
/// both ways without minding NaN, overflow and sign.
const INTEGERS: u32 = (127 + 23) << 23;

/// Decodes mu-law; returns the number of samples, as many as both sides hold.
pub fn expand_pcmu(payload: &[u8], out: &mut [i16]) -> usize {
    convert(payload, out, expand_pcmu_sample)
}

/// Decodes A-law; returns the number of samples, as many as both sides hold.
pub fn expand_pcma(payload: &[u8], out: &mut [i16]) -> usize {
    convert(payload, out, expand_pcma_sample)
}

/// Encodes mu-law; returns the number of bytes, as many as both sides hold.
pub fn compress_pcmu(pcm: &[i16], out: &mut [u8]) -> usize {
    convert(pcm, out, compress_pcmu_sample)
}

/// Encodes A-law; returns the number of bytes, as many as both sides hold.
pub fn compress_pcma(pcm: &[i16], out: &mut [u8]) -> usize {
    convert(pcm, out, compress_pcma_sample)
}

/// Middle of step `code` (0 to 127) of the segments that double: 2^(segment+7) * (1 + (2m+1)/32).
#[inline(always)]
fn step_middle(code: u8) -> i32 {
    let bits = (u32::from(code) << STEP_SHIFT) + ((127 + 7) << 23) + (1 << (STEP_SHIFT - 1));
    let integer = (f32::from_bits(bits) + f32::from_bits(INTEGERS)).to_bits() ^ INTEGERS;
    integer.cast_signed()
}

/// Segment and step of a magnitude of 13 bits at most, whose lowest segment begins at 2^`lowest`.
#[inline(always)]
fn step_of(magnitude: i32, lowest: i32) -> i32 {
    let float = f32::from_bits(INTEGERS | magnitude.cast_unsigned()) - f32::from_bits(INTEGERS);
    (float.to_bits() >> STEP_SHIFT).cast_signed() - ((127 + lowest) << 4)
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "32,124 at most")]
fn expand_pcmu_sample(code: u8) -> i16 {
    let code = !code;
    let magnitude = step_middle(code & 0x7f) - 132;
    let sign = -i32::from(code >> 7);
    ((magnitude ^ sign) - sign) as i16
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "32,256 at most")]
fn expand_pcma_sample(code: u8) -> i16 {
    let code = code ^ 0x55;
    let step = code & 0x7f;
    // The lowest segment is the next one, moved down by its sixteen steps.
    let low = u8::from(step < 16) * 16;
    let magnitude = step_middle(step + low) - i32::from(low) * 16;
    let sign = i32::from(code >> 7) - 1;
    ((magnitude ^ sign) - sign) as i16
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 127")]
fn compress_pcmu_sample(sample: i16) -> u8 {
    let sign = i32::from(sample) >> 15;
    let magnitude = (((i32::from(sample) ^ sign) >> 2) + 33).min(0x1fff);
    let code = step_of(magnitude, 5) as u8;
    !(code | (sign as u8 & 0x80))
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 127")]
fn compress_pcma_sample(sample: i16) -> u8 {
    let sign = i32::from(sample) >> 15;
    let magnitude = (i32::from(sample) ^ sign) >> 4;
    let code = if magnitude < 16 {
        magnitude
    } else {
        step_of(magnitude, 3)
    } as u8;
    (code | (!sign as u8 & 0x80)) ^ 0x55
}

#[cfg(test)]
mod tests;
