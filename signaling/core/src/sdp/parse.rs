//! From bytes to a typed description: leniently where real devices are careless, strictly where a
//! guess would send audio to the wrong place (M-78, RFC 8866 section 5).

use std::net::IpAddr;

use sdp_types::Session;
use thiserror::Error;

use crate::limits::SDP_BYTES_MAX;

use super::crypto::{Crypto, Unusable};

/// Most m-lines in one description.
pub const MEDIA_LINES_MAX: usize = 32;

/// Why a body is not a session description we can work with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SdpError {
    /// More than [`SDP_BYTES_MAX`] bytes.
    #[error("session description of {0} bytes, at most {SDP_BYTES_MAX} are read")]
    TooLarge(usize),
    /// More than [`MEDIA_LINES_MAX`] m-lines.
    #[error("more than {MEDIA_LINES_MAX} m-lines")]
    TooManyMediaLines,
    /// Not a session description, or a line of it cannot be read.
    #[error("malformed session description: {0}")]
    Malformed(String),
}

/// An offer, parsed.
pub type Offer = Description;

/// A session description, parsed: what this appliance needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The o= line, when there is a readable one.
    pub origin: Option<Origin>,
    /// Value of the first t= line, `0 0` when it is missing or odd.
    pub time: String,
    /// All m-lines in order.
    pub lines: Vec<MediaLine>,
}

/// The o= line. Numbers stay text: devices write more digits than fit into 64 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// User name.
    pub username: String,
    /// Session id.
    pub session_id: String,
    /// Version of the session's description.
    pub version: String,
    /// Address of the originator.
    pub address: String,
}

/// One m-line with what belongs to it. Session-level values are merged in, media level wins (M-76).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaLine {
    /// Media name (`audio`, `video`, `image`, ...) as written.
    pub media: String,
    /// Port; 0: refused or removed.
    pub port: u16,
    /// Transport (`RTP/AVP`, ...) as written.
    pub proto: String,
    /// The format list as written.
    pub formats: String,
    /// RTP payload types of the format list, in order, with their encodings.
    pub payloads: Vec<Payload>,
    /// Where media is wanted.
    pub connection: Option<Connection>,
    /// Direction, seen from the author; sendrecv when nothing is said.
    pub direction: Direction,
    /// `a=ptime`, milliseconds.
    pub ptime_ms: Option<u32>,
    /// `a=maxptime`, milliseconds.
    pub max_ptime_ms: Option<u32>,
    /// `a=rtcp` (RFC 3605): port, and address if one is given.
    pub rtcp: Option<(u16, Option<IpAddr>)>,
    /// `a=rtcp-mux` is present (RFC 5761).
    pub rtcp_mux: bool,
    /// b= lines.
    pub bandwidth: Bandwidth,
    /// `a=crypto` (RFC 4568), in order; of two with one tag the first counts. At media level alone (M-76).
    pub crypto: Vec<Result<Crypto, Unusable>>,
}

/// An RTP payload type and what it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Payload type, 0 to 127.
    pub number: u8,
    /// Encoding name as written, empty when unknown (dynamic number without rtpmap).
    pub encoding: String,
    /// RTP clock in hertz.
    pub clock_hz: u32,
    /// Audio channels.
    pub channels: u32,
    /// `a=fmtp` parameters, empty when there are none.
    pub parameters: String,
}

/// The address of a c= line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// A literal address. The unspecified one means: send nothing (M-62).
    Address(IpAddr),
    /// A name under `.invalid`: send nothing (RFC 6157 section 4.2 uses it for IPv6 holds).
    Nowhere,
    /// A domain name.
    Name(String),
    /// Neither IP4 nor IP6 on the Internet.
    OtherNetwork(String),
}

/// b= lines that matter (M-80).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bandwidth {
    /// `b=AS`, kilobit per second.
    pub as_kbit: Option<u64>,
    /// `b=TIAS`, bit per second.
    pub tias_bit: Option<u64>,
    /// `b=RS`: RTCP of senders, bit per second.
    pub rs_bit: Option<u64>,
    /// `b=RR`: RTCP of receivers, bit per second.
    pub rr_bit: Option<u64>,
}

