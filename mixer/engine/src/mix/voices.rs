//! Who is heard in one tick, how loud, and in which bytes.

use super::FRAME_SAMPLES;
use crate::command::EndpointIndex;
use crate::endpoint::sender::CsrcList;
use crate::media::Codec;
use crate::wire::checksum;
use crate::wire::rtp::CSRC_MAX;

/// Longest payload of a frame: 20 ms of L16.
const FRAME_BYTES: usize = 2 * FRAME_SAMPLES;

/// One encoded frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoded {
    length: usize,
    /// For the checksums of datagrams, once it was asked for.
    sum: Option<u64>,
    bytes: [u8; FRAME_BYTES],
}

impl Encoded {
    pub(crate) const EMPTY: Self = Self {
        length: 0,
        sum: None,
        bytes: [0; FRAME_BYTES],
    };

    /// Replaces it by what `write` puts into the buffer.
    #[inline]
    pub(crate) fn fill(&mut self, write: impl FnOnce(&mut [u8]) -> usize) {
        self.length = write(&mut self.bytes).min(FRAME_BYTES);
        self.sum = None;
    }

    /// Replaces it by a copy.
    pub(crate) fn copy(&mut self, payload: &[u8]) {
        self.fill(|bytes| match bytes.get_mut(..payload.len()) {
            Some(place) => {
                place.copy_from_slice(payload);
                payload.len()
            }
            None => 0,
        });
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Sums it up, unless that was done ([`checksum::add`]).
    pub(crate) fn sum_up(&mut self) {
        if self.sum.is_none() {
            self.sum = Some(checksum::add(0, self.as_slice()));
        }
    }

    /// Its sum, if it was summed up.
    pub(crate) fn sum(&self) -> Option<u64> {
        self.sum
    }
}

/// Voices of one kind. Only the first two are known by name: who hears exactly one of them needs no
/// more.
#[derive(Debug, Clone)]
pub(crate) struct VoiceSet {
    count: u32,
    first: [Voice; 2],
}

#[derive(Debug, Clone)]
struct Voice {
    at: EndpointIndex,
    /// Codec of `payload`; absent when the frame was altered or is no whole packet.
    codec: Option<Codec>,
    payload: Encoded,
}

impl VoiceSet {
    fn new() -> Self {
        let nobody = || Voice {
            at: EndpointIndex(u32::MAX),
            codec: None,
            payload: Encoded::EMPTY,
        };
        Self {
            count: 0,
            first: [nobody(), nobody()],
        }
    }

    /// Adds one, with its payload if that may be passed on untouched.
    pub(crate) fn add(&mut self, at: EndpointIndex, payload: Option<(Codec, &[u8])>) {
        if let Some(voice) = self.first.get_mut(self.count as usize) {
            voice.at = at;
            voice.codec = payload.map(|(codec, _)| codec);
            if let Some((_, payload)) = payload {
                voice.payload.copy(payload);
            }
        }
        self.count += 1;
    }

    /// Adds those of another part of the conference. One of many is nobody's only voice.
    pub(crate) fn add_told(&mut self, told: &Told) {
        if told.count == 1 {
            let payload = told.codec.map(|codec| (codec, told.payload.as_slice()));
            self.add(ELSEWHERE, payload);
        } else {
            self.count += told.count;
        }
    }

    /// Nobody again.
    pub(crate) fn clear(&mut self) {
        self.count = 0;
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// How many of them somebody hears who is one of them or not.
    pub(crate) fn heard(&self, is_one: bool) -> u32 {
        self.count - u32::from(is_one)
    }

    /// The only one that `listener` hears, if its payload may be passed on in `codec`.
    pub(crate) fn only(&self, listener: EndpointIndex, is_one: bool, codec: Codec) -> Option<usize> {
        if self.heard(is_one) != 1 {
            return None;
        }
        let heard = self
            .first
            .iter()
            .position(|voice| !is_one || voice.at != listener)?;
        (self.first.get(heard)?.codec == Some(codec)).then_some(heard)
    }

    /// Sums up the payload of one that was found by [`VoiceSet::only`].
    pub(crate) fn sum_up(&mut self, which: usize) {
        if let Some(voice) = self.first.get_mut(which) {
            voice.payload.sum_up();
        }
    }

    /// The payload of one that was found by [`VoiceSet::only`].
    pub(crate) fn payload(&self, which: usize) -> &Encoded {
        self.first
            .get(which)
            .map_or(&Encoded::EMPTY, |voice| &voice.payload)
    }
}

/// Nobody of this part of the conference.
const ELSEWHERE: EndpointIndex = EndpointIndex(u32::MAX);

/// What one part of a conference tells the others of its voices of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    count: u32,
    /// Codec of `payload`; absent unless there is exactly one, whose payload may be passed on.
    codec: Option<Codec>,
    payload: Encoded,
}

impl Told {
    pub(crate) const NOBODY: Self = Self {
        count: 0,
        codec: None,
        payload: Encoded::EMPTY,
    };

