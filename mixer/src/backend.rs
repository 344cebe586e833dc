//! Which packet I/O runs: what is configured, or the best that the host allows, step by step.

use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use crate::capabilities::{self, Missing};
use crate::clock::Clock;
use crate::config::{BackendChoice, Config, XdpMode};
use crate::io::handoff::{Mesh, Owners};
use crate::io::report::IoReport;
use crate::io::uring::{self, BindOptions, UringPrepared};
use crate::io::xdp::device::{Device, DeviceConfig, DeviceError, DeviceImage};
use crate::io::xdp::errand;
use crate::io::xdp::queue::QueueSizes;
use crate::io::xdp::scout::Scout;
use crate::io::xdp::{Ports, Tags, XdpConfig, XdpPrepared};
use crate::limits;
use crate::placement::PortBlock;
use crate::steering::{Steering, System, Target};

/// Packet I/O that is ready to be given to the workers.
#[derive(Debug)]
pub enum Backend {
    /// UDP sockets on io_uring.
    Uring,
    /// AF_XDP.
    Xdp(Box<OpenedXdp>),
}

/// How local ports are made ready for a worker's packet I/O.
pub struct PortWork<P> {
    /// Prepares a local address.
    pub prepare: Box<dyn FnMut(SocketAddr) -> io::Result<P> + Send>,
    /// Takes over what the program before this one had prepared for a local address: the number of
    /// its socket, if it had one.
    pub adopt: Box<dyn FnMut(Option<RawFd>, SocketAddr) -> io::Result<P> + Send>,
    /// Whether packets from a remote address to a local one arrive at their worker by themselves;
    /// absent when that cannot be told.
    pub prefers: Option<Prefers>,
}

/// See [`PortWork::prefers`].
pub type Prefers = Box<dyn Fn(SocketAddr, SocketAddr) -> bool + Send>;

impl<P> std::fmt::Debug for PortWork<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortWork").finish_non_exhaustive()
    }
}

/// An interface in service.
#[derive(Debug)]
pub struct OpenedXdp {
    /// What each worker's packet I/O is made from, in their order.
    pub workers: Vec<XdpConfig>,
    scout: Scout,
    ports: Option<Ports>,
    owners: Owners,
    report: IoReport,
    steering: Steering<System>,
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
    /// Capabilities that AF_XDP needs are not held.
    #[error("io.backend = \"{backend}\": {missing}")]
    Capabilities {
        /// As configured.
        backend: &'static str,
        /// Which, and how to grant them.
        missing: Missing,
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
            Self::Device { .. } | Self::Capabilities { .. } => 78,
            Self::Scout(_) => 70,
        }
    }
}

/// Opens what is configured for workers with these ports. Says in the log which it is and why.
///
/// With an interface that the program before this one had in service, that is taken over.
///
/// # Errors
/// What was asked for by name cannot be had. With `auto` there is always io_uring.
pub fn open(
    config: &Config,
    clock: Clock,
    flows: u32,
    blocks: &[PortBlock],
    inherited: Option<DeviceImage>,
) -> Result<Backend, BackendError> {
    let receive = match (config.io.backend, &config.io.interface) {
        (BackendChoice::Uring, _) => return Ok(uring("as configured")),
        (BackendChoice::Auto, None) => {
            return Ok(uring("auto: no io.interface is set, so AF_XDP is not tried"));
        }
        (BackendChoice::Xdp | BackendChoice::Auto, _) => true,
        (BackendChoice::XdpTx, _) => false,
    };
    match open_xdp(config, clock, flows, blocks, receive, inherited) {
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
    inherited: Option<DeviceImage>,
) -> Result<OpenedXdp, BackendError> {
    let backend = if receive {
        BackendChoice::Xdp
    } else {
        BackendChoice::XdpTx
    };
    let backend = backend.name();
    let failed = |source| BackendError::Device { backend, source };
    if let Ok(Some(missing)) = capabilities::missing_for_af_xdp() {
        return Err(BackendError::Capabilities { backend, missing });
    }
    let device = device_config(config, receive, blocks.len());
    let (device, queues) = match inherited {
        Some(image) => Device::inherit(device, image),
        None => Device::open(device),
    }
    .map_err(failed)?;
    let steering = steer(&device, blocks);
    let (mut workers, mut ends) = (Vec::new(), Vec::new());
    for (queues, mesh) in queues.into_iter().zip(Mesh::new(blocks)) {
        let (worker_end, scout_end) = errand::pair();
        ends.push(scout_end);
        let mut worker = XdpConfig {
            datagram_max: device.datagram_max(),
            required_tags: Tags::of(&config.io.vlan).filter(|_| !config.io.vlan.is_empty()),
            ..XdpConfig::new(clock, flows, queues, mesh, worker_end)
        };
        if receive {
            worker.uring.receive_buffers = limits::LOCAL_RECEIVE_BUFFERS;
        }
        workers.push(worker);
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
        steering,
    })
}

