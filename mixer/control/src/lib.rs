//! The control link between a mixer and whoever drives it: JSON types only, no transport.
//!
//! Invariants: nothing here knows SIP and nothing here carries RTP. Every command carries an id
//! chosen by the client and is idempotent under it: the same id sent again gets the first answer
//! again. The mixer never calls anybody; it answers requests and streams numbered [`event::Event`]s.
//!
//! Paths (HTTP/1.1, `Content-Type: application/json`):
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | `GET /v1/state` | - | [`state::State`] |
//! | `PUT /v1/conferences/{conference}` | [`request::CreateConference`] | [`reply::Done`] |
//! | `DELETE /v1/conferences/{conference}?command=ID` | - | [`reply::Done`] |
//! | `POST /v1/conferences/{conference}/commands` | [`request::ConferenceCommand`] | [`reply::Done`] |
//! | `PUT /v1/conferences/{conference}/endpoints/{endpoint}` | [`request::CreateEndpoint`] | [`reply::EndpointCreated`] |
//! | `PUT /v1/conferences/{conference}/endpoints/{endpoint}/media` | [`request::SetMedia`] | [`reply::Done`] |
//! | `POST /v1/conferences/{conference}/endpoints/{endpoint}/commands` | [`request::EndpointCommand`] | [`reply::Done`] |
//! | `DELETE /v1/conferences/{conference}/endpoints/{endpoint}?command=ID` | - | [`reply::Done`] |
//! | `GET /v1/events?after=SEQ` | - | server-sent events, `id:` is the sequence number, `data:` is an [`event::Event`] |
//!
//! Errors are [`reply::Problem`] documents (RFC 9457) with the HTTP status of [`reply::ProblemKind::status`].

#![forbid(unsafe_code)]

pub mod event;
pub mod media;
pub mod reply;
pub mod request;
pub mod srtp;
pub mod state;

/// Path prefix and version of the link.
pub const VERSION: &str = "v1";
