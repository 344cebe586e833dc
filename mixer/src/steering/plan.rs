//! The planner: what to ask of a NIC so that a worker's ports arrive at its queue. Pure.

use std::fmt;

use super::toeplitz::{Fields, Rss};
use crate::placement::PortBlock;

/// A worker's ports and the queue it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Its local ports.
    pub block: PortBlock,
    /// Number of its receive queue.
    pub queue: u16,
}

/// Address family of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Udp4, Self::Udp6];

    /// As ethtool names the flow type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp4 => "udp4",
            Self::Udp6 => "udp6",
        }
    }
}

/// One ntuple rule: UDP to these destination ports goes to a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Address family.
    pub family: Family,
    /// Lowest destination port.
    pub port: u16,
    /// Bits of the port that do not matter (ethtool's mask): one less than a power of two.
    pub ignored: u16,
    /// Receive queue.
    pub queue: u16,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.port | self.ignored;
        let (family, port, queue) = (self.family.name(), self.port, self.queue);
        write!(f, "{family} ports {port}-{last} to queue {queue}")
    }
}

/// The fewest rules that match exactly the ports of `target`.
#[must_use]
pub fn rules(target: Target, family: Family) -> Vec<Rule> {
    let mut rules = Vec::new();
    let end = u32::from(target.block.last) + 1;
    let mut from = u32::from(target.block.first);
    while from < end {
        // The largest aligned power of two that begins here and does not go beyond the end.
        let room = (end - from).ilog2();
        let size = 1u32 << from.trailing_zeros().min(room).min(16);
        let (Ok(port), Ok(ignored)) = (u16::try_from(from), u16::try_from(size - 1)) else {
            break;
        };
        rules.push(Rule {
            family,
            port,
            ignored,
            queue: target.queue,
        });
        from += size;
    }
    rules
}

/// What is known of a driver. A refusal makes it less, and the next plan asks for less.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offer {
    /// ntuple rules; `Some` with the highest number of them, when that is known.
    pub ntuple: Option<usize>,
    /// RSS on the destination port alone may be asked for.
    pub port_hash: bool,
    /// RSS as it is set up, when it can be read and hashes by Toeplitz.
    pub rss: Option<Rss>,
}

/// What steers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// These rules.
    Ntuple(Vec<Rule>),
    /// RSS on the destination port alone; as it will be then.
    PortHash(Rss),
    /// The choice of local ports, by [`Rss::choose_port`].
    PortChoice(Rss),
    /// Hand-off between workers.
    HandOff,
}

impl Method {
    /// Short name, for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ntuple(_) => "ntuple",
            Self::PortHash(_) => "port-hash",
            Self::PortChoice(_) => "port-choice",
            Self::HandOff => "hand-off",
        }
    }
}

/// A method and why it is that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What steers.
    pub method: Method,
    /// Why not a better one.
    pub reason: String,
}

/// The best method for `targets` with what a driver offers.
#[must_use]
pub fn plan(targets: &[Target], offer: &Offer) -> Plan {
    let of = |method, reason: &str| Plan {
        method,
        reason: reason.to_owned(),
    };
    if targets.len() < 2 {
        return of(Method::HandOff, "one worker: every packet is its own");
    }
    let wanted = wanted_rules(targets);
    let mut refused = "no ntuple rules with this driver";
    if let Some(most) = offer.ntuple {
        if wanted.len() <= most {
            return of(Method::Ntuple(wanted), "ntuple rules on the destination port");
        }
        refused = "too few places for ntuple rules";
    }
    let several_queues = |rss: &&Rss| rss.table.iter().any(|queue| Some(queue) != rss.table.first());
    match offer.rss.as_ref().filter(several_queues) {
        Some(rss) if offer.port_hash => {
            let rss = Rss {
                udp4: Fields::LOCAL_PORT,
                udp6: Fields::LOCAL_PORT,
                ..rss.clone()
            };
            of(
                Method::PortHash(rss),
                &format!("{refused}; RSS on the destination port"),
            )
        }
        Some(rss) => of(
            Method::PortChoice(rss.clone()),
            &format!("{refused}, RSS fields stay; ports are chosen by the hash, which NAT defeats"),
        ),
        None => of(Method::HandOff, NOT_OFFERED),
    }
}

