//! A whole mixer in this process: workers, control link, prompts.

mod workers;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use mixer_engine::time::Timestamp;
use tokio::sync::watch;

use crate::backend::{self, Backend, BackendError, Keeper, PortWork};
use crate::capabilities::{self, Capability};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::directory::{Directory, DirectoryState, Setup};
use crate::control::events::EventLog;
use crate::control::headroom::Marks;
use crate::control::random::Random;
use crate::control::{self, Control, Finished, HttpDirectory, Wish};
use crate::io::inherit::{self, KeepOpen};
use crate::io::report::IoReport;
use crate::io::uring::UringPrepared;
use crate::io::xdp::{XdpIo, XdpPrepared};
use crate::placement::{self, PlacementError};
use crate::prompts::{PromptError, Prompts};
use crate::upgrade::{ControlImage, HandOverError, Image};
use crate::worker::{SpawnError, WorkerHandle};
use workers::{
    Workers, blocks, resume_workers, start_workers, uring_openers, worker_conferences, worker_endpoints,
};

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
    /// What another program handed over cannot be used.
    #[error("what was handed over cannot be used: {why}")]
    Resume {
        /// Why.
        why: String,
    },
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
            Self::Worker(_) | Self::Resume { .. } | Self::System { .. } => 70,
        }
    }
}

/// A running mixer. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    control_addr: SocketAddr,
    instance: Arc<str>,
    wish: watch::Sender<Wish>,
    /// What became of a hand-over that was asked for.
    handed: mpsc::Receiver<Handed>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

type Handed = Result<Image, HandOverError>;

