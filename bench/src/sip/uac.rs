//! Many calls of one user agent client (RFC 3261 13, 15, 17.1): bytes and time in, bytes and
//! happenings out.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use mixer_engine::time::Timestamp;
use rsip::prelude::*;
use rsip::{Method, Request, Response, SipMessage};

use super::message::{Dialog, Ends, Transport, explanation, parse, retry_after};
use super::sdp;
use crate::seed::Seed;
use crate::sound::g711::Law;

/// RFC 3261 17.1.1.1: estimate of the round-trip time.
const T1: Duration = Duration::from_millis(500);
/// RFC 3261 17.1.2.2: longest retransmit interval of non-INVITE requests.
const T2: Duration = Duration::from_secs(4);
/// Timers B and F: 64 * T1.
const TIMEOUT: Duration = Duration::from_secs(32);

/// Something worth knowing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// The call is up.
    Answered {
        /// Which leg.
        leg: usize,
        /// Where its RTP goes.
        media: SocketAddr,
        /// From the INVITE to its 200.
        setup: Duration,
        /// Value of `a=crypto`, if there is one.
        crypto: Option<String>,
    },
    /// The call did not come up, or its BYE was refused.
    Failed {
        /// Which leg.
        leg: usize,
        /// Status or cause, one line.
        why: String,
    },
    /// The server has no room: 503 with a time to come back (RFC 3261 21.5.4).
    NoRoom {
        /// Which leg.
        leg: usize,
        /// Status and time, one line.
        why: String,
    },
    /// The server hung up.
    EndedByServer {
        /// Which leg.
        leg: usize,
    },
    /// Our BYE was answered.
    Closed {
        /// Which leg.
        leg: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Calling,
    Proceeding,
    Up,
    Closing,
    Over,
}

#[derive(Debug)]
struct Call {
    dialog: Dialog,
    offer: String,
    phase: Phase,
    branch: String,
    /// Last request, for retransmission.
    request: Vec<u8>,
    /// ACK of the final answer, for its retransmissions.
    ack: Vec<u8>,
    began: Timestamp,
    again_at: Option<Timestamp>,
    interval: Duration,
    deadline: Option<Timestamp>,
}

/// The caller of a run.
#[derive(Debug)]
pub struct Uac {
    ends: Ends,
    law: Law,
    seed: Seed,
    calls: BTreeMap<usize, Call>,
    by_call_id: BTreeMap<String, usize>,
    out: VecDeque<Vec<u8>>,
    happened: VecDeque<Happening>,
    /// Requests we had to send again.
    pub retransmissions: u64,
    /// Messages that could not be read or belong to no call.
    pub strays: u64,
}

impl Uac {
    /// A caller without calls.
    #[must_use]
    pub fn new(ends: Ends, law: Law, seed: Seed) -> Self {
        Self {
            ends,
            law,
            seed,
            calls: BTreeMap::new(),
            by_call_id: BTreeMap::new(),
            out: VecDeque::new(),
            happened: VecDeque::new(),
            retransmissions: 0,
            strays: 0,
        }
    }

    /// Places a call of `leg` to `focus`, offering RTP at `media`, or SRTP with the value of an `a=crypto`.
    pub fn invite(
        &mut self,
        now: Timestamp,
        leg: usize,
        focus: &str,
        media: SocketAddr,
        crypto: Option<&str>,
    ) {
        let call_id = format!("{}@mixminus-bench", self.seed.token());
        let tag = self.seed.token();
        let mut dialog = self
            .ends
            .dialog(&format!("leg-{leg}"), focus, call_id.clone(), tag);
        dialog.cseq = 1;
        let offer = sdp::offer(self.seed.bits() >> 16, media, self.law, crypto);
        let branch = self.branch();
        let request = self.ends.request(&dialog, Method::Invite, &branch, Some(&offer));
        self.out.push_back(request.clone());
        self.by_call_id.insert(call_id, leg);
        let call = Call {
            dialog,
            offer,
            phase: Phase::Calling,
            branch,
            request,
            ack: Vec::new(),
            began: now,
            again_at: self.first_retransmission(now),
            interval: T1,
            deadline: Some(now.after(TIMEOUT)),
        };
        self.calls.insert(leg, call);
    }

