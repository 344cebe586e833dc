//! The other way: what we send under one master key.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::cipher::{Kind, PacketId, RTCP_CLEAR, Transform};
use super::derive::Derivation;
use super::{MasterKey, Suite};
use crate::wire::rtp;

/// Keys of what we send, and how far we are.
#[derive(Deserialize)]
#[serde(from = "Kept")]
pub struct Sending {
    key: MasterKey,
    /// Times that the sequence number came round; 2^32 when the key is worn out (RFC 3711 9.2: 2^48 packets).
    pub(super) roll_over: u64,
    /// Of the next SRTCP packet; 2^31 when the key is worn out for them.
    pub(super) rtcp_index: u32,
    rtp: Transform,
    rtcp: Transform,
}

/// What its state is made of; everything else follows from the key.
#[derive(Serialize, Deserialize)]
#[serde(rename = "SrtpSending")]
struct Kept {
    key: MasterKey,
    roll_over: u64,
    rtcp_index: u32,
}

impl From<Kept> for Sending {
    fn from(kept: Kept) -> Self {
        Self {
            roll_over: kept.roll_over,
            rtcp_index: kept.rtcp_index,
            ..Self::new(kept.key)
        }
    }
}

impl Serialize for Sending {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Kept {
            key: self.key.clone(),
            roll_over: self.roll_over,
            rtcp_index: self.rtcp_index,
        }
        .serialize(to)
    }
}

impl Sending {
    /// Derives the session keys; nothing was sent.
    #[must_use]
    pub fn new(key: MasterKey) -> Self {
        let derivation = Derivation::new(&key);
        Self {
            roll_over: 0,
            rtcp_index: 0,
            rtp: Transform::new(key.suite(), &derivation, Kind::Rtp),
            rtcp: Transform::new(key.suite(), &derivation, Kind::Rtcp),
            key,
        }
    }

    /// Its suite.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.key.suite()
    }

    /// Whether the key is the same.
    #[must_use]
    pub fn has_key_of(&self, other: &Self) -> bool {
        self.key == other.key
    }

    /// Whether no packet may be sent any more.
    #[must_use]
    pub fn is_worn_out(&self) -> bool {
        self.roll_over > u64::from(u32::MAX)
    }

    /// The sequence number has come round, whether or not packets were sent meanwhile: no index may come twice.
    pub fn roll_over(&mut self) {
        self.roll_over += 1;
    }

    /// Protects the RTP packet of `length` bytes at the start of `buffer` in place (RFC 3711 3.3); its new length,
    /// longer by the suite's tag. `None`, and the packet must not be sent, when the buffer is too short or the key
    /// is worn out.
    #[must_use]
    pub fn protect(&self, buffer: &mut [u8], length: usize) -> Option<usize> {
        if self.is_worn_out() {
            return None;
        }
        let header = rtp::header_bytes(buffer.get(..length)?)?;
        let fixed = buffer.first_chunk::<{ rtp::FIXED_HEADER }>()?;
        let sequence = u16::from_be_bytes([fixed[2], fixed[3]]);
        let id = PacketId {
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            index: self.roll_over << 16 | u64::from(sequence),
        };
        self.rtp.protect_rtp(buffer, header, length, id)
    }

    /// Protects the compound RTCP packet of `length` bytes at the start of `buffer` in place (RFC 3711 3.4, RFC 7714 9);
    /// its new length, longer by at most [`super::OVERHEAD_MAX`]. `None`, and the packet must not be sent, when the
    /// buffer is too short or the key is worn out.
    #[must_use]
    pub fn protect_rtcp(&mut self, buffer: &mut [u8], length: usize) -> Option<usize> {
        if self.rtcp_index > RTCP_INDEX_LAST || length < RTCP_CLEAR {
            return None;
        }
        let ssrc = buffer.get(4..8)?.first_chunk()?;
        let id = PacketId {
            ssrc: u32::from_be_bytes(*ssrc),
            index: u64::from(self.rtcp_index),
        };
        // Whatever becomes of the packet, its index is used up.
        self.rtcp_index += 1;
        self.rtcp.protect_rtcp(buffer, length, id)
    }
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("suite", &self.key.suite())
            .finish_non_exhaustive()
    }
}

const RTCP_INDEX_LAST: u32 = 0x7fff_ffff;