/// Every rule that steers `targets`.
#[must_use]
pub fn wanted_rules(targets: &[Target]) -> Vec<Rule> {
    let families = Family::ALL.into_iter();
    families
        .flat_map(|family| targets.iter().flat_map(move |target| rules(*target, family)))
        .collect()
}

/// Why nothing steers.
pub const NOT_OFFERED: &str = "not offered by this driver: hand-off between workers does it";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::port_blocks;
    use proptest::prelude::*;

    fn targets(workers: usize) -> Vec<Target> {
        let blocks = port_blocks(10_000, 32_767, workers).unwrap();
        (0u16..)
            .zip(blocks)
            .map(|(queue, block)| Target { block, queue })
            .collect()
    }

    fn rss() -> Rss {
        Rss {
            key: vec![0x6d; 40],
            table: vec![0, 1],
            udp4: Fields::FOUR_TUPLE,
            udp6: Fields::FOUR_TUPLE,
        }
    }

    #[test]
    fn a_block_is_few_rules() {
        let block = PortBlock {
            first: 10_240,
            last: 13_311,
        };
        let rule = |port, ignored| Rule {
            family: Family::Udp6,
            port,
            ignored,
            queue: 3,
        };
        assert_eq!(
            rules(Target { block, queue: 3 }, Family::Udp6),
            [rule(10_240, 0x7ff), rule(12_288, 0x3ff)]
        );
        assert_eq!(
            rule(10_240, 0x7ff).to_string(),
            "udp6 ports 10240-12287 to queue 3"
        );
        assert!(
            wanted_rules(&targets(8)).len() <= 2 * 8 * 8,
            "{:?}",
            wanted_rules(&targets(8))
        );
    }

    #[test]
    fn the_whole_port_space_is_one_rule() {
        let block = PortBlock {
            first: 0,
            last: u16::MAX,
        };
        assert_eq!(
            rules(Target { block, queue: 0 }, Family::Udp4),
            [Rule {
                family: Family::Udp4,
                port: 0,
                ignored: u16::MAX,
                queue: 0
            }]
        );
    }

    proptest! {
        #[test]
        fn rules_match_every_port_of_the_block_once_and_no_other(first: u16, length: u16) {
            let block = PortBlock { first, last: first.saturating_add(length) };
            let rules = rules(Target { block, queue: 1 }, Family::Udp4);
            for port in 0..=u16::MAX {
                let hits = rules.iter().filter(|rule| port & !rule.ignored == rule.port).count();
                prop_assert_eq!(hits, usize::from(block.contains(port)), "port {}", port);
            }
            prop_assert!(rules.len() <= 30, "a range of 16 bits needs 2 * 16 - 2 at most");
        }
    }

    #[test]
    fn the_best_offer_is_taken() {
        let two = targets(2);
        let offer = |ntuple, port_hash, rss| Offer {
            ntuple,
            port_hash,
            rss,
        };
        let method = |offer: &Offer| plan(&two, offer).method.name();
        assert_eq!(method(&offer(Some(usize::MAX), true, Some(rss()))), "ntuple");
        assert_eq!(method(&offer(Some(3), true, Some(rss()))), "port-hash");
        assert_eq!(method(&offer(None, true, Some(rss()))), "port-hash");
        assert_eq!(method(&offer(None, false, Some(rss()))), "port-choice");
        assert_eq!(method(&Offer::default()), "hand-off");
        let one_queue = Rss {
            table: vec![0; 128],
            ..rss()
        };
        assert_eq!(
            plan(&two, &offer(None, false, Some(one_queue))).reason,
            NOT_OFFERED
        );
        assert_eq!(
            plan(&targets(1), &offer(Some(9), true, None)).method,
            Method::HandOff
        );
    }
}
