//! RTP ports of one worker: random even ports, and a quarantine after release so that late packets
//! of an ended call never reach a new one (spec, media 6, rule 5). The odd port above each is kept
//! for RTCP.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use mixer_engine::time::Timestamp;

use super::random::Random;

/// Free and resting ports of one block.
#[derive(Debug)]
pub(crate) struct PortPool {
    free: Vec<u16>,
    /// Released ports with the time from which they may be used again, earliest first.
    resting: VecDeque<(Timestamp, u16)>,
}

/// Time a released port rests.
pub(crate) const QUARANTINE: Duration = Duration::from_secs(30);

/// Ports tried for one that suits: enough for some queues; one that does not costs a hand-off.
const SUITING_TRIES: u32 = 64;

/// No port is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoPort {
    /// Time until one stops resting; absent when all are in use.
    pub(crate) wait: Option<Duration>,
}

impl PortPool {
    /// All even ports of the block whose odd neighbour lies inside as well.
    pub(crate) fn new(first: u16, last: u16) -> Self {
        let free = (first..last).filter(|port| port % 2 == 0).collect();
        Self {
            free,
            resting: VecDeque::new(),
        }
    }

    /// Ports that rest, each with its time.
    pub(crate) fn resting_ports(&self) -> impl Iterator<Item = (Timestamp, u16)> {
        self.resting.iter().copied()
    }

    /// Takes over, in a pool not used yet, which ports are in use and which rest. Resting ones
    /// outside of the block are forgotten.
    ///
    /// # Errors
    /// A port in use lies outside of the block.
    pub(crate) fn restore(&mut self, used: &HashSet<u16>, resting: Vec<(Timestamp, u16)>) -> Result<(), u16> {
        let ours: HashSet<u16> = self.free.iter().copied().collect();
        if let Some(outside) = used.difference(&ours).min() {
            return Err(*outside);
        }
        self.resting = resting
            .into_iter()
            .filter(|(_, port)| ours.contains(port))
            .collect();
        let rests: HashSet<u16> = self.resting.iter().map(|(_, port)| *port).collect();
        self.free
            .retain(|port| !used.contains(port) && !rests.contains(port));
        Ok(())
    }

    /// Takes a random free port, of a few that are tried the first that `suits`.
    pub(crate) fn take(
        &mut self,
        now: Timestamp,
        random: &mut Random,
        suits: impl Fn(u16) -> bool,
    ) -> Result<u16, NoPort> {
        self.wake(now);
        if self.free.is_empty() {
            return Err(NoPort {
                wait: self.resting.front().map(|(until, _)| until.since(now)),
            });
        }
        let mut place = random.below(self.free.len());
        for _ in 0..SUITING_TRIES {
            if self.free.get(place).is_some_and(|port| suits(*port)) {
                break;
            }
            place = random.below(self.free.len());
        }
        Ok(self.free.swap_remove(place))
    }

    /// Lets a port rest.
    pub(crate) fn release(&mut self, now: Timestamp, port: u16) {
        self.resting.push_back((now.after(QUARANTINE), port));
    }

    /// Ports that could be taken now.
    pub(crate) fn free(&mut self, now: Timestamp) -> usize {
        self.wake(now);
        self.free.len()
    }

    /// Ports that rest.
    pub(crate) fn resting(&self) -> usize {
        self.resting.len()
    }

    fn wake(&mut self, now: Timestamp) {
        while let Some(&(until, port)) = self.resting.front()
            && until <= now
        {
            self.resting.pop_front();
            self.free.push(port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000_000)
    }

    #[test]
    fn only_even_ports_with_room_for_rtcp() {
        let mut ports = PortPool::new(10_001, 10_006);
        let mut random = Random::seeded(7);
        let mut taken = vec![
            ports.take(at(0), &mut random, |_| true).unwrap(),
            ports.take(at(0), &mut random, |_| true).unwrap(),
        ];
        taken.sort_unstable();
        assert_eq!(taken, [10_002, 10_004]);
        assert_eq!(
            ports.take(at(0), &mut random, |_| true),
            Err(NoPort { wait: None })
        );
    }

    #[test]
    fn a_released_port_rests_thirty_seconds() {
        let mut ports = PortPool::new(10_000, 10_001);
        let mut random = Random::seeded(7);
        let port = ports.take(at(0), &mut random, |_| true).unwrap();
        ports.release(at(5), port);
        assert_eq!(
            ports.take(at(34), &mut random, |_| true),
            Err(NoPort {
                wait: Some(Duration::from_secs(1))
            })
        );
        assert_eq!((ports.free(at(34)), ports.resting()), (0, 1));
        assert_eq!(ports.take(at(35), &mut random, |_| true), Ok(port));
    }

    #[test]
    fn a_port_that_suits_is_preferred_and_any_other_will_do() {
        let mut ports = PortPool::new(10_000, 10_199);
        let mut random = Random::seeded(7);
        let eighth = |port| port % 16 == 0;
        let taken: Vec<u16> = (0..8)
            .map(|_| ports.take(at(0), &mut random, eighth).unwrap())
            .collect();
        assert!(taken.iter().all(|port| eighth(*port)), "{taken:?}");
        assert!(ports.take(at(0), &mut random, |_| false).is_ok());
    }

    #[test]
    fn the_order_is_not_sequential() {
        let mut ports = PortPool::new(10_000, 10_199);
        let mut random = Random::kernel().unwrap();
        let taken: Vec<u16> = (0..100)
            .map(|_| ports.take(at(0), &mut random, |_| true).unwrap())
            .collect();
        let neighbours = taken.windows(2).filter(|pair| pair[1] == pair[0] + 2).count();
        assert!(neighbours < 20, "{taken:?}");
    }

    proptest! {
        #[test]
        fn no_port_is_given_twice(seed: u64, steps in prop::collection::vec((any::<bool>(), 0u64..20), 1..200)) {
            let mut ports = PortPool::new(10_000, 10_031);
            let mut random = Random::seeded(seed);
            let mut taken: Vec<u16> = Vec::new();
            let mut now = 0;
            for (release, seconds) in steps {
                now += seconds;
                if release && !taken.is_empty() {
                    ports.release(at(now), taken.remove(0));
                } else if let Ok(port) = ports.take(at(now), &mut random, |_| true) {
                    prop_assert!(!taken.contains(&port));
                    taken.push(port);
                }
                prop_assert_eq!(ports.free(at(now)) + ports.resting() + taken.len(), 16);
            }
        }
    }
}
