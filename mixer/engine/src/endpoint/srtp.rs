//! A leg with SRTP: its keys, and what it takes before anything looks into a packet.

use super::{Endpoint, EndpointBox, EndpointSetup};
use crate::counters::DropReason;
use crate::media::MediaPlan;
use crate::packet::Datagram;
use crate::srtp::{Inbound, Srtp, WornKeys};

impl Endpoint {
    /// Builds an endpoint whose media is SRTP (allocates: control only).
    #[must_use]
    pub fn with_srtp(setup: EndpointSetup, srtp: Srtp) -> EndpointBox {
        let mut boxed = Self::new(setup);
        if let Some(endpoint) = &mut *boxed {
            endpoint.inbound = Inbound::new(Some(srtp.receive));
            endpoint.sender.set_keys(Some(srtp.send));
        }
        boxed
    }

    /// Whether the peer of `media` is where the present one is.
    pub(crate) fn has_peer_of(&self, media: &MediaPlan) -> bool {
        self.rest.media.is_some_and(|old| old.remote == media.remote)
    }

    /// Follows the keys of a new media description; the peer may have `stayed` where it was.
    pub(crate) fn set_keys(&mut self, srtp: Option<Srtp>, stayed: bool) -> WornKeys {
        let (send, receive) = srtp.map(|srtp| (srtp.send, srtp.receive)).unzip();
        WornKeys {
            send: self.sender.set_keys(send),
            receive: self.inbound.follow(receive, stayed),
        }
    }

    /// The datagram as RTP: itself, or decrypted in `scratch`. What comes from where nobody may come from is not worth
    /// a look, and what is not authentic is not there: it teaches no source and wakes no timer.
    #[inline]
    pub(crate) fn unprotected<'a>(
        &mut self,
        datagram: &Datagram<'a>,
        scratch: &'a mut [u8],
    ) -> Result<Datagram<'a>, DropReason> {
        if self.inbound.is_on() {
            self.unprotect(datagram, scratch)
        } else {
            Ok(*datagram)
        }
    }

    #[inline(never)]
    fn unprotect<'a>(
        &mut self,
        datagram: &Datagram<'a>,
        scratch: &'a mut [u8],
    ) -> Result<Datagram<'a>, DropReason> {
        if !self.source.may_be(datagram.source, datagram.received_at) {
            return Err(self.refuse_source());
        }
        let packet = scratch
            .get_mut(..datagram.payload.len())
            .ok_or(DropReason::Malformed)?;
        packet.copy_from_slice(datagram.payload);
        let length = self.inbound.unprotect(packet)?;
        Ok(Datagram {
            payload: packet.get(..length).unwrap_or_default(),
            ..*datagram
        })
    }
}
