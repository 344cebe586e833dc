//! The Internet checksum (RFC 1071), in the machine's own byte order: sums are of native words, and a
//! folded sum is stored as it is. Byte order cancels out (RFC 1071 2 B).

/// Adds `bytes` to a running sum. An odd last byte counts as if a zero followed, so only the last
/// piece may have an odd length.
#[must_use]
#[inline]
pub fn add(sum: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    // 2^32 words of 32 bits fit; a datagram has 2^14.
    let mut sum = words
        .iter()
        .fold(sum, |sum, word| sum + u64::from(u32::from_ne_bytes(*word)));
    if !rest.is_empty() {
        let mut last = [0; 4];
        last.iter_mut().zip(rest).for_each(|(last, byte)| *last = *byte);
        sum += u64::from(u32::from_ne_bytes(last));
    }
    sum
}

/// Adds a 16-bit number that is sent in network order.
#[must_use]
#[inline]
pub fn add_u16(sum: u64, number: u16) -> u64 {
    sum + u64::from(u16::from_ne_bytes(number.to_be_bytes()))
}

/// The one's complement of the folded sum, as bytes to store.
#[must_use]
#[inline]
pub fn finish(sum: u64) -> [u8; 2] {
    (!fold(sum)).to_ne_bytes()
}

/// Whether a sum over data and its checksum says that both are whole.
#[must_use]
#[inline]
pub fn is_whole(sum: u64) -> bool {
    fold(sum) == u16::MAX
}

#[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
#[inline]
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 as it is written: 16-bit words in network order.
    fn by_the_book(bytes: &[u8]) -> [u8; 2] {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!u16::try_from(sum).unwrap()).to_be_bytes()
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(finish(add(0, &bytes)), [!0xdd, !0xf2]);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_even_pieces(bytes in prop::collection::vec(any::<u8>(), 0..1600), cut in 0usize..800) {
            prop_assert_eq!(finish(add(0, &bytes)), by_the_book(&bytes));
            let cut = (cut * 4).min(bytes.len() / 4 * 4);
            prop_assert_eq!(finish(add(add(0, &bytes[..cut]), &bytes[cut..])), by_the_book(&bytes));
            let mut whole = bytes.clone();
            if whole.len() % 2 == 1 {
                whole.push(0);
            }
            whole.extend(finish(add(0, &bytes)));
            prop_assert!(is_whole(add(0, &whole)));
        }

        #[test]
        fn numbers_are_added_in_network_order(number: u16) {
            prop_assert_eq!(finish(add_u16(0, number)), by_the_book(&number.to_be_bytes()));
        }
    }
}
