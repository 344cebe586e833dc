//! The transforms: AES-CM with HMAC-SHA1 (RFC 3711 4, RFC 6188) and AES-GCM (RFC 7714), for RTP and for RTCP.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, Aes256Gcm, Nonce, Tag};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use zeroize::Zeroizing;

use super::derive::{Aes, Derivation, Label};
use super::{Suite, UnprotectError};

/// Which packet of a source: what must never come twice under a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct PacketId {
    pub(super) ssrc: u32,
    /// RTP: 32 bits of roll-over counter and 16 of sequence number. RTCP: 31 bits.
    pub(super) index: u64,
}

impl PacketId {
    /// The index in 48 bits.
    fn index_bytes(self) -> [u8; 6] {
        let [_, _, index @ ..] = self.index.to_be_bytes();
        index
    }
}

/// Whether a packet is RTP or RTCP: each has its own session keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Rtp,
    Rtcp,
}

/// Session keys of one kind of packet, one way.
#[expect(
    clippy::large_enum_variant,
    reason = "lies in a box with the rest of its way; another one would be another cache miss a packet"
)]
pub(super) enum Transform {
    Counter(Counter),
    Galois(Galois),
}

/// Bytes of an RTCP packet that stay clear: its first header and SSRC.
pub(super) const RTCP_CLEAR: usize = 8;
/// Bytes of the word behind an RTCP packet: E, and 31 bits of index.
pub(super) const RTCP_WORD: usize = 4;
const ENCRYPTED: u32 = 0x8000_0000;

impl Transform {
    /// The keys of one kind.
    pub(super) fn new(suite: Suite, derivation: &Derivation, kind: Kind) -> Self {
        let (encryption, authentication, salt) = match kind {
            Kind::Rtp => (Label::RtpEncryption, Label::RtpAuthentication, Label::RtpSalt),
            Kind::Rtcp => (Label::RtcpEncryption, Label::RtcpAuthentication, Label::RtcpSalt),
        };
        let short = || derivation.bytes::<16>(encryption);
        let long = || derivation.bytes::<32>(encryption);
        match suite {
            Suite::AeadAes128Gcm => Self::Galois(Galois {
                aead: Gcm::Short(Aes128Gcm::new((&*short()).into())),
                salt: *derivation.bytes(salt),
            }),
            Suite::AeadAes256Gcm => Self::Galois(Galois {
                aead: Gcm::Long(Aes256Gcm::new((&*long()).into())),
                salt: *derivation.bytes(salt),
            }),
            Suite::AesCm128HmacSha1Tag80 | Suite::AesCm128HmacSha1Tag32 | Suite::AesCm256HmacSha1Tag80 => {
                let aes = if suite == Suite::AesCm256HmacSha1Tag80 {
                    Aes::long(&long())
                } else {
                    Aes::short(&short())
                };
                // RFC 3711 5.2: SRTCP's tag has 80 bits always.
                let tag_bytes = match kind {
                    Kind::Rtp => suite.tag_bytes(),
                    Kind::Rtcp => TAG_80,
                };
                Self::Counter(Counter {
                    aes,
                    salt: *derivation.bytes(salt),
                    mac: mac(&derivation.bytes(authentication)),
                    tag_bytes,
                })
            }
        }
    }

    /// AES-GCM with session keys as published vectors give them.
    #[cfg(test)]
    pub(super) fn of_session_keys(suite: Suite, key: &[u8; 32], salt: [u8; 12]) -> Self {
        let aead = if suite == Suite::AeadAes128Gcm {
            Gcm::Short(Aes128Gcm::new(key.first_chunk::<16>().unwrap().into()))
        } else {
            Gcm::Long(Aes256Gcm::new(key.into()))
        };
        Self::Galois(Galois { aead, salt })
    }

    /// Bytes of a tag.
    pub(super) fn tag_bytes(&self) -> usize {
        match self {
            Self::Counter(counter) => counter.tag_bytes,
            Self::Galois(_) => GALOIS_TAG,
        }
    }

    /// Protects the RTP packet of `length` bytes at the start of `buffer`, whose header has `header` bytes; its new
    /// length. `None`, and nothing sent, when there is no room.
    #[inline]
    pub(super) fn protect_rtp(
        &self,
        buffer: &mut [u8],
        header: usize,
        length: usize,
        id: PacketId,
    ) -> Option<usize> {
        let (packet, rest) = buffer.split_at_mut_checked(length)?;
        let tag = rest.get_mut(..self.tag_bytes())?;
        let (head, payload) = packet.split_at_mut_checked(header)?;
        match self {
            Self::Counter(counter) => {
                counter.aes.count_over(&counter.iv(id), payload);
                counter.tag(packet, &roll_over(id), tag);
            }
            Self::Galois(galois) => galois.seal(id, head, payload, tag)?,
        }
        Some(length + self.tag_bytes())
    }