/// Direction of a stream, seen from the author of the description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    SendRecv,
    /// The author sends.
    SendOnly,
    /// The author receives.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// The SDP attribute.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// Whether the author sends.
    #[must_use]
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether the author receives.
    #[must_use]
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same stream seen from the other side.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::SendRecv => Self::SendRecv,
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            Self::Inactive => Self::Inactive,
        }
    }

    fn from_attribute(name: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive]
            .into_iter()
            .find(|direction| direction.as_str().eq_ignore_ascii_case(name))
    }
}

impl Bandwidth {
    /// Whether RTCP is switched off in both directions (RFC 3556 section 2).
    #[must_use]
    pub fn forbids_rtcp(&self) -> bool {
        self.rs_bit == Some(0) && self.rr_bit == Some(0)
    }

    fn set(&mut self, kind: &str, value: u64) {
        let field = match kind.to_ascii_uppercase().as_str() {
            "AS" => &mut self.as_kbit,
            "TIAS" => &mut self.tias_bit,
            "RS" => &mut self.rs_bit,
            "RR" => &mut self.rr_bit,
            _ => return,
        };
        *field = Some(value);
    }
}

impl Description {
    /// Parses a body.
    ///
    /// Forgiven: bare CR or LF line ends, a missing last line end, missing o=, s= and t= lines,
    /// numbers beyond 64 bits in o=, doubled spaces, empty lines, text that is not UTF-8, and
    /// anything wrong in lines that do not matter here.
    ///
    /// # Errors
    /// [`SdpError`], when the body is too large or a line that matters cannot be read.
    pub fn parse(bytes: &[u8]) -> Result<Self, SdpError> {
        if bytes.len() > SDP_BYTES_MAX {
            return Err(SdpError::TooLarge(bytes.len()));
        }
        let tidy = Tidy::new(&String::from_utf8_lossy(bytes))?;
        let session =
            Session::parse(tidy.text.as_bytes()).map_err(|error| SdpError::Malformed(error.to_string()))?;

        let mut bandwidth = Bandwidth::default();
        for line in &session.bandwidths {
            bandwidth.set(&line.bwtype, line.bandwidth);
        }
        let defaults = Defaults {
            connection: session.connection.as_ref().map(connection),
            direction: direction(&session.attributes),
            ptime_ms: milliseconds(&session.attributes, "ptime"),
            max_ptime_ms: milliseconds(&session.attributes, "maxptime"),
            bandwidth,
        };
        Ok(Self {
            origin: tidy.origin,
            time: tidy.time.unwrap_or_else(|| "0 0".to_owned()),
            lines: session
                .medias
                .iter()
                .map(|media| media_line(media, &defaults))
                .collect(),
        })
    }
}

/// What `sdp-types` gets to read, and what is taken out beforehand because it would refuse it.
#[derive(Default)]
struct Tidy {
    text: String,
    origin: Option<Origin>,
    time: Option<String>,
}

impl Tidy {
    fn new(body: &str) -> Result<Self, SdpError> {
        let mut tidy = Self::default();
        let mut media_lines = 0;
        let mut session_connection = false;
        for line in body.split(['\r', '\n']) {
            let line = line.replace('\0', "");
            let Some((key, value)) = line.trim().split_once('=') else {
                continue;
            };
            match key {
                "o" if tidy.origin.is_none() => tidy.origin = origin(value),
                "t" if tidy.time.is_none() => tidy.time = time(value),
                "m" => {
                    media_lines += 1;
                    if media_lines > MEDIA_LINES_MAX {
                        return Err(SdpError::TooManyMediaLines);
                    }
                    tidy.push(key, &single_spaced(value));
                }
                "c" if media_lines > 0 || !session_connection => {
                    session_connection = true;
                    let fields: Vec<&str> = value.split_ascii_whitespace().take(3).collect();
                    tidy.push(key, &fields.join(" "));
                }
                "b" if is_bandwidth(value) => tidy.push(key, &value.replace(' ', "")),
                "v" => tidy.push(key, value.trim()),
                "a" if !value.trim().is_empty() => tidy.push(key, value.trim()),
                _ => {}
            }
        }
        Ok(tidy)
    }

