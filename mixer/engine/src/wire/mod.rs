//! Packet formats: borrowed views for reading, small values for writing. Parsers never panic.

pub mod checksum;
pub mod rtp;
pub mod telephone_event;
