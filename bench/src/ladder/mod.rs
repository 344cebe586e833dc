//! `mixminus-bench engine`: what a leg costs inside the engine, without packet I/O: ladders over
//! listeners, talkers and room sizes, the parts of a leg's tick by themselves, and several engines at once.

mod loads;
mod parts;
mod plot;
mod promises;
mod record;
mod rig;
mod shared;
mod workers;

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use mixer_engine::media::Codec;
use serde::Serialize;

pub use loads::Load;
pub use parts::Part;
pub use promises::Promise;
pub use record::{Record, RecordError};
pub use workers::{Gain, WorkersError};

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
    #[arg(long, requires = "talkers", value_parser = clap::value_parser!(u32).range(1..=6_000))]
    pub rooms: Option<u32>,
    /// Talkers in each of its rooms
    #[arg(long, requires = "rooms", value_parser = clap::value_parser!(u32).range(0..=20_000))]
    pub talkers: Option<u32>,
    /// Listeners in each of its rooms
    #[arg(long, requires = "rooms", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=20_000))]
    pub listeners: u32,
    /// Measure the parts of a leg's tick by themselves instead
    #[arg(long, conflicts_with_all = ["rooms", "workers"])]
    pub parts: bool,
    /// Measure so many engines at once instead, each with the whole load on a core of its own, against one alone
    #[arg(long, value_name = "WORKERS", value_parser = clap::value_parser!(u8).range(2..=64))]
    pub workers: Option<u8>,
    /// Measure all of it, with two engines at once, and write engine.json and engine.svg to this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["rooms", "parts", "workers"])]
    pub write: Option<PathBuf>,
    /// Core to pin to
    #[arg(long, conflicts_with = "workers")]
    pub core: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn codec(name: &str) -> Result<Codec, String> {
    let known = Codec::ALL.into_iter().find(|codec| codec.name() == name);
    known.ok_or_else(|| format!("`{name}` is none of pcmu, pcma, l16"))
}

/// What a load cost, nanoseconds per leg and tick; the median over ticks.
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
    /// Microseconds that 99 of 100 ticks do not exceed: one packet taken from every leg and one sent to it.
    pub whole_p99_us: f64,
    /// The longest such tick, microseconds.
    pub whole_longest_us: f64,
}

/// What was measured; what was not is empty.
#[derive(Debug, Serialize)]
pub struct Results {
    /// Codec of all legs.
    pub codec: &'static str,
    /// Ticks measured per load.
    pub ticks: u32,
    /// Loads, one engine each.
    pub costs: Vec<Cost>,
    /// Parts of a leg's tick.
    pub parts: Vec<Part>,
    /// Several engines at once.
    pub gains: Vec<Gain>,
    /// What is promised of it.
    pub promises: Vec<Promise>,
}

/// Runs what the options ask for.
///
/// # Errors
/// When several engines are asked for and there is no core for each.
pub fn run(options: &Options) -> Result<Results, WorkersError> {
    let (codec, ticks) = (options.codec, options.ticks);
    let own = options.rooms.zip(options.talkers).map(|(rooms, talkers)| Load {
        ladder: "own",
        rooms,
        talkers,
        listeners: options.listeners,
    });
    let all = options.write.is_some();
    let loads = match (&own, options.parts || options.workers.is_some()) {
        (_, true) => &[],
        (Some(own), false) => std::slice::from_ref(own),
        (None, false) => loads::LOADS,
    };
    let costs = loads.iter().map(|&load| Rig::new(load, codec).measure(ticks));
    let costs: Vec<Cost> = costs.collect();
    let parts = if options.parts || all {
        parts::measure(codec)
    } else {
        Vec::new()
    };
    let gains = match options.workers.or(all.then_some(2)) {
        Some(workers) => {
            let mut gains = workers::measure(usize::from(workers), own, codec, ticks)?;
            if own.is_none() && workers == 2 {
                gains.extend(shared::measure(codec, ticks)?);
            }
            gains
        }
        None => Vec::new(),
    };
    Ok(Results {
        codec: codec.name(),
        ticks,
        promises: promises::judge(&costs, &gains),
        costs,
        parts,
        gains,
    })
}

impl Results {
    /// Whether every promise that was looked at is kept.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.promises.iter().all(|promise| promise.kept)
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = [
            (self.costs.is_empty(), table(&self.costs)),
            (self.parts.is_empty(), parts::table(&self.parts)),
            (self.gains.is_empty(), workers::table(&self.gains)),
            (self.promises.is_empty(), promises::table(&self.promises)),
        ];
        let tables: Vec<_> = tables
            .into_iter()
            .filter(|(empty, _)| !empty)
            .map(|(_, table)| table)
            .collect();
        f.write_str(tables.join("\n").trim_end())
    }
}

/// The costs as a table for people.
fn table(costs: &[Cost]) -> String {
    let mut text = String::from(
        "                                       ns per leg and tick            % of a core  encodes    whole tick, us\n\
         ladder          rooms talkers listeners  receive    tick   total   per 1,000 legs per tick     p99  longest\n",
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
            whole_p99_us,
            whole_longest_us,
            ..
        } = cost;
        text.push_str(&format!(
            "{ladder:<15} {rooms:>5} {talkers:>7} {listeners:>9} {receive_ns:>8.0} {tick_ns:>7.0} {total_ns:>7.0} \
             {percent_per_1000_legs:>16.2} {encodes_per_tick:>8.1} {whole_p99_us:>7.0} {whole_longest_us:>8.0}\n"
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
        let whole_us = cost.total_ns * f64::from(load.legs()) / 1_000.0;
        assert!(
            cost.whole_longest_us >= cost.whole_p99_us && cost.whole_p99_us > 0.5 * whole_us,
            "{cost:?}"
        );
    }
}
