//! The workers of a server: what each is made from, and how they start or go on.

use std::io;

use mixer_engine::engine::EngineLimits;
use mixer_engine::time::Timestamp;

use super::StartError;
use crate::backend::PortWork;
use crate::clock::Clock;
use crate::config::Config;
use crate::io::PacketIo;
use crate::io::uring::{UringConfig, UringIo};
use crate::limits;
use crate::placement::{self, PlacementError, PortBlock};
use crate::upgrade::WorkerImage;
use crate::worker::exchange::Exchange;
use crate::worker::{self, RecordingConfig, Starting, WorkerConfig, WorkerHandle, WorkerId};

/// Running workers with their ports.
pub(super) type Workers<P> = Vec<(WorkerHandle<P>, PortBlock)>;

pub(super) fn worker_conferences(config: &Config) -> u32 {
    config.limits.conferences.min(limits::CONFERENCES_PER_WORKER)
}

pub(super) fn worker_endpoints(config: &Config) -> u32 {
    config.limits.endpoints.min(limits::ENDPOINTS_PER_WORKER)
}

pub(super) fn blocks(config: &Config) -> Result<Vec<PortBlock>, PlacementError> {
    placement::port_blocks(
        config.io.ports.first,
        config.io.ports.last,
        config.workers.cores.len(),
    )
}

pub(super) fn uring_openers(
    config: &Config,
    clock: Clock,
) -> Vec<impl FnOnce() -> io::Result<UringIo> + Send + use<>> {
    let io = UringConfig::new(clock, worker_endpoints(config));
    config
        .workers
        .cores
        .iter()
        .map(|_| move || UringIo::new(&io))
        .collect()
}

pub(super) fn start_workers<Io, F>(
    config: &Config,
    clock: Clock,
    openers: Vec<F>,
) -> Result<Workers<Io::Prepared>, StartError>
where
    Io: PacketIo,
    Io::Prepared: 'static,
    F: FnOnce() -> io::Result<Io> + Send + 'static,
{
    let mut workers = Workers::new();
    let configs = worker_configs(config, Some(clock.now()))?;
    let exchanges = Exchange::among(configs.len());
    for (((worker, block), exchange), open) in configs.into_iter().zip(exchanges).zip(openers) {
        let handle = worker::spawn(worker, exchange, open)?;
        let endpoints = worker_endpoints(config).min(block.endpoints());
        tracing::info!(worker = worker.id.0, core = ?worker.core, ports = %format_args!("{}-{}", block.first, block.last), endpoints, "worker runs");
        workers.push((handle, block));
    }
    Ok(workers)
}

/// All at once: the legs of the last one wait no longer than those of the first.
pub(super) fn resume_workers<Io, F>(
    config: &Config,
    openers: Vec<F>,
    images: Vec<WorkerImage>,
    ports: &mut PortWork<Io::Prepared>,
) -> Result<Workers<Io::Prepared>, StartError>
where
    Io: PacketIo,
    Io::Prepared: 'static,
    F: FnOnce() -> io::Result<Io> + Send + 'static,
{
    let configs = worker_configs(config, None)?;
    if configs.len() != images.len() {
        let why = format!(
            "there were {} workers, workers.cores names {}",
            images.len(),
            configs.len()
        );
        return Err(StartError::Resume { why });
    }
    let mut starting = Vec::new();
    let exchanges = Exchange::among(configs.len());
    let parts = configs.into_iter().zip(exchanges);
    for ((((worker, block), exchange), image), open) in parts.zip(images).zip(openers) {
        let resumed = image.resumed(ports).map_err(|error| StartError::Resume {
            why: error.to_string(),
        })?;
        starting.push((worker::spawn_resumed(worker, exchange, resumed, open)?, block));
    }
    let running = |(starting, block): (Starting<Io::Prepared>, _)| Ok((starting.running()?, block));
    starting.into_iter().map(running).collect()
}

fn worker_configs(
    config: &Config,
    origin: Option<Timestamp>,
) -> Result<Vec<(WorkerConfig, PortBlock)>, StartError> {
    let cores = &config.workers.cores;
    let recording = config.replay.folder.as_ref().map(|folder| RecordingConfig {
        bytes: config.replay.megabytes << 20,
        // For the life of the process: a worker's configuration is copied freely.
        folder: folder.clone().leak(),
    });
    let mut workers = Vec::new();
    for (place, (core, block)) in cores.iter().zip(blocks(config)?).enumerate() {
        let timeout_ms = config.limits.media_timeout.as_millis();
        let worker = WorkerConfig {
            id: WorkerId(u16::try_from(place).unwrap_or(u16::MAX)),
            core: Some(*core),
            spin: config.workers.spin,
            slots_per_turn: limits::SLOTS_PER_TURN,
            origin,
            engine: EngineLimits {
                conferences: worker_conferences(config),
                endpoints: worker_endpoints(config),
                port_first: block.first,
                port_last: block.last,
                events: limits::ENGINE_EVENTS,
                media_timeout_ms: u32::try_from(timeout_ms).unwrap_or(u32::MAX),
            },
            recording,
        };
        workers.push((worker, block));
    }
    Ok(workers)
}
