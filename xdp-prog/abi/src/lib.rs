//! What the mixer and the XDP program share: maps, their keys and values, verdicts, and the program itself.
//!
//! The Rust twin of `xdp-prog/src/maps.h`. `tests/twin.rs` reads that header and the committed object and fails when
//! one side changes alone. Nothing here does I/O; the mixer loads [`OBJECT`] and opens the maps by their names.
//!
//! A loader that takes plain data only needs no `unsafe` for these types: each has a conversion to and from an array of
//! integers of the same size.

#![forbid(unsafe_code)]

mod maps;
mod object;
mod verdict;

pub use maps::{
    ADDRESSES, ADDRESSES_MAX, Address, Bucket, MAPS, MapKind, MapSpec, PORTS, PORTS_MAX, QUEUES_MAX,
    REDIRECTED, SETTINGS, SOURCES, SOURCES_MAX, Settings, Source, VERDICTS, XSKS, port_owner, port_value,
};
pub use object::{OBJECT, OBJECT_SHA256, PROGRAM};
pub use verdict::{Action, Verdict};
