//! Start and end of `mixminus-signaling`: everything in its order, every failure one line with the
//! remedy and an exit code.

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use signaling_core::input::Input;
use signaling_core::srtp::{KeySeed, SrtpPolicies};
use signaling_core::{Core, CoreConfig};
use tokio::sync::{mpsc, watch};

use crate::admin::Admin;
use crate::config::{Config, network_pairs};
use crate::driver::{Clock, Driver, Sinks, Sources};
use crate::exit;
use crate::metrics::Metrics;
use crate::mixer_link::{self, Found, Greeted, LinkError};
use crate::store::{Contents, Store, StoreError, WriteBehind};
use crate::transport::{BindError, Bound};

/// Inputs from mixers that may wait for the driver.
const QUEUE_MIXERS: usize = 4096;
/// Operators' questions that may wait for the driver.
const QUEUE_ADMIN: usize = 64;

/// Why the program cannot start or go on; displays as one line.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A SIP address cannot be bound.
    #[error("{}; {}", .0, remedy_of_bind(&.0.reason, "[sip] listen"))]
    Sip(#[from] BindError),
    /// The operator's HTTP address cannot be bound.
    #[error("operator HTTP {address}: {reason}; {}", remedy_of_bind(.reason, "[http] listen"))]
    Http {
        /// Address.
        address: SocketAddr,
        /// What the system said.
        reason: io::Error,
    },
    /// The database does not work.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// No mixer answers.
    #[error("no mixer answers: {0}; start mixminus-mixer, or set [[mixer]] url to where it listens")]
    Mixer(#[from] LinkError),
    /// Something of the machine.
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
    /// The program is at fault.
    #[error("internal error: {0}; the calls live on in the mixer, start the program again")]
    Internal(String),
}

fn remedy_of_bind(reason: &io::Error, key: &str) -> String {
    let what = if reason.kind() == io::ErrorKind::AddrInUse {
        "stop the program that uses it (`ss -lpn` names it)"
    } else if reason.kind() == io::ErrorKind::PermissionDenied {
        "use a port above 1023"
    } else {
        "use an address of this machine"
    };
    format!("{what} or change {key}")
}

impl ServerError {
    /// The exit code that belongs to it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Sip(BindError { reason, .. }) | Self::Http { reason, .. }
                if reason.kind() != io::ErrorKind::AddrInUse =>
            {
                exit::CONFIGURATION
            }
            Self::Store(StoreError::TooNew { .. }) => exit::CONFIGURATION,
            Self::Sip(_) | Self::Http { .. } | Self::Store(_) | Self::Mixer(_) => exit::TEMPORARY,
            Self::System(_) | Self::Internal(_) => exit::INTERNAL,
        }
    }
}

/// Runs until SIGTERM or SIGINT. Calls live on in the mixer; the next start finds them again.
///
/// # Errors
/// [`ServerError`], one line with the remedy.
pub async fn run(config: Config, wait_mixer: Duration, metrics: Arc<Metrics>) -> Result<(), ServerError> {
    let clock = Clock::start();
    let (stop, stopped) = watch::channel(false);
    watch_signals(stop)?;
    let bound = Bound::bind(&config.sip.listen)?;
    let address = config.http.listen;
    let http = tokio::net::TcpListener::bind(address).await;
    let http = http.map_err(|reason| ServerError::Http { address, reason })?;
    let address = http.local_addr()?;
    let mut store = Store::open(&config.store).await?;
    let contents = store.load().await?;
    let (asks, admin) = mpsc::channel(QUEUE_ADMIN);
    let admin_face = Admin::new(&config, asks, Arc::clone(&metrics), clock);
    let http_task = tokio::spawn(admin_face.serve(http, stopped.clone()));

    let seeds = Seeds {
        ids: random_bytes::<32>()?,
        keys: KeySeed(random_bytes::<32>()?),
    };
    let run = format!("{:08x}", u32::from_le_bytes(random_bytes::<4>()?));
    let greeted = tokio::select! {
        greeted = mixer_link::greet(&config.mixers, &config.node.name, &run, wait_mixer, &metrics) => greeted?,
        () = stop_asked(stopped.clone()) => return Ok(()),
    };
    tracing::info!(%address, "operator HTTP is open");
    let (store, store_task) = WriteBehind::start(store, &contents, Arc::clone(&metrics), stopped.clone());
    let core = restored_core(&config, seeds, clock, contents, &greeted);
    let (mixer_inputs, mixers) = mpsc::channel(QUEUE_MIXERS);
    let link = greeted.start(&mixer_inputs);
    for listener in bound.addresses() {
        tracing::info!(listen = %listener, "SIP is open");
    }
    let (transports, sip) = bound.start(config.sip.connections_max, &metrics)?;
    let sinks = Sinks {
        transports,
        link,
        store,
        metrics,
    };
    let driver = Driver::new(core, clock, sinks);
    let driver = tokio::spawn(driver.run(Sources { sip, mixers, admin }, stopped)).await;
    let _ = store_task.await;
    let _ = http_task.await;
    driver.map_err(|error| ServerError::Internal(error.to_string()))
}

/// The system's randomness for a core: what becomes public, and what never may.
struct Seeds {
    ids: [u8; 32],
    keys: KeySeed,
}

/// A core that knows what was found at start, before it sees any SIP.
fn restored_core(config: &Config, seeds: Seeds, clock: Clock, contents: Contents, greeted: &Greeted) -> Core {
    let mut core = Core::new(CoreConfig {
        domain: config.sip.domain.clone(),
        trusted: network_pairs(&config.sip.trusted),
        auto_create: config.rooms.auto_create,
        talkers: config.rooms.talkers,
        owner: config.node.name.clone(),
        learn_source: network_pairs(&config.sip.learn_source),
        calls_max: config.sip.calls_max,
        srtp: SrtpPolicies {
            default: config.sip.srtp,
            off: network_pairs(&config.sip.srtp_off),
            require: network_pairs(&config.sip.srtp_require),
        },
        seed: seeds.ids,
        key_seed: seeds.keys,
    });
    core.handle(clock.now(), Input::Wall(clock.wall()));
    for (mixer, instance) in greeted.instances() {
        core.handle(clock.now(), Input::MixerHealth { mixer, instance });
    }
    let Found {
        conferences: mixer_conferences,
        endpoints,
    } = greeted.found();
    tracing::info!(
        conferences = contents.conferences.len(),
        dialogs = contents.dialogs.len(),
        mixer_conferences = mixer_conferences.len(),
        endpoints = endpoints.len(),
        "found at start"
    );
    let Contents { conferences, dialogs } = contents;
    core.handle(
        clock.now(),
        Input::Restore {
            conferences,
            dialogs,
            endpoints,
            mixer_conferences,
        },
    );
    core
}

async fn stop_asked(mut stopped: watch::Receiver<bool>) {
    while !*stopped.borrow() {
        if stopped.changed().await.is_err() {
            return;
        }
    }
}

fn watch_signals(stop: watch::Sender<bool>) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; calls live on in the mixer");
        let _ = stop.send(true);
        // A sender that is dropped would look like another request to stop.
        stop.closed().await;
    });
    Ok(())
}

fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
