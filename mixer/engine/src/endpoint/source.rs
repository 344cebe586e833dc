//! Which source address an endpoint accepts RTP from ("RTP bleed" rules, spec section 6).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::media::{MediaPlan, SourceRule};
use crate::time::Timestamp;

/// An address and port in one form: IPv4 and IPv4-mapped IPv6 are equal, scope and flow label do
/// not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Peer {
    address: u128,
    port: u16,
}

impl Peer {
    fn new(source: SocketAddr) -> Self {
        Self {
            address: address(source.ip()),
            port: source.port(),
        }
    }
}

fn address(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// What the source rule says of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Accepted.
    Accepted,
    /// Accepted, and its source is locked from now on.
    Learnt,
    /// One of the first packets of a source that may be learnt.
    Probation,
    /// Not accepted.
    Refused,
}

/// What learning looks at in a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sighting {
    /// RTP SSRC.
    pub(crate) ssrc: u32,
    /// RTP sequence number.
    pub(crate) sequence: u16,
    /// Whether its payload type was negotiated.
    pub(crate) known_payload_type: bool,
    /// When it came.
    pub(crate) at: Timestamp,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename = "LearningCandidate")]
struct Candidate {
    peer: Peer,
    ssrc: u32,
    next_sequence: u16,
    seen: u8,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Learning {
    allowed: [Option<IpAddr>; 4],
    until: Timestamp,
    candidate: Option<Candidate>,
}

/// State of the source rule of one endpoint.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "SourceFilter")]
pub(crate) struct Source {
    accepted: Option<Peer>,
    /// `learning` may be going on.
    #[serde(skip, default = "maybe")]
    may_learn: bool,
    learning: Box<Option<Learning>>,
}

fn maybe() -> bool {
    true
}

/// How long a source may be learnt after its media was set.
const LEARNING_TIME: Duration = Duration::from_secs(3);
/// Consistent packets that lock a source.
const CONSISTENT: u8 = 3;

impl Source {
    /// Accepts nobody (allocates).
    pub(crate) fn nobody() -> Self {
        Self {
            accepted: None,
            may_learn: false,
            learning: Box::new(None),
        }
    }

    /// Starts the rule of a new media description.
    pub(crate) fn follow(&mut self, media: &MediaPlan, now: Timestamp) {
        *self.learning = match media.source {
            SourceRule::Strict => None,
            SourceRule::Learn { allowed } => Some(Learning {
                allowed,
                until: now.after(LEARNING_TIME),
                candidate: None,
            }),
        };
        self.may_learn = self.learning.is_some();
        self.accepted = Some(Peer::new(media.remote));
    }

    /// Whether a packet from there may be accepted at all, now or once it has proved itself: what needs no look at
    /// its content.
    pub(crate) fn may_be(&self, source: SocketAddr, at: Timestamp) -> bool {
        let peer = Peer::new(source);
        let learning = self.learning.as_ref().as_ref().filter(|_| self.may_learn);
        match learning.filter(|learning| at <= learning.until) {
            Some(learning) => {
                let mut allowed = learning.allowed.iter().flatten();
                allowed.any(|&ip| address(ip) == peer.address)
            }
            None => self.accepted == Some(peer),
        }
    }

    /// Judges one packet. While a source is being learnt nothing else is accepted; when the time is
    /// over without a lock, the rule is strict.
    pub(crate) fn admit(&mut self, source: SocketAddr, seen: Sighting) -> Admission {
        let peer = Peer::new(source);
        let learning = if self.may_learn {
            (*self.learning).as_mut()
        } else {
            None
        };
        let Some(learning) = learning else {
            self.may_learn = false;
            return if self.accepted == Some(peer) {
                Admission::Accepted
            } else {
                Admission::Refused
            };
        };
        if seen.at > learning.until {
            *self.learning = None;
            return self.admit(source, seen);
        }
        let allowed = learning
            .allowed
            .iter()
            .flatten()
            .any(|&ip| address(ip) == peer.address);
        if !allowed {
            return Admission::Refused;
        }
        if !seen.known_payload_type {
            return Admission::Probation;
        }
        let count = match learning.candidate {
            Some(known)
                if known.peer == peer && known.ssrc == seen.ssrc && known.next_sequence == seen.sequence =>
            {
                known.seen + 1
            }
            Some(_) | None => 1,
        };
        if count >= CONSISTENT {
            self.accepted = Some(peer);
            *self.learning = None;
            return Admission::Learnt;
        }
        let next_sequence = seen.sequence.wrapping_add(1);
        learning.candidate = Some(Candidate {
            peer,
            ssrc: seen.ssrc,
            next_sequence,
            seen: count,
        });
        Admission::Probation
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Codec, Direction};