    /// Checks an SRTP packet and decrypts it in place; its length without the tag.
    #[inline]
    pub(super) fn unprotect_rtp(
        &self,
        packet: &mut [u8],
        header: usize,
        id: PacketId,
    ) -> Result<usize, UnprotectError> {
        let length = packet.len().checked_sub(self.tag_bytes());
        let length = length.ok_or(UnprotectError::Short)?;
        let (packet, tag) = packet.split_at_mut_checked(length).ok_or(UnprotectError::Short)?;
        if header > length {
            return Err(UnprotectError::Short);
        }
        let is_authentic = match self {
            Self::Counter(counter) => counter.verifies(packet, &roll_over(id), tag),
            Self::Galois(_) => true,
        };
        let (head, payload) = packet.split_at_mut_checked(header).ok_or(UnprotectError::Short)?;
        let opened = match self {
            Self::Counter(counter) if is_authentic => {
                counter.aes.count_over(&counter.iv(id), payload);
                true
            }
            Self::Counter(_) => false,
            Self::Galois(galois) => galois.open(id, head, payload, tag),
        };
        opened.then_some(length).ok_or(UnprotectError::NotAuthentic)
    }

    /// Protects the compound RTCP packet of `length` bytes at the start of `buffer`; its new length. `None` when there
    /// is no room.
    pub(super) fn protect_rtcp(&self, buffer: &mut [u8], length: usize, id: PacketId) -> Option<usize> {
        let total = length + self.tag_bytes() + RTCP_WORD;
        let packet = buffer.get_mut(..total)?;
        let word = (ENCRYPTED | u32::try_from(id.index).ok()?).to_be_bytes();
        match self {
            Self::Counter(counter) => {
                let (packet, tag) = packet.split_at_mut_checked(length + RTCP_WORD)?;
                counter
                    .aes
                    .count_over(&counter.iv(id), packet.get_mut(RTCP_CLEAR..length)?);
                packet.get_mut(length..)?.copy_from_slice(&word);
                counter.tag(packet, &[], tag);
            }
            Self::Galois(galois) => {
                let (packet, rest) = packet.split_at_mut_checked(length)?;
                let (tag, place) = rest.split_at_mut_checked(GALOIS_TAG)?;
                let (head, payload) = packet.split_first_chunk_mut::<RTCP_CLEAR>()?;
                galois.seal(id, &associated(head, word), payload, tag)?;
                place.copy_from_slice(&word);
            }
        }
        Some(total)
    }

    /// Where the index word of an SRTCP packet is.
    pub(super) fn rtcp_word(&self, packet: &[u8]) -> Option<u32> {
        let end = match self {
            Self::Counter(counter) => packet.len().checked_sub(counter.tag_bytes)?,
            Self::Galois(_) => packet.len(),
        };
        let word = packet.get(..end)?.last_chunk::<RTCP_WORD>()?;
        Some(u32::from_be_bytes(*word))
    }

    /// Checks an SRTCP packet and decrypts it in place; its length without tag and index word.
    pub(super) fn unprotect_rtcp(&self, packet: &mut [u8], id: PacketId) -> Result<usize, UnprotectError> {
        let length = packet.len().checked_sub(self.tag_bytes() + RTCP_WORD);
        let length = length
            .filter(|length| *length >= RTCP_CLEAR)
            .ok_or(UnprotectError::Short)?;
        self.open_rtcp(packet, length, id)
            .ok_or(UnprotectError::NotAuthentic)
    }

    fn open_rtcp(&self, packet: &mut [u8], length: usize, id: PacketId) -> Option<usize> {
        let is_authentic = match self {
            Self::Counter(counter) => {
                let (packet, tag) = packet.split_at_mut_checked(length + RTCP_WORD)?;
                let is_authentic = counter.verifies(packet, &[], tag);
                if is_authentic {
                    let payload = packet.get_mut(RTCP_CLEAR..length)?;
                    counter.aes.count_over(&counter.iv(id), payload);
                }
                is_authentic
            }
            Self::Galois(galois) => {
                let (packet, rest) = packet.split_at_mut_checked(length)?;
                let (tag, word) = rest.split_first_chunk::<GALOIS_TAG>()?;
                let (head, payload) = packet.split_first_chunk_mut::<RTCP_CLEAR>()?;
                let associated = associated(head, *word.first_chunk()?);
                galois.open(id, &associated, payload, tag)
            }
        };
        is_authentic.then_some(length)
    }
}

