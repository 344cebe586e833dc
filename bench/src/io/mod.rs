//! `mixminus-bench io`: packet I/O without an engine, the limit that a mixer's cost is measured against.
//!
//! `echo` sends every datagram back through the mixer's own backends and in the mixer's turns; `load` is the other end.

mod echo;
mod load;
mod stream;

use std::net::{IpAddr, Ipv4Addr};

use clap::{Args, Subcommand};
use mixer::config::{BackendChoice, XdpMode};
use mixer::placement::PortBlock;
use mixer_engine::time::{Slot, Timestamp};

use crate::napi::NapiError;
use crate::open::{OpenError, backend, ports, xdp_mode};
use crate::process::ProcessError;
pub use echo::{EchoReport, run as echo};
pub use load::{LoadReport, run as load};

/// What `io` can do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Send every datagram back to where it came from, and tell what one costs
    Echo(EchoOptions),
    /// Send RTP to an echo and count what comes back; exit code 1 when more than 0.1 % is lost
    Load(LoadOptions),
    /// Print the process ids of an interface's NAPI threads, one a line
    Napi {
        /// Interface, in the network namespace of this process
        interface: String,
    },
}

/// Options of `io echo`.
#[derive(Debug, Clone, Args)]
pub struct EchoOptions {
    /// Packet I/O: uring, xdp or xdp-tx
    #[arg(long, default_value = "uring", value_parser = backend)]
    pub backend: BackendChoice,
    /// Interface of the XDP backends
    #[arg(long)]
    pub interface: Option<String>,
    /// Address to receive on
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub address: IpAddr,
    /// Ports FIRST-LAST; flows are on the even ones
    #[arg(long, default_value = "20000-29999", value_parser = ports)]
    pub ports: PortBlock,
    /// Flows to open
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=8_192))]
    pub flows: u32,
    /// Core to pin to
    #[arg(long)]
    pub core: Option<usize>,
    /// Measured seconds, from one second after the first packet on
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,
    /// Where the XDP program runs: driver or skb
    #[arg(long, default_value = "driver", value_parser = xdp_mode)]
    pub xdp_mode: XdpMode,
    /// Interface whose NAPI threads' time is added: what the kernel spends on receiving
    #[arg(long)]
    pub napi_of: Option<String>,
    /// Network namespace of that interface [default: that of this process]
    #[arg(long, requires = "napi_of")]
    pub netns: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `io load`.
#[derive(Debug, Clone, Args)]
pub struct LoadOptions {
    /// Packet I/O of this end: uring, xdp or xdp-tx
    #[arg(long, default_value = "uring", value_parser = backend)]
    pub backend: BackendChoice,
    /// Interface of the XDP backends
    #[arg(long)]
    pub interface: Option<String>,
    /// Address of the echo
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub target: IpAddr,
    /// Ports FIRST-LAST of the echo; flows go to the even ones, each from the odd one above it
    #[arg(long, default_value = "20000-29999", value_parser = ports)]
    pub ports: PortBlock,
    /// Flows
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=8_192))]
    pub flows: u32,
    /// Measured seconds, after one of warming up
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,
    /// Packets per second of one flow
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Address to send from
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub bind: IpAddr,
    /// Core to pin to
    #[arg(long)]
    pub core: Option<usize>,
    /// Where the XDP program runs: driver or skb
    #[arg(long, default_value = "driver", value_parser = xdp_mode)]
    pub xdp_mode: XdpMode,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Why a run could not be made at all.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// Packet I/O cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nothing came.
    #[error("no packet within {0} s; `mixminus-bench io load` sends them")]
    NoPacket(u64),
    /// A process cannot be read.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// There is no account of receiving.
    #[error(transparent)]
    Napi(#[from] NapiError),
}

/// When the next slot of 1 ms begins, or the next turn of `slots` of them, counted from `origin` as the mixer's
/// worker does.
fn next_turn(slots: u64, origin: Timestamp, now: Timestamp) -> Timestamp {
    let length = slots * u64::try_from(Slot::LENGTH.as_nanos()).unwrap_or(u64::MAX);
    let since = now.0.saturating_sub(origin.0);
    Timestamp(origin.0 + (since / length + 1) * length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_turn_is_never_now() {
        let origin = Timestamp(5_000_300);
        for (slots, now, next) in [
            (1, 5_000_300, 6_000_300),
            (1, 6_000_299, 6_000_300),
            (1, 6_000_300, 7_000_300),
            (2, 5_000_300, 7_000_300),
            (2, 7_000_299, 7_000_300),
            (2, 7_000_300, 9_000_300),
        ] {
            assert_eq!(next_turn(slots, origin, Timestamp(now)), Timestamp(next));
        }
    }
}
