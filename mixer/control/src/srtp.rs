//! Keys of SRTP as the link carries them. They go one way: the mixer never tells one.

use std::fmt;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// A crypto suite by its name in SDP (RFC 4568 6.2, RFC 6188, RFC 7714).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SrtpSuite {
    /// AES-128 in counter mode, HMAC-SHA1 cut to 80 bits; 30 bytes of key and salt.
    #[serde(rename = "AES_CM_128_HMAC_SHA1_80")]
    AesCm128HmacSha1Tag80,
    /// AES-128 in counter mode, HMAC-SHA1 cut to 32 bits; 30 bytes of key and salt.
    #[serde(rename = "AES_CM_128_HMAC_SHA1_32")]
    AesCm128HmacSha1Tag32,
    /// AES-256 in counter mode, HMAC-SHA1 cut to 80 bits; 46 bytes of key and salt.
    #[serde(rename = "AES_256_CM_HMAC_SHA1_80")]
    AesCm256HmacSha1Tag80,
    /// AES-128 in Galois/counter mode; 28 bytes of key and salt.
    #[serde(rename = "AEAD_AES_128_GCM")]
    AeadAes128Gcm,
    /// AES-256 in Galois/counter mode; 44 bytes of key and salt.
    #[serde(rename = "AEAD_AES_256_GCM")]
    AeadAes256Gcm,
}

impl SrtpSuite {
    /// All suites.
    pub const ALL: [Self; 5] = [
        Self::AesCm128HmacSha1Tag80,
        Self::AesCm128HmacSha1Tag32,
        Self::AesCm256HmacSha1Tag80,
        Self::AeadAes128Gcm,
        Self::AeadAes256Gcm,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AesCm128HmacSha1Tag80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm128HmacSha1Tag32 => "AES_CM_128_HMAC_SHA1_32",
            Self::AesCm256HmacSha1Tag80 => "AES_256_CM_HMAC_SHA1_80",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
        }
    }
}

/// Keys of SRTP, both ways. The same keys for an unchanged `remote` go on where they are; for a new `remote` or under a new
/// key the stream begins at a roll-over counter of 0 (RFC 4568 7.1.4). A change may be taken back with the keys before it; older ones
/// must not be used again. What the endpoint sends under its former key
/// is taken until its first packet under the new one. Never told back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Srtp {
    /// Crypto suite.
    pub suite: SrtpSuite,
    /// Master key and salt of what the endpoint sends, base64.
    pub receive_key: SrtpKey,
    /// Master key and salt of what we send, base64. The same as before goes on whatever else changes.
    pub send_key: SrtpKey,
}

/// A master key with its salt behind it, in base64. It is not printed, and wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SrtpKey(String);

impl SrtpKey {
    /// The text of a key.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(BASE64.encode(bytes))
    }

    /// Its bytes; `None` when it is not base64.
    #[must_use]
    pub fn bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        BASE64.decode(&self.0).ok().map(Zeroizing::new)
    }
}

impl fmt::Debug for SrtpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SrtpKey(..)")
    }
}

impl Drop for SrtpKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The standard alphabet; the `=` at the end may be missing.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
