//! Who is in which conference: intrusive lists over flat arrays, so that joins and leaves move
//! indexes only, and the SSRCs we send into each conference, for loop detection.

use crate::command::{ConferenceIndex, EndpointIndex};

/// First and last member of one conference's list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Members {
    first: u32,
    last: u32,
    count: u32,
}

impl Members {
    /// Nobody.
    pub(crate) const NONE: Self = Self {
        first: NOBODY,
        last: NOBODY,
        count: 0,
    };

    pub(crate) fn nobody() -> Self {
        Self::NONE
    }

    /// How many are in it.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Who joined first.
    pub(crate) fn first(&self) -> Option<EndpointIndex> {
        (!self.is_empty()).then_some(EndpointIndex(self.first))
    }

    /// Whether nobody is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

const NOBODY: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
}

/// The lists of all conferences, in order of joining.
#[derive(Debug)]
pub(crate) struct Roster {
    links: Vec<Link>,
}

impl Roster {
    pub(crate) fn new(endpoints: usize) -> Self {
        Self {
            links: vec![
                Link {
                    previous: NOBODY,
                    next: NOBODY
                };
                endpoints
            ],
        }
    }

    fn link(&mut self, at: u32) -> Option<&mut Link> {
        self.links.get_mut(at as usize)
    }

    /// Appends an endpoint that is in no list.
    pub(crate) fn join(&mut self, members: &mut Members, at: EndpointIndex) {
        let previous = members.last;
        let Some(link) = self.link(at.0) else { return };
        *link = Link {
            previous,
            next: NOBODY,
        };
        match self.link(previous) {
            Some(last) => last.next = at.0,
            None => members.first = at.0,
        }
        members.last = at.0;
        members.count += 1;
    }

    /// Takes an endpoint out of its list.
    pub(crate) fn leave(&mut self, members: &mut Members, at: EndpointIndex) {
        let Some(&mut Link { previous, next }) = self.link(at.0) else {
            return;
        };
        match self.link(previous) {
            Some(before) => before.next = next,
            None => members.first = next,
        }
        match self.link(next) {
            Some(behind) => behind.previous = previous,
            None => members.last = previous,
        }
        members.count -= 1;
    }

    /// Who joined next after `at`.
    pub(crate) fn following(&self, at: EndpointIndex) -> Option<EndpointIndex> {
        let next = self.links.get(at.0 as usize)?.next;
        (next != NOBODY).then_some(EndpointIndex(next))
    }

    /// `first` and who joined later, each with the one that comes `ahead` later.
    pub(crate) fn iter_ahead(
        &self,
        first: Option<EndpointIndex>,
        ahead: usize,
    ) -> impl Iterator<Item = (EndpointIndex, Option<EndpointIndex>)> + use<'_> {
        let mut later = self.iter_from(first);
        for _ in 0..ahead {
            later.next();
        }
        self.iter_from(first).map(move |at| (at, later.next()))
    }

    /// The members in order of joining.
    pub(crate) fn iter(&self, members: &Members) -> impl Iterator<Item = EndpointIndex> + use<'_> {
        self.iter_from(members.first())
    }

    /// `first` and who joined later.
    fn iter_from(&self, first: Option<EndpointIndex>) -> impl Iterator<Item = EndpointIndex> + use<'_> {
        let mut at = first.map_or(NOBODY, |first| first.0);
        std::iter::from_fn(move || {
            let link = self.links.get(at as usize)?;
            let here = at;
            at = link.next;
            Some(EndpointIndex(here))
        })
    }
}

/// The SSRCs we send, by conference: sorted, so that a look-up costs a binary search. It is needed
/// for packets that carry CSRCs and for the first packet of a source only.
#[derive(Debug)]
pub(crate) struct OwnSsrcs {
    sorted: Vec<u64>,
}

fn key(conference: ConferenceIndex, ssrc: u32) -> u64 {
    u64::from(conference.0) << 32 | u64::from(ssrc)
}

impl OwnSsrcs {
    pub(crate) fn new(endpoints: usize) -> Self {
        Self {
            sorted: Vec::with_capacity(endpoints),
        }
    }

    /// Remembers that `ssrc` is sent to somebody in `conference`.
    pub(crate) fn add(&mut self, conference: ConferenceIndex, ssrc: u32) {
        assert!(
            self.sorted.len() < self.sorted.capacity(),
            "one SSRC per endpoint"
        );
        let key = key(conference, ssrc);
        let place = self.sorted.partition_point(|&known| known < key);
        self.sorted.insert(place, key);
    }

    /// Forgets it again.
    pub(crate) fn remove(&mut self, conference: ConferenceIndex, ssrc: u32) {
        if let Ok(place) = self.sorted.binary_search(&key(conference, ssrc)) {
            self.sorted.remove(place);
        }
    }

    /// Whether audio with this SSRC came out of `conference`.
    pub(crate) fn contains(&self, conference: ConferenceIndex, ssrc: u32) -> bool {
        self.sorted.binary_search(&key(conference, ssrc)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(roster: &Roster, members: &Members) -> Vec<u32> {
        roster.iter(members).map(|at| at.0).collect()
    }

    proptest! {
        #[test]
        fn a_list_holds_who_joined_and_did_not_leave(steps in prop::collection::vec((0..8_u32, 0..2_usize), 0..60)) {
            let mut roster = Roster::new(8);
            let mut rooms = [Members::NONE; 2];
            let mut expected = [Vec::new(), Vec::new()];
            for (at, room) in steps {
                match expected.iter().position(|room| room.contains(&at)) {
                    Some(room) => {
                        roster.leave(&mut rooms[room], EndpointIndex(at));
                        expected[room].retain(|&other| other != at);
                    }
                    None => {
                        roster.join(&mut rooms[room], EndpointIndex(at));
                        expected[room].push(at);
                    }
                }
                for room in 0..2 {
                    prop_assert_eq!(&listed(&roster, &rooms[room]), &expected[room]);
                    prop_assert_eq!(rooms[room].is_empty(), expected[room].is_empty());
                }
            }
        }
    }

    #[test]
    fn an_ssrc_is_ours_in_its_conference_only_and_as_often_as_added() {
        let (here, there) = (ConferenceIndex(1), ConferenceIndex(2));
        let mut own = OwnSsrcs::new(4);
        own.add(here, 7);
        own.add(here, 7);
        own.add(there, 9);
        assert!(own.contains(here, 7) && own.contains(there, 9));
        assert!(!own.contains(there, 7) && !own.contains(here, 9));
        own.remove(here, 7);
        assert!(own.contains(here, 7));
        own.remove(here, 7);
        assert!(!own.contains(here, 7));
    }
}
