//! The mixer's shell: workers, packet I/O, control link, metrics.
pub mod io;
