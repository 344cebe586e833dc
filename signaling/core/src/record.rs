//! What survives a restart: conferencing store records. All fields are integers or text, so that
//! the same statements run on SQLite and PostgreSQL.

use crate::time::WallTime;

/// A running conference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConferenceRecord {
    /// Conference id, the user part behind `conf-`.
    pub conference: String,
    /// Counts activations of the same id.
    pub epoch: u64,
    /// Whether it is locked.
    pub locked: bool,
    /// Which mixer it lives on (index in the configuration's order is not stable: its URL).
    pub mixer: String,
    /// When it was activated.
    pub activated: WallTime,
}

/// An established dialog and its endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialogRecord {
    /// Mixer endpoint id, unique per node; primary key.
    pub endpoint: String,
    /// Conference id.
    pub conference: String,
    /// SIP Call-ID.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
    /// The peer's tag.
    pub remote_tag: String,
    /// Our address (From/To as we write it, without tag).
    pub local_uri: String,
    /// The peer's address.
    pub remote_uri: String,
    /// Contact of the peer.
    pub remote_target: String,
    /// Route set, comma-separated, in the order of use.
    pub route_set: String,
    /// Our last CSeq number.
    pub local_cseq: u32,
    /// The peer's last CSeq number.
    pub remote_cseq: u32,
    /// Transport and addresses: `udp|tcp local remote`.
    pub flow: String,
    /// Our last SDP, whole.
    pub local_sdp: String,
    /// The peer's last SDP, whole.
    pub remote_sdp: String,
    /// Whether the endpoint was muted by command.
    pub muted: bool,
    /// When the participant joined.
    pub joined: WallTime,
}