impl Server {
    /// Starts workers and control link; returns once both run. With port 0 in `control.listen` the
    /// kernel chooses one.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(config: Config, privileges: Privileges) -> Result<Self, StartError> {
        let address = config.control.listen;
        let listener = TcpListener::bind(address).map_err(|source| StartError::Listen { address, source })?;
        let mut random = Random::kernel().map_err(system("random numbers"))?;
        let instance: Arc<str> = Arc::from(format!("{:016x}{:016x}", random.bits(), random.bits()));
        let clock = Clock::start();
        let prompts = Prompts::load(config.prompts.folder.as_deref())?;
        check_address(&config)?;
        // Nothing is said before what may fail in the caller's configuration: a failed start is one line.
        let backend = backend::open(&config, clock, worker_endpoints(&config), &blocks(&config)?, None)?;
        privileges.settle(&backend);
        warn_of_ephemeral_ports(&config);
        let began = Began {
            listener,
            random,
            instance,
            clock,
            prompts,
            events: EventLog::new(config.control.events),
            directory: None,
        };
        match backend {
            Backend::Uring => {
                let openers = uring_openers(&config, clock);
                let workers = start_workers(&config, clock, openers)?;
                Self::run(config, workers, backend::uring_ports(), Packets::default(), began)
            }
            Backend::Xdp(mut opened) => {
                let configs = std::mem::take(&mut opened.workers);
                let openers = configs.into_iter().map(|config| move || XdpIo::new(config));
                let workers = start_workers(&config, clock, openers.collect())?;
                let (ports, packets) = (opened.port_work(), Packets::of(*opened));
                Self::run(config, workers, ports, packets, began)
            }
        }
    }

    /// Goes on where another program stopped; as [`Server::start`] otherwise.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing of what was handed over is left then.
    pub fn resume(config: Config, image: Image, privileges: Privileges) -> Result<Self, StartError> {
        let resume = |why| StartError::Resume { why };
        let clock = Clock::with_origin(image.clock_origin_ns);
        let stopped_at = image.stopped_at;
        let began_at = clock.now();
        let Image {
            workers: images,
            device,
            former,
            written_at,
            ..
        } = image;
        // The workers first: until they run, nobody hears anything.
        let flows = worker_endpoints(&config);
        let backend = backend::open(&config, clock, flows, &blocks(&config)?, device)?;
        privileges.settle(&backend);
        let resumed = match backend {
            Backend::Uring => {
                let mut ports = backend::uring_ports();
                let workers = resume_workers(&config, uring_openers(&config, clock), images, &mut ports)?;
                Restarted::Uring(workers, ports)
            }
            Backend::Xdp(mut opened) => {
                let configs = std::mem::take(&mut opened.workers);
                let openers = configs.into_iter().map(|config| move || XdpIo::new(config));
                let mut ports = opened.port_work();
                let workers = resume_workers(&config, openers.collect(), images, &mut ports)?;
                Restarted::Xdp(workers, ports, opened)
            }
        };
        let running_at = clock.now();
        let state: ControlImage =
            rmp_serde::from_slice(&image.control).map_err(|error| resume(error.to_string()))?;
        let listener =
            inherit::adopt(image.listener).map_err(|error| resume(format!("listener: {error}")))?;
        let began = Began {
            listener: TcpListener::from(listener),
            random: Random::kernel().map_err(system("random numbers"))?,
            instance: Arc::from(image.instance),
            clock,
            prompts: Prompts::load(config.prompts.folder.as_deref())?,
            events: EventLog::import_state(config.control.events, state.events),
            directory: Some(state.directory),
        };
        let server = match resumed {
            Restarted::Uring(workers, ports) => Self::run(config, workers, ports, Packets::default(), began),
            Restarted::Xdp(workers, ports, opened) => {
                Self::run(config, workers, ports, Packets::of(*opened), began)
            }
        }?;
        let us = |from: Timestamp, to: Timestamp| to.since(from).as_micros();
        tracing::info!(
            standstill_us = %us(stopped_at, running_at),
            exec_us = %us(written_at, began_at),
            workers_us = %us(began_at, running_at),
            control_us = %us(running_at, clock.now()),
            version = env!("CARGO_PKG_VERSION"),
            "upgraded"
        );
        drop(former.map(inherit::adopt));
        Ok(server)
    }

    fn run<P: KeepOpen + Send + 'static>(
        config: Config,
        workers: Workers<P>,
        ports: PortWork<P>,
        packets: Packets,
        began: Began,
    ) -> Result<Self, StartError> {
        let Began {
            listener,
            random,
            instance,
            clock,
            prompts,
            events,
            directory: restored,
        } = began;
        let address = config.control.listen;
        let control_addr = listener
            .local_addr()
            .map_err(|source| StartError::Listen { address, source })?;
        let control = Control {
            config: config.control.clone(),
            listener,
            clock,
            events: Arc::clone(&events),
            instance: Arc::clone(&instance),
            prompts: prompts.len(),
            io: packets.report,
        };
        let mut directory: HttpDirectory<WorkerHandle<P>> =
            Directory::new(setup(&config), workers, random, prompts, ports, events);
        if let Some(restored) = restored {
            directory
                .import_state(restored)
                .map_err(|error| StartError::Resume {
                    why: error.to_string(),
                })?;
        }
        let (wish, wishes) = watch::channel(Wish::Run);
        let (hand, handed) = mpsc::sync_channel(1);
        let worker_cores = config.workers.cores.clone();
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || housekeeping(control, directory, packets.keeper, wishes, &hand, &worker_cores))
            .map_err(system("control thread"))?;
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
            wish,
            handed,
            thread: Some(thread),
        })
    }

    /// Stops everything for a program that goes on from here ([`Server::resume`]).
    ///
    /// # Errors
    /// [`HandOverError::Refused`]: nothing was stopped and everything goes on. Otherwise nothing runs
    /// any more.
    pub fn hand_over(&mut self) -> Result<Image, HandOverError> {
        self.wish.send_replace(Wish::HandOver);
        let handed = self.handed.recv();
        handed.unwrap_or_else(|mpsc::RecvError| Err(HandOverError::Failed("control has ended".to_owned())))
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
        self.wish.send_replace(Wish::Stop);
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

/// The control thread: kept off the workers' cores where there is another one.
fn housekeeping<P: KeepOpen>(
    control: Control,
    directory: HttpDirectory<WorkerHandle<P>>,
    keeper: Option<Keeper>,
    wishes: watch::Receiver<Wish>,
    hand: &mpsc::SyncSender<Handed>,
    worker_cores: &[usize],
) -> io::Result<()> {
    let free = placement::ordinary_cores()
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
    let (clock, events) = (control.clock, Arc::clone(&control.events));
    let instance = control.instance.to_string();
    // Whoever asked waits for an answer.
    let refused = |why| drop(hand.send(Err(HandOverError::Refused(why))));
    let finished = runtime.block_on(control::run(control, directory, wishes, refused))?;
    drop(runtime);
    let Finished {
        wish,
        directory,
        listener,
    } = finished;
    if wish == Wish::HandOver {
        let _ = hand.send(Image::take(
            directory, keeper, &events, instance, &listener, clock,
        ));
        // The listener must be open when the next program begins.
        std::mem::forget(listener);
        return Ok(());
    }
    let workers = directory.into_links();
    for worker in &workers {
        worker.link.stop();
    }
    for worker in workers {
        let id = worker.id.0;
        if !worker.join() {
            tracing::error!(worker = id, "worker had panicked");
        }
    }
    // The interface goes when nobody uses its queues any more.
    drop(keeper);
    Ok(())
}

fn setup(config: &Config) -> Setup {
    Setup {
        address: config.io.address,
        conferences_max: config.limits.conferences,
        endpoints_max: config.limits.endpoints,
        worker_conferences_max: worker_conferences(config),
        worker_endpoints_max: worker_endpoints(config),
        admission: Marks::new(&config.admission),
        command_timeout: config.control.command_timeout,
        answers: ANSWERS,
    }
}

/// Finished commands remembered for idempotency.
const ANSWERS: usize = 16_384;

/// What a process may do while it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privileges {
    /// What it may do already.
    Keep,
    /// What it still needs: nothing on io_uring; on AF_XDP what it takes to serve an interface that
    /// was removed and comes back. All other capabilities are given up.
    GiveUp,
}

impl Privileges {
    /// To be called before there are threads: each has its own capabilities.
    fn settle(self, backend: &Backend) {
        if self == Self::Keep {
            return;
        }
        let needed: &[Capability] = match backend {
            Backend::Uring => &[],
            Backend::Xdp(_) => &Capability::AF_XDP,
        };
        match capabilities::keep_only(needed) {
            Ok(kept) => tracing::debug!(?kept, "capabilities"),
            Err(error) => tracing::warn!(%error, "capabilities"),
        }
    }
}

/// What is known of packet I/O besides the workers.
#[derive(Debug, Default)]
struct Packets {
    report: IoReport,
    keeper: Option<Keeper>,
}

impl Packets {
    fn of(opened: backend::OpenedXdp) -> Self {
        Self {
            report: opened.report(),
            keeper: Some(opened.keeper()),
        }
    }
}

/// Workers that go on where those of another program stopped.
enum Restarted {
    Uring(Workers<UringPrepared>, PortWork<UringPrepared>),
    Xdp(
        Workers<XdpPrepared>,
        PortWork<XdpPrepared>,
        Box<backend::OpenedXdp>,
    ),
}

/// What a start and a resumption come by in different ways.
struct Began {
    listener: TcpListener,
    random: Random,
    instance: Arc<str>,
    clock: Clock,
    prompts: Prompts,
    events: Arc<EventLog>,
    directory: Option<DirectoryState>,
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { what, source }
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
