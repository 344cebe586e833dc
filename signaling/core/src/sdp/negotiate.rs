//! RFC 3264 decisions: which m-line, which codecs, which direction, where to, or why not.
//!
//! | offered | answered | we send | we mix |
//! |---|---|---|---|
//! | sendrecv | sendrecv | yes | yes |
//! | recvonly (M-63) | sendonly | yes | no |
//! | sendonly, peer never heard us: a source | recvonly | no | yes |
//! | sendonly, later: hold (M-60) | recvonly | no | no |
//! | inactive (M-61) | inactive | no | no |
//! | any with address 0.0.0.0 (M-62) | as without it | no | as without it; no when it heard us |
//!
//! A hold is never answered with a hold (M-64).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::effect::{Codec, MediaDescription};

use super::crypto::{Profile, Security};
use super::parse::{Connection, Direction, MediaLine, Offer, Payload, SdpError};

/// Whether something was agreed on before in this dialog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// Nothing was: a sendonly peer is a source, and an offer without audio is refused.
    First,
    /// Something was, but the peer has never heard us: sendonly still means a source.
    Unheard,
    /// The peer has heard us: sendonly is a hold. Audio may be removed with port 0, as in `Unheard`.
    Again,
}

/// What both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// For the mixer. `learn_from` is left empty: policy of the caller.
    pub description: MediaDescription,
    /// Direction as our own SDP states it; [`Direction::reversed`] is the participant's view, which
    /// conference documents show.
    pub direction: Direction,
    /// The peer neither hears nor is mixed.
    pub held: bool,
    /// Where the peer wants RTCP; none when it is switched off or nothing may be sent.
    pub remote_rtcp: Option<SocketAddr>,
}

/// An offer that will be accepted: input of [`super::LocalSession::answer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What the acceptance means for media.
    pub agreed: Agreed,
    pub(super) time: String,
    pub(super) lines: Vec<LineShape>,
    /// Which of `lines` is ours; none when audio was removed.
    pub(super) audio: Option<usize>,
    pub(super) formats: Vec<Format>,
    /// Number of the peer's `a=crypto` line that was taken.
    pub(super) crypto_tag: Option<u32>,
    /// Every dynamic number of the offer with its encoding.
    pub(super) bindings: Vec<(u8, String)>,
}

/// What stays of an m-line that we do not use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LineShape {
    pub(super) media: String,
    pub(super) proto: String,
    pub(super) formats: String,
}

/// A payload type of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) number: u8,
    pub(super) kind: FormatKind,
}

/// What a payload type carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FormatKind {
    Audio(Codec),
    /// RFC 4733; flash: event 16 as well.
    TelephoneEvent {
        flash: bool,
    },
}

/// Why an offer is not accepted: a SIP status and a Warning (RFC 3261 section 20.43).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// SIP status, 488 for everything but unreadable bodies (400) and too large ones (413).
    pub status: u16,
    /// Warning code.
    pub warning: u16,
    /// Warning text: printable ASCII without quotes.
    pub text: String,
}

impl Refusal {
    pub(super) fn not_acceptable(warning: u16, text: &str) -> Self {
        Self {
            status: 488,
            warning,
            text: printable(text),
        }
    }

    /// Value of the Warning header; `agent` is our host name.
    #[must_use]
    pub fn warning_value(&self, agent: &str) -> String {
        format!("{} {agent} \"{}\"", self.warning, self.text)
    }
}

impl From<SdpError> for Refusal {
    fn from(error: SdpError) -> Self {
        let status = match error {
            SdpError::TooLarge(_) => 413,
            SdpError::TooManyMediaLines => 488,
            SdpError::Malformed(_) => 400,
        };
        Self {
            status,
            warning: WARNING_OTHER,
            text: printable(&error.to_string()),
        }
    }
}

impl Agreed {
    /// Whether RTP from `local` can reach the peer at all.
    ///
    /// # Errors
    /// 488 with Warning 301 when one side has only IPv4 and the other only IPv6.
    pub fn reachable_from(&self, local: IpAddr) -> Result<(), Refusal> {
        let remote = self.description.remote.ip();
        if remote.is_unspecified() || remote.is_ipv4() == local.is_ipv4() {
            return Ok(());
        }
        let text = if local.is_ipv4() {
            "media is IPv4 only here"
        } else {
            "media is IPv6 only here"
        };
        Err(Refusal::not_acceptable(WARNING_ADDRESS_FORMAT, text))
    }
}