    fn media(source: SourceRule) -> MediaPlan {
        MediaPlan {
            remote: "192.0.2.1:4000".parse().unwrap(),
            direction: Direction {
                send: true,
                receive: true,
            },
            send_codec: Codec::Pcmu,
            send_payload_type: 0,
            send_ptime_ms: 20,
            receive: [None; 8],
            telephone_event: None,
            source,
        }
    }

    fn following(media: &MediaPlan) -> Source {
        let mut source = Source::nobody();
        source.follow(media, Timestamp(0));
        source
    }

    fn learn() -> SourceRule {
        let allowed = [Some("198.51.100.7".parse().unwrap()), None, None, None];
        SourceRule::Learn { allowed }
    }

    fn seen(ssrc: u32, sequence: u16, at_ms: u64) -> Sighting {
        Sighting {
            ssrc,
            sequence,
            known_payload_type: true,
            at: Timestamp(at_ms * 1_000_000),
        }
    }

    fn at(source: &str) -> SocketAddr {
        source.parse().unwrap()
    }

    #[test]
    fn strict_means_exactly_this_address_and_port() {
        let mut source = following(&media(SourceRule::Strict));
        assert_eq!(
            source.admit(at("192.0.2.1:4000"), seen(1, 1, 0)),
            Admission::Accepted
        );
        assert_eq!(
            source.admit(at("[::ffff:192.0.2.1]:4000"), seen(1, 2, 0)),
            Admission::Accepted
        );
        assert_eq!(
            source.admit(at("192.0.2.1:4001"), seen(1, 3, 0)),
            Admission::Refused
        );
        assert_eq!(
            source.admit(at("192.0.2.2:4000"), seen(1, 3, 0)),
            Admission::Refused
        );
        assert_eq!(
            source.admit(at("[::192.0.2.1]:4000"), seen(1, 3, 0)),
            Admission::Refused
        );
    }

    #[test]
    fn three_consistent_packets_are_learnt_and_locked() {
        let mut source = following(&media(learn()));
        let nat = at("198.51.100.7:61000");
        assert_eq!(source.admit(nat, seen(9, u16::MAX, 10)), Admission::Probation);
        assert_eq!(source.admit(nat, seen(9, 0, 30)), Admission::Probation);
        assert_eq!(source.admit(nat, seen(9, 1, 50)), Admission::Learnt);
        assert_eq!(source.admit(nat, seen(9, 2, 70)), Admission::Accepted);
        for sequence in 3..9 {
            let other = at("198.51.100.7:61001");
            assert_eq!(source.admit(other, seen(9, sequence, 90)), Admission::Refused);
        }
    }

    #[test]
    fn inconsistent_packets_are_not_learnt() {
        let mut source = following(&media(learn()));
        let nat = at("198.51.100.7:61000");
        for (ssrc, sequence) in [(9, 1), (9, 2), (9, 4), (8, 5), (9, 6), (9, 7)] {
            assert_eq!(source.admit(nat, seen(ssrc, sequence, 10)), Admission::Probation);
        }
        let unknown = Sighting {
            known_payload_type: false,
            ..seen(9, 8, 10)
        };
        assert_eq!(source.admit(nat, unknown), Admission::Probation);
        assert_eq!(
            source.admit(nat, seen(9, 8, 10)),
            Admission::Learnt,
            "6, 7 and 8 are three"
        );
    }

    #[test]
    fn only_allowed_addresses_within_three_seconds() {
        let mut source = following(&media(learn()));
        for sequence in 0..5 {
            assert_eq!(
                source.admit(at("203.0.113.9:61000"), seen(9, sequence, 10)),
                Admission::Refused
            );
        }
        let nat = at("198.51.100.7:61000");
        for sequence in 0..5 {
            assert_eq!(source.admit(nat, seen(9, sequence, 3_001)), Admission::Refused);
        }
        assert_eq!(
            source.admit(at("192.0.2.1:4000"), seen(9, 5, 3_002)),
            Admission::Accepted
        );
    }
}
