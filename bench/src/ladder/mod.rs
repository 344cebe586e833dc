//! `mixminus-bench engine`: what a leg costs inside the engine, without packet I/O: ladders over
//! listeners, talkers and room sizes.

mod rig;

use clap::Args;
use mixer_engine::media::Codec;
use serde::Serialize;

use rig::Rig;

/// Options of `engine`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Ticks (20 ms of conference) measured per case
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pub ticks: u32,
    /// Codec of all legs: pcmu, pcma or l16
    #[arg(long, default_value = "pcmu", value_parser = codec)]
    pub codec: Codec,
    /// One load instead of the ladders: rooms of it
    #[arg(long, requires = "talkers", value_parser = clap::value_parser!(u32).range(1..=2_000))]
    pub rooms: Option<u32>,
    /// Talkers in each of its rooms
    #[arg(long, requires = "rooms", value_parser = clap::value_parser!(u32).range(0..=20_000))]
    pub talkers: Option<u32>,
    /// Listeners in each of its rooms
    #[arg(long, requires = "rooms", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=20_000))]
    pub listeners: u32,
    /// Core to pin to
    #[arg(long)]
    pub core: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn codec(name: &str) -> Result<Codec, String> {
    let known = Codec::ALL.into_iter().find(|codec| codec.name() == name);
    known.ok_or_else(|| format!("`{name}` is none of pcmu, pcma, l16"))
}

/// One load.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Load {
    /// Which ladder it belongs to.
    pub ladder: &'static str,
    /// Rooms.
    pub rooms: u32,
    /// Talkers per room.
    pub talkers: u32,
    /// Listeners per room; they send digital silence.
    pub listeners: u32,
}

/// What it cost, nanoseconds per leg and tick; the median over ticks.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    /// The load.
    #[serde(flatten)]
    pub load: Load,
    /// Taking one packet.
    pub receive_ns: f64,
    /// Mixing, encoding and writing one packet.
    pub tick_ns: f64,
    /// Both.
    pub total_ns: f64,
    /// Percent of a core for 1,000 such legs, packet I/O left out.
    pub percent_per_1000_legs: f64,
    /// Payloads encoded per tick and room.
    pub encodes_per_tick: f64,
}

/// The ladders.
pub const LOADS: &[Load] = &[
    Load {
        ladder: "size",
        rooms: 1,
        talkers: 4,
        listeners: 96,
    },
    Load {
        ladder: "size",
        rooms: 1,
        talkers: 4,
        listeners: 996,
    },
    Load {
        ladder: "size",
        rooms: 1,
        talkers: 4,
        listeners: 4_996,
    },
    Load {
        ladder: "size",
        rooms: 1,
        talkers: 4,
        listeners: 9_996,
    },
    Load {
        ladder: "listeners",
        rooms: 1,
        talkers: 1,
        listeners: 9,
    },
    Load {
        ladder: "listeners",
        rooms: 1,
        talkers: 1,
        listeners: 99,
    },
    Load {
        ladder: "listeners",
        rooms: 1,
        talkers: 1,
        listeners: 299,
    },
    Load {
        ladder: "listeners",
        rooms: 1,
        talkers: 3,
        listeners: 297,
    },
    Load {
        ladder: "listeners",
        rooms: 1,
        talkers: 3,
        listeners: 997,
    },
    Load {
        ladder: "talkers",
        rooms: 1,
        talkers: 2,
        listeners: 98,
    },
    Load {
        ladder: "talkers",
        rooms: 1,
        talkers: 10,
        listeners: 90,
    },
    Load {
        ladder: "talkers",
        rooms: 1,
        talkers: 50,
        listeners: 50,
    },
    Load {
        ladder: "talkers",
        rooms: 1,
        talkers: 100,
        listeners: 0,
    },
    Load {
        ladder: "rooms",
        rooms: 333,
        talkers: 3,
        listeners: 0,
    },
    Load {
        ladder: "rooms",
        rooms: 100,
        talkers: 10,
        listeners: 0,
    },
    Load {
        ladder: "rooms",
        rooms: 10,
        talkers: 100,
        listeners: 0,
    },
    Load {
        ladder: "rooms",
        rooms: 1,
        talkers: 1_000,
        listeners: 0,
    },
];

/// Runs all ladders.
#[must_use]
pub fn run(options: &Options) -> Vec<Cost> {
    let own = options.rooms.zip(options.talkers).map(|(rooms, talkers)| Load {
        ladder: "own",
        rooms,
        talkers,
        listeners: options.listeners,
    });
    let loads = own.as_ref().map_or(LOADS, std::slice::from_ref);
    loads
        .iter()
        .map(|&load| Rig::new(load, options.codec).measure(options.ticks))
        .collect()
}

/// The costs as a table for people.
#[must_use]
pub fn table(costs: &[Cost]) -> String {
    let mut text = String::from(
        "                                  ns per leg and tick            % of a core  encodes\n\
         ladder     rooms talkers listeners  receive    tick   total   per 1,000 legs per tick\n",
    );
    for cost in costs {
        let Load {
            ladder,
            rooms,
            talkers,
            listeners,
        } = cost.load;
        let Cost {
            receive_ns,
            tick_ns,
            total_ns,
            percent_per_1000_legs,
            encodes_per_tick,
            ..
        } = cost;
        text.push_str(&format!(
            "{ladder:<10} {rooms:>5} {talkers:>7} {listeners:>9} {receive_ns:>8.0} {tick_ns:>7.0} {total_ns:>7.0} \
             {percent_per_1000_legs:>16.2} {encodes_per_tick:>8.1}\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leg_of_a_load_is_sent_to_and_listeners_share_one_encode() {
        let load = Load {
            ladder: "test",
            rooms: 2,
            talkers: 3,
            listeners: 20,
        };
        let mut rig = Rig::new(load, Codec::Pcmu);
        let cost = rig.measure(20);
        assert!(rig.sent_everybody(), "every leg gets one packet per tick");
        assert!((cost.encodes_per_tick - 4.0).abs() < 0.5, "{cost:?}");
        assert!(cost.total_ns > 0.0);
    }
}
