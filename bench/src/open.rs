//! Opens packet I/O as the mixer does, and gives it to a job on a pinned thread.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mixer::backend::{self, Backend, BackendError};
use mixer::clock::Clock;
use mixer::config::{BackendChoice, Config, IoConfig, PortRange, XdpMode};
use mixer::io::PacketIo;
use mixer::io::uring::{self, BindOptions, UringConfig, UringIo};
use mixer::io::xdp::XdpIo;
use mixer::placement::{self, PortBlock};
use mixer_engine::packet::FlowId;

/// Why packet I/O cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Options that do not go together.
    #[error("{0}")]
    Options(String),
    /// The interface cannot be taken into service.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A socket, a port or the ring failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

/// What to open.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) backend: BackendChoice,
    pub(crate) interface: Option<String>,
    pub(crate) address: IpAddr,
    pub(crate) ports: PortBlock,
    /// Sockets take the ports that the kernel chooses instead, where there are sockets only.
    pub(crate) any_port: bool,
    /// 0: flows are on the even ports; 1: on the odd ones above.
    pub(crate) parity: u16,
    pub(crate) flows: u32,
    pub(crate) core: Option<usize>,
    pub(crate) xdp_mode: XdpMode,
    /// Tags of every frame, outermost first.
    pub(crate) vlan: Vec<u16>,
}

/// A service and a customer tag (IEEE 802.1ad).
const VLANS_MAX: usize = 2;

impl Setup {
    /// Local port of each flow.
    pub(crate) fn local_ports(&self) -> impl Iterator<Item = u16> {
        let parity = self.parity;
        self.ports
            .rtp_ports()
            .map(move |port| port + parity)
            .take(self.flows as usize)
    }

    /// The flow of a local port that has one.
    pub(crate) fn flow_of(&self, local_port: u16) -> u32 {
        u32::from(local_port.wrapping_sub(self.ports.first)) / 2
    }

    fn check(&self) -> Result<(), OpenError> {
        let PortBlock { first, last } = self.ports;
        if self.ports.endpoints() < self.flows {
            return Err(OpenError::Options(format!(
                "--ports {first}-{last} have no room for {} flows: two ports each",
                self.flows
            )));
        }
        if self.backend != BackendChoice::Uring && self.interface.is_none() {
            return Err(OpenError::Options(format!(
                "--backend {} needs an --interface",
                self.backend.name()
            )));
        }
        if self.vlan.len() > VLANS_MAX {
            return Err(OpenError::Options(format!("--vlan takes at most {VLANS_MAX}")));
        }
        if self.backend == BackendChoice::Uring && !self.vlan.is_empty() {
            return Err(OpenError::Options(
                "--vlan needs --backend xdp: the kernel tags what sockets send".to_owned(),
            ));
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
            vlan: self.vlan.clone(),
            ..config.io
        };
        config
    }
}

/// Something to be done with packet I/O whose flows, 0 to `flows - 1`, are open.
pub(crate) trait Job {
    /// What it gives.
    type Output;
    /// Why it does not.
    type Error: From<OpenError>;

    /// Does it; flow `i` is at `locals[i]`.
    fn run<Io: PacketIo>(self, io: Io, locals: &[SocketAddr]) -> Result<Self::Output, Self::Error>;
}

/// Opens what `setup` says and does `job` with it. Pins this thread.
pub(crate) fn with<J: Job>(setup: &Setup, job: J) -> Result<J::Output, J::Error> {
    setup.check()?;
    let clock = Clock::start();
    // Before this thread is pinned: threads of the backend shall not be where it is.
    let opened =
        backend::open(&setup.config(), clock, setup.flows, &[setup.ports], None).map_err(OpenError::from)?;
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
            let (io, locals) = open_flows(io, setup, |mut local| {
                if setup.any_port {
                    local.set_port(0);
                }
                let prepared = uring::bind(local, &options)?;
                let local = prepared.local();
                Ok((prepared, local))
            })?;
            job.run(io, &locals)
        }
        Backend::Xdp(mut opened) => {
            let mut prepare = opened.port_work().prepare;
            let config = opened
                .workers
                .pop()
                .ok_or_else(|| OpenError::Options("no queue".to_owned()))?;
            let io = XdpIo::new(config).map_err(failed("packet I/O"))?;
            let (io, locals) = open_flows(io, setup, |local| Ok((prepare(local)?, local)))?;
            // `opened` keeps the interface in service until the job is done.
            job.run(io, &locals)
        }
    }
}

