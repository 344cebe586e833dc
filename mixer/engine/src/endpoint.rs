//! One RTP leg: what it may send us, what it is told apart by, and the stream it gets.

mod formats;
mod part;
pub(crate) mod sender;
mod source;
mod srtp;

use std::mem::offset_of;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::{ConferenceIndex, EndpointIndex, EndpointSnapshot, Play, Refusal};
use crate::counters::{Counters, DropReason};
use crate::dtmf::{DtmfReceiver, Press};
use crate::event::EventKind;
use crate::jitter::{JitterBuffer, JitterSetup, PacketMeta};
use crate::media::{Codec, MediaPlan, SourceRule};
use crate::mix::active_talkers::Envelope;
use crate::mix::gain::Gain;
use crate::mix::level::TalkDetector;
use crate::mix::{FRAME_SAMPLES, Frame};
use crate::packet::{Datagram, FlowId, PacketSink};
use crate::prompt::playlist::Plays;
use crate::srtp::Inbound;
use crate::time::Timestamp;
use crate::wire::rtp::RtpView;
use crate::wire::telephone_event::TelephoneEvent;
use formats::{Format, Formats};
use sender::Sender;
use source::{Admission, Sighting, Source};

/// What control decides about a new endpoint.
#[derive(Debug, Clone, Copy)]
pub struct EndpointSetup {
    /// Local RTP port.
    pub local_port: u16,
    /// SSRC of what we send (random).
    pub ssrc: u32,
    /// First sequence number (random).
    pub sequence: u16,
    /// First RTP timestamp (random).
    pub timestamp: u32,
    /// Media, if known already.
    pub media: Option<MediaPlan>,
    /// Jitter slots: 16, or 32 for bad networks.
    pub slots: u8,
    /// It leads to the same conference on another mixer (decision 0018).
    pub trunk: bool,
}

/// An endpoint on its way into an engine or out of it. The engine keeps the box while the endpoint is in its
/// table; it is empty then.
pub type EndpointBox = Box<Option<Endpoint>>;

/// One RTP leg: what every packet and every tick needs, in a dozen cache lines whose order is that of the fields.
/// Everything else is behind boxes.
///
/// The second line is all that sending needs (`SENT_TO`): in a large room everybody's frame is pulled
/// before the first is sent to, and by then what was near for that is far away again.
#[derive(Debug, Serialize, Deserialize)]
#[repr(C, align(64))]
pub struct Endpoint {
    source: Source,
    pub(crate) sender: Sender,
    rest: Box<Rest>,
    /// What it contributes to the current tick.
    #[serde(skip, default = "Part::nothing")]
    pub(crate) part: Part,
    /// Codec of the media, in which it is sent to.
    #[serde(skip)]
    send_codec: Option<Codec>,
    /// There may be a learnt address that the sink does not know.
    #[serde(skip, default = "maybe")]
    may_have_learnt: bool,
    /// Some of its own plays may run.
    #[serde(skip, default = "maybe")]
    may_play: bool,
    muted: bool,
    deaf: bool,
    held: bool,
    receives: bool,
    /// Follows from the media.
    #[serde(skip, default = "Formats::none")]
    formats: Formats,
    local_port: u16,
    active: bool,
    timed_out: bool,
    planted_failure: bool,
    /// It is in the mix, or keeps its place in it between two words.
    mixed: bool,
    /// The same before the current tick.
    #[serde(skip)]
    was_mixed: bool,
    talk: TalkDetector,
    /// The last SSRC that was found not to be ours.
    foreign_ssrc: Option<u32>,
    /// When RTP came last, or began to be expected.
    last_rtp_at: Timestamp,
    received: u64,
    dtmf: DtmfReceiver,
    conference: ConferenceIndex,
    at: EndpointIndex,
    gain: Gain,
    /// Its loudness of late.
    envelope: Envelope,
    /// Keys of what it sends us.
    inbound: Inbound,
    jitter: JitterBuffer,
}

const LINE: usize = 64;
const _: () = assert!(offset_of!(Endpoint, sender) == LINE && offset_of!(Endpoint, formats) <= 2 * LINE);
const _: () = assert!(size_of::<Endpoint>() <= 12 * LINE);

/// What an endpoint needs now and then.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "EndpointRest")]
struct Rest {
    /// Its frame of the current tick, as it enters the mix.
    #[serde(skip, default = "no_frame")]
    frame: Frame,
    plays: Plays<ENDPOINT_PLAYS>,
    /// A learnt address that the sink does not know yet.
    learnt: Option<SocketAddr>,
    media: Option<MediaPlan>,
    bad_source: u64,
    trunk: bool,
}