/// Decides about an offer: the first usable audio line is taken, one with SRTP before others (M-50), and all others are
/// answered with port 0.
///
/// # Errors
/// [`Refusal`] with the reason of the first audio line that is not usable.
pub fn plan(offer: &Offer, occasion: Occasion, security: &mut Security<'_>) -> Result<Plan, Refusal> {
    let mut first_refusal = None;
    let mut lines: Vec<_> = offer.lines.iter().enumerate().collect();
    lines.sort_by_key(|(_, line)| Profile::of(&line.proto) != Some(Profile::Secure));
    for (index, line) in lines {
        if !line.media.eq_ignore_ascii_case("audio") || line.port == 0 {
            continue;
        }
        match usable(line, occasion, security) {
            Ok((formats, crypto_tag, agreed)) => {
                return Ok(Plan {
                    agreed,
                    audio: Some(index),
                    formats,
                    crypto_tag,
                    ..shape(offer)
                });
            }
            Err(refusal) => first_refusal = first_refusal.or(Some(refusal)),
        }
    }
    match first_refusal {
        Some(refusal) => Err(refusal),
        None if occasion != Occasion::First && all_removed(offer) => Ok(shape(offer)),
        None => Err(Refusal::not_acceptable(
            WARNING_MEDIA_TYPE,
            "an audio stream is needed",
        )),
    }
}

/// Whether the peer took its audio away and asks for nothing in its place. When it asks for fax
/// instead, a refusal leaves the audio as it is, and the fax goes through it.
fn all_removed(offer: &Offer) -> bool {
    !offer.lines.is_empty() && offer.lines.iter().all(|line| line.port == 0)
}

/// The plan that takes nothing of an offer.
fn shape(offer: &Offer) -> Plan {
    let lines = offer.lines.iter();
    Plan {
        agreed: nothing(),
        time: offer.time.clone(),
        lines: lines
            .clone()
            .map(|line| LineShape {
                media: line.media.clone(),
                proto: line.proto.clone(),
                formats: line.formats.clone(),
            })
            .collect(),
        audio: None,
        formats: Vec::new(),
        crypto_tag: None,
        bindings: lines
            .filter(|line| line.media.eq_ignore_ascii_case("audio"))
            .flat_map(bindings)
            .collect(),
    }
}

/// Dynamic numbers of a line and what they mean there, in one spelling.
pub(super) fn bindings(line: &MediaLine) -> impl Iterator<Item = (u8, String)> + '_ {
    let dynamic = line
        .payloads
        .iter()
        .filter(|payload| payload.number >= DYNAMIC_FIRST);
    dynamic.map(|payload| (payload.number, binding(payload)))
}

fn binding(payload: &Payload) -> String {
    format!(
        "{}/{}/{}",
        payload.encoding.to_ascii_uppercase(),
        payload.clock_hz,
        payload.channels
    )
}

/// What goes to the mixer when the peer removed its audio: silence both ways, to nowhere.
fn nothing() -> Agreed {
    let description = MediaDescription {
        remote: nowhere(),
        send: false,
        receive: false,
        codec: Codec::Pcmu,
        payload_type: 0,
        ptime_ms: PTIME_DEFAULT_MS,
        receive_formats: vec![(0, Codec::Pcmu)],
        telephone_event: None,
        learn_from: Vec::new(),
        srtp: None,
    };
    Agreed {
        description,
        direction: Direction::Inactive,
        held: true,
        remote_rtcp: None,
    }
}

fn nowhere() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), DISCARD_PORT)
}

/// Our side of one audio line of an offer: our formats in the offerer's order, under its numbers.
fn usable(
    line: &MediaLine,
    occasion: Occasion,
    security: &mut Security<'_>,
) -> Result<(Vec<Format>, Option<u32>, Agreed), Refusal> {
    if Profile::of(&line.proto).is_none() {
        let text = format!(
            "transport {} is not supported, RTP/AVP and RTP/SAVP are",
            line.proto
        );
        return Err(Refusal::not_acceptable(WARNING_TRANSPORT, &text));
    }
    let formats = own_formats(line);
    let ours = Side {
        formats: &formats,
        direction: line.direction.reversed(),
    };
    let mut agreed = agree(&ours, line, occasion)?;
    let (crypto_tag, srtp) = security.answer(line, &agreed)?.unzip();
    agreed.description.srtp = srtp;
    Ok((formats, crypto_tag, agreed))
}

/// The payload types of a line that we know, the first one of each kind: a mixer takes a bounded number.
pub(super) fn own_formats(line: &MediaLine) -> Vec<Format> {
    let mut formats: Vec<Format> = Vec::new();
    for payload in &line.payloads {
        let Some(kind) = kind_of(payload) else {
            continue;
        };
        let format = Format {
            number: payload.number,
            kind,
        };
        let codec = |format: &Format| format.audio().map(|(_, codec)| codec);
        if !formats.iter().any(|known| codec(known) == codec(&format)) {
            formats.push(format);
        }
    }
    formats
}

