//! What each member of a conference hears in one tick: as few encodes as possible.
//!
//! Encodes per tick are at most the codecs of those who are no voice, plus one per voice, plus one
//! per endpoint with plays of its own. A payload passed on untouched takes the place of one encode.

use super::active_talkers::Contest;
use super::mix_minus::{self, Sum};
use super::voices::{Encoded, Voices};
use super::{FRAME_SAMPLES, Frame};
use crate::codec;
use crate::command::EndpointIndex;
use crate::counters::Counters;
use crate::endpoint::Part;
use crate::endpoint::sender::CsrcList;
use crate::media::Codec;

/// Work space of a tick, kept between ticks: it is a few kilobytes.
#[derive(Debug)]
pub(crate) struct Mix {
    /// Who is heard.
    pub(crate) voices: Voices,
    /// All voices and conference-wide plays, exactly.
    pub(crate) sum: Sum,
    /// Who gets a place in it when there are too few.
    pub(crate) contest: Contest,
    /// A conference-wide play is in the sum.
    played: bool,
    /// Contributing sources are listed.
    csrc_on: bool,
    /// Payloads are summed up.
    sums: bool,
    /// What everybody hears who is no voice.
    common: PerCodec<Common>,
    /// Contributing sources of it.
    common_csrc: CsrcList,
    /// What one listener alone hears.
    own: Encoded,
    /// Contributing sources of it.
    own_csrc: CsrcList,
    silence: PerCodec<Encoded>,
}

/// For whom something is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listener<'a> {
    /// Who.
    pub(crate) at: EndpointIndex,
    /// What it is sent.
    pub(crate) codec: Codec,
    /// It hears the conference.
    pub(crate) hears: bool,
    /// What it contributes itself.
    pub(crate) part: Part,
    /// Its own frame, if that is audible.
    pub(crate) frame: &'a Frame,
}

/// What somebody hears. Two references, which are returned in registers: through memory they would wait behind
/// everything that was written before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard<'a> {
    /// One frame, encoded.
    pub(crate) payload: &'a Encoded,
    /// Who is in it.
    pub(crate) csrc: &'a CsrcList,
}

/// The payload for all listeners of one codec, made when the first of them needs it.
#[derive(Debug)]
struct Common {
    encoded: bool,
    /// A forwarded payload was counted.
    forwarded: bool,
    payload: Encoded,
}

impl Mix {
    pub(crate) fn new() -> Self {
        let nothing = || Common {
            encoded: false,
            forwarded: false,
            payload: Encoded::EMPTY,
        };
        let silence = |codec| {
            let mut payload = Encoded::EMPTY;
            payload.fill(|bytes| codec::encode(codec, &[0; FRAME_SAMPLES], bytes));
            payload
        };
        Self {
            voices: Voices::new(),
            sum: mix_minus::SILENCE,
            contest: Contest::new(),
            played: false,
            csrc_on: true,
            sums: false,
            common: PerCodec::new(|_| nothing()),
            common_csrc: CsrcList::default(),
            own: Encoded::EMPTY,
            own_csrc: CsrcList::default(),
            silence: PerCodec::new(silence),
        }
    }

    /// Nobody is heard yet. With `sums` payloads are summed up, each once.
    pub(crate) fn begin(&mut self, sums: bool) {
        self.sums = sums;
        self.voices.clear();
        self.sum = mix_minus::SILENCE;
        for codec in Codec::ALL {
            let common = self.common.of(codec);
            common.encoded = false;
            common.forwarded = false;
        }
    }

    /// Who is heard in `other` is heard here, and nobody else.
    pub(crate) fn begin_like(&mut self, other: &Self) {
        self.begin(other.sums);
        self.voices.clone_from(&other.voices);
        self.sum = other.sum;
    }

    /// No signal is heard yet: who is will be decided anew.
    pub(crate) fn begin_again(&mut self) {
        self.voices.audible.clear();
        self.voices.ranking.clear();
        self.sum = mix_minus::SILENCE;
    }

    /// Everything is in the sum; `played` when a conference-wide play is.
    pub(crate) fn complete(&mut self, played: bool, csrc_on: bool) {
        self.played = played;
        self.csrc_on = csrc_on;
        self.common_csrc = CsrcList::default();
        if csrc_on {
            self.voices.ranking.list_without(None, &mut self.common_csrc);
        }
    }

