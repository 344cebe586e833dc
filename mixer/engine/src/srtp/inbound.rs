//! Keys of what a leg sends us, and those before them until the new ones have proved themselves (M-53).

use serde::{Deserialize, Serialize};

use super::{Receiving, UnprotectError};

/// See the module's documentation. Empty: the leg sends plain RTP.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename = "SrtpInbound")]
pub struct Inbound {
    current: Option<Box<Receiving>>,
    /// Once the current ones are proven they only wait to be given back.
    former: Option<Box<Receiving>>,
}

impl Inbound {
    /// With these keys from the start.
    #[must_use]
    pub fn new(keys: Option<Box<Receiving>>) -> Self {
        Self {
            current: keys,
            former: None,
        }
    }

    /// Whether packets must be unprotected.
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.current.is_some()
    }

    /// Follows new keys and gives back what is worn out. The same key from a peer that has `stayed` where it was goes on
    /// as it is, and the new context is what is worn out (RFC 4568 7.1.4). So does the key before it, wherever the peer
    /// is. Without keys nothing is expected under the old ones any more.
    pub fn follow(&mut self, keys: Option<Box<Receiving>>, stayed: bool) -> [Option<Box<Receiving>>; 2] {
        let Some(keys) = keys else {
            return [self.current.take(), self.former.take()];
        };
        match (self.current.take(), self.former.take()) {
            (Some(current), former) if stayed && current.has_key_of(&keys) => {
                (self.current, self.former) = (Some(current), former);
                [Some(keys), None]
            }
            // A change of the call was taken back; what came under its keys before is not forgotten.
            (current, Some(mut former)) if former.has_key_of(&keys) => {
                former.doubt();
                (self.current, self.former) = (Some(former), current);
                [Some(keys), None]
            }
            // Nothing came under the last ones: those before them are still what the peer may use.
            (Some(current), Some(former)) if !current.is_proven() => {
                (self.current, self.former) = (Some(keys), Some(former));
                [Some(current), None]
            }
            (current, former) => {
                (self.current, self.former) = (Some(keys), current);
                [former, None]
            }
        }
    }

    /// Checks an SRTP packet and decrypts it in place; its length as RTP.
    ///
    /// # Errors
    /// See [`Receiving::unprotect`].
    pub fn unprotect(&mut self, packet: &mut [u8]) -> Result<usize, UnprotectError> {
        self.with_either(|keys| keys.unprotect(packet))
    }

    /// Checks an SRTCP packet and decrypts it in place; its length as RTCP.
    ///
    /// # Errors
    /// See [`Receiving::unprotect_rtcp`].
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, UnprotectError> {
        self.with_either(|keys| keys.unprotect_rtcp(packet))
    }

    fn with_either(
        &mut self,
        mut unprotect: impl FnMut(&mut Receiving) -> Result<usize, UnprotectError>,
    ) -> Result<usize, UnprotectError> {
        let current = self.current.as_mut().ok_or(UnprotectError::NotAuthentic)?;
        match (unprotect(current), &mut self.former) {
            // What either has seen is a replay.
            (Err(error), Some(former)) if !current.is_proven() => {
                unprotect(former).map_err(|other| match other {
                    UnprotectError::Replayed => other,
                    UnprotectError::Short | UnprotectError::NotAuthentic => error,
                })
            }
            (result, _) => result,
        }
    }
}
