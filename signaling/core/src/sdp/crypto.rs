//! `a=crypto` (RFC 4568): what a line says, which one is taken, and what ours say.
//!
//! Strict where a guess would lead to noise or to clear audio (M-51, M-52): a line with anything that we do not do is as good
//! as not there, and the first such is named when none is left.

use crate::srtp::{KeySource, Srtp, SrtpKey, SrtpPolicy, SrtpSuite};

use super::negotiate::{Agreed, Refusal, WARNING_OTHER, WARNING_TRANSPORT};
use super::parse::MediaLine;

/// A usable `a=crypto` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crypto {
    /// Its number in the offer, which the answer repeats.
    pub tag: u32,
    /// Suite.
    pub suite: SrtpSuite,
    /// Key of what its author sends.
    pub key: SrtpKey,
}

/// Why a line is not usable. Says nothing of a key.
pub type Unusable = &'static str;

impl Crypto {
    /// Reads the value of `a=crypto`.
    ///
    /// # Errors
    /// What is wrong with it, or not done here.
    pub fn parse(value: &str) -> Result<Self, Unusable> {
        let mut fields = value.split_ascii_whitespace();
        let (Some(tag), Some(suite), Some(keys)) = (fields.next(), fields.next(), fields.next()) else {
            return Err("tag, suite or key is missing");
        };
        let digits = (1..=9).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_digit());
        let tag = tag.parse().ok().filter(|_| digits);
        let suite = SrtpSuite::of_name(suite);
        let crypto = Self {
            tag: tag.ok_or("tag is not 1 to 9 digits")?,
            suite: suite.ok_or("suite is not known")?,
            key: key(keys, suite.map_or(0, SrtpSuite::key_bytes))?,
        };
        fields.try_for_each(parameter)?;
        Ok(crypto)
    }

    /// The value of `a=crypto`, with the key.
    pub(super) fn value(&self) -> String {
        let Self { tag, suite, key } = self;
        format!("{tag} {} inline:{}", suite.name(), *key.to_base64())
    }
}

/// `inline:KEY[|LIFETIME][|MKI:LENGTH]`, once (RFC 4568 6.1). Several keys and MKIs are not done here.
fn key(text: &str, bytes: usize) -> Result<SrtpKey, Unusable> {
    if text.contains(';') {
        return Err("several keys are not supported");
    }
    let info = text
        .get(..7)
        .filter(|method| method.eq_ignore_ascii_case("inline:"));
    let mut parts = info
        .and_then(|method| text.get(method.len()..))
        .ok_or("key method is not inline")?
        .split('|');
    let key = parts.next().and_then(|key| SrtpKey::of_base64(key, bytes));
    let key = key.ok_or("key has not the length of its suite")?;
    for part in parts {
        if part.contains(':') {
            return Err("MKI is not supported");
        }
        if !is_lifetime(part) {
            return Err("lifetime is not 1 to 2^48 packets");
        }
    }
    Ok(key)
}

/// A number of packets, or a power of two of them. The peer counts them: it is its key.
fn is_lifetime(text: &str) -> bool {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| digits)
    };
    match text.strip_prefix("2^") {
        Some(power) => number(power).is_some_and(|power| power <= 48),
        None => number(text).is_some_and(|packets| (1..=1 << 48).contains(&packets)),
    }
}

/// One session parameter (RFC 4568 6.3). A replay window is at least 64 wide, and ours is 128.
fn parameter(text: &str) -> Result<(), Unusable> {
    let number = |value: &str| value.parse::<u32>().ok();
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    match name {
        "KDR" if number(value) == Some(0) => Ok(()),
        "KDR" => Err("key derivation rate is not supported"),
        "WSH" if number(value).is_some_and(|size| size >= 64) => Ok(()),
        "WSH" => Err("window size is below 64"),
        "UNENCRYPTED_SRTP" | "UNENCRYPTED_SRTCP" | "UNAUTHENTICATED_SRTP" => {
            Err("streams that are not encrypted and authenticated are not accepted")
        }
        _ if name.starts_with('-') => Ok(()),
        _ => Err("session parameter is not known"),
    }
}

/// With whom and under what, and where new keys come from.
#[derive(Debug)]
pub struct Security<'a> {
    /// What counts for this peer.
    pub policy: SrtpPolicy,
    /// Makes our keys.
    pub keys: &'a mut KeySource,
    /// What was agreed on last in this dialog.
    pub current: Option<&'a Agreed>,
}

/// The transport of an m-line, as far as it can be ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Profile {
    /// Plain RTP; with `a=crypto` SRTP where both want it, which is not standard, but common (M-50).
    Plain,
    /// SRTP.
    Secure,
}

