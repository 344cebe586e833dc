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
    /// as it is, and the new context is what is worn out (RFC 4568 7.1.4). Without keys nothing is expected
    /// under the old ones any more.
    pub fn follow(&mut self, keys: Option<Box<Receiving>>, stayed: bool) -> [Option<Box<Receiving>>; 2] {
        let Some(keys) = keys else {
            return [self.current.take(), self.former.take()];
        };
        match self.current.take() {
            Some(current) if stayed && current.has_key_of(&keys) => {
                self.current = Some(current);
                [Some(keys), None]
            }
            // Nothing came under the last ones: those before them are still what the peer may use.
            Some(current) if !current.is_proven() && self.former.is_some() => {
                self.current = Some(keys);
                [Some(current), None]
            }
            current => {
                self.current = Some(keys);
                [std::mem::replace(&mut self.former, current), None]
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
            (Err(UnprotectError::NotAuthentic | UnprotectError::Short), Some(former))
                if !current.is_proven() =>
            {
                unprotect(former)
            }
            (result, _) => result,
        }
    }
}