    /// Hangs up; nothing happens when the call is not up.
    pub fn bye(&mut self, now: Timestamp, leg: usize) {
        let branch = self.branch();
        let again_at = self.first_retransmission(now);
        let Some(call) = self.calls.get_mut(&leg).filter(|call| call.phase == Phase::Up) else {
            return;
        };
        call.dialog.cseq += 1;
        call.request = self.ends.request(&call.dialog, Method::Bye, &branch, None);
        call.branch = branch;
        call.phase = Phase::Closing;
        (call.again_at, call.interval, call.deadline) = (again_at, T1, Some(now.after(TIMEOUT)));
        self.out.push_back(call.request.clone());
    }

    /// Calls neither failed nor closed.
    #[must_use]
    pub fn open(&self) -> usize {
        self.calls
            .values()
            .filter(|call| call.phase != Phase::Over)
            .count()
    }

    /// Next message to send.
    pub fn poll_send(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// Next happening.
    pub fn poll_happening(&mut self) -> Option<Happening> {
        self.happened.pop_front()
    }

    /// Takes one whole message from the server.
    pub fn handle(&mut self, now: Timestamp, bytes: &[u8]) {
        match parse(bytes) {
            Some(SipMessage::Request(request)) => self.handle_request(&request),
            Some(SipMessage::Response(response)) => self.handle_response(now, &response),
            None => self.strays += 1,
        }
    }

    /// Runs what is due: retransmissions (timers A and E) and time-outs (timers B and F).
    pub fn handle_timeout(&mut self, now: Timestamp) {
        for (&leg, call) in &mut self.calls {
            if call.deadline.is_some_and(|at| at <= now) {
                call.phase = Phase::Over;
                (call.again_at, call.deadline) = (None, None);
                self.happened.push_back(Happening::Failed {
                    leg,
                    why: "no final answer in 32 s".into(),
                });
            } else if call.again_at.is_some_and(|at| at <= now) {
                // RFC 3261 17.1.1.2 and 17.1.2.2: doubling, capped at T2 except for INVITE.
                call.interval *= 2;
                if call.phase == Phase::Closing {
                    call.interval = call.interval.min(T2);
                }
                call.again_at = Some(now.after(call.interval));
                self.retransmissions += 1;
                self.out.push_back(call.request.clone());
            }
        }
    }

    fn branch(&mut self) -> String {
        format!("z9hG4bK{}", self.seed.token())
    }

    fn first_retransmission(&self, now: Timestamp) -> Option<Timestamp> {
        (self.ends.transport == Transport::Udp).then(|| now.after(T1))
    }

    fn handle_response(&mut self, now: Timestamp, response: &Response) {
        let leg = response
            .call_id_header()
            .ok()
            .and_then(|id| self.by_call_id.get(id.value()).copied());
        let cseq = response.cseq_header().ok().and_then(|cseq| cseq.typed().ok());
        let (Some(leg), Some(cseq)) = (leg, cseq) else {
            self.strays += 1;
            return;
        };
        if cseq.method == Method::Invite {
            self.invite_answered(now, leg, response);
        } else if cseq.method == Method::Bye {
            self.bye_answered(leg, response);
        } else {
            self.strays += 1;
        }
    }

    fn invite_answered(&mut self, now: Timestamp, leg: usize, response: &Response) {
        let status = response.status_code.code();
        let ack_branch = self.branch();
        let law = self.law;
        let Some(call) = self.calls.get_mut(&leg) else {
            return;
        };
        if !matches!(call.phase, Phase::Calling | Phase::Proceeding) {
            // RFC 3261 13.2.2.4 and 17.1.1.2: a repeated final answer is acknowledged again.
            if status >= 200 && !call.ack.is_empty() {
                self.out.push_back(call.ack.clone());
            }
            return;
        }
        call.again_at = None;
        if status < 200 {
            call.phase = Phase::Proceeding;
            return;
        }
        call.deadline = None;
        call.dialog.learn(response);
        if status >= 300 {
            // RFC 3261 17.1.1.3: the ACK of a refusal belongs to the INVITE's transaction.
            let mut refused = call.dialog.clone();
            refused.remote_target = self.ends.uri(refused_user(&call.request), self.ends.target);
            refused.routes.clear();
            call.ack = self.ends.request(&refused, Method::Ack, &call.branch, None);
            call.phase = Phase::Over;
            self.out.push_back(call.ack.clone());
            let why = refusal(response);
            let no_room = response.status_code.code() == 503 && retry_after(response).is_some();
            self.happened.push_back(if no_room {
                Happening::NoRoom { leg, why }
            } else {
                Happening::Failed { leg, why }
            });
            return;
        }
        call.ack = self.ends.request(&call.dialog, Method::Ack, &ack_branch, None);
        call.phase = Phase::Up;
        self.out.push_back(call.ack.clone());
        match sdp::answer(&response.body, law) {
            Ok(media) => {
                self.happened.push_back(Happening::Answered {
                    leg,
                    media,
                    setup: now.since(call.began),
                    crypto: sdp::crypto(&response.body),
                });
            }
            Err(error) => {
                self.happened.push_back(Happening::Failed {
                    leg,
                    why: format!("200 with bad SDP: {error}"),
                });
                self.bye(now, leg);
            }
        }
    }

    fn bye_answered(&mut self, leg: usize, response: &Response) {
        let status = response.status_code.code();
        let Some(call) = self
            .calls
            .get_mut(&leg)
            .filter(|call| call.phase == Phase::Closing)
        else {
            return;
        };
        if status < 200 {
            return;
        }
        call.phase = Phase::Over;
        (call.again_at, call.deadline) = (None, None);
        self.happened.push_back(if status < 300 {
            Happening::Closed { leg }
        } else {
            Happening::Failed {
                leg,
                why: format!("BYE answered {}", refusal(response)),
            }
        });
    }

    fn handle_request(&mut self, request: &Request) {
        let leg = request
            .call_id_header()
            .ok()
            .and_then(|id| self.by_call_id.get(id.value()).copied());
        let call = leg.and_then(|leg| self.calls.get_mut(&leg));
        let reply = match (request.method, call) {
            (Method::Ack, _) => return,
            (Method::Options, _) => self.ends.response(request, 200, "bench", None),
            (Method::Bye, Some(call)) => {
                if !matches!(call.phase, Phase::Over | Phase::Closing) {
                    call.phase = Phase::Over;
                    (call.again_at, call.deadline) = (None, None);
                    self.happened.push_back(Happening::EndedByServer {
                        leg: leg.unwrap_or(0),
                    });
                }
                self.ends.response(request, 200, &call.dialog.user, None)
            }
            // Nothing of ours changes in a re-INVITE: the same description again.
            (Method::Invite, Some(call)) => {
                self.ends
                    .response(request, 200, &call.dialog.user, Some(&call.offer))
            }
            (Method::Bye | Method::Invite | Method::Cancel, _) => {
                self.ends.response(request, 481, "bench", None)
            }
            _ => self.ends.response(request, 405, "bench", None),
        };
        self.out.push_back(reply);
    }
}

/// The focus an INVITE of ours was sent to.
fn refused_user(request: &[u8]) -> &str {
    let text = std::str::from_utf8(request).unwrap_or_default();
    text.strip_prefix("INVITE sip:")
        .and_then(|rest| rest.split('@').next())
        .unwrap_or_default()
}

fn refusal(response: &Response) -> String {
    let mut line = response.status_code.to_string();
    if let Some(seconds) = retry_after(response) {
        line = format!("{line} (retry after {seconds})");
    }
    match explanation(response) {
        Some(text) => format!("{line}: {text}"),
        None => line,
    }
}

#[cfg(test)]
mod tests;
