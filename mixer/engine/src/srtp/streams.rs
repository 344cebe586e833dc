//! What was received, source by source: the highest index, and which of those before it came.

use serde::{Deserialize, Serialize};

/// Sources of one key that are remembered. RFC 3711 3.2.3 wants one context a source: one that is forgotten begins at a
/// roll-over counter of 0 again, and what was recorded of it can be played back. A peer that goes back and
/// forth between as many sources is none that we know.
const SOURCES: usize = 4;

/// Indexes before the highest that are told apart (RFC 3711 3.3.2: at least 64); the jitter buffer takes packets that
/// are 100 behind.
const WINDOW: u64 = 128;

/// One source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "SrtpStream")]
struct Stream {
    ssrc: u32,
    /// Of an authenticated packet.
    highest: u64,
    /// Bit n: the index `highest - n` came.
    came: u128,
}

/// The sources of one key, the one heard last first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "SrtpStreams")]
pub(super) struct Streams([Option<Stream>; SOURCES]);

impl Streams {
    #[inline]
    fn find(&self, ssrc: u32) -> Option<&Stream> {
        let mut known = self.0.iter().flatten();
        known.find(|stream| stream.ssrc == ssrc)
    }

    /// The index that an RTP packet must have (RFC 3711 3.3.1, appendix A). An unknown source begins at a roll-over
    /// counter of 0 (M-54). `None` when it would lie before the first or behind the last possible one.
    #[inline]
    pub(super) fn guess(&self, ssrc: u32, sequence: u16) -> Option<u64> {
        let Some(stream) = self.find(ssrc) else {
            return Some(u64::from(sequence));
        };
        let (roll_over, last) = (stream.highest >> 16, stream.highest & 0xffff);
        let sequence = u64::from(sequence);
        let roll_over = if last < HALF && sequence > last + HALF {
            roll_over.checked_sub(1)?
        } else if last >= HALF && sequence < last - HALF {
            roll_over + 1
        } else {
            roll_over
        };
        (roll_over <= u64::from(u32::MAX)).then_some(roll_over << 16 | sequence)
    }

    /// Whether a packet of this index may still come.
    #[inline]
    pub(super) fn is_fresh(&self, ssrc: u32, index: u64) -> bool {
        self.find(ssrc).is_none_or(|stream| {
            let Some(behind) = stream.highest.checked_sub(index) else {
                return true;
            };
            behind < WINDOW && stream.came >> behind & 1 == 0
        })
    }

    /// An authenticated packet came.
    #[inline]
    pub(super) fn note(&mut self, ssrc: u32, index: u64) {
        let is_it = |stream: &Option<Stream>| stream.is_some_and(|stream| stream.ssrc == ssrc);
        let place = self.0.iter().position(is_it);
        if place != Some(0) {
            // To the front; a new one in the place of the one that was heard longest ago.
            let place = place.unwrap_or_else(|| {
                self.0[SOURCES - 1] = Some(Stream {
                    ssrc,
                    highest: index,
                    came: 0,
                });
                SOURCES - 1
            });
            if let Some(front) = self.0.get_mut(..=place) {
                front.rotate_right(1);
            }
        }
        if let Some(stream) = &mut self.0[0] {
            stream.note(index);
        }
    }
}

impl Stream {
    #[inline]
    fn note(&mut self, index: u64) {
        if let Some(ahead) = index.checked_sub(self.highest) {
            let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
            self.came = self.came.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = index;
        } else if let Ok(behind) = u32::try_from(self.highest - index) {
            self.came |= 1u128.checked_shl(behind).unwrap_or(0);
        }
    }
}

const HALF: u64 = 0x8000;
