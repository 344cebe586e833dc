//! Where received datagrams go: a recorder that looks on, then the engine.

use mixer_engine::engine::Engine;
use mixer_engine::packet::Datagram;

use crate::io::{Intake, cache};
use crate::replay::Recorder;

pub(super) struct Inlet<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) recorder: &'a mut Option<Box<Recorder>>,
}

impl Intake for Inlet<'_> {
    #[inline]
    fn announce(&mut self, local_port: u16) {
        if let Some(entry) = self.engine.entry_of(local_port) {
            cache::prefetch(entry);
        }
    }

    #[inline]
    fn expect(&mut self, local_port: u16) {
        if let Some(place) = self.engine.place_of(local_port) {
            cache::prefetch(place);
        }
    }

    #[inline]
    fn take(&mut self, datagram: &Datagram<'_>) {
        if let Some(recorder) = self.recorder {
            recorder.datagram(datagram);
        }
        self.engine.handle_datagram(datagram);
    }
}
