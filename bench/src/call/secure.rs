//! SRTP of one leg with keys in SDP (RFC 4568): one suite is offered, and the focus must take it.
//!
//! Keys come from the run's seed, so that a run can be made again: they protect a load test and nothing else.

use mixer_engine::srtp::{MasterKey, OVERHEAD_MAX, Receiving, Sending, Suite};
use signaling_core::sdp::Crypto;
use signaling_core::srtp::{KeySeed, KeySource, SrtpKey, SrtpSuite};

use crate::seed::Seed;

/// Longest SRTP packet taken.
const PACKET_MAX: usize = 2_048;

/// Keys of one leg.
#[derive(Debug)]
pub struct Keys {
    suite: SrtpSuite,
    send: Sending,
    /// From the answer on.
    receive: Option<Receiving>,
    /// Value of our `a=crypto`.
    offer: String,
    scratch: Box<[u8; PACKET_MAX]>,
}

/// The suite of a name, for the command line.
///
/// # Errors
/// All names there are.
pub fn suite(name: &str) -> Result<SrtpSuite, String> {
    SrtpSuite::of_name(name).ok_or_else(|| {
        let names = SrtpSuite::ALL.map(SrtpSuite::name).join(", ");
        format!("`{name}` is none of {names}")
    })
}

impl Keys {
    /// Keys to offer.
    ///
    /// # Panics
    /// Never: the key has its suite's length.
    #[must_use]
    pub fn new(suite: SrtpSuite, seed: &mut Seed) -> Self {
        let mut bytes = [0; 32];
        for eight in bytes.chunks_exact_mut(8) {
            eight.copy_from_slice(&seed.bits().to_be_bytes());
        }
        let key = KeySource::new(&KeySeed(bytes)).draw(suite);
        Self {
            suite,
            send: Sending::new(master(suite, &key).expect("of its suite's length")),
            receive: None,
            offer: format!("1 {} inline:{}", suite.name(), *key.to_base64()),
            scratch: Box::new([0; PACKET_MAX]),
        }
    }

    /// Value of the `a=crypto` that is offered.
    #[must_use]
    pub fn offer(&self) -> &str {
        &self.offer
    }

    /// Takes the `a=crypto` of the answer.
    ///
    /// # Errors
    /// Why it is of no use.
    pub fn accept(&mut self, answer: Option<&str>) -> Result<(), String> {
        let crypto = Crypto::parse(answer.ok_or("answer without a=crypto")?)?;
        if (crypto.tag, crypto.suite) != (1, self.suite) {
            return Err("answer with an a=crypto that was not offered".to_owned());
        }
        let key = master(crypto.suite, &crypto.key).ok_or("answer with a key of another length")?;
        self.receive = Some(Receiving::new(key));
        Ok(())
    }

    /// Protects what was written; its new length.
    pub fn protect(&mut self, buffer: &mut [u8], length: usize) -> usize {
        let [_, _, high, low, ..] = buffer else { return 0 };
        let last = u16::from_be_bytes([*high, *low]) == u16::MAX;
        let protected = self.send.protect(buffer, length).unwrap_or(0);
        if last {
            self.send.roll_over();
        }
        protected
    }

    /// A packet as RTP; `None` when it is not authentic, or came twice.
    pub fn unprotect(&mut self, packet: &[u8]) -> Option<&[u8]> {
        let scratch = self.scratch.get_mut(..packet.len())?;
        scratch.copy_from_slice(packet);
        let length = self.receive.as_mut()?.unprotect(scratch).ok()?;
        scratch.get(..length)
    }
}

fn master(suite: SrtpSuite, key: &SrtpKey) -> Option<MasterKey> {
    let suite = match suite {
        SrtpSuite::AesCm128HmacSha1Tag80 => Suite::AesCm128HmacSha1Tag80,
        SrtpSuite::AesCm128HmacSha1Tag32 => Suite::AesCm128HmacSha1Tag32,
        SrtpSuite::AesCm256HmacSha1Tag80 => Suite::AesCm256HmacSha1Tag80,
        SrtpSuite::AeadAes128Gcm => Suite::AeadAes128Gcm,
        SrtpSuite::AeadAes256Gcm => Suite::AeadAes256Gcm,
    };
    MasterKey::new(suite, key.bytes()).ok()
}

const _: () = assert!(OVERHEAD_MAX < 64, "a transmit buffer has room for it");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_legs_understand_each_other_through_a_roll_over() {
        for suite in SrtpSuite::ALL {
            let (mut one, mut other) = (
                Keys::new(suite, &mut Seed::new(1)),
                Keys::new(suite, &mut Seed::new(2)),
            );
            assert_ne!(one.offer(), other.offer());
            assert_eq!(other.accept(Some(one.offer())), Ok(()));
            for sequence in [65_534u16, 65_535, 0, 1] {
                let mut buffer = [0x80; 100];
                buffer[2..4].copy_from_slice(&sequence.to_be_bytes());
                let length = one.protect(&mut buffer, 60);
                assert!(length > 60);
                assert_eq!(
                    other.unprotect(&buffer[..length]).map(<[u8]>::len),
                    Some(60),
                    "{suite:?} {sequence}"
                );
                assert_eq!(other.unprotect(&buffer[..length]), None, "a replay");
            }
            for answer in [
                None,
                Some("1 NULL inline:x"),
                Some(&*other.offer().replacen('1', "2", 1)),
            ] {
                assert!(one.accept(answer).is_err(), "{answer:?}");
            }
        }
    }
}