    /// What `listener` hears of the conference.
    #[inline]
    pub(crate) fn heard_by(&mut self, listener: &Listener<'_>, counters: &mut Counters) -> Heard<'_> {
        let is_voice = listener.part == Part::Audible;
        if !listener.hears {
            return Heard {
                payload: summed(self.sums, self.silence.of(listener.codec)),
                csrc: CsrcList::NOBODY,
            };
        }
        if !self.played {
            if self.voices.audible.heard(is_voice) == 0 {
                return self.nobody_heard_by(listener, counters);
            }
            if let Some(voice) = self.voices.audible.only(listener.at, is_voice, listener.codec) {
                self.count_forwarded(listener, counters);
                self.list_sources(listener);
                if self.sums {
                    self.voices.audible.sum_up(voice);
                }
                return Heard {
                    payload: self.voices.audible.payload(voice),
                    csrc: self.sources(listener),
                };
            }
        }
        if is_voice {
            let mut frame = [0; FRAME_SAMPLES];
            mix_minus::limit_minus(&self.sum, listener.frame, &mut frame);
            self.encode_own(listener, &frame, counters);
            return Heard {
                payload: &self.own,
                csrc: self.sources(listener),
            };
        }
        let common = self.common.of(listener.codec);
        if !common.encoded {
            common.encoded = true;
            let mut frame = [0; FRAME_SAMPLES];
            mix_minus::limit(&self.sum, &mut frame);
            encode(listener.codec, &frame, &mut common.payload, counters);
        }
        Heard {
            payload: summed(self.sums, &mut common.payload),
            csrc: &self.common_csrc,
        }
    }

    /// What `listener` hears with its own plays, whose sum is `over`, on top.
    pub(crate) fn heard_over(
        &mut self,
        listener: &Listener<'_>,
        mut over: Sum,
        counters: &mut Counters,
    ) -> Heard<'_> {
        if listener.hears {
            let below = if listener.part == Part::Audible {
                Some(listener.frame)
            } else {
                None
            };
            mix_minus::lay_over(&mut over, &self.sum, below);
        }
        let mut frame = [0; FRAME_SAMPLES];
        mix_minus::limit(&over, &mut frame);
        self.encode_own(listener, &frame, counters);
        let csrc = if listener.hears {
            self.sources(listener)
        } else {
            CsrcList::NOBODY
        };
        Heard {
            payload: &self.own,
            csrc,
        }
    }

    /// Silence, unless exactly one member sends silence in bytes of its own: they are kept.
    fn nobody_heard_by(&mut self, listener: &Listener<'_>, counters: &mut Counters) -> Heard<'_> {
        let is_hollow = listener.part == Part::Hollow;
        let payload = match self.voices.hollow.only(listener.at, is_hollow, listener.codec) {
            Some(voice) => {
                self.count_forwarded(listener, counters);
                if self.sums {
                    self.voices.hollow.sum_up(voice);
                }
                self.voices.hollow.payload(voice)
            }
            None => summed(self.sums, self.silence.of(listener.codec)),
        };
        Heard {
            payload,
            csrc: CsrcList::NOBODY,
        }
    }

    /// Makes what `listener` alone hears, and the sources of it.
    fn encode_own(&mut self, listener: &Listener<'_>, frame: &Frame, counters: &mut Counters) {
        encode(listener.codec, frame, &mut self.own, counters);
        if self.sums {
            self.own.sum_up();
        }
        self.list_sources(listener);
    }

    /// A payload passed on to everybody who is no voice counts once, as an encode would.
    fn count_forwarded(&mut self, listener: &Listener<'_>, counters: &mut Counters) {
        let shared = listener.part == Part::Silent;
        let common = self.common.of(listener.codec);
        if !(shared && common.forwarded) {
            counters.passthrough += 1;
            common.forwarded |= shared;
        }
    }

    /// Prepares the sources of what a voice hears: it is not among them.
    fn list_sources(&mut self, listener: &Listener<'_>) {
        if listener.part == Part::Audible {
            self.own_csrc = CsrcList::default();
            if self.csrc_on {
                self.voices
                    .ranking
                    .list_without(Some(listener.at), &mut self.own_csrc);
            }
        }
    }

    fn sources(&self, listener: &Listener<'_>) -> &CsrcList {
        if listener.part == Part::Audible {
            &self.own_csrc
        } else {
            &self.common_csrc
        }
    }
}

/// A payload that many get, with its sum if that is wanted.
#[inline]
fn summed(wanted: bool, encoded: &mut Encoded) -> &Encoded {
    if wanted {
        encoded.sum_up();
    }
    encoded
}

#[inline]
fn encode(codec: Codec, frame: &Frame, payload: &mut Encoded, counters: &mut Counters) {
    payload.fill(|bytes| codec::encode(codec, frame, bytes));
    if let Some(count) = counters.encodes.get_mut(codec as usize) {
        *count += 1;
    }
}

/// One of something per codec.
#[derive(Debug)]
struct PerCodec<T> {
    pcmu: T,
    pcma: T,
    l16: T,
}

impl<T> PerCodec<T> {
    fn new(make: impl Fn(Codec) -> T) -> Self {
        Self {
            pcmu: make(Codec::Pcmu),
            pcma: make(Codec::Pcma),
            l16: make(Codec::L16),
        }
    }

    fn of(&mut self, codec: Codec) -> &mut T {
        match codec {
            Codec::Pcmu => &mut self.pcmu,
            Codec::Pcma => &mut self.pcma,
            Codec::L16 => &mut self.l16,
        }
    }
}
