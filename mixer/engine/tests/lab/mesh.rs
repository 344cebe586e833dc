//! Laboratories joined by wires: mixers at several sites, with a conference each.

use std::net::SocketAddr;

use mixer_engine::command::ConferenceIndex;
use mixer_engine::counters::DropReason;
use mixer_engine::media::Codec;
use mixer_engine::wire::rtp::RtpRepr;

use super::{Lab, PORT_FIRST, Packet, decode, noise};

/// The first conference of every mixer.
pub(crate) const HERE: ConferenceIndex = ConferenceIndex(0);

/// A wire from what one leg is sent to where another one receives.
pub(crate) struct Wire {
    pub(crate) from: (usize, usize),
    pub(crate) to: (usize, usize),
    pub(crate) delay_ms: u64,
    pub(crate) carried: usize,
}

/// A datagram under way.
pub(crate) struct Flying {
    due: u64,
    site: usize,
    port: u16,
    source: SocketAddr,
    bytes: Vec<u8>,
}

/// Mixers at several sites, with a conference each, and what joins them.
pub(crate) struct Mesh {
    pub(crate) sites: Vec<Lab>,
    pub(crate) wires: Vec<Wire>,
    flying: Vec<Flying>,
}

impl Mesh {
    pub(crate) fn new(sites: usize, talkers: Option<u8>) -> Self {
        let site = |number: usize| {
            let mut lab = Lab::new();
            lab.first_ssrc += 0x1000 * u32::try_from(number).unwrap();
            lab.add_limited(u8::try_from(5 + 6 * number).unwrap(), talkers);
            lab
        };
        Self {
            sites: (0..sites).map(site).collect(),
            wires: Vec::new(),
            flying: Vec::new(),
        }
    }

    /// Lays wires both ways between two legs.
    pub(crate) fn wire(&mut self, one: (usize, usize), other: (usize, usize), delay_ms: u64) {
        for (from, to) in [(one, other), (other, one)] {
            self.wires.push(Wire {
                from,
                to,
                delay_ms,
                carried: 0,
            });
        }
    }

    /// Joins the conferences of two sites; gives both trunks.
    pub(crate) fn join(&mut self, one: usize, other: usize, codec: Codec) -> (usize, usize) {
        let ends = [one, other].map(|site| self.sites[site].add_trunk(HERE, codec));
        let delay_ms = 3 + 7 * u64::try_from(one + other).unwrap();
        self.wire((one, ends[0]), (other, ends[1]), delay_ms);
        (ends[0], ends[1])
    }

    pub(crate) fn join_all(&mut self) {
        for other in 1..self.sites.len() {
            for one in 0..other {
                self.join(one, other, Codec::L16);
            }
        }
    }

    pub(crate) fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            let now = self.sites[0].slot;
            self.flying.retain(|packet| {
                if packet.due <= now {
                    self.sites[packet.site].deliver(packet.port, packet.source, &packet.bytes);
                }
                packet.due > now
            });
            self.sites.iter_mut().for_each(Lab::step);
            for wire in &mut self.wires {
                let sent = &self.sites[wire.from.0].ears.heard[wire.from.1];
                let end = &self.sites[wire.to.0].phones[wire.to.1];
                for packet in &sent[wire.carried..] {
                    self.flying.push(Flying {
                        due: packet.slot + wire.delay_ms,
                        site: wire.to.0,
                        port: PORT_FIRST + u16::try_from(end.at.0).unwrap(),
                        source: end.address,
                        bytes: bytes_of(packet),
                    });
                }
                wire.carried = sent.len();
            }
        }
    }

    /// Forgets what was heard.
    pub(crate) fn clear(&mut self) {
        self.sites.iter_mut().for_each(Lab::clear);
        self.wires.iter_mut().for_each(|wire| wire.carried = 0);
    }

    /// Wired legs of a site.
    pub(crate) fn trunks(&self, site: usize) -> Vec<usize> {
        let ends = self.wires.iter().map(|wire| wire.from);
        ends.filter(|from| from.0 == site).map(|from| from.1).collect()
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.sites.iter().map(|site| site.dropped(reason)).sum()
    }
}

pub(crate) fn bytes_of(packet: &Packet) -> Vec<u8> {
    let header = RtpRepr {
        payload_type: packet.payload_type,
        marker: packet.marker,
        sequence: packet.sequence,
        timestamp: packet.timestamp,
        ssrc: packet.ssrc,
        csrc: &packet.csrc,
    };
    let mut bytes = vec![0; header.header_length()];
    assert_eq!(header.emit(&mut bytes), bytes.len());
    bytes.extend_from_slice(&packet.payload);
    bytes
}

/// A click: one frame of noise.
pub(crate) fn click(n: u64) -> [i16; 160] {
    if n == 100 { noise(3, n, 30_000) } else { [0; 160] }
}

/// Ticks at which a leg heard anything.
pub(crate) fn loud_ticks(lab: &Lab, leg: usize) -> Vec<u64> {
    let loud = |packet: &&Packet| decode(Codec::L16, &packet.payload) != [0; 160];
    lab.heard(leg)
        .iter()
        .filter(loud)
        .map(|packet| packet.slot / 20)
        .collect()
}

/// Lets the first phone of the first site click, and says how often every leg heard something.
pub(crate) fn clicks(mesh: &mut Mesh) -> Vec<Vec<usize>> {
    mesh.sites[0].say(0, click);
    mesh.run(6_000);
    let heard = |lab: &Lab| {
        (0..lab.phones.len())
            .map(|leg| loud_ticks(lab, leg).len())
            .collect()
    };
    mesh.sites.iter().map(heard).collect()
}

pub(crate) fn two_phones_each(sites: usize) -> Mesh {
    let mut mesh = Mesh::new(sites, None);
    for lab in &mut mesh.sites {
        lab.add(HERE, Codec::L16);
        lab.add(HERE, Codec::L16);
    }
    mesh
}
