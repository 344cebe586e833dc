//! The mixer's shell: workers, packet I/O, control link, metrics.

pub mod backend;
pub mod capabilities;
pub mod clock;
pub mod config;
pub mod control;
pub mod doctor;
pub mod io;
pub mod limits;
pub mod metrics;
pub mod placement;
pub mod prompts;
pub mod replay;
pub mod server;
pub mod steering;
pub mod upgrade;
pub mod worker;
