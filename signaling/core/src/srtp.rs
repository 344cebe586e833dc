//! SRTP as far as signaling decides about it: suites, keys, and with whom. No packet is protected here.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::{Zeroize, Zeroizing};

use crate::contains;
use crate::random::Random;

/// A crypto suite of SDES (RFC 4568 6.2, RFC 6188 4, RFC 7714 14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SrtpSuite {
    /// `AES_CM_128_HMAC_SHA1_80`.
    AesCm128HmacSha1Tag80,
    /// `AES_CM_128_HMAC_SHA1_32`.
    AesCm128HmacSha1Tag32,
    /// `AES_256_CM_HMAC_SHA1_80`.
    AesCm256HmacSha1Tag80,
    /// `AEAD_AES_128_GCM`.
    AeadAes128Gcm,
    /// `AEAD_AES_256_GCM`.
    AeadAes256Gcm,
}

impl SrtpSuite {
    /// All suites, in the order in which we offer them: what costs the mixer least first.
    pub const ALL: [Self; 5] = [
        Self::AeadAes128Gcm,
        Self::AeadAes256Gcm,
        Self::AesCm128HmacSha1Tag80,
        Self::AesCm256HmacSha1Tag80,
        Self::AesCm128HmacSha1Tag32,
    ];

    /// Its name in SDP.
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

    /// The suite of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name)
    }

    /// Bytes of master key and salt.
    #[must_use]
    pub fn key_bytes(self) -> usize {
        match self {
            Self::AesCm128HmacSha1Tag80 | Self::AesCm128HmacSha1Tag32 => 30,
            Self::AesCm256HmacSha1Tag80 => 46,
            Self::AeadAes128Gcm => 28,
            Self::AeadAes256Gcm => 44,
        }
    }

    /// Whether it is authenticated encryption in one pass (RFC 7714).
    #[must_use]
    pub fn is_galois(self) -> bool {
        matches!(self, Self::AeadAes128Gcm | Self::AeadAes256Gcm)
    }
}

/// A master key with its salt behind it. It is not printed, and wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SrtpKey(Vec<u8>);

impl SrtpKey {
    /// A key from base64 text; `None` when that is not so many bytes.
    #[must_use]
    pub fn of_base64(text: &str, bytes: usize) -> Option<Self> {
        let key = Self(BASE64.decode(text).ok()?);
        (key.0.len() == bytes).then_some(key)
    }

    /// As SDP and the control link write it.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(&self.0))
    }

    /// Key, then salt.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
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

/// Keys of both ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srtp {
    /// Suite of both ways.
    pub suite: SrtpSuite,
    /// Of what the peer sends.
    pub receive: SrtpKey,
    /// Of what we send.
    pub send: SrtpKey,
}

/// Whether a peer gets SRTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SrtpPolicy {
    /// Never.
    Off,
    /// Where it offers or takes it.
    Offer,
    /// Always: a call without is refused.
    Require,
}

/// Which policy counts for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrtpPolicies {
    /// For everybody not named below.
    pub default: SrtpPolicy,
    /// Networks with [`SrtpPolicy::Off`].
    pub off: Vec<(IpAddr, u8)>,
    /// Networks with [`SrtpPolicy::Require`]; who is in both lists must have SRTP.
    pub require: Vec<(IpAddr, u8)>,
}

impl SrtpPolicies {
    /// What counts for a peer.
    #[must_use]
    pub fn of(&self, peer: IpAddr) -> SrtpPolicy {
        let is_in = |networks: &[(IpAddr, u8)]| networks.iter().any(|network| contains(network, peer));
        if is_in(&self.require) {
            SrtpPolicy::Require
        } else if is_in(&self.off) {
            SrtpPolicy::Off
        } else {
            self.default
        }
    }
}

/// What keys are made from: 32 bytes that nobody can guess, used for nothing else. Not printed.
#[derive(Clone)]
pub struct KeySeed(pub [u8; 32]);

impl fmt::Debug for KeySeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySeed(..)")
    }
}

/// Makes our keys, each once. Its seed is its own: tags and ids are told to everybody, and nothing that is told
/// may come from where keys come from.
#[derive(Debug)]
pub struct KeySource(Random);

impl KeySource {
    /// Keys from a seed; the same seed gives the same ones.
    #[must_use]
    pub fn new(seed: &KeySeed) -> Self {
        Self(Random::new(seed.0))
    }

    /// A key that was never given out before.
    pub fn draw(&mut self, suite: SrtpSuite) -> SrtpKey {
        let mut key = Vec::with_capacity(64);
        while key.len() < suite.key_bytes() {
            key.extend(self.0.next_u64().to_le_bytes());
        }
        key.truncate(suite.key_bytes());
        SrtpKey(key)
    }
}

/// The standard alphabet; some devices leave out the `=` at the end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_have_their_length_and_are_not_printed() {
        let mut source = KeySource::new(&KeySeed([7; 32]));
        let mut seen: Vec<SrtpKey> = Vec::new();
        for suite in SrtpSuite::ALL.into_iter().cycle().take(50) {
            let key = source.draw(suite);
            assert_eq!(key.bytes().len(), suite.key_bytes());
            assert_eq!(
                SrtpKey::of_base64(&key.to_base64(), suite.key_bytes()),
                Some(key.clone())
            );
            assert_eq!(SrtpKey::of_base64(&key.to_base64(), suite.key_bytes() + 1), None);
            assert!(seen.iter().all(|other| other.bytes()[..16] != key.bytes()[..16]));
            seen.push(key);
        }
        assert_eq!(
            format!("{:?} {:?} {source:?}", seen[0], KeySeed([9; 32])),
            "SrtpKey(..) KeySeed(..) KeySource(Random { .. })"
        );
    }

    #[test]
    fn the_stricter_policy_counts() {
        let policies = SrtpPolicies {
            default: SrtpPolicy::Offer,
            off: vec![("10.0.0.0".parse().unwrap(), 8)],
            require: vec![("10.1.0.0".parse().unwrap(), 16)],
        };
        let of = |peer: &str| policies.of(peer.parse().unwrap());
        assert_eq!(of("192.0.2.1"), SrtpPolicy::Offer);
        assert_eq!(of("10.2.0.1"), SrtpPolicy::Off);
        assert_eq!(of("10.1.0.1"), SrtpPolicy::Require);
    }
}
