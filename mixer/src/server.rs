//! A whole mixer in this process: workers, control link, prompts.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use mixer_engine::engine::EngineLimits;
use tokio::sync::watch;

use crate::backend::{self, Backend, BackendError};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::directory::{Directory, Setup};
use crate::control::events::EventLog;
use crate::control::random::Random;
use crate::control::{self, Control, HttpDirectory};
use crate::io::PacketIo;
use crate::io::report::IoReport;
use crate::io::uring::{UringConfig, UringIo};
use crate::io::xdp::XdpIo;
use crate::limits;
use crate::placement::{self, PlacementError, PortBlock};
use crate::prompts::{PromptError, Prompts};
use crate::worker::{self, SpawnError, WorkerConfig, WorkerHandle, WorkerId};

/// Why a mixer did not start. Displays as one line with what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The control link's address cannot be bound.
    #[error("control.listen {address}: {source}; {}", listen_remedy(source))]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The RTP address is not one of this machine's.
    #[error("io.address {address}: {source}; give one address of this machine (`ip addr` lists them)")]
    Address {
        /// Which, with a port that was tried.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Ports do not suffice.
    #[error("io.ports: {0}; widen the range or name fewer workers.cores")]
    Ports(#[from] PlacementError),
    /// Prompts cannot be loaded.
    #[error("{0}")]
    Prompts(#[from] PromptError),
    /// A worker did not start.
    #[error(
        "{0}; check workers.cores, `ulimit -n` and that io_uring is allowed (kernel.io_uring_disabled = 0, Linux 6.0 or newer)"
    )]
    Worker(#[from] SpawnError),
    /// The configured packet I/O is not to be had.
    #[error("{0}")]
    Backend(#[from] BackendError),
    /// The operating system refused a thread or random numbers.
    #[error("{what}: {source}; check the limits of this process")]
    System {
        /// What was wanted.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn listen_remedy(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::AddrInUse {
        "stop the program that listens there or set control.listen to a free port"
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "choose a port from 1024 on"
    } else {
        "set control.listen to an address of this machine"
    }
}

impl StartError {
    /// Exit code that tells a supervisor what to do: 75 try again, 78 correct the configuration,
    /// 70 look into it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => 75,
            Self::Listen { .. } | Self::Address { .. } | Self::Ports(_) | Self::Prompts(_) => 78,
            Self::Worker(SpawnError::Pin { .. }) => 78,
            Self::Backend(error) => error.exit_code(),
            Self::Worker(_) | Self::System { .. } => 70,
        }
    }
}

/// A running mixer. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    control_addr: SocketAddr,
    instance: Arc<str>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Server {
    /// Starts workers and control link; returns once both run. With port 0 in `control.listen` the
    /// kernel chooses one.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(config: Config) -> Result<Self, StartError> {
        let address = config.control.listen;
        let listener = TcpListener::bind(address).map_err(|source| StartError::Listen { address, source })?;
        let control_addr = listener
            .local_addr()
            .map_err(|source| StartError::Listen { address, source })?;
        let prompts = Prompts::load(config.prompts.folder.as_deref())?;
        let system = |what| move |source| StartError::System { what, source };
        let mut random = Random::kernel().map_err(system("random numbers"))?;
        let instance: Arc<str> = Arc::from(format!("{:016x}{:016x}", random.bits(), random.bits()));
        let clock = Clock::start();
        check_address(&config)?;
        // Nothing is said before what may fail in the caller's configuration: a failed start is one line.
        let blocks = placement::port_blocks(
            config.io.ports.first,
            config.io.ports.last,
            config.workers.cores.len(),
        )?;
        let backend = backend::open(&config, clock, worker_endpoints(&config), &blocks)?;
        warn_of_ephemeral_ports(&config);
        let control = Control {
            config: config.control.clone(),
            listener,
            clock,
            events: EventLog::new(config.control.events),
            instance: Arc::clone(&instance),
            prompts: prompts.len(),
            io: IoReport::default(),
        };
        let (stop, stopping) = watch::channel(false);
        let launch = Launch {
            config: &config,
            blocks,
            control,
            random,
            prompts,
            stopping,
        };
        let thread = match backend {
            Backend::Uring => {
                let io = UringConfig::new(clock, worker_endpoints(&config));
                let openers = config.workers.cores.iter().map(|_| move || UringIo::new(&io));
                launch.go(openers.collect(), backend::prepare_uring(), ())?
            }
            Backend::Xdp(mut opened) => {
                let mut launch = launch;
                launch.control.io = opened.report();
                let configs = std::mem::take(&mut opened.workers);
                let openers = configs.into_iter().map(|config| move || XdpIo::new(config));
                launch.go(openers.collect(), opened.prepare(), opened.scout)?
            }
        };
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            control = %control_addr,
            rtp = %config.io.address,
            ports = %config.io.ports,
            cores = ?config.workers.cores,
            instance = %instance,
            "mixer runs"
        );
        Ok(Self {
            control_addr,
            instance,
            stop,
            thread: Some(thread),
        })
    }

    /// Where the control link listens.
    #[must_use]
    pub fn control_addr(&self) -> SocketAddr {
        self.control_addr
    }

    /// Random id of this run, as in the state.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Whether control has ended by itself, which is a fault.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops everything and waits for it.
    ///
    /// # Errors
    /// Control had failed before.
    pub fn shutdown(mut self) -> io::Result<()> {
        self.stop_and_join()
    }

    fn stop_and_join(&mut self) -> io::Result<()> {
        self.stop.send_replace(true);
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the control thread panicked")),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop_and_join() {
            tracing::error!(%error, "stop");
        }
    }
}

