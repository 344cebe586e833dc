//! Phones with SRTP, and keys for them.

use mixer_engine::command::ConferenceIndex;
use mixer_engine::engine::{Endpoint, EndpointSetup};
use mixer_engine::media::MediaPlan;
use mixer_engine::srtp::{MasterKey, Receiving, Sending, Srtp, Suite};

use super::{Lab, Noise};

impl Lab {
    /// Adds an endpoint whose phone speaks SRTP.
    pub(crate) fn add_secure(&mut self, conference: ConferenceIndex, plan: MediaPlan, suite: Suite) -> usize {
        let setup = self.setup(Some(plan));
        self.add_secure_with(conference, plan, setup, suite)
    }

    /// Likewise, but as `setup` says.
    pub(crate) fn add_secure_with(
        &mut self,
        conference: ConferenceIndex,
        plan: MediaPlan,
        setup: EndpointSetup,
        suite: Suite,
    ) -> usize {
        let keys = keys(suite, self.phones.len(), 0);
        let phone = self.add_box(conference, plan, Endpoint::with_srtp(setup, keys));
        self.give_keys(phone, suite, 0);
        phone
    }

    /// Gives a phone the other ends of [`keys`].
    pub(crate) fn give_keys(&mut self, phone: usize, suite: Suite, generation: u8) {
        let number = self.phones[phone].at.0;
        self.give_keys_to_send(phone, suite, generation);
        let receiving = Receiving::new(master(suite, phone, generation, true));
        self.ears.keys.insert(number, receiving);
    }

    /// Likewise, but only what it sends begins anew.
    pub(crate) fn give_keys_to_send(&mut self, phone: usize, suite: Suite, generation: u8) {
        self.phones[phone].keys = Some(Sending::new(master(suite, phone, generation, false)));
    }
}

/// Keys of the engine's end for the `number`th phone.
pub(crate) fn keys(suite: Suite, number: usize, generation: u8) -> Srtp {
    Srtp::new(
        master(suite, number, generation, false),
        master(suite, number, generation, true),
    )
}

fn master(suite: Suite, number: usize, generation: u8, ours: bool) -> MasterKey {
    let mut noise = Noise(1 + number as u64 * 1_000 + u64::from(generation) * 2 + u64::from(ours));
    let bytes = suite.key_bytes() + suite.salt_bytes();
    let key: Vec<u8> = (0..bytes).map(|_| noise.next().to_be_bytes()[1]).collect();
    MasterKey::new(suite, &key).unwrap()
}
