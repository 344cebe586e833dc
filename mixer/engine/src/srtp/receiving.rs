//! One way: what the peer sends under one master key.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::cipher::{Kind, PacketId, Transform};
use super::derive::Derivation;
use super::streams::Streams;
use super::{MasterKey, Suite, UnprotectError};
use crate::wire::rtp;

/// Keys of what the peer sends, and what came under them.
#[derive(Deserialize)]
#[serde(from = "Kept")]
pub struct Receiving {
    pub(super) key: MasterKey,
    streams: Streams,
    rtcp_streams: Streams,
    /// Some packet was authentic since the key was chosen.
    proven: bool,
    rtp: Transform,
    pub(super) rtcp: Transform,
}

/// What its state is made of; everything else follows from the key.
#[derive(Serialize, Deserialize)]
#[serde(rename = "SrtpReceiving")]
struct Kept {
    key: MasterKey,
    streams: Streams,
    rtcp_streams: Streams,
    proven: bool,
}

impl From<Kept> for Receiving {
    fn from(kept: Kept) -> Self {
        Self {
            streams: kept.streams,
            rtcp_streams: kept.rtcp_streams,
            proven: kept.proven,
            ..Self::new(kept.key)
        }
    }
}

impl Serialize for Receiving {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Kept {
            key: self.key.clone(),
            streams: self.streams,
            rtcp_streams: self.rtcp_streams,
            proven: self.proven,
        }
        .serialize(to)
    }
}

impl Receiving {
    /// Derives the session keys; nothing has come.
    #[must_use]
    pub fn new(key: MasterKey) -> Self {
        let derivation = Derivation::new(&key);
        Self {
            streams: Streams::default(),
            rtcp_streams: Streams::default(),
            proven: false,
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

    /// Whether a packet under this key was authentic since it was chosen.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// The key is chosen again, in the place of another one.
    pub(super) fn doubt(&mut self) {
        self.proven = false;
    }

    /// Checks an SRTP packet (RFC 3711 3.3) and decrypts it in place; its length as RTP.
    ///
    /// # Errors
    /// [`UnprotectError`]; the packet and everything here is unchanged then.
    pub fn unprotect(&mut self, packet: &mut [u8]) -> Result<usize, UnprotectError> {
        let header = rtp::header_bytes(packet).ok_or(UnprotectError::Short)?;
        let fixed = packet
            .first_chunk::<{ rtp::FIXED_HEADER }>()
            .ok_or(UnprotectError::Short)?;
        let sequence = u16::from_be_bytes([fixed[2], fixed[3]]);
        let ssrc = u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]);
        let index = self.streams.guess(ssrc, sequence);
        let index = index.ok_or(UnprotectError::Replayed)?;
        if !self.streams.is_fresh(ssrc, index) {
            return Err(UnprotectError::Replayed);
        }
        let length = self.rtp.unprotect_rtp(packet, header, PacketId { ssrc, index })?;
        self.streams.note(ssrc, index);
        self.proven = true;
        Ok(length)
    }

    /// Checks an SRTCP packet (RFC 3711 3.4, RFC 7714 9) and decrypts it in place; its length as RTCP. One that is not
    /// encrypted is refused (M-52).
    ///
    /// # Errors
    /// [`UnprotectError`]; the packet and everything here is unchanged then.
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, UnprotectError> {
        let ssrc = packet.get(4..8).and_then(<[u8]>::first_chunk);
        let ssrc = u32::from_be_bytes(*ssrc.ok_or(UnprotectError::Short)?);
        let word = self.rtcp.rtcp_word(packet).ok_or(UnprotectError::Short)?;
        let index = u64::from(word & RTCP_INDEX);
        if word == word & RTCP_INDEX {
            return Err(UnprotectError::NotAuthentic);
        }
        if !self.rtcp_streams.is_fresh(ssrc, index) {
            return Err(UnprotectError::Replayed);
        }
        let length = self.rtcp.unprotect_rtcp(packet, PacketId { ssrc, index })?;
        self.rtcp_streams.note(ssrc, index);
        self.proven = true;
        Ok(length)
    }
}

impl fmt::Debug for Receiving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiving")
            .field("suite", &self.key.suite())
            .finish_non_exhaustive()
    }
}

/// The index in SRTCP's word; the bit before it says that the packet is encrypted.
const RTCP_INDEX: u32 = 0x7fff_ffff;