/// What an endpoint contributes to a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Nothing.
    Silent,
    /// Samples that are all zero, in a payload that is not plain silence (mu-law has two zeros).
    Hollow,
    /// A signal.
    Audible,
}

impl Part {
    fn nothing() -> Self {
        Self::Silent
    }
}

fn maybe() -> bool {
    true
}

fn no_frame() -> Frame {
    [0; FRAME_SAMPLES]
}

/// Plays of one endpoint at once.
const ENDPOINT_PLAYS: usize = 4;

/// Times of one tick.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TickTime {
    /// When it should run.
    pub(crate) due: Timestamp,
    /// When it runs.
    pub(crate) now: Timestamp,
}

impl Endpoint {
    /// The bytes that a tick reads to get its frame: all but the source's.
    pub(crate) const PULLED: Range<usize> = LINE..size_of::<Self>();

    /// The bytes that sending to it reads.
    pub(crate) const SENT_TO: Range<usize> = LINE..2 * LINE;

    /// Builds an endpoint (allocates: control only).
    #[must_use]
    pub fn new(setup: EndpointSetup) -> EndpointBox {
        let formats = setup.media.iter().flat_map(|media| media.receive).flatten();
        let linear = formats.map(|(_, codec)| codec).any(|codec| codec == Codec::L16);
        // A trunk is mostly told its media later: each of two mixers needs the other's port first.
        let payload_bytes = if linear || setup.trunk {
            PAYLOAD_BYTES_L16
        } else {
            PAYLOAD_BYTES
        };
        Box::new(Some(Self {
            source: Source::nobody(),
            formats: Formats::NONE,
            local_port: setup.local_port,
            muted: false,
            deaf: false,
            held: false,
            receives: false,
            active: false,
            timed_out: false,
            planted_failure: false,
            foreign_ssrc: None,
            last_rtp_at: Timestamp(0),
            received: 0,
            dtmf: DtmfReceiver::new(),
            conference: ConferenceIndex(u32::MAX),
            at: EndpointIndex(u32::MAX),
            gain: Gain::default(),
            talk: TalkDetector::new(),
            envelope: Envelope::default(),
            mixed: false,
            was_mixed: false,
            part: Part::Silent,
            send_codec: None,
            may_have_learnt: false,
            may_play: false,
            inbound: Inbound::default(),
            jitter: JitterBuffer::new(JitterSetup {
                slots: setup.slots,
                payload_bytes,
            }),
            sender: Sender::new(setup.ssrc, setup.sequence, setup.timestamp),
            rest: Box::new(Rest {
                frame: no_frame(),
                plays: Plays::new(),
                learnt: None,
                media: setup.media,
                bad_source: 0,
                trunk: setup.trunk,
            }),
        }))
    }

    /// An endpoint whose first packet or tick panics, for tests of panic containment.
    #[doc(hidden)]
    #[must_use]
    pub fn with_planted_failure(setup: EndpointSetup) -> EndpointBox {
        let mut endpoint = Self::new(setup);
        if let Some(endpoint) = &mut *endpoint {
            endpoint.planted_failure = true;
        }
        endpoint
    }

    /// Clears what will not be read again, so that the state is short.
    pub(crate) fn tidy(&mut self) {
        self.sender.tidy();
        self.jitter.tidy();
    }

    /// Makes what the state leaves out, because it follows from the rest.
    pub(crate) fn complete(&mut self) {
        self.formats = self.rest.media.as_ref().map_or(Formats::NONE, Formats::new);
        self.send_codec = self.rest.media.map(|media| media.send_codec);
    }

    pub(crate) fn at(&self) -> EndpointIndex {
        self.at
    }

    pub(crate) fn local_port(&self) -> u16 {
        self.local_port
    }

    pub(crate) fn conference(&self) -> ConferenceIndex {
        self.conference
    }

    /// Whether it leads to another mixer.
    pub(crate) fn is_trunk(&self) -> bool {
        self.rest.trunk
    }

    /// SSRC of what we send.
    pub(crate) fn ssrc(&self) -> u32 {
        self.sender.ssrc()
    }

    /// Whether it hears the conference.
    pub(crate) fn hears(&self) -> bool {
        !self.deaf && !self.held
    }

    /// Codec of what it is sent; absent while nothing may be sent.
    pub(crate) fn send_codec(&self) -> Option<Codec> {
        self.send_codec.filter(|_| self.sender.is_open())
    }

