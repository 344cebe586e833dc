//! A datagram's way to its endpoint. Every death has one reason.

use crate::counters::DropReason;
use crate::demux::{Kind, kind};
use crate::endpoint::Endpoint;
use crate::engine::Engine;
use crate::event::Event;
use crate::packet::Datagram;

impl Engine {
    /// Where it is written whose a port is, for who wants to bring that near before [`Engine::place_of`].
    #[inline]
    #[must_use]
    pub fn entry_of(&self, local_port: u16) -> Option<&u32> {
        self.ports.entry(local_port)
    }

    /// What a datagram to this port will read and write, for who wants to bring it near.
    #[inline]
    #[must_use]
    pub fn place_of(&self, local_port: u16) -> Option<&Option<Endpoint>> {
        self.endpoints.place(self.ports.find(local_port)?)
    }

    pub(super) fn receive(&mut self, datagram: &Datagram<'_>) -> Result<(), DropReason> {
        let Self {
            ports,
            endpoints,
            own_ssrcs,
            events,
            counters,
            scratch,
            ..
        } = self;
        let at = ports.find(datagram.local_port).ok_or(DropReason::UnknownPort)?;
        match kind(datagram.payload) {
            Kind::Rtp => {}
            Kind::Rtcp => return Err(DropReason::Rtcp),
            Kind::Other => return Err(DropReason::NotRtp),
            Kind::BadVersion => return Err(DropReason::BadVersion),
            Kind::Short => return Err(DropReason::Malformed),
        }
        let endpoint = endpoints.get_mut(at).ok_or(DropReason::UnknownPort)?;
        let datagram = &endpoint.unprotected(datagram, scratch.as_mut_slice())?;
        let conference = endpoint.conference();
        let is_ours = |ssrc| own_ssrcs.contains(conference, ssrc);
        // At most an active, a learnt source and two digits come out of one packet.
        let mut told = [None; EVENTS_PER_PACKET];
        let mut count = 0;
        let result = endpoint.receive(datagram, is_ours, counters, |kind| {
            if let Some(place) = told.get_mut(count) {
                *place = Some(kind);
                count += 1;
            }
        });
        for kind in told.into_iter().flatten() {
            events.push(
                Event {
                    conference,
                    endpoint: Some(at),
                    kind,
                },
                counters,
            );
        }
        result
    }
}

const EVENTS_PER_PACKET: usize = 4;
