//! Every capacity of the core in one place.

use std::time::Duration;

/// Longest SIP message, bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Most header fields in a message.
pub const HEADERS_MAX: usize = 200;
/// Most Via values in a message.
pub const VIAS_MAX: usize = 64;
/// Longest single header field, bytes.
pub const HEADER_BYTES_MAX: usize = 8 * 1024;
/// Most continuation lines of one header field.
pub const FOLDS_MAX: usize = 64;
/// Longest session description, bytes.
pub const SDP_BYTES_MAX: usize = 8 * 1024;
/// Most Record-Route values that become a route set.
pub const ROUTES_MAX: usize = 32;
/// Longest conference id, characters.
pub const CONFERENCE_ID_MAX: usize = 64;
/// Most peers remembered as refused (each is logged once).
pub const REFUSED_PEERS_MAX: usize = 1024;
/// SIP transactions per permitted call beyond which new calls are refused without keeping state.
pub const TRANSACTIONS_PER_CALL: usize = 8;
/// SIP transactions that are always permitted.
pub const TRANSACTIONS_MIN: usize = 1024;
/// How long a caller may wait for the mixer before the INVITE is refused.
pub const SETUP_MAX: Duration = Duration::from_secs(20);
/// Seconds announced in Retry-After when nothing better is known.
pub const RETRY_AFTER_S: u32 = 5;

const _: () = assert!(SDP_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(VIAS_MAX <= HEADERS_MAX);
