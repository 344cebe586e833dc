//! Crypto suites and master keys.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::engine::state::packed;

/// Longest master key with its salt, bytes.
pub const KEY_AND_SALT_MAX: usize = 46;

/// A crypto suite of SDES (RFC 4568 6.2, RFC 6188 4, RFC 7714 14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Suite {
    /// AES-128 in counter mode, HMAC-SHA1 cut to 80 bits.
    AesCm128HmacSha1Tag80,
    /// AES-128 in counter mode, HMAC-SHA1 cut to 32 bits (80 for SRTCP).
    AesCm128HmacSha1Tag32,
    /// AES-256 in counter mode, HMAC-SHA1 cut to 80 bits.
    AesCm256HmacSha1Tag80,
    /// AES-128 in Galois/counter mode, tag of 128 bits.
    AeadAes128Gcm,
    /// AES-256 in Galois/counter mode, tag of 128 bits.
    AeadAes256Gcm,
}

impl Suite {
    /// All suites.
    pub const ALL: [Self; 5] = [
        Self::AesCm128HmacSha1Tag80,
        Self::AesCm128HmacSha1Tag32,
        Self::AesCm256HmacSha1Tag80,
        Self::AeadAes128Gcm,
        Self::AeadAes256Gcm,
    ];

    /// Bytes of a master key.
    #[must_use]
    pub fn key_bytes(self) -> usize {
        match self {
            Self::AesCm128HmacSha1Tag80 | Self::AesCm128HmacSha1Tag32 | Self::AeadAes128Gcm => 16,
            Self::AesCm256HmacSha1Tag80 | Self::AeadAes256Gcm => 32,
        }
    }

    /// Bytes of a master salt.
    #[must_use]
    pub fn salt_bytes(self) -> usize {
        match self {
            Self::AesCm128HmacSha1Tag80 | Self::AesCm128HmacSha1Tag32 | Self::AesCm256HmacSha1Tag80 => 14,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
        }
    }

    /// Bytes that an RTP packet grows by.
    #[must_use]
    pub fn tag_bytes(self) -> usize {
        match self {
            Self::AesCm128HmacSha1Tag80 | Self::AesCm256HmacSha1Tag80 => 10,
            Self::AesCm128HmacSha1Tag32 => 4,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
        }
    }
}

/// A key of the wrong length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{found} bytes of key and salt, the suite has {wanted}")]
pub struct KeyError {
    /// Bytes it has.
    pub found: usize,
    /// Bytes it should have.
    pub wanted: usize,
}

/// A master key with its salt. Wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterKey {
    suite: Suite,
    /// Key, then salt; zeros behind.
    #[serde(with = "packed::bytes")]
    bytes: [u8; KEY_AND_SALT_MAX],
}

impl MasterKey {
    /// A key with its salt behind it, as SDES writes them (RFC 4568 6.1).
    ///
    /// # Errors
    /// [`KeyError`] when there are more or fewer bytes than the suite has.
    pub fn new(suite: Suite, key_and_salt: &[u8]) -> Result<Self, KeyError> {
        let wanted = suite.key_bytes() + suite.salt_bytes();
        let mut bytes = [0; KEY_AND_SALT_MAX];
        match bytes.get_mut(..wanted) {
            Some(place) if key_and_salt.len() == wanted => place.copy_from_slice(key_and_salt),
            _ => {
                let found = key_and_salt.len();
                return Err(KeyError { found, wanted });
            }
        }
        Ok(Self { suite, bytes })
    }

    /// Its suite.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    pub(super) fn key<const N: usize>(&self) -> [u8; N] {
        self.bytes.first_chunk().copied().unwrap_or([0; N])
    }

    /// The salt, with zeros behind where it is shorter than AES-CM's (RFC 7714 11: 96 bits in the place of 112).
    pub(super) fn salt(&self) -> [u8; 14] {
        let mut salt = [0; 14];
        let bytes = self.bytes.iter().skip(self.suite.key_bytes());
        let bytes = bytes.take(self.suite.salt_bytes());
        salt.iter_mut()
            .zip(bytes)
            .for_each(|(place, byte)| *place = *byte);
        salt
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

impl Drop for MasterKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}
