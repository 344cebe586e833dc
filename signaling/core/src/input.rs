//! What the driver tells the core.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::record::{ConferenceRecord, DialogRecord};
use crate::time::WallTime;

/// SIP transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// Streams.
    Tcp,
}

/// Where a SIP message came from and where its answers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Transport.
    pub transport: Transport,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Connection number for streams, given by the driver, never reused; 0 for datagrams.
    pub connection: u64,
}

/// Number of a mixer request, chosen by the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MixerRequestId(pub u64);

/// Number of an operator request, chosen by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdminId(pub u64);

/// Everything that can happen to the core.
#[derive(Debug, Clone)]
pub enum Input {
    /// One whole SIP message (a datagram, or one message framed from a stream).
    Sip {
        /// Where from.
        flow: Flow,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A stream closed, or a send on a flow failed.
    FlowFailed {
        /// Which.
        flow: Flow,
    },
    /// Answer to an [`crate::effect::Effect::Mixer`].
    MixerReply {
        /// Which request.
        id: MixerRequestId,
        /// The answer.
        reply: MixerReply,
    },
    /// An event of a mixer.
    MixerEvent(MixerEvent),
    /// A mixer's health changed. `None` means that it does not answer; a new instance means that
    /// it was restarted and has forgotten everything.
    MixerHealth {
        /// Its URL.
        mixer: String,
        /// Its instance id.
        instance: Option<String>,
    },
    /// What was found at start, before any SIP: store contents and the mixers' states.
    Restore {
        /// Conferences in the store.
        conferences: Vec<ConferenceRecord>,
        /// Dialogs in the store.
        dialogs: Vec<DialogRecord>,
        /// Endpoints found on the mixers under our owner label: (mixer URL, conference, endpoint).
        endpoints: Vec<(String, String, String)>,
        /// Conferences found on the mixers under our owner label: (mixer URL, conference).
        mixer_conferences: Vec<(String, String)>,
    },
    /// An operator's request.
    Admin {
        /// Number for the answer.
        id: AdminId,
        /// What is asked.
        request: AdminRequest,
    },
    /// Wall-clock time for records; sent at start and every second.
    Wall(WallTime),
}

/// A mixer's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MixerReply {
    /// Done.
    Done,
    /// An endpoint exists.
    EndpointCreated {
        /// Our RTP address for SDP.
        local: SocketAddr,
    },
    /// Refused or failed.
    Refused {
        /// Why.
        reason: MixerRefusal,
        /// One line for the log.
        detail: String,
        /// Seconds after which a retry makes sense.
        retry_after_s: Option<u32>,
    },
}

/// Why a mixer refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MixerRefusal {
    /// No such conference or endpoint there.
    NotFound,
    /// The conference is locked there.
    Locked,
    /// No headroom, no ports, or busy.
    Overloaded,
    /// The mixer cannot be reached or did not answer in time.
    Unreachable,
    /// Anything else: our fault or the mixer's.
    Failed,
}

/// Something a mixer said of its own accord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MixerEvent {
    /// Which mixer, by URL.
    pub mixer: String,
    /// Conference, empty when it concerns the mixer.
    pub conference: String,
    /// Endpoint, empty when it concerns the conference.
    pub endpoint: String,
    /// What.
    pub kind: MixerEventKind,
}

/// What a mixer event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MixerEventKind {
    /// First RTP arrived.
    Active,
    /// Began or stopped talking.
    Talk {
        /// Whether it talks now.
        talking: bool,
    },
    /// One key press.
    Digit {
        /// The key.
        digit: char,
        /// Milliseconds held.
        duration_ms: u32,
    },
    /// RTP stopped for too long.
    MediaTimeout,
    /// The conference failed and is gone.
    ConferenceFailed,
}

/// What an operator asks (CLI, HTTP).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminRequest {
    /// Numbers of everything.
    Status,
    /// All conferences.
    Conferences,
    /// One conference with its participants.
    Show {
        /// Conference id.
        conference: String,
    },
    /// Mute or unmute a participant's endpoint.
    Mute {
        /// Conference id.
        conference: String,
        /// Participant id as shown.
        participant: String,
        /// On or off.
        on: bool,
    },
    /// Remove a participant (BYE).
    Kick {
        /// Conference id.
        conference: String,
        /// Participant id as shown.
        participant: String,
    },
    /// Lock or unlock.
    Lock {
        /// Conference id.
        conference: String,
        /// On or off.
        on: bool,
    },
    /// End a conference: BYE to all.
    End {
        /// Conference id.
        conference: String,
    },
}