/// What a payload type is to us. All our audio clocks are 8000 Hz, so telephone-event's is too (M-44).
fn kind_of(payload: &Payload) -> Option<FormatKind> {
    if payload.clock_hz != 8000 || payload.channels != 1 {
        return None;
    }
    match payload.encoding.to_ascii_uppercase().as_str() {
        "PCMU" => Some(FormatKind::Audio(Codec::Pcmu)),
        "PCMA" => Some(FormatKind::Audio(Codec::Pcma)),
        "L16" => Some(FormatKind::Audio(Codec::L16)),
        "TELEPHONE-EVENT" => Some(FormatKind::TelephoneEvent {
            flash: lists_flash(&payload.parameters),
        }),
        _ => None,
    }
}

/// Whether an RFC 4733 event list such as `0-15,66` or `0-16` contains event 16.
fn lists_flash(parameters: &str) -> bool {
    parameters.split(',').any(|part| {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        match (first.trim().parse::<u8>(), last.trim().parse::<u8>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&16),
            _ => false,
        }
    })
}

/// What we said or will say about the audio line.
pub(super) struct Side<'a> {
    pub(super) formats: &'a [Format],
    pub(super) direction: Direction,
}

/// Brings our side and the peer's line together, whoever offered; keys come in afterwards.
pub(super) fn agree(ours: &Side<'_>, peer: &MediaLine, occasion: Occasion) -> Result<Agreed, Refusal> {
    let peer_formats = own_formats(peer);
    let (payload_type, codec) = first_common(&peer_formats, ours.formats).ok_or_else(|| no_codec(peer))?;
    let ptime_ms = packet_time(peer)?;
    let remote = remote(peer)?;
    let reachable = !remote.ip().is_unspecified();

    let peer_hears = peer.direction.receives() && reachable;
    let hold = occasion == Occasion::Again && !peer_hears;
    let send = ours.direction.sends() && peer_hears;
    let receive = ours.direction.receives() && peer.direction.sends() && !hold;
    let description = MediaDescription {
        remote,
        send,
        receive,
        codec,
        payload_type,
        ptime_ms,
        receive_formats: receive_formats(ours.formats, &peer_formats),
        telephone_event: telephone_event(ours.formats, &peer_formats),
        learn_from: Vec::new(),
        srtp: None,
    };
    Ok(Agreed {
        description,
        direction: narrowed(ours.direction, peer.direction),
        held: !send && !receive,
        remote_rtcp: remote_rtcp(peer, remote),
    })
}

/// The first audio format of the peer that we have too: RFC 3264 6.1, most preferred first.
fn first_common(peer: &[Format], ours: &[Format]) -> Option<(u8, Codec)> {
    let mut audio = peer.iter().filter_map(Format::audio);
    audio.find(|(_, codec)| {
        ours.iter()
            .filter_map(Format::audio)
            .any(|(_, own)| own == *codec)
    })
}

impl Format {
    pub(super) fn audio(&self) -> Option<(u8, Codec)> {
        match self.kind {
            FormatKind::Audio(codec) => Some((self.number, codec)),
            FormatKind::TelephoneEvent { .. } => None,
        }
    }
}

/// What may arrive: our numbers for all codecs the peer has (M-71), and the peer's own numbers for
/// them where they mean nothing else, because many devices send with what they wrote.
fn receive_formats(ours: &[Format], peer: &[Format]) -> Vec<(u8, Codec)> {
    let has = |formats: &[Format], codec| {
        formats
            .iter()
            .filter_map(Format::audio)
            .any(|(_, other)| other == codec)
    };
    let mut formats: Vec<(u8, Codec)> = ours.iter().filter_map(Format::audio).collect();
    formats.retain(|(_, codec)| has(peer, *codec));
    for (number, codec) in peer.iter().filter_map(Format::audio) {
        if has(ours, codec) && !ours.iter().any(|own| own.number == number) {
            formats.push((number, codec));
        }
    }
    formats
}

/// The number under which key presses arrive: ours, when the peer has them at all.
fn telephone_event(ours: &[Format], peer: &[Format]) -> Option<u8> {
    let find = |formats: &[Format]| {
        let mut events = formats.iter().filter(|format| format.audio().is_none());
        events.next().map(|format| format.number)
    };
    find(peer).and(find(ours))
}