fn pin(core: Option<usize>) -> Result<(), OpenError> {
    let Some(id) = core else { return Ok(()) };
    let available = placement::available_cores();
    if available.contains(&id) && core_affinity::set_for_current(core_affinity::CoreId { id }) {
        return Ok(());
    }
    Err(OpenError::Options(format!("core {id} cannot be used")))
}

fn open_flows<Io: PacketIo>(
    mut io: Io,
    setup: &Setup,
    mut prepare: impl FnMut(SocketAddr) -> io::Result<(Io::Prepared, SocketAddr)>,
) -> Result<(Io, Vec<SocketAddr>), OpenError> {
    let mut locals = Vec::with_capacity(setup.flows as usize);
    for (index, port) in (0u32..).zip(setup.local_ports()) {
        let wanted = SocketAddr::new(setup.address, port);
        let (prepared, local) = prepare(wanted).map_err(failed(wanted.to_string()))?;
        if io.open_flow(FlowId(index), local, prepared).is_err() {
            return Err(OpenError::Options(format!(
                "packet I/O has no place for flow {index}"
            )));
        }
        locals.push(local);
    }
    io.flush();
    Ok((io, locals))
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
    let what = what.into();
    move |source| OpenError::System { what, source }
}

pub(crate) fn backend(name: &str) -> Result<BackendChoice, String> {
    let known = [BackendChoice::Uring, BackendChoice::Xdp, BackendChoice::XdpTx];
    let named = known.into_iter().find(|choice| choice.name() == name);
    named.ok_or_else(|| format!("`{name}` is none of uring, xdp, xdp-tx"))
}

pub(crate) fn xdp_mode(name: &str) -> Result<XdpMode, String> {
    let known = [XdpMode::Driver, XdpMode::Skb];
    let named = known.into_iter().find(|mode| mode.name() == name);
    named.ok_or_else(|| format!("`{name}` is neither driver nor skb"))
}

/// `FIRST-LAST` with an even first port, as a worker's block has.
pub(crate) fn ports(range: &str) -> Result<PortBlock, String> {
    let parsed = range
        .split_once('-')
        .and_then(|(first, last)| Some((first.parse::<u16>().ok()?, last.parse::<u16>().ok()?)));
    match parsed {
        Some((first, last)) if first % 2 == 0 && first > 0 && first < last => Ok(PortBlock { first, last }),
        Some(_) | None => Err(format!(
            "`{range}` is no FIRST-LAST with an even FIRST below LAST"
        )),
    }
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
            any_port: false,
            parity,
            flows: 3,
            core: None,
            xdp_mode: XdpMode::Driver,
            vlan: Vec::new(),
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
        let mut tagged = setup(0);
        tagged.vlan = vec![7];
        assert!(tagged.check().unwrap_err().to_string().contains("--backend xdp"));
        (tagged.backend, tagged.interface) = (BackendChoice::Xdp, Some("mm1".to_owned()));
        assert!(tagged.check().is_ok());
        tagged.vlan = vec![1, 2, 3];
        assert!(tagged.check().unwrap_err().to_string().contains("at most 2"));
        assert!(setup(1).check().is_ok());
    }

    #[test]
    fn a_port_range_begins_with_an_even_port() {
        let range = ports("20000-20599").unwrap();
        assert_eq!((range.first, range.last), (20_000, 20_599));
        for wrong in [
            "20001-20599",
            "20000",
            "0-9",
            "20-10",
            "20-70000",
            "a-b",
            "10-20-30",
        ] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn backends_and_modes_go_by_the_names_of_the_configuration() {
        assert_eq!(backend("xdp-tx"), Ok(BackendChoice::XdpTx));
        assert!(backend("auto").is_err());
        assert_eq!(xdp_mode("skb"), Ok(XdpMode::Skb));
        assert!(xdp_mode("auto").is_err());
    }
}
