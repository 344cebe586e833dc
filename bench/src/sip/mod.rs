//! A correct SIP caller (user agent client), sans-IO, on rsip's typed values.

pub mod message;
pub mod sdp;
pub mod uac;
pub mod wire;
