//! The mixer's shell: workers, packet I/O, control link, metrics.
pub mod io;
pub mod clock;
pub mod control;
pub mod limits;
pub mod worker;
pub mod placement;