/// Our stated direction, cut down to what the peer stated.
fn narrowed(ours: Direction, peer: Direction) -> Direction {
    match (ours.sends() && peer.receives(), ours.receives() && peer.sends()) {
        (true, true) => Direction::SendRecv,
        (true, false) => Direction::SendOnly,
        (false, true) => Direction::RecvOnly,
        (false, false) => Direction::Inactive,
    }
}

fn no_codec(peer: &MediaLine) -> Refusal {
    let offered: Vec<&str> = peer
        .payloads
        .iter()
        .map(|payload| payload.encoding.as_str())
        .filter(|name| !name.is_empty())
        .collect();
    let text = format!(
        "no common codec; here PCMU PCMA L16/8000, there {}",
        offered.join(" ")
    );
    Refusal::not_acceptable(WARNING_FORMAT, &text)
}

/// What we send: the peer's ptime if we can, 20 ms else, never above its maxptime (M-31).
fn packet_time(peer: &MediaLine) -> Result<u8, Refusal> {
    let limit = peer.max_ptime_ms.unwrap_or(u32::MAX);
    let fits = |ptime: &u8| u32::from(*ptime) <= limit;
    let asked = PTIMES_MS
        .into_iter()
        .find(|ptime| Some(u32::from(*ptime)) == peer.ptime_ms);
    asked
        .filter(fits)
        .or(Some(PTIME_DEFAULT_MS).filter(fits))
        .or_else(|| PTIMES_MS.into_iter().rfind(fits))
        .ok_or_else(|| Refusal::not_acceptable(WARNING_FORMAT, "maxptime below 10 ms is not supported"))
}

/// Where RTP is wanted.
fn remote(peer: &MediaLine) -> Result<SocketAddr, Refusal> {
    match &peer.connection {
        Some(Connection::Address(address)) if address.is_multicast() => Err(Refusal::not_acceptable(
            WARNING_NO_MULTICAST,
            "multicast media is not supported",
        )),
        Some(Connection::Address(address)) => Ok(SocketAddr::new(*address, peer.port)),
        Some(Connection::Nowhere) => Ok(nowhere()),
        Some(Connection::Name(name)) => {
            let text = format!("host name {name} in c= is not resolved here, an IP address is needed");
            Err(Refusal::not_acceptable(WARNING_ADDRESS_FORMAT, &text))
        }
        Some(Connection::OtherNetwork(network)) => {
            let text = format!("network {network} in c= is not supported, IN IP4 and IN IP6 are");
            Err(Refusal::not_acceptable(WARNING_NETWORK, &text))
        }
        None => Err(Refusal::not_acceptable(
            WARNING_ADDRESS_FORMAT,
            "c= line is missing for the audio stream",
        )),
    }
}

/// RTP port plus one unless `a=rtcp` says otherwise (M-24). rtcp-mux is not answered, so the second
/// port is what counts even when it was offered.
fn remote_rtcp(peer: &MediaLine, remote: SocketAddr) -> Option<SocketAddr> {
    if remote.ip().is_unspecified() || peer.bandwidth.forbids_rtcp() {
        return None;
    }
    match peer.rtcp {
        Some((port, address)) => Some(SocketAddr::new(address.unwrap_or(remote.ip()), port)),
        None => remote
            .port()
            .checked_add(1)
            .map(|port| SocketAddr::new(remote.ip(), port)),
    }
}

/// Peer's words in our Warning: printable ASCII only, no quotes, of bounded length.
fn printable(text: &str) -> String {
    let plain = |character: &char| matches!(character, ' '..='~') && !matches!(character, '"' | '\\');
    text.chars().filter(plain).take(TEXT_MAX).collect()
}

/// Packet times the mixer can send, milliseconds.
const PTIMES_MS: [u8; 5] = [10, 20, 30, 40, 60];
const PTIME_DEFAULT_MS: u8 = 20;
/// RFC 863; stands where a port is needed and nothing is sent.
const DISCARD_PORT: u16 = 9;
/// First dynamic payload type (RFC 3551 section 6).
pub(super) const DYNAMIC_FIRST: u8 = 96;
const TEXT_MAX: usize = 160;

// Warning codes, RFC 3261 section 20.43.
const WARNING_NETWORK: u16 = 300;
const WARNING_ADDRESS_FORMAT: u16 = 301;
pub(super) const WARNING_TRANSPORT: u16 = 302;
const WARNING_MEDIA_TYPE: u16 = 304;
const WARNING_FORMAT: u16 = 305;
const WARNING_NO_MULTICAST: u16 = 330;
pub(super) const WARNING_OTHER: u16 = 399;
