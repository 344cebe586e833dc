//! Our side of a dialog's SDP: one o= line for its life, a version that rises only with changes
//! (M-68), m-lines that never disappear (M-69), numbers that never change meaning (M-72).

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::effect::Codec;
use crate::srtp::SrtpPolicy;

use super::crypto::{self, Crypto, Profile, Security};
use super::negotiate::{
    self, Agreed, DYNAMIC_FIRST, Format, FormatKind, LineShape, Occasion, Plan, Refusal, Side,
};
use super::parse::{Description, Direction, MediaLine, SdpError};

/// Why an answer to our offer is worthless; the call must end with BYE.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// Cannot be read.
    #[error(transparent)]
    Unreadable(#[from] SdpError),
    /// No offer of ours is open.
    #[error("answer without an offer")]
    NotOffered,
    /// It has no audio line where we offered one, or refuses it with port 0.
    #[error("audio refused in the answer")]
    AudioRefused,
    /// Nothing in it can be used.
    #[error("unusable answer: {}", .0.text)]
    Unusable(Refusal),
}

/// Our half of the session of one dialog.
#[derive(Clone, PartialEq, Eq)]
pub struct LocalSession {
    session_id: u64,
    /// Version of `sent`; 0 before the first text.
    version: u64,
    /// Address in o=, which stays although the media address may change.
    origin: Option<IpAddr>,
    /// Our last text without its o= line.
    sent: String,
    /// The session's m-lines so far, in order.
    lines: Vec<LineShape>,
    audio: usize,
    /// What each of our audio formats is called in this session.
    numbers: BTreeMap<FormatName, u8>,
    /// What either side last used each dynamic number for.
    used: BTreeMap<u8, String>,
    /// Our open offer.
    offered: Option<OpenOffer>,
    /// What was agreed on last.
    agreed: Option<Agreed>,
    /// Something that was agreed on let the peer hear us.
    heard: bool,
}

// Its text holds our keys.
impl fmt::Debug for LocalSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSession")
            .field("session_id", &self.session_id)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// What the answer to an offer of ours is measured by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OpenOffer {
    formats: Vec<Format>,
    crypto: Vec<Crypto>,
    /// An answer without SRTP is none.
    secure: bool,
}

/// Name of a format of ours, in the order in which we offer them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum FormatName {
    Audio(Codec),
    TelephoneEvent,
}

impl LocalSession {
    /// A session without any text so far. Only the low 53 bits of the id are used: some peers keep
    /// it in a floating-point number.
    #[must_use]
    pub fn new(session_id: u64) -> Self {
        Self {
            session_id: session_id & ((1 << 53) - 1),
            version: 0,
            origin: None,
            sent: String::new(),
            lines: Vec::new(),
            audio: 0,
            numbers: BTreeMap::new(),
            used: BTreeMap::new(),
            offered: None,
            agreed: None,
            heard: false,
        }
    }

    /// Goes on where an earlier process stopped, from the texts of a dialog record. `remote_sdp` may
    /// be empty when none came.
    ///
    /// # Errors
    /// [`SdpError`] when our own text is not one of ours. A bad text of the peer is no error.
    pub fn restore(local_sdp: &str, remote_sdp: &str) -> Result<Self, SdpError> {
        let local = Description::parse(local_sdp.as_bytes())?;
        let foreign = || SdpError::Malformed("o= line is not one of ours".to_owned());
        let origin = local.origin.as_ref().ok_or_else(foreign)?;
        let mut session = Self::new(origin.session_id.parse().map_err(|_| foreign())?);
        session.version = origin.version.parse().map_err(|_| foreign())?;
        session.origin = Some(origin.address.parse().map_err(|_| foreign())?);
        session.sent = local_sdp
            .split_inclusive("\r\n")
            .filter(|line| !line.starts_with("o="))
            .collect();
        let audio = local.lines.iter().position(is_live_audio);
        session.audio = audio
            .or_else(|| local.lines.iter().position(is_audio))
            .unwrap_or(0);
        session.lines = local.lines.iter().map(shape_of).collect();
        if let Some(line) = local.lines.get(session.audio) {
            session.remember(&negotiate::own_formats(line));
        }
        let remote = Description::parse(remote_sdp.as_bytes()).ok();
        session.agreed = Self::restored_media(local_sdp, remote_sdp);
        // Unknown, but likely: better to keep a source out than to let hold music in.
        session.heard = remote.is_some();
        for line in remote
            .iter()
            .flat_map(|remote| &remote.lines)
            .filter(|line| is_audio(line))
        {
            session.used.extend(negotiate::bindings(line));
        }
        Ok(session)
    }

    /// What was agreed on, from the two texts of a dialog record, whoever offered. A peer that does not
    /// hear us counts as holding.
    #[must_use]
    pub fn restored_media(local_sdp: &str, remote_sdp: &str) -> Option<Agreed> {
        let local = Description::parse(local_sdp.as_bytes()).ok()?;
        let remote = Description::parse(remote_sdp.as_bytes()).ok()?;
        let mut pairs = local.lines.iter().zip(&remote.lines);
        let (ours, peer) = pairs.find(|(ours, peer)| is_live_audio(ours) && is_live_audio(peer))?;
        let formats = negotiate::own_formats(ours);
        let side = Side {
            formats: &formats,
            direction: ours.direction,
        };
        let mut agreed = negotiate::agree(&side, peer, Occasion::Again).ok()?;
        agreed.description.srtp = crypto::restored(ours, peer);
        Some(agreed)
    }