/// Everything but packet I/O that a mixer is started from.
struct Launch<'a> {
    config: &'a Config,
    blocks: Vec<PortBlock>,
    control: Control,
    random: Random,
    prompts: Prompts,
    stopping: watch::Receiver<bool>,
}

impl Launch<'_> {
    /// Starts the workers, each with the packet I/O that its opener makes, and the control thread.
    /// `keep` lives as long as the workers do.
    fn go<Io, F, P>(
        self,
        openers: Vec<F>,
        prepare: P,
        keep: impl Send + 'static,
    ) -> Result<Thread, StartError>
    where
        Io: PacketIo,
        Io::Prepared: 'static,
        F: FnOnce() -> io::Result<Io> + Send + 'static,
        P: FnMut(SocketAddr) -> io::Result<Io::Prepared> + Send + 'static,
    {
        let Self {
            config,
            blocks,
            control,
            random,
            prompts,
            stopping,
        } = self;
        let workers = start_workers(config, &blocks, openers)?;
        let events = Arc::clone(&control.events);
        let directory = Directory::new(setup(config), workers, random, prompts, Box::new(prepare), events);
        let cores = config.workers.cores.clone();
        std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                let result = housekeeping(control, directory, stopping, &cores);
                drop(keep);
                result
            })
            .map_err(|source| StartError::System {
                what: "control thread",
                source,
            })
    }
}

type Thread = JoinHandle<io::Result<()>>;

/// The control thread: kept off the workers' cores where there is another one.
fn housekeeping<P: Send>(
    control: Control,
    directory: HttpDirectory<WorkerHandle<P>>,
    stop: watch::Receiver<bool>,
    worker_cores: &[usize],
) -> io::Result<()> {
    let free = placement::available_cores()
        .into_iter()
        .find(|core| !worker_cores.contains(core));
    match free {
        Some(id) => {
            if !core_affinity::set_for_current(core_affinity::CoreId { id }) {
                tracing::warn!(core = id, "control cannot be pinned");
            }
        }
        None => tracing::warn!("no core is left for control: it shares one with a worker"),
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let workers = runtime.block_on(control::run(control, directory, stop))?;
    drop(runtime);
    for worker in &workers {
        worker.link.stop();
    }
    for worker in workers {
        let id = worker.id.0;
        if !worker.join() {
            tracing::error!(worker = id, "worker had panicked");
        }
    }
    Ok(())
}

fn setup(config: &Config) -> Setup {
    Setup {
        address: config.io.address,
        conferences_max: config.limits.conferences,
        endpoints_max: config.limits.endpoints,
        worker_conferences_max: worker_conferences(config),
        worker_endpoints_max: worker_endpoints(config),
        command_timeout: config.control.command_timeout,
        answers: ANSWERS,
    }
}

/// Finished commands remembered for idempotency.
const ANSWERS: usize = 16_384;

fn worker_conferences(config: &Config) -> u32 {
    config.limits.conferences.min(limits::CONFERENCES_PER_WORKER)
}

fn worker_endpoints(config: &Config) -> u32 {
    config.limits.endpoints.min(limits::ENDPOINTS_PER_WORKER)
}

fn start_workers<Io, F>(
    config: &Config,
    blocks: &[PortBlock],
    openers: Vec<F>,
) -> Result<Vec<(WorkerHandle<Io::Prepared>, PortBlock)>, StartError>
where
    Io: PacketIo,
    Io::Prepared: 'static,
    F: FnOnce() -> io::Result<Io> + Send + 'static,
{
    let mut workers = Vec::new();
    let cores = config.workers.cores.iter();
    for (place, ((core, block), open)) in cores.zip(blocks).zip(openers).enumerate() {
        let endpoints = worker_endpoints(config).min(block.endpoints());
        let timeout_ms = config.limits.media_timeout.as_millis();
        let worker = WorkerConfig {
            id: WorkerId(u16::try_from(place).unwrap_or(u16::MAX)),
            core: Some(*core),
            spin: config.workers.spin,
            engine: EngineLimits {
                conferences: worker_conferences(config),
                endpoints: worker_endpoints(config),
                port_first: block.first,
                port_last: block.last,
                events: limits::ENGINE_EVENTS,
                media_timeout_ms: u32::try_from(timeout_ms).unwrap_or(u32::MAX),
            },
        };
        let handle = worker::spawn(worker, open)?;
        tracing::info!(worker = place, core, ports = %format_args!("{}-{}", block.first, block.last), endpoints, "worker runs");
        workers.push((handle, *block));
    }
    Ok(workers)
}

/// Finds out at start, not at the first call, that the RTP address cannot be bound.
fn check_address(config: &Config) -> Result<(), StartError> {
    let address = SocketAddr::new(config.io.address, 0);
    match std::net::UdpSocket::bind(address) {
        Ok(_) => Ok(()),
        Err(source) => Err(StartError::Address { address, source }),
    }
}

fn warn_of_ephemeral_ports(config: &Config) {
    let Ok(text) = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range") else {
        return;
    };
    let mut numbers = text
        .split_whitespace()
        .filter_map(|number| number.parse::<u16>().ok());
    if let (Some(first), Some(last)) = (numbers.next(), numbers.next())
        && first <= config.io.ports.last
        && last >= config.io.ports.first
    {
        tracing::warn!(
            ports = %config.io.ports,
            kernel = %format_args!("{first}-{last}"),
            "io.ports overlaps the kernel's ephemeral ports; choose another range or reserve it with net.ipv4.ip_local_reserved_ports"
        );
    }
}
