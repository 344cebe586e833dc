//! An interface in service: the program on it and a socket on each of its queues.

mod image;
pub mod program;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use xdp_abi::{QUEUES_MAX, Settings, Verdict};

pub use self::image::DeviceImage;
use self::program::{AttachMode, Attachment, LoadError, Ports, Program};
use super::frame::Tags;
use super::queue::socket::{CopyMode, QueueId, XskSocket};
use super::queue::{OpenQueue, QueueShared, QueueSizes, XskQueue};
use super::routes::netlink::Kernel;

/// How an interface is taken into service.
#[derive(Debug, Clone)]
pub struct DeviceConfig {
    /// Its name.
    pub interface: String,
    /// The RTP address.
    pub address: IpAddr,
    /// Whether frames are received, or only sent.
    pub receive: bool,
    /// Whether the program may run in the network stack when the driver has no place for it.
    pub allow_skb: bool,
    /// Whether not to try the driver at all.
    pub force_skb: bool,
    /// Whether zero-copy is tried.
    pub zero_copy: bool,
    /// Chunks of one queue.
    pub sizes: QueueSizes,
    /// Packets per second that one source may send; 0: no budget.
    pub source_budget: u32,
    /// Workers among which the queues are shared.
    pub workers: usize,
    /// Tags that frames carry besides those of the kernel's VLAN interfaces.
    pub tags: Tags,
}

/// Why an interface cannot be taken into service. Displays as one line with what to do.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is none of that name.
    #[error("io.interface {0}: there is no such interface (`ip link` lists them)")]
    NoInterface(String),
    /// The RTP address is not one of this host.
    #[error("io.address {0} is not an address of this host; `ip addr add {0}/PREFIX dev {1}`")]
    NoAddress(IpAddr, String),
    /// The program cannot be loaded.
    #[error("{0}; AF_XDP needs CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF, and Linux 5.11 or newer")]
    Load(#[from] LoadError),
    /// The program cannot be attached.
    #[error("{interface}: the XDP program cannot be attached in {} mode: {source}; {}", mode.name(), attach_remedy(source))]
    Attach {
        /// Where.
        interface: String,
        /// How.
        mode: AttachMode,
        /// Why not.
        source: io::Error,
    },
    /// A queue cannot be bound.
    #[error(
        "{interface} queue {queue}: AF_XDP socket: {source}; {}",
        socket_remedy(source)
    )]
    Queue {
        /// Where.
        interface: String,
        /// Which.
        queue: u32,
        /// Why not.
        source: io::Error,
    },
    /// Fewer queues than workers.
    #[error(
        "{interface} has {queues} queue(s) for {workers} workers; `ethtool -L {interface} combined {workers}`, or name fewer workers.cores"
    )]
    TooFewQueues {
        /// Where.
        interface: String,
        /// Queues there are.
        queues: usize,
        /// Workers.
        workers: usize,
    },
    /// The kernel's tables cannot be read, or a map not be written.
    #[error("{what}: {source}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn attach_remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EBUSY) => "another XDP program is there: `ip link set dev IF xdp off`",
        Some(libc::EOPNOTSUPP) => {
            "the driver has no native XDP: set io.skb_mode = true or io.backend = \"uring\""
        }
        Some(libc::EINVAL) => "lower the MTU to 1500 and switch LRO off: `ethtool -K IF lro off`",
        Some(libc::EPERM | libc::EACCES) => "give CAP_NET_ADMIN and CAP_BPF",
        _ => "`mixminus-mixer doctor --interface IF` says more",
    }
}

fn socket_remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => "give CAP_NET_RAW",
        Some(libc::ENOBUFS | libc::ENOMEM) => MORE_MEMORY,
        Some(libc::EBUSY) => "another program has the queue",
        _ => "`mixminus-mixer doctor --interface IF` says more",
    }
}

/// A queue's socket, kept beside the worker's queue.
#[derive(Debug)]
struct Slot {
    queue: u32,
    sizes: QueueSizes,
    socket: Arc<XskSocket>,
    /// The file of its packet memory.
    memory: OwnedFd,
    shared: Arc<QueueShared>,
    /// What the program had redirected to the queue before this socket was there.
    base: u64,
    /// What it had redirected a second ago.
    redirected: u64,
}

/// An interface in service. Whoever drops it ends the service.
#[derive(Debug)]
pub struct Device {
    config: DeviceConfig,
    index: u32,
    mtu: u32,
    program: Option<Program>,
    attachment: Option<(Attachment, AttachMode)>,
    copy: CopyMode,
    slots: Vec<Slot>,
    lost: u64,
}

/// The queues of each worker.
pub type WorkerQueues = Vec<Vec<XskQueue>>;

