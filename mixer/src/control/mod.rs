//! Control: what runs on the housekeeping core and talks to the workers through rings.
//!
//! HTTP requests come in through `http` and `routes`, become [`call::Call`]s, and one task
//! (`pump`) executes them on the `directory`. Nobody else touches the directory or the rings, so
//! nothing here is locked but the event log, and nothing here can hold up a worker.

pub mod answers;
pub mod call;
pub(crate) mod directory;
pub mod events;
pub(crate) mod headroom;
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

/// What the program wants of control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To go on.
    Run,
    /// To end.
    Stop,
    /// To end with nothing on its way, so that another program can go on.
    HandOver,
}

/// What is left of control when it has ended.
pub(crate) struct Finished<L: Link> {
    /// Why it ended: [`Wish::Stop`] or [`Wish::HandOver`].
    pub(crate) wish: Wish,
    /// With the workers' links, which still run.
    pub(crate) directory: HttpDirectory<L>,
    /// Still bound: connections wait for whoever accepts them next.
    pub(crate) listener: TcpListener,
}

/// A directory whose answers go to HTTP requests.
pub(crate) type HttpDirectory<L> = Directory<L, pump::Waiter>;

/// Requests waiting for the pump at most.
const ASKS: usize = 256;
/// Turns of the runtime between the last answer and the end of all connections.
const ANSWER_TURNS: u32 = 32;

/// Serves the control link until `wish` says otherwise. When something does not end in time for a
/// hand-over, `refused` is called and everything goes on. Runs on a tokio runtime with one thread.
///
/// # Errors
/// The listener cannot be used.
pub(crate) async fn run<L: Link>(
    control: Control,
    directory: HttpDirectory<L>,
    mut wish: watch::Receiver<Wish>,
    refused: impl Fn(&'static str),
) -> std::io::Result<Finished<L>> {
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
    let kept = listener.try_clone()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (sender, asks) = mpsc::channel(ASKS);
    let router = routes::router(routes::Link {
        pump: sender,
        events: Arc::clone(&events),
        token: config.token.map(Arc::new),
        clock,
        instance: Arc::clone(&instance),
    });
    let (closing, closed) = watch::channel(false);
    tokio::spawn(http::serve(listener, router, config.connections, closed));
    let mut pump = Pump {
        directory,
        asks,
        clock,
        events,
        instance,
        prompts,
        io,
        requests: Default::default(),
        exporter: Default::default(),
        full_recordings: 0,
    };
    let wish = loop {
        match pump.run(&mut wish).await {
            Wish::HandOver => match pump.quiesce(config.command_timeout).await {
                Ok(()) => break Wish::HandOver,
                Err(why) => refused(why),
            },
            wish @ (Wish::Run | Wish::Stop) => break wish,
        }
    };
    // Answers that were just given reach their clients; who gets none repeats the command.
    for _ in 0..ANSWER_TURNS {
        tokio::task::yield_now().await;
    }
    closing.send_replace(true);
    Ok(Finished {
        wish,
        directory: pump.directory,
        listener: kept,
    })
}
