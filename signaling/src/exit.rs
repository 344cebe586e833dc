//! Exit codes (sysexits.h).

/// All well.
pub const OK: u8 = 0;
/// The request was understood and refused, or there is no such thing.
pub const REFUSED: u8 = 1;
/// Wrong command line.
pub const USAGE: u8 = 64;
/// The program is at fault.
pub const INTERNAL: u8 = 70;
/// Database, mixer or server cannot be reached; later it may work.
pub const TEMPORARY: u8 = 75;
/// The configuration cannot be used as it is.
pub const CONFIGURATION: u8 = 78;