    fn push(&mut self, key: &str, value: &str) {
        for part in [key, "=", value, "\r\n"] {
            self.text.push_str(part);
        }
    }
}

fn single_spaced(value: &str) -> String {
    value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_bandwidth(value: &str) -> bool {
    value
        .split_once(':')
        .is_some_and(|(kind, number)| !kind.trim().is_empty() && number.trim().parse::<u64>().is_ok())
}

fn origin(value: &str) -> Option<Origin> {
    let mut fields = value.split_ascii_whitespace();
    let username = fields.next()?.to_owned();
    let session_id = fields.next()?.to_owned();
    let version = fields.next()?.to_owned();
    let address = fields.nth(2)?.to_owned();
    Some(Origin {
        username,
        session_id,
        version,
        address,
    })
}

fn time(value: &str) -> Option<String> {
    let value = single_spaced(value);
    let (start, stop) = value.split_once(' ')?;
    let number =
        |text: &str| !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    (number(start) && number(stop)).then_some(value)
}

struct Defaults {
    connection: Option<Connection>,
    direction: Option<Direction>,
    ptime_ms: Option<u32>,
    max_ptime_ms: Option<u32>,
    bandwidth: Bandwidth,
}

fn media_line(media: &sdp_types::Media, defaults: &Defaults) -> MediaLine {
    let mut bandwidth = defaults.bandwidth;
    for line in &media.bandwidths {
        bandwidth.set(&line.bwtype, line.bandwidth);
    }
    MediaLine {
        media: media.media.clone(),
        port: media.port,
        proto: media.proto.clone(),
        formats: media.fmt.clone(),
        payloads: payloads(media),
        connection: media
            .connections
            .first()
            .map(connection)
            .or_else(|| defaults.connection.clone()),
        direction: direction(&media.attributes)
            .or(defaults.direction)
            .unwrap_or(Direction::SendRecv),
        ptime_ms: milliseconds(&media.attributes, "ptime").or(defaults.ptime_ms),
        max_ptime_ms: milliseconds(&media.attributes, "maxptime").or(defaults.max_ptime_ms),
        rtcp: value(&media.attributes, "rtcp").and_then(rtcp),
        rtcp_mux: media
            .attributes
            .iter()
            .any(|attribute| attribute.attribute.eq_ignore_ascii_case("rtcp-mux")),
        bandwidth,
        crypto: crypto(&media.attributes),
    }
}

fn crypto(attributes: &[sdp_types::Attribute]) -> Vec<Result<Crypto, Unusable>> {
    let mut lines: Vec<Result<Crypto, Unusable>> = Vec::new();
    let is_crypto = |attribute: &&sdp_types::Attribute| attribute.attribute.eq_ignore_ascii_case("crypto");
    for attribute in attributes.iter().filter(is_crypto) {
        let line = Crypto::parse(attribute.value.as_deref().unwrap_or_default());
        let tag = |line: &Result<Crypto, Unusable>| line.as_ref().ok().map(|crypto| crypto.tag);
        let taken = tag(&line).is_some() && lines.iter().any(|other| tag(other) == tag(&line));
        lines.push(if taken { Err("tag is there twice") } else { line });
    }
    lines
}

fn value<'a>(attributes: &'a [sdp_types::Attribute], name: &str) -> Option<&'a str> {
    let found = attributes
        .iter()
        .find(|attribute| attribute.attribute.eq_ignore_ascii_case(name))?;
    found.value.as_deref()
}

fn direction(attributes: &[sdp_types::Attribute]) -> Option<Direction> {
    attributes
        .iter()
        .find_map(|attribute| Direction::from_attribute(&attribute.attribute))
}