    /// What the next offer of the peer follows; argument of [`negotiate::plan`].
    #[must_use]
    pub fn occasion(&self) -> Occasion {
        match (&self.agreed, self.heard) {
            (_, true) => Occasion::Again,
            (Some(_), false) => Occasion::Unheard,
            (None, false) => Occasion::First,
        }
    }

    /// What was agreed on last, by either kind of offer: what the mixer should have.
    #[must_use]
    pub fn agreed(&self) -> Option<&Agreed> {
        self.agreed.as_ref()
    }

    fn agree(&mut self, agreed: &Agreed) {
        self.offered = None;
        self.heard |= agreed.description.send;
        self.agreed = Some(agreed.clone());
    }

    /// Version of our last text.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// A dynamic number that the offer uses for another encoding than this session did so far. RFC 3264
    /// 8.3.2 forbids that (M-72), but gateways do it when they join another party to a call, and
    /// refusing would cut that call: worth a log line, nothing more.
    #[must_use]
    pub fn renumbered(&self, plan: &Plan) -> Option<u8> {
        let changed =
            |(number, encoding): &&(u8, String)| self.used.get(number).is_some_and(|old| old != encoding);
        plan.bindings.iter().find(changed).map(|(number, _)| *number)
    }

    /// Answers an offer. `local` is where we receive RTP. The same plan and address give the same
    /// text, byte by byte.
    #[must_use]
    pub fn answer(&mut self, plan: &Plan, local: SocketAddr) -> String {
        self.agree(&plan.agreed);
        self.lines.clone_from(&plan.lines);
        self.remember(&plan.formats);
        self.used.extend(plan.bindings.iter().cloned());
        if let Some(audio) = plan.audio {
            self.audio = audio;
        }
        let live = plan.audio.map(|_| Live {
            formats: &plan.formats,
            ptime_ms: plan.agreed.description.ptime_ms,
            direction: plan.agreed.direction,
            crypto: answered_crypto(plan),
        });
        let body = self.body(&plan.time, local, live.as_ref());
        self.stamp(body, local.ip())
    }

    /// Offers everything we can (M-66, M-67), under the numbers this session knows already. Keys are new ones each time:
    /// the peer may have moved when it answers (M-53).
    #[must_use]
    pub fn offer(&mut self, local: SocketAddr, security: &mut Security<'_>) -> String {
        let formats: Vec<Format> = CAPABILITIES.into_iter().map(|name| self.numbered(name)).collect();
        self.remember(&formats);
        if self.lines.is_empty() {
            let proto = match security.policy {
                SrtpPolicy::Require => "RTP/SAVP",
                SrtpPolicy::Off | SrtpPolicy::Offer => "RTP/AVP",
            };
            self.lines.push(LineShape {
                media: "audio".to_owned(),
                proto: proto.to_owned(),
                formats: String::new(),
            });
        }
        let proto = self.lines.get(self.audio).map(|line| line.proto.as_str());
        let profile = proto.and_then(Profile::of).unwrap_or(Profile::Plain);
        let crypto = security.offer(profile);
        let live = Live {
            formats: &formats,
            ptime_ms: PTIME_OFFERED_MS,
            direction: Direction::SendRecv,
            crypto: crypto.clone(),
        };
        let body = self.body("0 0", local, Some(&live));
        self.offered = Some(OpenOffer {
            formats,
            crypto,
            secure: profile == Profile::Secure || security.policy == SrtpPolicy::Require,
        });
        self.stamp(body, local.ip())
    }

    /// Takes the answer to our open offer.
    ///
    /// # Errors
    /// [`AnswerError`]; the offer stays open then.
    pub fn accept_answer(&mut self, bytes: &[u8]) -> Result<Agreed, AnswerError> {
        let offered = self.offered.as_ref().ok_or(AnswerError::NotOffered)?;
        let answer = Description::parse(bytes)?;
        let line = answer
            .lines
            .get(self.audio)
            .filter(|line| is_live_audio(line))
            .ok_or(AnswerError::AudioRefused)?;
        let side = Side {
            formats: &offered.formats,
            direction: Direction::SendRecv,
        };
        let mut agreed = negotiate::agree(&side, line, self.occasion()).map_err(AnswerError::Unusable)?;
        agreed.description.srtp =
            crypto::accept(&offered.crypto, line, offered.secure).map_err(AnswerError::Unusable)?;
        self.used.extend(negotiate::bindings(line));
        self.agree(&agreed);
        Ok(agreed)
    }

