//! Opens packet I/O as the mixer does, and gives it to a job on a pinned thread.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mixer::backend::{self, Backend};
use mixer::clock::Clock;
use mixer::config::{BackendChoice, Config, IoConfig, PortRange, XdpMode};
use mixer::io::PacketIo;
use mixer::io::uring::{self, BindOptions, UringConfig, UringIo};
use mixer::io::xdp::XdpIo;
use mixer::placement::{self, PortBlock};
use mixer_engine::packet::FlowId;
use mixer_engine::time::{Slot, Timestamp};

use super::IoError;

/// What to open.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) backend: BackendChoice,
    pub(super) interface: Option<String>,
    pub(super) address: IpAddr,
    pub(super) ports: PortBlock,
    /// 0: flows are on the even ports; 1: on the odd ones above.
    pub(super) parity: u16,
    pub(super) flows: u32,
    pub(super) core: Option<usize>,
    pub(super) xdp_mode: XdpMode,
}

impl Setup {
    /// Local port of each flow.
    pub(super) fn local_ports(&self) -> impl Iterator<Item = u16> {
        let parity = self.parity;
        self.ports
            .rtp_ports()
            .map(move |port| port + parity)
            .take(self.flows as usize)
    }

    /// The flow of a local port that has one.
    pub(super) fn flow_of(&self, local_port: u16) -> u32 {
        u32::from(local_port.wrapping_sub(self.ports.first)) / 2
    }

    fn check(&self) -> Result<(), IoError> {
        let PortBlock { first, last } = self.ports;
        if self.ports.endpoints() < self.flows {
            return Err(IoError::Options(format!(
                "--ports {first}-{last} have no room for {} flows: two ports each",
                self.flows
            )));
        }
        if self.backend != BackendChoice::Uring && self.interface.is_none() {
            return Err(IoError::Options(format!(
                "--backend {} needs an --interface",
                self.backend.name()
            )));
        }
        Ok(())
    }

    fn config(&self) -> Config {
        let mut config = Config::defaults(&placement::available_cores());
        config.io = IoConfig {
            backend: self.backend,
            interface: self.interface.clone(),
            address: self.address,
            ports: PortRange {
                first: self.ports.first,
                last: self.ports.last,
            },
            xdp_mode: self.xdp_mode,
            ..config.io
        };
        config
    }
}

/// Something to be done with packet I/O whose flows, 0 to `flows - 1`, are open.
pub(super) trait Job {
    /// What it gives.
    type Output;

    /// Does it.
    fn run<Io: PacketIo>(self, io: Io) -> Result<Self::Output, IoError>;
}

/// Opens what `setup` says and does `job` with it. Pins this thread.
pub(super) fn with<J: Job>(setup: &Setup, job: J) -> Result<J::Output, IoError> {
    setup.check()?;
    let clock = Clock::start();
    // Before this thread is pinned: threads of the backend shall not be where it is.
    let opened = backend::open(&setup.config(), clock, setup.flows, &[setup.ports], None)?;
    pin(setup.core)?;
    // As the mixer's worker; without the right to it figures are those of a busy machine.
    let _ = placement::prefer_realtime();
    match opened {
        Backend::Uring => {
            // A ring that has just gone gives its ports back late, and runs follow each other.
            let options = BindOptions {
                retry_for: Duration::from_secs(5),
                ..BindOptions::default()
            };
            let io = UringIo::new(&UringConfig::new(clock, setup.flows)).map_err(failed("io_uring"))?;
            let io = open_flows(io, setup, |local| uring::bind(local, &options))?;
            job.run(io)
        }
        Backend::Xdp(mut opened) => {
            let prepare = opened.port_work().prepare;
            let config = opened
                .workers
                .pop()
                .ok_or_else(|| IoError::Options("no queue".to_owned()))?;
            let io = XdpIo::new(config).map_err(failed("packet I/O"))?;
            // `opened` keeps the interface in service until the job is done.
            job.run(open_flows(io, setup, prepare)?)
        }
    }
}

fn pin(core: Option<usize>) -> Result<(), IoError> {
    let Some(id) = core else { return Ok(()) };
    let available = placement::available_cores();
    if available.contains(&id) && core_affinity::set_for_current(core_affinity::CoreId { id }) {
        return Ok(());
    }
    Err(IoError::Options(format!("core {id} cannot be used")))
}

fn open_flows<Io: PacketIo>(
    mut io: Io,
    setup: &Setup,
    mut prepare: impl FnMut(SocketAddr) -> io::Result<Io::Prepared>,
) -> Result<Io, IoError> {
    for (index, port) in (0u32..).zip(setup.local_ports()) {
        let local = SocketAddr::new(setup.address, port);
        let prepared = prepare(local).map_err(failed(local.to_string()))?;
        if io.open_flow(FlowId(index), local, prepared).is_err() {
            return Err(IoError::Options(format!(
                "packet I/O has no place for flow {index}"
            )));
        }
    }
    io.flush();
    Ok(io)
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> IoError {
    let what = what.into();
    move |source| IoError::System { what, source }
}

/// When the next 1 ms slot begins, as the mixer's worker counts them from `origin`.
pub(super) fn next_slot(origin: Timestamp, now: Timestamp) -> Timestamp {
    let length = u64::try_from(Slot::LENGTH.as_nanos()).unwrap_or(u64::MAX);
    let since = now.0.saturating_sub(origin.0);
    Timestamp(origin.0 + (since / length + 1) * length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(parity: u16) -> Setup {
        Setup {
            backend: BackendChoice::Uring,
            interface: None,
            address: IpAddr::from([127, 0, 0, 1]),
            ports: PortBlock {
                first: 20_000,
                last: 20_007,
            },
            parity,
            flows: 3,
            core: None,
            xdp_mode: XdpMode::Driver,
        }
    }

    #[test]
    fn flows_are_found_by_their_ports() {
        for parity in [0, 1] {
            let setup = setup(parity);
            let ports: Vec<u16> = setup.local_ports().collect();
            assert_eq!(ports, [20_000 + parity, 20_002 + parity, 20_004 + parity]);
            let flows: Vec<u32> = ports.iter().map(|&port| setup.flow_of(port)).collect();
            assert_eq!(flows, [0, 1, 2]);
        }
    }

    #[test]
    fn what_cannot_be_opened_is_refused_before_anything_is() {
        let mut crowded = setup(0);
        crowded.flows = 5;
        assert!(crowded.check().unwrap_err().to_string().contains("no room"));
        let mut nowhere = setup(0);
        nowhere.backend = BackendChoice::Xdp;
        assert!(nowhere.check().unwrap_err().to_string().contains("--interface"));
        assert!(setup(1).check().is_ok());
    }

    #[test]
    fn the_next_slot_is_never_now() {
        let origin = Timestamp(5_000_300);
        for (now, next) in [
            (5_000_300, 6_000_300),
            (6_000_299, 6_000_300),
            (6_000_300, 7_000_300),
        ] {
            assert_eq!(next_slot(origin, Timestamp(now)), Timestamp(next));
        }
    }
}