/// Whole milliseconds of `ptime` and `maxptime`; a fraction is cut off, 0 and nonsense mean nothing.
fn milliseconds(attributes: &[sdp_types::Attribute], name: &str) -> Option<u32> {
    let text = value(attributes, name)?.trim();
    let whole = text.split(|character: char| !character.is_ascii_digit()).next()?;
    whole.parse().ok().filter(|number| *number > 0)
}

/// `<port> [IN IP4 <address>]`.
fn rtcp(value: &str) -> Option<(u16, Option<IpAddr>)> {
    let mut fields = value.split_ascii_whitespace();
    let port = fields.next()?.parse().ok()?;
    Some((port, fields.nth(2).and_then(literal)))
}

fn connection(line: &sdp_types::Connection) -> Connection {
    let text = &line.connection_address;
    let internet = line.nettype.as_str().eq_ignore_ascii_case("IN");
    let family = line.addrtype.as_str();
    if !internet || !(family.eq_ignore_ascii_case("IP4") || family.eq_ignore_ascii_case("IP6")) {
        return Connection::OtherNetwork(format!("{} {family}", line.nettype.as_str()));
    }
    if let Some(address) = literal(text) {
        return Connection::Address(address);
    }
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    if name == "invalid" || name.ends_with(".invalid") {
        Connection::Nowhere
    } else {
        Connection::Name(text.clone())
    }
}

/// An address with or without brackets, its multicast suffix (`/ttl/count`) cut off.
fn literal(text: &str) -> Option<IpAddr> {
    let address = text.split('/').next()?;
    let address = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(address);
    address
        .parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical())
}

fn payloads(media: &sdp_types::Media) -> Vec<Payload> {
    let mut payloads: Vec<Payload> = Vec::new();
    for format in media.fmt.split_ascii_whitespace() {
        let Some(number) = format.parse::<u8>().ok().filter(|number| *number < 128) else {
            continue;
        };
        if payloads.iter().any(|payload| payload.number == number) {
            continue;
        }
        let mapped = of_number(&media.attributes, "rtpmap", number).and_then(|value| rtpmap(number, value));
        let mut payload = mapped.unwrap_or_else(|| static_payload(number));
        payload.parameters = of_number(&media.attributes, "fmtp", number)
            .unwrap_or_default()
            .to_owned();
        payloads.push(payload);
    }
    payloads
}

/// Value of the first `a=name:<number> <value>`.
fn of_number<'a>(attributes: &'a [sdp_types::Attribute], name: &str, number: u8) -> Option<&'a str> {
    attributes
        .iter()
        .filter(|attribute| attribute.attribute.eq_ignore_ascii_case(name))
        .find_map(|attribute| {
            let (first, rest) = attribute
                .value
                .as_deref()?
                .trim()
                .split_once(char::is_whitespace)?;
            (first.parse::<u8>().ok()? == number).then_some(rest.trim())
        })
}

fn rtpmap(number: u8, value: &str) -> Option<Payload> {
    let mut parts = value.split_ascii_whitespace().next()?.split('/');
    let encoding = parts.next()?.to_owned();
    let clock_hz = parts.next()?.parse().ok()?;
    let channels = parts.next().map_or(Some(1), |text| text.parse().ok())?;
    Some(Payload {
        number,
        encoding,
        clock_hz,
        channels,
        parameters: String::new(),
    })
}

/// RFC 3551 section 6, table 4: numbers that need no rtpmap (M-30).
fn static_payload(number: u8) -> Payload {
    let encoding = match number {
        0 => "PCMU",
        3 => "GSM",
        4 => "G723",
        8 => "PCMA",
        9 => "G722",
        13 => "CN",
        18 => "G729",
        _ => "",
    };
    Payload {
        number,
        encoding: encoding.to_owned(),
        clock_hz: 8000,
        channels: 1,
        parameters: String::new(),
    }
}