    /// The number a format has in this session, or a free one that never meant anything else.
    fn numbered(&self, name: FormatName) -> Format {
        let (usual, kind) = match name {
            FormatName::Audio(codec @ Codec::Pcmu) => (0, FormatKind::Audio(codec)),
            FormatName::Audio(codec @ Codec::Pcma) => (8, FormatKind::Audio(codec)),
            FormatName::Audio(codec @ Codec::L16) => (DYNAMIC_FIRST, FormatKind::Audio(codec)),
            FormatName::TelephoneEvent => (101, FormatKind::TelephoneEvent { flash: true }),
        };
        let free = |number: &u8| {
            let taken = self
                .numbers
                .iter()
                .any(|(other, taken)| *other != name && taken == number);
            !taken && !self.used.contains_key(number)
        };
        let known = self.numbers.get(&name).copied();
        let number = known
            .or_else(|| Some(usual).filter(free))
            .or_else(|| (DYNAMIC_FIRST..128).find(free));
        // All 32 dynamic numbers used up: the usual one is the least wrong.
        Format {
            number: number.unwrap_or(usual),
            kind,
        }
    }

    fn remember(&mut self, formats: &[Format]) {
        for format in formats {
            let name = match format.kind {
                FormatKind::Audio(codec) => FormatName::Audio(codec),
                FormatKind::TelephoneEvent { .. } => FormatName::TelephoneEvent,
            };
            self.numbers.retain(|_, number| *number != format.number);
            self.numbers.insert(name, format.number);
        }
    }

    /// Everything but the o= line.
    fn body(&self, time: &str, local: SocketAddr, live: Option<&Live<'_>>) -> String {
        let mut text = format!(
            "v=0\r\ns=-\r\nc=IN {} {}\r\nt={time}\r\n",
            family(local.ip()),
            local.ip()
        );
        for (index, line) in self.lines.iter().enumerate() {
            match live {
                Some(live) if index == self.audio => live.write(&mut text, &line.proto, local.port()),
                _ => push(
                    &mut text,
                    format_args!("m={} 0 {} {}", line.media, line.proto, line.formats),
                ),
            }
        }
        text
    }

    /// Puts the o= line into its place, with a new version if anything else is new.
    fn stamp(&mut self, body: String, local: IpAddr) -> String {
        if body != self.sent {
            self.version += 1;
            self.sent = body;
        }
        let address = *self.origin.get_or_insert(local);
        let (session_id, version) = (self.session_id, self.version);
        let origin = format!(
            "v=0\r\no=mixminus {session_id} {version} IN {} {address}\r\n",
            family(address)
        );
        self.sent.replacen("v=0\r\n", &origin, 1)
    }
}

/// The audio line of a text that is about to be written.
struct Live<'a> {
    formats: &'a [Format],
    ptime_ms: u8,
    direction: Direction,
    crypto: Vec<Crypto>,
}

/// The line of the offer that was taken, with our own key.
fn answered_crypto(plan: &Plan) -> Vec<Crypto> {
    let line = plan.crypto_tag.zip(plan.agreed.description.srtp.as_ref());
    let line = line.map(|(tag, srtp)| Crypto {
        tag,
        suite: srtp.suite,
        key: srtp.send.clone(),
    });
    line.into_iter().collect()
}

impl Live<'_> {
    fn write(&self, text: &mut String, proto: &str, port: u16) {
        let numbers: Vec<String> = self
            .formats
            .iter()
            .map(|format| format.number.to_string())
            .collect();
        push(text, format_args!("m=audio {port} {proto} {}", numbers.join(" ")));
        for Format { number, kind } in self.formats {
            match kind {
                FormatKind::Audio(codec) => {
                    push(text, format_args!("a=rtpmap:{number} {}/8000", name(*codec)))
                }
                FormatKind::TelephoneEvent { flash } => {
                    push(text, format_args!("a=rtpmap:{number} telephone-event/8000"));
                    push(
                        text,
                        format_args!("a=fmtp:{number} 0-{}", if *flash { 16 } else { 15 }),
                    );
                }
            }
        }
        for crypto in &self.crypto {
            push(text, format_args!("a=crypto:{}", crypto.value()));
        }
        push(text, format_args!("a=ptime:{}", self.ptime_ms));
        push(text, format_args!("a={}", self.direction.as_str()));
    }
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{line}\r\n");
}

fn name(codec: Codec) -> &'static str {
    match codec {
        Codec::Pcmu => "PCMU",
        Codec::Pcma => "PCMA",
        Codec::L16 => "L16",
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IP4" } else { "IP6" }
}

fn is_audio(line: &MediaLine) -> bool {
    line.media.eq_ignore_ascii_case("audio")
}

fn is_live_audio(line: &MediaLine) -> bool {
    is_audio(line) && line.port != 0
}

fn shape_of(line: &MediaLine) -> LineShape {
    LineShape {
        media: line.media.clone(),
        proto: line.proto.clone(),
        formats: line.formats.clone(),
    }
}

/// What we can, in the order in which we offer it.
const CAPABILITIES: [FormatName; 4] = [
    FormatName::Audio(Codec::Pcmu),
    FormatName::Audio(Codec::Pcma),
    FormatName::Audio(Codec::L16),
    FormatName::TelephoneEvent,
];

const PTIME_OFFERED_MS: u8 = 20;
