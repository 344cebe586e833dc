//! Whether a lone talker's payload arrives byte for byte.

use super::FRAME;

/// Result of comparing a received byte stream with what was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Identity {
    /// Frames compared.
    pub frames: u32,
    /// Frames that differ.
    pub different: u32,
    /// Times the stream went on at another place of what was sent.
    pub slips: u32,
}

/// Bytes that must agree before a place in the sent stream counts as found.
const PROOF: usize = 2 * FRAME;

/// Compares `received` (frames in sequence, `None` where the network lost one) with `sent`, which
/// repeats for ever. Silence proves no place, so the search uses the liveliest frames.
#[must_use]
pub fn compare(sent: &[u8], received: &[Option<&[u8]>]) -> Identity {
    let mut result = Identity::default();
    let mut place: Option<usize> = None;
    let mut misses = 0;
    let mut index = 0;
    let Some(first) = liveliest(received) else {
        return result;
    };
    if let Some(found) = locate(sent, received, first) {
        let back = (first * FRAME) % sent.len();
        place = Some((found + sent.len() - back) % sent.len());
    }
    while index < received.len() {
        if let Some(frame) = received[index] {
            result.frames += 1;
            if place.is_some_and(|start| equal(sent, start + index * FRAME, frame)) {
                misses = 0;
            } else {
                result.different += 1;
                misses += 1;
                if misses >= 2
                    && let Some(found) = locate(sent, received, index)
                {
                    let start = (found + sent.len() - (index * FRAME) % sent.len()) % sent.len();
                    result.slips += u32::from(place != Some(start));
                    place = Some(start);
                    misses = 0;
                }
            }
        }
        index += 1;
    }
    result
}

fn equal(sent: &[u8], at: usize, frame: &[u8]) -> bool {
    frame
        .iter()
        .enumerate()
        .all(|(n, &byte)| sent[(at + n) % sent.len()] == byte)
}

/// First pair of neighbouring frames with many different code words.
fn liveliest(received: &[Option<&[u8]>]) -> Option<usize> {
    let variety = |frame: &[u8]| {
        let mut seen = [false; 256];
        frame.iter().for_each(|&code| seen[usize::from(code)] = true);
        seen.iter().filter(|&&was| was).count()
    };
    (0..received.len().saturating_sub(1))
        .filter_map(|index| Some((index, variety(received[index]?) + variety(received[index + 1]?))))
        .max_by_key(|&(index, variety)| (variety, usize::MAX - index))
        .map(|(index, _)| index)
}

/// Place in `sent` where two received frames from `index` on are found.
fn locate(sent: &[u8], received: &[Option<&[u8]>], index: usize) -> Option<usize> {
    let pair = [(*received.get(index)?)?, (*received.get(index + 1)?)?].concat();
    if pair.len() != PROOF || sent.is_empty() {
        return None;
    }
    (0..sent.len()).find(|&at| equal(sent, at, &pair))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    fn speech() -> Vec<u8> {
        let mut seed = Seed::new(3);
        (0..50 * FRAME)
            .map(|n| {
                if (n / 800) % 3 == 0 {
                    0xff
                } else {
                    seed.bits().to_be_bytes()[0]
                }
            })
            .collect()
    }

    fn frames(bytes: &[u8]) -> Vec<Option<&[u8]>> {
        bytes.chunks_exact(FRAME).map(Some).collect()
    }

    #[test]
    fn the_same_bytes_from_any_place_are_identical() {
        let sent = speech();
        let heard: Vec<u8> = sent
            .iter()
            .copied()
            .cycle()
            .skip(1_234)
            .take(200 * FRAME)
            .collect();
        assert_eq!(
            compare(&sent, &frames(&heard)),
            Identity {
                frames: 200,
                different: 0,
                slips: 0
            }
        );
    }

    #[test]
    fn one_wrong_bit_is_one_different_frame() {
        let sent = speech();
        let mut heard: Vec<u8> = sent.iter().copied().cycle().skip(77).take(100 * FRAME).collect();
        heard[40 * FRAME + 3] ^= 1;
        assert_eq!(
            compare(&sent, &frames(&heard)),
            Identity {
                frames: 100,
                different: 1,
                slips: 0
            }
        );
    }

    #[test]
    fn a_lost_packet_is_not_a_difference_but_a_left_out_frame_is_a_slip() {
        let sent = speech();
        let mut heard: Vec<u8> = sent.iter().copied().cycle().take(100 * FRAME).collect();
        let mut lossy = frames(&heard);
        lossy[31] = None;
        assert_eq!(
            compare(&sent, &lossy),
            Identity {
                frames: 99,
                different: 0,
                slips: 0
            }
        );
        heard.drain(61 * FRAME..62 * FRAME);
        let found = compare(&sent, &frames(&heard));
        assert_eq!(found.slips, 1, "{found:?}");
        assert!(found.different >= 1);
    }

    #[test]
    fn something_else_is_different_throughout() {
        let heard = [Seed::new(9).bits().to_be_bytes()[0]; 20 * FRAME];
        let found = compare(&speech(), &frames(&heard));
        assert_eq!((found.frames, found.different), (20, 20));
    }
}
