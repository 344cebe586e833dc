//! What the fuzz target `srtp_unprotect` does with its input; shared with the test that replays its corpus.

use mixer_engine::srtp::{Inbound, MasterKey, OVERHEAD_MAX, Receiving, Sending, Suite, UnprotectError};
use mixer_engine::wire::rtp::RtpRepr;

/// A leg of the suite that the first byte chooses, and its peer. Then operations, a byte each: 0 an RTP packet of the peer
/// arrives, 1 the last one again, 2 an RTCP packet, 3 both take new keys, 4 the last packet with the byte changed that the
/// next two bytes say; any other says how many of the following bytes arrive, as RTP and as RTCP.
///
/// Whatever happens: what the peer protected is taken once, nothing else is taken, and what is refused is unchanged.
pub(crate) fn exercise(input: &[u8]) {
    let Some((first, mut rest)) = input.split_first() else {
        return;
    };
    let suite = Suite::ALL[usize::from(*first) % Suite::ALL.len()];
    let mut peer = Peer::new(suite);
    while let [operation, after @ ..] = rest {
        rest = after;
        match operation {
            0 => peer.send(),
            1 => peer.again(),
            2 => peer.report(),
            3 => peer.rekey(),
            4 => {
                let ([place, change], after) = rest
                    .split_first_chunk()
                    .map_or(([0, 1], rest), |(two, after)| (*two, after));
                rest = after;
                peer.bend(usize::from(place), change);
            }
            length => {
                let (bytes, after) = rest.split_at(usize::from(*length).min(rest.len()));
                rest = after;
                peer.invent(bytes);
            }
        }
    }
}

struct Peer {
    suite: Suite,
    generation: u8,
    keys: Sending,
    leg: Inbound,
    sequence: u16,
    last: Vec<u8>,
}

impl Peer {
    fn new(suite: Suite) -> Self {
        Self {
            suite,
            generation: 0,
            keys: Sending::new(key(suite, 0)),
            leg: Inbound::new(Some(Box::new(Receiving::new(key(suite, 0))))),
            sequence: 65_500,
            last: Vec::new(),
        }
    }

    fn send(&mut self) {
        let header = RtpRepr {
            payload_type: 0,
            marker: false,
            sequence: self.sequence,
            timestamp: 0,
            ssrc: 7,
            csrc: &[],
        };
        let mut plain = vec![0x55; 12 + usize::from(self.sequence % 200)];
        assert_eq!(header.emit(&mut plain), 12);
        let mut packet = plain.clone();
        packet.resize(plain.len() + OVERHEAD_MAX, 0);
        let length = self.keys.protect(&mut packet, plain.len()).expect("room");
        packet.truncate(length);
        self.sequence = self.sequence.wrapping_add(1);
        if self.sequence == 0 {
            self.keys.roll_over();
        }
        self.last.clone_from(&packet);
        let length = self.leg.unprotect(&mut packet).expect("the peer's");
        assert_eq!(packet[..length], plain);
    }

    fn again(&mut self) {
        if !self.last.is_empty() {
            let mut packet = self.last.clone();
            assert!(self.leg.unprotect(&mut packet).is_err(), "twice");
            assert_eq!(packet, self.last);
        }
    }

    fn report(&mut self) {
        let plain = [0x80, 201, 0, 1, 0, 0, 0, 7];
        let mut packet = plain.to_vec();
        packet.resize(plain.len() + OVERHEAD_MAX, 0);
        let length = self.keys.protect_rtcp(&mut packet, plain.len()).expect("room");
        let mut again = packet[..length].to_vec();
        let length = self
            .leg
            .unprotect_rtcp(&mut packet[..length])
            .expect("the peer's");
        assert_eq!(packet[..length], plain);
        assert_eq!(self.leg.unprotect_rtcp(&mut again), Err(UnprotectError::Replayed));
    }

    fn rekey(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        let receiving = Receiving::new(key(self.suite, self.generation));
        drop(self.leg.follow(Some(Box::new(receiving)), true));
        self.keys = Sending::new(key(self.suite, self.generation));
        // Under the old keys, still known, it is a replay; under none it must not be taken.
        self.again();
    }

    fn bend(&mut self, place: usize, change: u8) {
        let mut packet = self.last.clone();
        let length = packet.len().max(1);
        if let Some(byte) = packet.get_mut(place % length) {
            *byte ^= change.max(1);
            let bent = packet.clone();
            assert!(self.leg.unprotect(&mut packet).is_err(), "changed");
            assert_eq!(packet, bent);
        }
    }

    fn invent(&mut self, bytes: &[u8]) {
        let mut packet = bytes.to_vec();
        assert!(self.leg.unprotect(&mut packet).is_err(), "invented");
        assert!(self.leg.unprotect_rtcp(&mut packet).is_err(), "invented");
        assert_eq!(packet, bytes);
    }
}

fn key(suite: Suite, generation: u8) -> MasterKey {
    let bytes: Vec<u8> = (0..suite.key_bytes() + suite.salt_bytes())
        .map(|n| u8::try_from(n).expect("short") ^ generation.rotate_left(3))
        .collect();
    MasterKey::new(suite, &bytes).expect("its suite's length")
}