/// Has the NIC bring packets to the queue of their worker, as well as it can.
fn steer(device: &Device, blocks: &[PortBlock]) -> Steering<System> {
    // The first queue of a worker has its number; without a program no frame is received at all.
    let receiving = if device.ports().is_some() { blocks } else { &[] };
    let targets: Vec<Target> = (0..)
        .zip(receiving)
        .map(|(queue, block)| Target { block: *block, queue })
        .collect();
    Steering::start(System, device.name(), &targets)
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

/// Ports on io_uring: bound sockets.
#[must_use]
pub fn uring_ports() -> PortWork<UringPrepared> {
    let options = BindOptions::default();
    PortWork {
        prepare: Box::new(move |local| uring::bind(local, &options)),
        adopt: Box::new(|socket, local| {
            let socket = socket.ok_or_else(|| io::Error::other("it has no socket"))?;
            UringPrepared::inherit(socket, local)
        }),
        prefers: None,
    }
}

/// What must live as long as the workers do.
#[derive(Debug)]
pub struct Keeper {
    scout: Scout,
    /// Undone when the mixer ends.
    _steering: Steering<System>,
}

impl Keeper {
    /// Lets the interface stay in service for the program that takes this one's place.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn keep_open(self) -> io::Result<DeviceImage> {
        let device = self.scout.finish();
        device
            .ok_or_else(|| io::Error::other("the scout had panicked"))?
            .keep_open()
    }
}

impl OpenedXdp {
    /// Ports on AF_XDP: live in the XDP program, or bound sockets.
    #[must_use]
    pub fn port_work(&self) -> PortWork<XdpPrepared> {
        let (ports, owners, options) = (self.ports.clone(), self.owners.clone(), BindOptions::default());
        let owner = move |port| owners.of(port).and_then(|owner| u16::try_from(owner).ok());
        let owner_of = owner.clone();
        let (adopting, adopted_owner) = (self.ports.clone(), owner.clone());
        let rss = self.steering.outcome().rss().cloned();
        PortWork {
            prepare: Box::new(move |local| match &ports {
                Some(ports) => XdpPrepared::live(ports, local.port(), owner(local.port()).unwrap_or(0)),
                None => XdpPrepared::bound(local, &options),
            }),
            adopt: Box::new(move |socket, local| {
                let worker = adopted_owner(local.port()).unwrap_or(0);
                XdpPrepared::inherit(adopting.as_ref(), local, worker, socket)
            }),
            prefers: rss.map(|rss| -> Prefers {
                Box::new(move |remote, local| rss.queue_of(remote, local) == owner_of(local.port()))
            }),
        }
    }

    /// For metrics.
    #[must_use]
    pub fn report(&self) -> IoReport {
        self.report.clone()
    }

    /// What must live as long as the workers do.
    #[must_use]
    pub fn keeper(self) -> Keeper {
        Keeper {
            scout: self.scout,
            _steering: self.steering,
        }
    }
}