    /// Takes its place in an engine; media that was set before becomes valid.
    pub(crate) fn enter(
        &mut self,
        conference: ConferenceIndex,
        at: EndpointIndex,
        now: Timestamp,
        sink: &mut impl PacketSink,
        counters: &mut Counters,
    ) {
        self.conference = conference;
        self.at = at;
        self.sender.bind(FlowId(at.0));
        if let Some(media) = self.rest.media.take() {
            self.set_media(&media, now, sink, counters);
        }
    }

    /// Replaces the media description; an identical one changes nothing.
    pub(crate) fn set_media(
        &mut self,
        media: &MediaPlan,
        now: Timestamp,
        sink: &mut impl PacketSink,
        counters: &mut Counters,
    ) {
        if self.rest.media.as_ref() == Some(media) {
            return;
        }
        let same_peer = self
            .rest
            .media
            .is_some_and(|old| old.remote == media.remote && old.source == media.source);
        // The rest of the old stream leaves before its address changes.
        self.sender.set_media(media, sink, counters);
        if !same_peer {
            self.source.follow(media, now);
            self.rest.learnt = None;
            self.foreign_ssrc = None;
            if !media.remote.ip().is_unspecified() {
                sink.set_remote(FlowId(self.at.0), media.remote);
            }
        }
        let receives = media.direction.receive && source_is_known(media);
        if !same_peer || receives != self.receives {
            self.jitter.reset(counters);
            self.dtmf.reset();
        }
        self.receives = receives;
        self.rest.media = Some(*media);
        self.complete();
        self.active = false;
        self.expect_rtp(now);
    }

    /// The media timeout counts from here.
    fn expect_rtp(&mut self, from: Timestamp) {
        self.last_rtp_at = from;
        self.timed_out = false;
    }

    pub(crate) fn set_muted(&mut self, on: bool) {
        self.muted = on;
    }

    pub(crate) fn set_deaf(&mut self, on: bool) {
        self.deaf = on;
    }

    pub(crate) fn set_held(&mut self, on: bool, now: Timestamp) {
        if self.held != on {
            self.held = on;
            self.expect_rtp(now);
        }
    }

    pub(crate) fn set_gain(&mut self, centibel: i32) {
        self.gain = Gain::from_centibel(centibel);
    }

    /// Takes one RTP packet. `is_ours` tells whether an SSRC is one that we send into this
    /// conference; `tell` gets the events it causes.
    pub(crate) fn receive(
        &mut self,
        datagram: &Datagram<'_>,
        is_ours: impl Fn(u32) -> bool,
        counters: &mut Counters,
        mut tell: impl FnMut(EventKind),
    ) -> Result<(), DropReason> {
        assert!(!self.planted_failure, "planted failure");
        let packet = RtpView::parse(datagram.payload)?;
        let format = self.formats.find(packet.payload_type());
        self.admit(datagram, &packet, format, &mut tell)?;
        if !self.receives {
            return Err(DropReason::NotReceiving);
        }
        let format = format.ok_or(DropReason::UnknownPayloadType)?;
        self.check_loop(&packet, is_ours)?;
        self.expect_rtp(datagram.received_at);
        match format {
            Format::Audio(codec) => self.receive_audio(datagram, &packet, codec, counters)?,
            Format::TelephoneEvent => {
                let event = TelephoneEvent::parse(packet.payload()).ok_or(DropReason::BadLength)?;
                self.jitter.skip(packet.ssrc(), packet.sequence());
                let (at, timestamp) = (datagram.received_at, packet.timestamp());
                self.dtmf
                    .feed(at, timestamp, packet.marker(), event, |press| tell(digit(press)));
            }
        }
        self.received += 1;
        counters.rtp_received += 1;
        counters.rtp_received_bytes += datagram.payload.len() as u64;
        if !self.active {
            self.active = true;
            tell(EventKind::Active);
        }
        Ok(())
    }

    /// Applies the source rule.
    fn admit(
        &mut self,
        datagram: &Datagram<'_>,
        packet: &RtpView<'_>,
        format: Option<Format>,
        tell: &mut impl FnMut(EventKind),
    ) -> Result<(), DropReason> {
        let seen = Sighting {
            ssrc: packet.ssrc(),
            sequence: packet.sequence(),
            known_payload_type: format.is_some(),
            at: datagram.received_at,
        };
        match self.source.admit(datagram.source, seen) {
            Admission::Accepted => Ok(()),
            Admission::Learnt => {
                (self.rest.learnt, self.may_have_learnt) = (Some(datagram.source), true);
                tell(EventKind::SourceLearnt {
                    source: datagram.source,
                });
                Ok(())
            }
            Admission::Probation => Err(DropReason::Probation),
            Admission::Refused => Err(self.refuse_source()),
        }
    }