    /// Becomes what `voices` holds.
    pub(crate) fn tell(&mut self, voices: &VoiceSet) {
        (self.count, self.codec) = (voices.count, None);
        if let [voice, _] = &voices.first
            && voices.count == 1
            && voice.codec.is_some()
        {
            self.codec = voice.codec;
            self.payload.copy(voice.payload.as_slice());
        }
    }
}

/// The loudest voices, for CSRC lists: one more than fits, because a listener is not in its own.
#[derive(Debug, Clone)]
pub(crate) struct Ranking {
    count: usize,
    loudest: [Ranked; CSRC_MAX + 1],
}

#[derive(Debug, Clone, Copy)]
struct Ranked {
    loudness: u32,
    ssrc: u32,
    at: EndpointIndex,
}

impl Ranking {
    pub(crate) fn new() -> Self {
        let nobody = Ranked {
            loudness: 0,
            ssrc: 0,
            at: EndpointIndex(u32::MAX),
        };
        Self {
            count: 0,
            loudest: [nobody; CSRC_MAX + 1],
        }
    }

    /// Enters a voice at its place; of equal ones the first stays in front.
    pub(crate) fn add(&mut self, loudness: u32, ssrc: u32, at: EndpointIndex) {
        let known = self.loudest.get(..self.count).unwrap_or_default();
        let place = known.partition_point(|other| other.loudness >= loudness);
        self.count = (self.count + 1).min(self.loudest.len());
        if let Some(tail) = self.loudest.get_mut(place..self.count)
            && let Some(last) = tail.last_mut()
        {
            *last = Ranked { loudness, ssrc, at };
            tail.rotate_right(1);
        }
    }

    /// Enters those of another part of the conference.
    pub(crate) fn add_elsewhere(&mut self, other: &Self) {
        for ranked in other.loudest.iter().take(other.count) {
            self.add(ranked.loudness, ranked.ssrc, ELSEWHERE);
        }
    }

    /// Nobody again.
    pub(crate) fn clear(&mut self) {
        self.count = 0;
    }

    /// Adds the sources that everybody hears but `listener`, loudest first. Of two with the same
    /// SSRC one is left out (M-03).
    pub(crate) fn list_without(&self, listener: Option<EndpointIndex>, list: &mut CsrcList) {
        for ranked in self.loudest.iter().take(self.count) {
            if Some(ranked.at) != listener {
                list.add(ranked.ssrc);
            }
        }
    }
}

/// Everybody who is heard in one tick.
#[derive(Debug, Clone)]
pub(crate) struct Voices {
    /// Signals.
    pub(crate) audible: VoiceSet,
    /// All-zero samples in payloads that are not plain silence.
    pub(crate) hollow: VoiceSet,
    /// By loudness.
    pub(crate) ranking: Ranking,
}

impl Voices {
    pub(crate) fn new() -> Self {
        Self {
            audible: VoiceSet::new(),
            hollow: VoiceSet::new(),
            ranking: Ranking::new(),
        }
    }

    /// Nobody again.
    pub(crate) fn clear(&mut self) {
        self.audible.clear();
        self.hollow.clear();
        self.ranking.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: EndpointIndex = EndpointIndex(4);
    const B: EndpointIndex = EndpointIndex(9);
    const LISTENER: EndpointIndex = EndpointIndex(1);

    fn only(set: &VoiceSet, listener: EndpointIndex, is_one: bool, codec: Codec) -> Option<&[u8]> {
        set.only(listener, is_one, codec)
            .map(|voice| set.payload(voice).as_slice())
    }

    #[test]
    fn the_only_voice_heard_is_passed_on_in_its_codec() {
        let mut set = VoiceSet::new();
        assert_eq!(only(&set, LISTENER, false, Codec::Pcmu), None);
        set.add(A, Some((Codec::Pcmu, b"one")));
        assert_eq!(only(&set, LISTENER, false, Codec::Pcmu), Some(&b"one"[..]));
        assert_eq!(only(&set, LISTENER, false, Codec::Pcma), None);
        assert_eq!(only(&set, A, true, Codec::Pcmu), None);
        set.add(B, Some((Codec::Pcma, b"two")));
        assert_eq!(only(&set, LISTENER, false, Codec::Pcmu), None);
        assert_eq!(only(&set, A, true, Codec::Pcma), Some(&b"two"[..]));
        assert_eq!(only(&set, B, true, Codec::Pcmu), Some(&b"one"[..]));
        set.add(LISTENER, None);
        assert_eq!(only(&set, A, true, Codec::Pcma), None);
    }

    #[test]
    fn an_altered_voice_is_not_passed_on() {
        let mut set = VoiceSet::new();
        set.add(A, None);
        assert_eq!(set.heard(false), 1);
        assert_eq!(set.only(LISTENER, false, Codec::Pcmu), None);
    }

    proptest! {
        #[test]
        fn csrcs_are_the_loudest_others_once_each(
            voices in prop::collection::vec((0..500_u32, 0..40_u32), 0..40), listener in 0..40_u32,
        ) {
            let mut ranking = Ranking::new();
            for (at, &(loudness, ssrc)) in (0..).zip(&voices) {
                ranking.add(loudness, ssrc, EndpointIndex(at));
            }
            let mut sorted: Vec<_> = (0..).zip(&voices).collect();
            sorted.sort_by_key(|(_, (loudness, _))| std::cmp::Reverse(*loudness));
            let mut expected = Vec::new();
            for (at, (_, ssrc)) in sorted.into_iter().take(16) {
                if at != listener && !expected.contains(ssrc) && expected.len() < 15 {
                    expected.push(*ssrc);
                }
            }
            let mut list = CsrcList::default();
            ranking.list_without(Some(EndpointIndex(listener)), &mut list);
            prop_assert_eq!(list.as_slice(), &expected[..]);
        }
    }
}
