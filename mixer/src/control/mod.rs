//! Control: what runs on the housekeeping core and talks to the workers through rings.

pub mod rings;