    /// Counts a packet from a source that is not accepted.
    fn refuse_source(&mut self) -> DropReason {
        if self.rest.media.is_none_or(|media| !source_is_known(&media)) {
            return DropReason::NotReceiving;
        }
        self.rest.bad_source += 1;
        DropReason::BadSource
    }

    /// Audio that came out of this conference must not enter it again (RFC 3550 8.2, M-04).
    fn check_loop(&mut self, packet: &RtpView<'_>, is_ours: impl Fn(u32) -> bool) -> Result<(), DropReason> {
        let ssrc = packet.ssrc();
        if self.foreign_ssrc != Some(ssrc) {
            if is_ours(ssrc) {
                return Err(DropReason::Loop);
            }
            self.foreign_ssrc = Some(ssrc);
        }
        if packet.csrcs().any(is_ours) {
            Err(DropReason::Loop)
        } else {
            Ok(())
        }
    }

    fn receive_audio(
        &mut self,
        datagram: &Datagram<'_>,
        packet: &RtpView<'_>,
        codec: Codec,
        counters: &mut Counters,
    ) -> Result<(), DropReason> {
        let meta = PacketMeta {
            sequence: packet.sequence(),
            timestamp: packet.timestamp(),
            marker: packet.marker(),
            ssrc: packet.ssrc(),
            codec,
        };
        let inserted = self
            .jitter
            .insert(datagram.received_at, meta, packet.payload(), counters);
        inserted.drop_reason().map_or(Ok(()), Err)
    }

    /// Looks after what ends by silence: a key press without end, and media as a whole.
    pub(crate) fn check_timers(
        &mut self,
        now: Timestamp,
        media_timeout: Duration,
        mut tell: impl FnMut(EventKind),
    ) {
        if let Some(press) = self.dtmf.tick(now) {
            tell(digit(press));
        }
        let expected = self.receives && !self.held && !self.timed_out;
        if expected && now.since(self.last_rtp_at) >= media_timeout {
            self.timed_out = true;
            tell(EventKind::MediaTimeout);
        }
    }

    /// Tells the sink a learnt address, once.
    pub(crate) fn pass_on_learnt(&mut self, sink: &mut impl PacketSink) {
        if std::mem::take(&mut self.may_have_learnt)
            && let Some(learnt) = self.rest.learnt.take()
        {
            sink.set_remote(FlowId(self.at.0), learnt);
        }
    }

    /// Starts a play to this endpoint alone.
    pub(crate) fn start_play(&mut self, play: Play) -> Result<(), Refusal> {
        self.may_play = true;
        self.rest.plays.start(play)
    }

    /// Its frame of the current tick, as it enters the mix.
    pub(crate) fn frame(&self) -> &Frame {
        &self.rest.frame
    }

    /// Its own plays, if any runs.
    pub(crate) fn running_plays(&mut self) -> Option<&mut Plays<ENDPOINT_PLAYS>> {
        self.may_play = self.may_play && self.rest.plays.is_active();
        self.may_play.then_some(&mut self.rest.plays)
    }

    /// Its own plays, running or not.
    pub(crate) fn plays(&mut self) -> &mut Plays<ENDPOINT_PLAYS> {
        &mut self.rest.plays
    }

    /// State and counters.
    pub(crate) fn snapshot(&self) -> EndpointSnapshot {
        let jitter = self.jitter.counters();
        EndpointSnapshot {
            at: self.at,
            active: self.active,
            talking: self.talk.talking(),
            mixed: self.mixed,
            received: self.received,
            sent: self.sender.sent(),
            concealed: jitter.concealed,
            late: jitter.late,
            duplicate: jitter.duplicate,
            lost: self.jitter.lost(),
            bad_source: self.rest.bad_source,
            playout_delay_us: self.jitter.playout_delay_us(),
        }
    }
}

/// Whether anybody can be the source: with a remote address of 0.0.0.0 (RFC 3264 8.4) only a learnt
/// one can.
fn source_is_known(media: &MediaPlan) -> bool {
    media.source != SourceRule::Strict || !media.remote.ip().is_unspecified()
}

fn digit(press: Press) -> EventKind {
    EventKind::Digit {
        digit: press.digit,
        duration_ms: press.duration_ms,
    }
}

/// Longest payload a slot holds: 60 ms of G.711, 30 ms of L16.
const PAYLOAD_BYTES: u16 = 480;
/// Longest payload a slot of an L16 endpoint holds: 60 ms.
const PAYLOAD_BYTES_L16: u16 = 960;
