//! What the core asks of the driver, in order.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::input::{AdminId, Flow, MixerRequestId};
use crate::record::{ConferenceRecord, DialogRecord};
use crate::srtp::Srtp;
use crate::time::WallTime;

/// One thing to do.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Send one SIP message.
    Send {
        /// Where. A stream that is closed meanwhile is opened anew to the same remote address.
        flow: Flow,
        /// The message.
        bytes: Bytes,
    },
    /// Ask a mixer; ends in exactly one [`crate::input::Input::MixerReply`]. The id is also the
    /// idempotency key (with the node's name in front).
    Mixer {
        /// Number.
        id: MixerRequestId,
        /// Which mixer, by URL; empty: the allocator's choice is the only mixer.
        mixer: String,
        /// What.
        request: MixerRequest,
    },
    /// Change the store. Write-behind: not answered, retried by the driver until it holds.
    Store(StoreChange),
    /// Answer an operator.
    AdminReply {
        /// Which request.
        id: AdminId,
        /// The answer.
        reply: AdminReply,
    },
    /// A structured log line.
    Log(LogLine),
    /// Something to count.
    Count(Count),
}

/// What is asked of a mixer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MixerRequest {
    /// Create a conference.
    CreateConference {
        /// Its id.
        conference: String,
        /// Talkers mixed at once at most; absent: all.
        talkers: Option<u8>,
    },
    /// Remove a conference and everything in it.
    RemoveConference {
        /// Its id.
        conference: String,
    },
    /// Lock or unlock.
    Lock {
        /// Its id.
        conference: String,
        /// On or off.
        on: bool,
    },
    /// Create an endpoint; answered with its RTP address.
    CreateEndpoint {
        /// Its conference.
        conference: String,
        /// Its id.
        endpoint: String,
        /// Media, when the peer's offer is known.
        media: Option<MediaDescription>,
    },
    /// Replace an endpoint's media.
    SetMedia {
        /// Its conference.
        conference: String,
        /// Its id.
        endpoint: String,
        /// Complete description.
        media: MediaDescription,
    },
    /// Mute or unmute.
    Mute {
        /// Its conference.
        conference: String,
        /// Its id.
        endpoint: String,
        /// On or off.
        on: bool,
    },
    /// Remove an endpoint.
    RemoveEndpoint {
        /// Its conference.
        conference: String,
        /// Its id.
        endpoint: String,
    },
}

/// A codec by its SDP name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// `PCMU/8000`, static payload type 0.
    Pcmu,
    /// `PCMA/8000`, static payload type 8.
    Pcma,
    /// `L16/8000`, dynamic payload type.
    L16,
}

/// What the mixer shall send to and take from a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaDescription {
    /// Where RTP is sent; unspecified address: nothing is sent.
    pub remote: SocketAddr,
    /// We send.
    pub send: bool,
    /// We mix what arrives.
    pub receive: bool,
    /// Codec of what we send.
    pub codec: Codec,
    /// Payload type in the peer's numbering.
    pub payload_type: u8,
    /// Packet time in milliseconds.
    pub ptime_ms: u8,
    /// Accepted payload types (our numbering).
    pub receive_formats: Vec<(u8, Codec)>,
    /// Payload type of telephone-event.
    pub telephone_event: Option<u8>,
    /// Empty: strict source rule. Else: learn the source once among these addresses.
    pub learn_from: Vec<std::net::IpAddr>,
    /// Keys of both ways; none: plain RTP.
    pub srtp: Option<Srtp>,
}

/// A change of the conferencing store.
#[expect(
    clippy::large_enum_variant,
    reason = "most changes are dialogs; a box would only add a step"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreChange {
    /// Insert or replace.
    SaveConference(ConferenceRecord),
    /// Delete.
    DeleteConference {
        /// Its id.
        conference: String,
    },
    /// Insert or replace, by endpoint.
    SaveDialog(DialogRecord),
    /// Delete.
    DeleteDialog {
        /// Its endpoint.
        endpoint: String,
    },
}

/// Answer to an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminReply {
    /// Done.
    Done,
    /// Numbers.
    Status(StatusView),
    /// All conferences, by id.
    Conferences(Vec<ConferenceView>),
    /// One conference.
    Conference(ConferenceView),
    /// Nothing of that id.
    NotFound {
        /// One line.
        detail: String,
    },
    /// Not possible now.
    Failed {
        /// One line.
        detail: String,
    },
}

/// Numbers of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatusView {
    /// Conferences.
    pub conferences: usize,
    /// Participants.
    pub participants: usize,
    /// SIP transactions in progress.
    pub transactions: usize,
    /// Dialogs.
    pub dialogs: usize,
    /// Mixers: (URL, up).
    pub mixers: Vec<(String, bool)>,
}

/// A conference as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConferenceView {
    /// Conference id.
    pub conference: String,
    /// Life-cycle state (`active`, `ending`, ...).
    pub state: &'static str,
    /// Locked.
    pub locked: bool,
    /// Mixer URL.
    pub mixer: String,
    /// When activated.
    pub activated: WallTime,
    /// Participants in order of joining.
    pub participants: Vec<ParticipantView>,
}

/// A participant as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParticipantView {
    /// Id for commands.
    pub participant: String,
    /// SIP address (the shell masks numbers where it must).
    pub uri: String,
    /// Display name.
    pub display_name: String,
    /// Endpoint status (`connected`, `on-hold`, `connecting`, ...; RFC 4575).
    pub status: &'static str,
    /// Muted by command.
    pub muted: bool,
    /// Talks now.
    pub talking: bool,
    /// Codec name, as far as negotiated.
    pub codec: &'static str,
    /// When joined.
    pub joined: WallTime,
    /// SIP Call-ID.
    pub call_id: String,
}

/// How loud a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Detail.
    Debug,
    /// A conference or endpoint changed state.
    Info,
    /// Somebody may have to look.
    Warn,
}

/// A structured log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Level.
    pub level: LogLevel,
    /// What happened, constant text.
    pub message: &'static str,
    /// SIP Call-ID, may be empty.
    pub call_id: String,
    /// Conference id, may be empty.
    pub conference: String,
    /// Everything else, one line, no control characters.
    pub detail: String,
}

/// Something the shell's metrics count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Count {
    /// A SIP request was received (method as a token of a closed set; `OTHER` else).
    Request {
        /// Method.
        method: &'static str,
    },
    /// A SIP response was sent.
    Response {
        /// Status code.
        status: u16,
        /// From receipt of the request, nanoseconds.
        delay_ns: u64,
        /// Whether it is the final answer to an INVITE.
        invite: bool,
    },
    /// A retransmission was absorbed or sent.
    Retransmission,
    /// A message could not be parsed.
    ParseError,
    /// Keys of SRTP came over a SIP transport that does not hide them (M-56).
    KeysInClear,
    /// A participant joined.
    Joined,
    /// A participant left.
    Left {
        /// Cause, of a closed set (`bye`, `kicked`, `ended`, `media_timeout`, `mixer_lost`, ...).
        cause: &'static str,
    },
    /// Gauge: conferences now.
    Conferences(usize),
    /// Gauge: participants now.
    Participants(usize),
    /// Gauge: transactions now.
    Transactions(usize),
}