impl Profile {
    /// RTP/AVPF is taken as RTP/AVP: without `a=rtcp-fb` it promises nothing more than other timing of
    /// RTCP (RFC 4585 section 3.5), and phones offer it. Likewise RTP/SAVPF.
    pub(super) fn of(proto: &str) -> Option<Self> {
        let is = |names: [&str; 2]| names.iter().any(|name| proto.eq_ignore_ascii_case(name));
        if is(["RTP/AVP", "RTP/AVPF"]) {
            Some(Self::Plain)
        } else if is(["RTP/SAVP", "RTP/SAVPF"]) {
            Some(Self::Secure)
        } else {
            None
        }
    }
}

impl Security<'_> {
    /// What of an offered line's keys is taken: the peer's line, and what it means for media. `None`: plain RTP.
    ///
    /// # Errors
    /// [`Refusal`] when the line's transport or our policy wants SRTP and there is none, or the reverse.
    pub(super) fn answer(
        &mut self,
        line: &MediaLine,
        agreed: &Agreed,
    ) -> Result<Option<(u32, Srtp)>, Refusal> {
        let profile = Profile::of(&line.proto);
        let needed = profile == Some(Profile::Secure) || self.policy == SrtpPolicy::Require;
        if self.policy == SrtpPolicy::Off {
            return if profile == Some(Profile::Secure) {
                let text = format!("transport {} is not supported, RTP/AVP is", line.proto);
                Err(Refusal::not_acceptable(WARNING_TRANSPORT, &text))
            } else {
                Ok(None)
            };
        }
        let usable = || line.crypto.iter().flatten();
        // GCM costs the mixer less than half; among like ones the peer's order counts.
        let taken = usable()
            .find(|crypto| crypto.suite.is_galois())
            .or_else(|| usable().next());
        match taken {
            Some(taken) => Ok(Some((taken.tag, self.both(taken, agreed)))),
            None if needed => Err(none_usable(line)),
            None => Ok(None),
        }
    }

    /// The peer's key, and ours: the one in use as long as suite and address stay (M-53).
    fn both(&mut self, taken: &Crypto, agreed: &Agreed) -> Srtp {
        let current = self.current.map(|current| &current.description);
        let kept = current
            .filter(|current| current.remote == agreed.description.remote)
            .and_then(|current| current.srtp.as_ref())
            .filter(|current| current.suite == taken.suite)
            .map(|current| current.send.clone());
        Srtp {
            suite: taken.suite,
            receive: taken.key.clone(),
            send: kept.unwrap_or_else(|| self.keys.draw(taken.suite)),
        }
    }

    /// Lines of an offer of ours, each with a key of its own: whether the peer moves is not known yet.
    pub(super) fn offer(&mut self, profile: Profile) -> Vec<Crypto> {
        if self.policy == SrtpPolicy::Off && profile == Profile::Plain {
            return Vec::new();
        }
        (1..)
            .zip(SrtpSuite::ALL)
            .map(|(tag, suite)| Crypto {
                tag,
                suite,
                key: self.keys.draw(suite),
            })
            .collect()
    }
}

/// What the peer took of our offer's lines. `None`: plain RTP, which it may choose unless SRTP is `needed`.
pub(super) fn accept(ours: &[Crypto], line: &MediaLine, needed: bool) -> Result<Option<Srtp>, Refusal> {
    match line.crypto.as_slice() {
        [] if !needed && Profile::of(&line.proto) == Some(Profile::Plain) => Ok(None),
        [Ok(taken)] => pair(ours, taken)
            .map(Some)
            .ok_or_else(|| Refusal::not_acceptable(WARNING_OTHER, "a=crypto that was not offered")),
        _ => Err(none_usable(line)),
    }
}

/// What two lines of the same tag and suite agree on.
fn pair(ours: &[Crypto], theirs: &Crypto) -> Option<Srtp> {
    let same = |own: &&Crypto| own.tag == theirs.tag && own.suite == theirs.suite;
    let own = ours.iter().find(same)?;
    Some(Srtp {
        suite: own.suite,
        receive: theirs.key.clone(),
        send: own.key.clone(),
    })
}

/// What the two texts of a dialog record agree on, whoever offered: the answer has one line, and the offer one of its tag.
pub(super) fn restored(ours: &MediaLine, theirs: &MediaLine) -> Option<Srtp> {
    let own: Vec<Crypto> = ours.crypto.iter().flatten().cloned().collect();
    let mut theirs = theirs.crypto.iter().flatten();
    theirs.find_map(|theirs| pair(&own, theirs))
}

fn none_usable(line: &MediaLine) -> Refusal {
    let wrong = line.crypto.iter().find_map(|crypto| crypto.as_ref().err());
    let text = wrong.map_or_else(
        || "SRTP is needed: offer a=crypto with a suite of RFC 4568 or RFC 7714".to_owned(),
        |wrong| format!("no usable a=crypto: {wrong}"),
    );
    Refusal::not_acceptable(WARNING_OTHER, &text)
}
