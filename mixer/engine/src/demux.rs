//! Which endpoint a datagram belongs to, and what it is by its first bytes.
//!
//! The endpoint is an array index by local port: no hash, one load.

use crate::command::{EndpointIndex, Refusal};

/// Local port to endpoint.
#[derive(Debug)]
pub(crate) struct PortMap {
    first: u16,
    /// One place per port; [`VACANT`] where no endpoint listens.
    owner: Vec<u32>,
}

const VACANT: u32 = u32::MAX;

impl PortMap {
    /// All ports from `first` to `last`, none owned.
    pub(crate) fn new(first: u16, last: u16) -> Self {
        let ports = usize::from(last).saturating_sub(usize::from(first)) + usize::from(last >= first);
        Self {
            first,
            owner: vec![VACANT; ports],
        }
    }

    fn place(&self, port: u16) -> Option<usize> {
        port.checked_sub(self.first).map(usize::from)
    }

    /// Where it is written who listens on `port`.
    pub(crate) fn entry(&self, port: u16) -> Option<&u32> {
        self.owner.get(self.place(port)?)
    }

    /// Who listens on `port`.
    pub(crate) fn find(&self, port: u16) -> Option<EndpointIndex> {
        let owner = *self.entry(port)?;
        (owner != VACANT).then_some(EndpointIndex(owner))
    }

    /// Whether `port` can be taken.
    pub(crate) fn check_free(&self, port: u16) -> Result<(), Refusal> {
        match self.place(port).and_then(|place| self.owner.get(place)) {
            None => Err(Refusal::OutOfRange),
            Some(&owner) if owner != VACANT => Err(Refusal::Occupied),
            Some(_) => Ok(()),
        }
    }

    /// Gives `port` to `endpoint`; it was checked to be free.
    pub(crate) fn take(&mut self, port: u16, endpoint: EndpointIndex) {
        if let Some(owner) = self.place(port).and_then(|place| self.owner.get_mut(place)) {
            assert_eq!(*owner, VACANT, "port {port} is owned already");
            *owner = endpoint.0;
        }
    }

    /// Takes `port` back.
    pub(crate) fn release(&mut self, port: u16) {
        if let Some(owner) = self.place(port).and_then(|place| self.owner.get_mut(place)) {
            *owner = VACANT;
        }
    }
}

/// What a UDP payload is by its first bytes (RFC 7983 section 7, RFC 5761 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// RTP version 2.
    Rtp,
    /// RTCP version 2: second byte 192 to 223.
    Rtcp,
    /// STUN, ZRTP, DTLS or TURN channel data.
    Other,
    /// None of these: an RTP version that is not 2.
    BadVersion,
    /// Too short to tell.
    Short,
}

/// Tells RTP, RTCP and everything else apart.
pub(crate) fn kind(payload: &[u8]) -> Kind {
    match payload {
        [128..=191, 192..=223, ..] => Kind::Rtcp,
        [128..=191, _, ..] => Kind::Rtp,
        [0..=3 | 16..=79, ..] => Kind::Other,
        [4..=15 | 80..=127 | 192.., ..] => Kind::BadVersion,
        [] | [_] => Kind::Short,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_belongs_to_its_owner_until_released() {
        let mut ports = PortMap::new(10_000, 10_003);
        assert_eq!(ports.find(10_002), None);
        assert_eq!(ports.check_free(10_002), Ok(()));
        ports.take(10_002, EndpointIndex(7));
        assert_eq!(ports.find(10_002), Some(EndpointIndex(7)));
        assert_eq!(ports.check_free(10_002), Err(Refusal::Occupied));
        ports.release(10_002);
        assert_eq!(ports.find(10_002), None);
        assert_eq!(ports.check_free(10_003), Ok(()));
    }

    #[test]
    fn ports_outside_of_the_block_are_refused() {
        let ports = PortMap::new(10_000, 10_003);
        for port in [0, 9_999, 10_004, u16::MAX] {
            assert_eq!(ports.find(port), None);
            assert_eq!(ports.check_free(port), Err(Refusal::OutOfRange));
        }
        assert_eq!(PortMap::new(5, 4).check_free(5), Err(Refusal::OutOfRange));
    }

    #[test]
    fn every_first_byte_has_one_kind() {
        for first in 0..=255_u8 {
            let expected = match first {
                0..=3 | 16..=79 => Kind::Other,
                128..=191 => Kind::Rtp,
                _ => Kind::BadVersion,
            };
            assert_eq!(kind(&[first, 0]), expected, "first byte {first}");
        }
        assert_eq!(kind(&[0x80, 200]), Kind::Rtcp);
        assert_eq!(kind(&[0x80, 192]), Kind::Rtcp);
        assert_eq!(kind(&[0x80, 223]), Kind::Rtcp);
        assert_eq!(kind(&[0x80, 224]), Kind::Rtp);
        assert_eq!(kind(&[0x80, 0x80]), Kind::Rtp);
        assert_eq!(kind(&[0x80]), Kind::Short);
        assert_eq!(kind(&[]), Kind::Short);
    }
}