impl Device {
    /// Takes an interface into service; also gives the queues to hand to the workers.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn open(config: DeviceConfig) -> Result<(Self, WorkerQueues), DeviceError> {
        let mut kernel = Kernel::open().map_err(system("netlink"))?;
        let known = kernel.has_address(config.address).map_err(system("addresses"))?;
        if !known {
            return Err(DeviceError::NoAddress(config.address, config.interface.clone()));
        }
        let mut device = Self {
            index: 0,
            mtu: 0,
            program: config.receive.then(Program::load).transpose()?,
            attachment: None,
            copy: CopyMode::Copy,
            slots: Vec::new(),
            lost: 0,
            config,
        };
        if let Some(program) = &mut device.program {
            program
                .add_address(device.config.address)
                .map_err(system("XDP map"))?;
            let settings = Settings {
                budget_packets_per_second: device.config.source_budget,
                budget_burst: device.config.source_budget.div_ceil(10),
            };
            program.set_settings(settings).map_err(system("XDP map"))?;
        }
        let queues = device.enter(&mut kernel)?;
        Ok((device, queues))
    }

    /// Attaches to the interface as it is now and opens its queues anew.
    pub(super) fn enter(&mut self, kernel: &mut Kernel) -> Result<WorkerQueues, DeviceError> {
        self.leave();
        let name = self.config.interface.clone();
        let found = kernel.interface(&name).map_err(system("interfaces"))?;
        let interface = found.ok_or(DeviceError::NoInterface(name))?;
        (self.index, self.mtu) = (interface.index, interface.mtu);
        self.attach()?;
        let mut sizes = self.config.sizes;
        loop {
            match self.open_queues(interface.queues, sizes) {
                // As much as the locked-memory limit allows: less room for bursts, but a service.
                Err(DeviceError::Queue { source, .. })
                    if matches!(source.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
                        && sizes.transmit > LEAST_CHUNKS =>
                {
                    sizes.receive /= 2;
                    sizes.transmit /= 2;
                    self.slots.clear();
                }
                Ok(queues) => {
                    if sizes != self.config.sizes {
                        tracing::warn!(
                            receive = sizes.receive,
                            transmit = sizes.transmit,
                            "packet memory is smaller than it should be, larger bursts are lost: {MORE_MEMORY}"
                        );
                    }
                    return Ok(queues);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn open_queues(&mut self, offered: u32, sizes: QueueSizes) -> Result<WorkerQueues, DeviceError> {
        let mut queues: WorkerQueues = (0..self.config.workers).map(|_| Vec::new()).collect();
        let wanted = if self.config.receive {
            offered.clamp(1, QUEUES_MAX)
        } else {
            u32::try_from(self.config.workers).unwrap_or(QUEUES_MAX)
        };
        for queue in 0..wanted {
            let opened = match self.open_queue(queue, sizes) {
                // Fewer queues are in use than the interface could have.
                Err(DeviceError::Queue { source, .. })
                    if queue > 0 && source.raw_os_error() == Some(libc::EINVAL) =>
                {
                    break;
                }
                opened => opened?,
            };
            let worker = queue as usize % self.config.workers;
            if let Some(queues) = queues.get_mut(worker) {
                queues.push(opened);
            }
        }
        if self.slots.len() < self.config.workers {
            return Err(DeviceError::TooFewQueues {
                interface: self.config.interface.clone(),
                queues: self.slots.len(),
                workers: self.config.workers,
            });
        }
        Ok(queues)
    }

    /// Gives up what is bound to the interface, which may have gone.
    pub(super) fn leave(&mut self) {
        self.attachment = None;
        self.slots.clear();
    }

    fn attach(&mut self) -> Result<(), DeviceError> {
        let Some(program) = &self.program else {
            return Ok(());
        };
        let DeviceConfig {
            interface,
            allow_skb,
            force_skb,
            ..
        } = &self.config;
        let attach = |mode| {
            let attached = program
                .attach(self.index, mode)
                .map_err(|source| DeviceError::Attach {
                    interface: interface.clone(),
                    mode,
                    source,
                })?;
            Ok::<_, DeviceError>((attached, mode))
        };
        let driver = if *force_skb {
            attach(AttachMode::Skb)
        } else {
            attach(AttachMode::Driver)
        };
        self.attachment = Some(match driver {
            Err(error) if *allow_skb && !force_skb => {
                tracing::info!(%error, "XDP in driver mode: not offered");
                attach(AttachMode::Skb)?
            }
            attached => attached?,
        });
        Ok(())
    }

    fn open_queue(&mut self, queue: u32, mut sizes: QueueSizes) -> Result<XskQueue, DeviceError> {
        let at = QueueId {
            interface: self.index,
            queue,
        };
        if !self.config.receive {
            sizes.receive = 0;
        }
        // A worker transmits by the first of its queues.
        if queue as usize >= self.config.workers {
            sizes.transmit = sizes.transmit.min(IDLE_TRANSMIT_CHUNKS);
        }
        let zero_copy = self.config.zero_copy && !matches!(self.attachment, Some((_, AttachMode::Skb)));
        let failed = |source| DeviceError::Queue {
            interface: self.config.interface.clone(),
            queue,
            source,
        };
        let OpenQueue {
            queue: opened,
            socket,
            memory,
            mode,
            shared,
        } = XskQueue::open(at, sizes, zero_copy).map_err(failed)?;
        self.copy = mode;
        let mut base = 0;
        if let Some(program) = &mut self.program {
            base = program.redirected(queue).map_err(system("XDP map"))?;
            program
                .set_socket(queue, socket.as_fd())
                .map_err(system("XDP map xsks"))?;
        }
        self.slots.push(Slot {
            queue,
            sizes,
            socket,
            memory,
            shared,
            base,
            redirected: base,
        });
        Ok(opened)
    }

    /// Gives every queue the socket of another one, for tests of the alarm.
    ///
    /// # Errors
    /// What the kernel says.
    #[doc(hidden)]
    pub fn plant_mismatch(&mut self) -> io::Result<()> {
        let sockets = self.slots.iter().map(|slot| &slot.socket).cycle().skip(1);
        for (slot, socket) in self.slots.iter().zip(sockets) {
            if let Some(program) = &mut self.program {
                program.set_socket(slot.queue, socket.as_fd())?;
            }
        }
        Ok(())
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.interface
    }

    /// Index of the interface.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Tags that frames carry besides those of the kernel's VLAN interfaces.
    #[must_use]
    pub fn tags(&self) -> Tags {
        self.config.tags
    }

    /// Longest UDP payload that fits a packet of the interface, for the family of our address.
    #[must_use]
    pub fn datagram_max(&self) -> usize {
        let headers = if self.config.address.is_ipv4() { 28 } else { 48 };
        (self.mtu as usize).saturating_sub(headers)
    }

    /// Queues in service.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.slots.len()
    }

    /// Which ports are live; absent when frames are only sent.
    #[must_use]
    pub fn ports(&self) -> Option<&Ports> {
        self.program.as_ref().map(Program::ports)
    }

    /// How frames travel.
    #[must_use]
    pub fn mode(&self) -> Mode {
        Mode {
            attached: self.attachment.as_ref().map(|(_, mode)| *mode),
            copy: self.copy,
        }
    }

    /// What has been counted. Call it about once a second: what the program redirected by the last
    /// call must have arrived, or been counted as dropped, by this one; the rest vanished silently,
    /// as frames for a socket of another queue do.
    pub fn figures(&mut self) -> XdpFigures {
        let mut figures = XdpFigures {
            mode: Some(self.mode()),
            queues: self.slots.len() as u64,
            ..XdpFigures::default()
        };
        if let Some(program) = &self.program {
            figures.verdicts = program.verdicts().unwrap_or_default();
        }
        for slot in &mut self.slots {
            let counted = slot.socket.statistics().unwrap_or_default();
            figures.receive_dropped += counted.receive_dropped;
            figures.receive_ring_full += counted.receive_ring_full;
            figures.fill_ring_empty += counted.fill_ring_empty;
            figures.invalid += counted.invalid;
            let accounted = slot.shared.arrived.load(Ordering::Relaxed)
                + counted.receive_dropped
                + counted.receive_ring_full;
            let lost = (slot.redirected - slot.base).saturating_sub(accounted);
            // Lost for good: what is missing now is not missing again.
            slot.base += lost;
            self.lost += lost;
            if let Some(program) = &self.program {
                slot.redirected = program.redirected(slot.queue).unwrap_or(slot.redirected);
            }
        }
        figures.redirects_lost = self.lost;
        figures
    }
}

/// How frames travel between an interface and the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// Where the program runs; absent when frames are only sent.
    pub attached: Option<AttachMode>,
    /// Whether the kernel copies.
    pub copy: CopyMode,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let copy = match self.copy {
            CopyMode::ZeroCopy => "zero-copy",
            CopyMode::Copy => "copy",
        };
        match self.attached {
            Some(mode) => write!(f, "{}-{copy}", mode.name()),
            None => write!(f, "transmit-{copy}"),
        }
    }
}

/// What AF_XDP counts besides the workers. Counters, unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct XdpFigures {
    /// How frames travel now; absent while the interface is away.
    pub mode: Option<Mode>,
    /// Queues in service now.
    pub queues: u64,
    /// Packets by the program's verdict.
    pub verdicts: [u64; Verdict::ALL.len()],
    /// Frames that the program redirected and no socket ever saw.
    pub redirects_lost: u64,
    /// Frames that found no chunk to be received in.
    pub receive_dropped: u64,
    /// Frames that found a receive ring full.
    pub receive_ring_full: u64,
    /// Times a fill ring was empty.
    pub fill_ring_empty: u64,
    /// Descriptors that the kernel refused.
    pub invalid: u64,
    /// Times the interface was taken into service again.
    pub reopened: u64,
}

const MORE_MEMORY: &str = "raise the locked-memory limit: LimitMEMLOCK=infinity, or give CAP_IPC_LOCK";
/// Chunks for transmitting of the smallest packet memory.
const LEAST_CHUNKS: u32 = 256;
/// Chunks for transmitting of a queue that never does.
const IDLE_TRANSMIT_CHUNKS: u32 = 64;

fn system(what: &'static str) -> impl FnOnce(io::Error) -> DeviceError {
    move |source| DeviceError::System { what, source }
}