/// HMAC fills a short key up with zeros itself (RFC 2104 2); here it gets a whole block, which cannot fail.
fn mac(key: &[u8; 20]) -> Hmac<Sha1> {
    let mut block = Zeroizing::new([0; 64]);
    block.iter_mut().zip(key).for_each(|(place, byte)| *place = *byte);
    Hmac::new((&*block).into())
}

/// RFC 3711 4.2: the roll-over counter is authenticated although it is not sent.
fn roll_over(id: PacketId) -> [u8; 4] {
    let [counter @ .., _, _] = id.index_bytes();
    counter
}

/// RFC 7714 9.2: what stays clear of an SRTCP packet, the index word included.
fn associated(head: &[u8; RTCP_CLEAR], word: [u8; RTCP_WORD]) -> [u8; RTCP_CLEAR + RTCP_WORD] {
    let mut associated = [0; RTCP_CLEAR + RTCP_WORD];
    let bytes = head.iter().chain(&word);
    associated
        .iter_mut()
        .zip(bytes)
        .for_each(|(place, byte)| *place = *byte);
    associated
}

/// AES in counter mode, and HMAC-SHA1.
pub(super) struct Counter {
    aes: Aes,
    salt: [u8; 14],
    /// With its key taken in; cloned for each packet.
    mac: Hmac<Sha1>,
    tag_bytes: usize,
}

impl Counter {
    /// RFC 3711 4.1.1: salt, SSRC and index, in front of 16 bits that count blocks.
    #[inline]
    fn iv(&self, id: PacketId) -> [u8; 16] {
        let [s0, s1, s2, s3] = id.ssrc.to_be_bytes();
        let [i0, i1, i2, i3, i4, i5] = id.index_bytes();
        let mut iv = [0, 0, 0, 0, s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, 0, 0];
        iv.iter_mut()
            .zip(self.salt)
            .for_each(|(place, byte)| *place ^= byte);
        iv
    }

    #[inline]
    fn digest(&self, packet: &[u8], behind: &[u8]) -> Hmac<Sha1> {
        let mut mac = self.mac.clone();
        mac.update(packet);
        mac.update(behind);
        mac
    }

    #[inline]
    fn tag(&self, packet: &[u8], behind: &[u8], place: &mut [u8]) {
        let digest = self.digest(packet, behind).finalize().into_bytes();
        place
            .iter_mut()
            .zip(digest)
            .for_each(|(place, byte)| *place = byte);
    }

    #[inline]
    fn verifies(&self, packet: &[u8], behind: &[u8], tag: &[u8]) -> bool {
        // In constant time.
        self.digest(packet, behind).verify_truncated_left(tag).is_ok()
    }
}

/// AES in Galois/counter mode.
pub(super) struct Galois {
    aead: Gcm,
    salt: [u8; 12],
}

enum Gcm {
    Short(Aes128Gcm),
    Long(Aes256Gcm),
}

impl Galois {
    /// RFC 7714 8.1 and 9.1: two zeros, SSRC and index, and the salt over all.
    #[inline]
    fn nonce(&self, id: PacketId) -> [u8; 12] {
        let [s0, s1, s2, s3] = id.ssrc.to_be_bytes();
        let [i0, i1, i2, i3, i4, i5] = id.index_bytes();
        let mut nonce = [0, 0, s0, s1, s2, s3, i0, i1, i2, i3, i4, i5];
        nonce
            .iter_mut()
            .zip(self.salt)
            .for_each(|(place, byte)| *place ^= byte);
        nonce
    }

    #[inline]
    fn seal(&self, id: PacketId, associated: &[u8], payload: &mut [u8], place: &mut [u8]) -> Option<()> {
        let nonce = Nonce::from(self.nonce(id));
        let tag = match &self.aead {
            Gcm::Short(gcm) => gcm.encrypt_inout_detached(&nonce, associated, payload.into()),
            Gcm::Long(gcm) => gcm.encrypt_inout_detached(&nonce, associated, payload.into()),
        };
        place.copy_from_slice(&tag.ok()?);
        Some(())
    }

    /// Decrypts only what the tag says is whole.
    #[inline]
    fn open(&self, id: PacketId, associated: &[u8], payload: &mut [u8], tag: &[u8]) -> bool {
        let nonce = Nonce::from(self.nonce(id));
        let Some(tag) = tag.first_chunk::<GALOIS_TAG>().map(|tag| Tag::from(*tag)) else {
            return false;
        };
        match &self.aead {
            Gcm::Short(gcm) => gcm.decrypt_inout_detached(&nonce, associated, payload.into(), &tag),
            Gcm::Long(gcm) => gcm.decrypt_inout_detached(&nonce, associated, payload.into(), &tag),
        }
        .is_ok()
    }
}

const TAG_80: usize = 10;
const GALOIS_TAG: usize = 16;
