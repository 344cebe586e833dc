//! Linear 16 bit samples in network order (RFC 3551 4.5.11).

use crate::codec::wide::convert;

/// Decodes as many whole samples as both sides hold; returns their number.
pub fn decode(payload: &[u8], out: &mut [i16]) -> usize {
    let (pairs, _) = payload.as_chunks::<2>();
    convert(pairs, out, i16::from_be_bytes)
}

/// Encodes as many samples as both sides hold; returns the number of bytes.
pub fn encode(pcm: &[i16], out: &mut [u8]) -> usize {
    let (pairs, _) = out.as_chunks_mut::<2>();
    2 * convert(pcm, pairs, i16::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(pcm in proptest::collection::vec(any::<i16>(), 0..200)) {
            let mut bytes = [0_u8; 401];
            let written = encode(&pcm, &mut bytes);
            prop_assert_eq!(written, pcm.len() * 2);
            let mut back = [0_i16; 200];
            prop_assert_eq!(decode(&bytes[..written], &mut back), pcm.len());
            prop_assert_eq!(&back[..pcm.len()], &pcm[..]);
        }
    }

    #[test]
    fn the_high_byte_comes_first_and_half_samples_are_left() {
        let mut out = [0_i16; 4];
        assert_eq!(decode(&[0x12, 0x34, 0xff, 0xfe, 0x01], &mut out), 2);
        assert_eq!(out, [0x1234, -2, 0, 0]);
        let mut short = [0_u8; 3];
        assert_eq!(encode(&[0x1234, 5], &mut short), 2);
        assert_eq!(short, [0x12, 0x34, 0]);
    }
}
