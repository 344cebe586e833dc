//! Control: what runs on the housekeeping core and talks to the workers through rings.
//!
//! HTTP requests come in through `http` and `routes`, become [`call::Call`]s, and one task
//! (`pump`) executes them on the `directory`. Nobody else touches the directory or the rings, so
//! nothing here is locked but the event log, and nothing here can hold up a worker.

pub mod answers;
pub mod call;
pub(crate) mod directory;
pub mod events;
mod http;
mod ports;
mod pump;
pub mod random;
pub mod rings;
mod routes;

use std::net::TcpListener;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::config::ControlConfig;
use crate::io::report::IoReport;
use directory::{Directory, Link};
use events::EventLog;
use pump::Pump;

/// What control needs beside the directory.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) config: ControlConfig,
    pub(crate) listener: TcpListener,
    pub(crate) clock: Clock,
    pub(crate) events: Arc<EventLog>,
    /// Random id of this run of the mixer.
    pub(crate) instance: Arc<str>,
    /// Number of prompts, for metrics.
    pub(crate) prompts: usize,
    /// Which packet I/O runs, for metrics.
    pub(crate) io: IoReport,
}

/// A directory whose answers go to HTTP requests.
pub(crate) type HttpDirectory<L> = Directory<L, pump::Waiter>;

/// Requests waiting for the pump at most.
const ASKS: usize = 256;

/// Serves the control link until `stop` says so; gives back the workers' links. Runs on a tokio
/// runtime with one thread.
///
/// # Errors
/// The listener cannot be used.
pub(crate) async fn run<L: Link>(
    control: Control,
    directory: HttpDirectory<L>,
    stop: watch::Receiver<bool>,
) -> std::io::Result<Vec<L>> {
    let Control {
        config,
        listener,
        clock,
        events,
        instance,
        prompts,
        io,
    } = control;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (sender, asks) = mpsc::channel(ASKS);
    let router = routes::router(routes::Link {
        pump: sender,
        events: Arc::clone(&events),
        token: config.token.map(Arc::new),
        clock,
        instance: Arc::clone(&instance),
    });
    tokio::spawn(http::serve(listener, router, config.connections, stop.clone()));
    let pump = Pump {
        directory,
        asks,
        clock,
        events,
        instance,
        prompts,
        io,
        requests: Default::default(),
        exporter: Default::default(),
    };
    Ok(pump.run(stop).await)
}
