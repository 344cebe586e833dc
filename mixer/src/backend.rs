//! Which packet I/O runs: what is configured, or the best that the host allows, step by step.

use std::io;

use crate::clock::Clock;
use crate::config::{BackendChoice, Config, XdpMode};
use crate::handoff::{Mesh, Owners};
use crate::io::report::IoReport;
use crate::io::uring::{self, BindOptions, UringPrepared};
use crate::io::xdp::device::{Device, DeviceConfig, DeviceError};
use crate::io::xdp::errand;
use crate::io::xdp::queue::QueueSizes;
use crate::io::xdp::scout::Scout;
use crate::io::xdp::{Ports, Tags, XdpConfig, XdpPrepared};
use crate::limits;
use crate::placement::PortBlock;

/// Packet I/O that is ready to be given to the workers.
#[derive(Debug)]
pub enum Backend {
    /// UDP sockets on io_uring.
    Uring,
    /// AF_XDP.
    Xdp(Box<OpenedXdp>),
}

/// An interface in service.
#[derive(Debug)]
pub struct OpenedXdp {
    /// What each worker's packet I/O is made from, in their order.
    pub workers: Vec<XdpConfig>,
    /// Keeps routes, neighbours and the interface; dropping it ends the service.
    pub scout: Scout,
    ports: Option<Ports>,
    owners: Owners,
    report: IoReport,
}

/// Why the configured packet I/O is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The interface cannot be taken into service.
    #[error("io.backend = \"{backend}\": {source}")]
    Device {
        /// As configured.
        backend: &'static str,
        /// Why.
        source: DeviceError,
    },
    /// The scout did not start.
    #[error("io.backend: {0}; check the limits of this process")]
    Scout(io::Error),
}

impl BackendError {
    /// Exit code: 75 when trying again may help, 78 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Device {
                source: DeviceError::Queue { source, .. } | DeviceError::Attach { source, .. },
                ..
            } if source.kind() == io::ErrorKind::ResourceBusy => 75,
            Self::Device { .. } => 78,
            Self::Scout(_) => 70,
        }
    }
}

/// Opens what is configured for workers with these ports. Says in the log which it is and why.
///
/// # Errors
/// What was asked for by name cannot be had. With `auto` there is always io_uring.
pub fn open(
    config: &Config,
    clock: Clock,
    flows: u32,
    blocks: &[PortBlock],
) -> Result<Backend, BackendError> {
    let receive = match (config.io.backend, &config.io.interface) {
        (BackendChoice::Uring, _) => return Ok(uring("as configured")),
        (BackendChoice::Auto, None) => {
            return Ok(uring("auto: no io.interface is set, so AF_XDP is not tried"));
        }
        (BackendChoice::Xdp | BackendChoice::Auto, _) => true,
        (BackendChoice::XdpTx, _) => false,
    };
    match open_xdp(config, clock, flows, blocks, receive) {
        Ok(opened) => Ok(Backend::Xdp(Box::new(opened))),
        Err(error) if config.io.backend == BackendChoice::Auto => {
            tracing::warn!(%error, "AF_XDP cannot be had");
            Ok(uring("auto: AF_XDP cannot be had"))
        }
        Err(error) => Err(error),
    }
}

fn uring(why: &'static str) -> Backend {
    tracing::info!(backend = "uring", why, "packet I/O");
    Backend::Uring
}

fn open_xdp(
    config: &Config,
    clock: Clock,
    flows: u32,
    blocks: &[PortBlock],
    receive: bool,
) -> Result<OpenedXdp, BackendError> {
    let backend = if receive {
        BackendChoice::Xdp
    } else {
        BackendChoice::XdpTx
    };
    let backend = backend.name();
    let failed = |source| BackendError::Device { backend, source };
    let (device, queues) = Device::open(device_config(config, receive, blocks.len())).map_err(failed)?;
    let (mut workers, mut ends) = (Vec::new(), Vec::new());
    for (queues, mesh) in queues.into_iter().zip(Mesh::new(blocks)) {
        let (worker_end, scout_end) = errand::pair();
        ends.push(scout_end);
        workers.push(XdpConfig {
            datagram_max: device.datagram_max(),
            required_tags: Tags::of(&config.io.vlan).filter(|_| !config.io.vlan.is_empty()),
            ..XdpConfig::new(clock, flows, queues, mesh, worker_end)
        });
    }
    let (ports, mode) = (device.ports().cloned(), device.mode());
    tracing::info!(
        backend,
        interface = device.name(),
        %mode,
        queues = device.queues(),
        why = if config.io.backend == BackendChoice::Auto { "auto: the best the host allows" } else { "as configured" },
        "packet I/O"
    );
    let scout = Scout::start(device, ends, clock).map_err(BackendError::Scout)?;
    Ok(OpenedXdp {
        workers,
        report: IoReport::xdp_as(backend, scout.figures()),
        scout,
        ports,
        owners: Owners::new(blocks.to_vec()),
    })
}

fn device_config(config: &Config, receive: bool, workers: usize) -> DeviceConfig {
    DeviceConfig {
        interface: config.io.interface.clone().unwrap_or_default(),
        address: config.io.address,
        receive,
        allow_skb: config.io.xdp_mode != XdpMode::Driver,
        force_skb: config.io.xdp_mode == XdpMode::Skb,
        zero_copy: config.io.zero_copy,
        sizes: QueueSizes {
            receive: limits::XDP_RECEIVE_CHUNKS,
            transmit: limits::XDP_TRANSMIT_CHUNKS,
        },
        source_budget: config.io.source_budget,
        workers,
        tags: Tags::of(&config.io.vlan).unwrap_or_default(),
    }
}

/// Prepares local addresses for io_uring.
pub fn prepare_uring() -> impl FnMut(std::net::SocketAddr) -> io::Result<UringPrepared> + Send {
    let options = BindOptions::default();
    move |local| uring::bind(local, &options)
}

impl OpenedXdp {
    /// Prepares local addresses for AF_XDP.
    pub fn prepare(&self) -> impl FnMut(std::net::SocketAddr) -> io::Result<XdpPrepared> + Send + use<> {
        let (ports, owners, options) = (self.ports.clone(), self.owners.clone(), BindOptions::default());
        move |local| match &ports {
            Some(ports) => {
                let owner = owners
                    .of(local.port())
                    .and_then(|owner| u16::try_from(owner).ok());
                XdpPrepared::live(ports, local.port(), owner.unwrap_or(0))
            }
            None => XdpPrepared::bound(local, &options),
        }
    }

    /// For metrics.
    #[must_use]
    pub fn report(&self) -> IoReport {
        self.report.clone()
    }
}
