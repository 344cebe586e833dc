//! Plain counters of one engine. The worker publishes them; the engine never resets them.

use serde::{Deserialize, Serialize};

use crate::media::Codec;

/// One reason per way a received or outgoing packet can die.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// Shorter than its headers say (RTP: 12 bytes, CSRC list, extension, padding).
    Malformed,
    /// RTP version is not 2.
    BadVersion,
    /// No endpoint on that local port.
    UnknownPort,
    /// Not from the accepted source address.
    BadSource,
    /// Payload type was not negotiated.
    UnknownPayloadType,
    /// Payload length does not fit the codec, or no slot could hold it.
    BadLength,
    /// Its SSRC or a CSRC is one of ours: a loop.
    Loop,
    /// Its tick has passed.
    Late,
    /// Seen before.
    Duplicate,
    /// So far ahead that no slot is left.
    Early,
    /// First packets of an unproven new source (RFC 3550 A.1).
    Probation,
    /// The endpoint has no media yet or does not receive (hold).
    NotReceiving,
    /// RTCP; counted, not yet used.
    Rtcp,
    /// Neither RTP nor RTCP by its first byte (RFC 7983).
    NotRtp,
    /// Truncated by the receive buffer.
    Truncated,
    /// No transmit buffer was free.
    NoSendBuffer,
    /// The kernel or device refused to send.
    SendFailed,
    /// The receive ring overflowed.
    RingFull,
    /// Its UDP checksum does not hold.
    BadChecksum,
    /// It does not carry the configured VLAN tags.
    WrongVlan,
    /// The ring to the worker that owns it was full.
    HandoffFull,
    /// Nothing is known of the way to its destination.
    NoRoute,
    /// The network interface was down.
    InterfaceDown,
    /// Came to a leg with SRTP and is not authentic: another key, damaged, or plain RTP.
    SrtpAuth,
    /// An SRTP packet whose index was seen, or is too old to tell.
    SrtpReplay,
}

impl DropReason {
    /// All reasons, in the order of [`Counters::dropped`].
    pub const ALL: [Self; 25] = [
        Self::Malformed,
        Self::BadVersion,
        Self::UnknownPort,
        Self::BadSource,
        Self::UnknownPayloadType,
        Self::BadLength,
        Self::Loop,
        Self::Late,
        Self::Duplicate,
        Self::Early,
        Self::Probation,
        Self::NotReceiving,
        Self::Rtcp,
        Self::NotRtp,
        Self::Truncated,
        Self::NoSendBuffer,
        Self::SendFailed,
        Self::RingFull,
        Self::BadChecksum,
        Self::WrongVlan,
        Self::HandoffFull,
        Self::NoRoute,
        Self::InterfaceDown,
        Self::SrtpAuth,
        Self::SrtpReplay,
    ];

    /// Metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadVersion => "bad_version",
            Self::UnknownPort => "unknown_port",
            Self::BadSource => "bad_source",
            Self::UnknownPayloadType => "unknown_payload_type",
            Self::BadLength => "bad_length",
            Self::Loop => "loop",
            Self::Late => "late",
            Self::Duplicate => "duplicate",
            Self::Early => "early",
            Self::Probation => "probation",
            Self::NotReceiving => "not_receiving",
            Self::Rtcp => "rtcp",
            Self::NotRtp => "not_rtp",
            Self::Truncated => "truncated",
            Self::NoSendBuffer => "no_send_buffer",
            Self::SendFailed => "send_failed",
            Self::RingFull => "ring_full",
            Self::BadChecksum => "bad_checksum",
            Self::WrongVlan => "wrong_vlan",
            Self::HandoffFull => "handoff_full",
            Self::NoRoute => "no_route",
            Self::InterfaceDown => "interface_down",
            Self::SrtpAuth => "srtp_auth",
            Self::SrtpReplay => "srtp_replay",
        }
    }
}

/// What became of one frame that an endpoint owed at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameOutcome {
    /// Decoded and available to the mix.
    Played,
    /// Concealed: the packet came, after its tick.
    NetworkLate,
    /// Concealed: the packet never came.
    NetworkLost,
    /// Concealed: a receive ring overflowed.
    RingFull,
    /// Concealed: the worker ran the tick late.
    WorkerLate,
    /// Nothing owed any more: the source stopped sending.
    SourceStopped,
    /// Inserted or left out to follow the sender's clock or the playout delay.
    Skew,
}

impl FrameOutcome {
    /// All outcomes, in the order of [`Counters::frames`].
    pub const ALL: [Self; 7] = [
        Self::Played,
        Self::NetworkLate,
        Self::NetworkLost,
        Self::RingFull,
        Self::WorkerLate,
        Self::SourceStopped,
        Self::Skew,
    ];

    /// Metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Played => "played",
            Self::NetworkLate => "network_late",
            Self::NetworkLost => "network_lost",
            Self::RingFull => "ring_full",
            Self::WorkerLate => "worker_late",
            Self::SourceStopped => "source_stopped",
            Self::Skew => "skew",
        }
    }
}

/// Counters since the engine's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// RTP packets accepted.
    pub rtp_received: u64,
    /// UDP payload bytes of them.
    pub rtp_received_bytes: u64,
    /// RTP packets sent.
    pub rtp_sent: u64,
    /// UDP payload bytes of them.
    pub rtp_sent_bytes: u64,
    /// Packets that died, by [`DropReason`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Frames, by [`FrameOutcome`].
    pub frames: [u64; FrameOutcome::ALL.len()],
    /// Payloads encoded, by [`Codec`] (a forwarded payload is not an encode).
    pub encodes: [u64; Codec::ALL.len()],
    /// Conference ticks run.
    pub ticks: u64,
    /// Payloads passed through untouched, counted like encodes: one for all listeners of a codec,
    /// one for each talker who hears another.
    pub passthrough: u64,
    /// Frames of talkers that were not mixed, because others were louder.
    pub frames_left_out: u64,
    /// Sums that other parts of shared conferences told in time.
    pub partials_added: u64,
    /// Sums that other parts of shared conferences did not tell in time: their members were not heard for
    /// that frame.
    pub partials_missing: u64,
    /// Key presses reported.
    pub digits: u64,
    /// Conferences dropped because processing them panicked.
    pub conferences_failed: u64,
    /// Events lost because nobody polled them.
    pub events_lost: u64,
}

impl Counters {
    /// Counts a dropped packet.
    pub fn drop_packet(&mut self, reason: DropReason) {
        if let Some(count) = self.dropped.get_mut(reason as usize) {
            *count += 1;
        }
    }

    /// Counts a frame.
    pub fn frame(&mut self, outcome: FrameOutcome) {
        if let Some(count) = self.frames.get_mut(outcome as usize) {
            *count += 1;
        }
    }
}
