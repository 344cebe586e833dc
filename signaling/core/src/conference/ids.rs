//! Names of conferences and endpoints.

use std::borrow::Borrow;
use std::fmt;

use crate::limits::CONFERENCE_ID_MAX;
use crate::time::WallTime;

/// Id of a conference: the user part of its address behind `conf-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConferenceId(String);

/// Id of an endpoint, unique per node and across restarts; the mixer knows it by the same id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(String);

impl ConferenceId {
    /// Checks a name: 1 to 64 of `A-Z a-z 0-9 - _ .`, the first one no dot (it becomes part of paths).
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let fits = (1..=CONFERENCE_ID_MAX).contains(&name.len()) && !name.starts_with('.');
        (fits && name.bytes().all(good)).then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl EndpointId {
    /// An id found in a record or on a mixer.
    #[must_use]
    pub fn known(id: &str) -> Self {
        Self(id.to_owned())
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConferenceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Borrow<str> for ConferenceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for EndpointId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Gives out endpoint ids: a prefix that differs from run to run, and a counter.
#[derive(Debug, Clone)]
pub(super) struct EndpointIds {
    prefix: u32,
    last: u64,
}

impl EndpointIds {
    /// `seed` and the time of the start tell this run from all others; either alone would do when it
    /// is good (a fixed seed in tests, a clock that was set back).
    pub(super) fn new(seed: &[u8; 32], start: WallTime) -> Self {
        // FNV-1a: no secret, only a spread.
        let bytes = seed.iter().copied().chain(start.0.to_le_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        #[expect(
            clippy::cast_possible_truncation,
            reason = "both halves are folded into 32 bits"
        )]
        let prefix = (hash ^ (hash >> 32)) as u32;
        Self { prefix, last: 0 }
    }

    pub(super) fn next(&mut self) -> EndpointId {
        self.last += 1;
        EndpointId(format!("{:08x}-{}", self.prefix, self.last))
    }

    /// Never gives out `id`, even if by chance it has our prefix.
    pub(super) fn avoid(&mut self, id: &str) {
        let Some((prefix, number)) = id.split_once('-') else {
            return;
        };
        if u32::from_str_radix(prefix, 16) == Ok(self.prefix) {
            self.last = self.last.max(number.parse().unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_hurt_paths_or_people_are_refused() {
        for good in ["1", "weekly-42", "a.b_c", &"x".repeat(64)] {
            assert!(ConferenceId::new(good).is_some(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".x",
            "a/b",
            "a b",
            "ä",
            "a%2f",
            "a;b",
            &"x".repeat(65),
        ] {
            assert!(ConferenceId::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn endpoint_ids_differ_between_runs() {
        let ids = |seed: u8, start| {
            let mut ids = EndpointIds::new(&[seed; 32], WallTime(start));
            [ids.next(), ids.next()]
        };
        let same = ids(1, 1000);
        assert_eq!(same, ids(1, 1000));
        assert_ne!(same[0], same[1]);
        assert_ne!(same[0], ids(1, 1001)[0]);
        assert_ne!(same[0], ids(2, 1000)[0]);
    }

    #[test]
    fn a_known_id_with_our_prefix_is_never_given_out_again() {
        let mut first = EndpointIds::new(&[1; 32], WallTime(5));
        let old: Vec<_> = (0..7).map(|_| first.next()).collect();
        let mut again = EndpointIds::new(&[1; 32], WallTime(5));
        for id in &old {
            again.avoid(id.as_str());
        }
        again.avoid("nonsense");
        again.avoid("zz-9");
        assert!(!old.contains(&again.next()));
    }
}
