//! Which mixer request may go when. Pure.
//!
//! Invariants: requests that concern a whole conference run alone in it, in their place; requests of
//! one endpoint run one after the other in their order; requests of different endpoints of one
//! conference may run together, at most [`CONFERENCE_MAX`] of them. So a hundred joins do not wait
//! for each other's round trip, and no removal overtakes a creation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use signaling_core::effect::MixerRequest;

use super::Job;

/// Requests of one conference that may be under way at once.
pub(super) const CONFERENCE_MAX: usize = 8;

/// Waiting requests, by conference.
#[derive(Debug, Default)]
pub(super) struct Order {
    lanes: BTreeMap<String, Lane>,
    /// Conferences in which something may have become possible, in turn.
    candidates: VecDeque<String>,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Job>,
    /// Endpoints with a request under way.
    busy: BTreeSet<String>,
    /// A request of the whole conference is under way.
    exclusive: bool,
}

impl Lane {
    fn startable(&self) -> Option<usize> {
        if self.exclusive || self.busy.len() >= CONFERENCE_MAX {
            return None;
        }
        let mut passed = BTreeSet::new();
        for (index, job) in self.waiting.iter().enumerate() {
            match endpoint_of(&job.request) {
                None if index == 0 && self.busy.is_empty() => return Some(0),
                None => return None,
                Some(endpoint) if !self.busy.contains(endpoint) && passed.insert(endpoint) => {
                    return Some(index);
                }
                Some(endpoint) => {
                    passed.insert(endpoint);
                }
            }
        }
        None
    }
}

impl Order {
    /// Requests that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// Adds a request behind all others of its conference.
    pub(super) fn push(&mut self, job: Job) {
        let conference = conference_of(&job.request).to_owned();
        self.lanes
            .entry(conference.clone())
            .or_default()
            .waiting
            .push_back(job);
        self.waiting += 1;
        self.candidates.push_back(conference);
    }

    /// Takes a request that may go now; [`Order::done`] must follow when it has ended.
    pub(super) fn next_ready(&mut self) -> Option<Job> {
        while let Some(conference) = self.candidates.pop_front() {
            let Some(lane) = self.lanes.get_mut(&conference) else {
                continue;
            };
            let Some(job) = lane.startable().and_then(|index| lane.waiting.remove(index)) else {
                continue;
            };
            match endpoint_of(&job.request) {
                None => lane.exclusive = true,
                Some(endpoint) => {
                    lane.busy.insert(endpoint.to_owned());
                }
            }
            self.waiting -= 1;
            self.candidates.push_back(conference);
            return Some(job);
        }
        None
    }

    /// A request has ended.
    pub(super) fn done(&mut self, request: &MixerRequest) {
        let conference = conference_of(request);
        let Some(lane) = self.lanes.get_mut(conference) else {
            return;
        };
        match endpoint_of(request) {
            None => lane.exclusive = false,
            Some(endpoint) => {
                lane.busy.remove(endpoint);
            }
        }
        if lane.waiting.is_empty() && lane.busy.is_empty() && !lane.exclusive {
            self.lanes.remove(conference);
        } else {
            self.candidates.push_back(conference.to_owned());
        }
    }
}

/// The conference a request concerns.
pub(super) fn conference_of(request: &MixerRequest) -> &str {
    match request {
        MixerRequest::CreateConference { conference, .. }
        | MixerRequest::RemoveConference { conference }
        | MixerRequest::Lock { conference, .. }
        | MixerRequest::CreateEndpoint { conference, .. }
        | MixerRequest::SetMedia { conference, .. }
        | MixerRequest::Mute { conference, .. }
        | MixerRequest::RemoveEndpoint { conference, .. } => conference,
    }
}

fn endpoint_of(request: &MixerRequest) -> Option<&str> {
    match request {
        MixerRequest::CreateConference { .. }
        | MixerRequest::RemoveConference { .. }
        | MixerRequest::Lock { .. } => None,
        MixerRequest::CreateEndpoint { endpoint, .. }
        | MixerRequest::SetMedia { endpoint, .. }
        | MixerRequest::Mute { endpoint, .. }
        | MixerRequest::RemoveEndpoint { endpoint, .. } => Some(endpoint),
    }
}

#[cfg(test)]
mod tests {
    use signaling_core::input::MixerRequestId;

    use super::*;

    fn job(id: u64, request: MixerRequest) -> Job {
        Job {
            id: MixerRequestId(id),
            mixer: String::new(),
            request,
        }
    }

    fn create(conference: &str) -> MixerRequest {
        MixerRequest::CreateConference {
            conference: conference.to_owned(),
            talkers: None,
        }
    }

    fn add(conference: &str, endpoint: &str) -> MixerRequest {
        MixerRequest::CreateEndpoint {
            conference: conference.to_owned(),
            endpoint: endpoint.to_owned(),
            media: None,
        }
    }

    fn remove(conference: &str, endpoint: &str) -> MixerRequest {
        MixerRequest::RemoveEndpoint {
            conference: conference.to_owned(),
            endpoint: endpoint.to_owned(),
        }
    }

    fn ready(order: &mut Order) -> Vec<u64> {
        let mut ids: Vec<u64> = std::iter::from_fn(|| order.next_ready().map(|job| job.id.0)).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn whole_conference_requests_run_alone_and_in_place() {
        let mut order = Order::default();
        let requests = [
            create("a"),
            add("a", "1"),
            add("a", "2"),
            remove("a", "1"),
            create("a"),
            add("a", "3"),
            create("b"),
        ];
        for (id, request) in (0..).zip(requests.clone()) {
            order.push(job(id, request));
        }
        assert_eq!(
            ready(&mut order),
            [0, 6],
            "one per conference, others wait behind it"
        );
        order.done(&requests[0]);
        assert_eq!(
            ready(&mut order),
            [1, 2],
            "endpoints run together, one request each"
        );
        order.done(&requests[2]);
        assert_eq!(
            ready(&mut order),
            Vec::<u64>::new(),
            "the next of endpoint 1 waits for the former"
        );
        order.done(&requests[1]);
        assert_eq!(ready(&mut order), [3]);
        order.done(&requests[3]);
        assert_eq!(ready(&mut order), [4]);
        order.done(&requests[4]);
        assert_eq!(ready(&mut order), [5]);
        order.done(&requests[5]);
        order.done(&requests[6]);
        assert!(order.lanes.is_empty() && order.len() == 0);
    }

    #[test]
    fn one_conference_takes_a_bounded_share() {
        let mut order = Order::default();
        for id in 0..50 {
            order.push(job(id, add("big", &id.to_string())));
        }
        order.push(job(99, add("small", "x")));
        let first = ready(&mut order);
        assert_eq!(first.len(), CONFERENCE_MAX + 1);
        assert!(
            first.contains(&99),
            "a big conference does not hold up a small one"
        );
        order.done(&add("big", &first[0].to_string()));
        assert_eq!(ready(&mut order).len(), 1);
        assert_eq!(order.len(), 50 - CONFERENCE_MAX - 1);
    }
}
