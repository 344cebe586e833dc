//! Commands. Each is checked first and then applied as a whole: a refused one changed nothing.

use crate::command::{
    Command, ConferenceIndex, EndpointIndex, EndpointSnapshot, Outcome, PlayId, Refusal, Retired,
};
use crate::conference::Conference;
use crate::endpoint::{Endpoint, EndpointBox};
use crate::engine::Engine;
use crate::engine::share::Share;
use crate::event::{Event, EventKind};
use crate::media::MediaPlan;
use crate::packet::PacketSink;
use crate::srtp::{Srtp, WornKeys};
use crate::time::Timestamp;

type Applied = Result<(), Refusal>;

impl Outcome {
    fn plain(result: Applied) -> Self {
        Self {
            result,
            retired: None,
        }
    }

    fn refused(refusal: Refusal, back: Retired) -> Self {
        Self {
            result: Err(refusal),
            retired: Some(back),
        }
    }
}

impl Engine {
    pub(super) fn apply_command(
        &mut self,
        now: Timestamp,
        command: Command,
        sink: &mut impl PacketSink,
    ) -> Outcome {
        match command {
            Command::AddConference { at, conference } => self.add_conference(at, conference),
            Command::RemoveConference { at } => self.remove_conference(at),
            Command::Share { at, share } => self.share(at, share),
            Command::AddEndpoint {
                conference,
                at,
                endpoint,
            } => self.add_endpoint(conference, at, endpoint, now, sink),
            Command::RemoveEndpoint { at } => self.remove_endpoint(at),
            Command::SetMedia { at, media, srtp } => self.set_media(at, media, srtp, now, sink),
            Command::Mute { at, on } => self.change(at, |endpoint| endpoint.set_muted(on)),
            Command::Deaf { at, on } => self.change(at, |endpoint| endpoint.set_deaf(on)),
            Command::Gain { at, centibel } => self.change(at, |endpoint| endpoint.set_gain(centibel)),
            Command::Hold { at, on } => self.change(at, |endpoint| endpoint.set_held(on, now)),
            Command::PlayToEndpoint { at, play } => Outcome::plain(
                self.endpoint_mut(at)
                    .and_then(|endpoint| endpoint.start_play(play)),
            ),
            Command::PlayToConference { at, play } => Outcome::plain(
                self.conference_mut(at)
                    .and_then(|conference| conference.plays.start(play)),
            ),
            Command::StopEndpoint { at, play } => self.stop_endpoint(at, play),
            Command::StopConference { at, play } => self.stop_conference(at, play),
            Command::Snapshot { from, mut buffer } => {
                self.snapshot(from, &mut buffer);
                Outcome {
                    result: Ok(()),
                    retired: Some(Retired::Snapshot(buffer)),
                }
            }
        }
    }

    fn endpoint_mut(&mut self, at: EndpointIndex) -> Result<&mut Endpoint, Refusal> {
        self.endpoints.get_mut(at).ok_or(Refusal::NotFound)
    }

    fn conference_mut(&mut self, at: ConferenceIndex) -> Result<&mut Conference, Refusal> {
        let place = self.conferences.get_mut(at.0 as usize);
        place.and_then(Option::as_deref_mut).ok_or(Refusal::NotFound)
    }

    fn change(&mut self, at: EndpointIndex, change: impl FnOnce(&mut Endpoint)) -> Outcome {
        Outcome::plain(self.endpoint_mut(at).map(change))
    }

    fn add_conference(&mut self, at: ConferenceIndex, conference: Box<Conference>) -> Outcome {
        let refusal = match self.conferences.get(at.0 as usize) {
            None => Refusal::OutOfRange,
            Some(Some(_)) => Refusal::Occupied,
            Some(None) => {
                self.calendar.add(conference.phase(), at);
                if let Some(place) = self.conferences.get_mut(at.0 as usize) {
                    *place = Some(conference);
                }
                return Outcome::plain(Ok(()));
            }
        };
        Outcome::refused(refusal, Retired::Conference(conference))
    }

    fn remove_conference(&mut self, at: ConferenceIndex) -> Outcome {
        let Some(place) = self.conferences.get_mut(at.0 as usize) else {
            return Outcome::plain(Err(Refusal::NotFound));
        };
        match place.take() {
            None => Outcome::plain(Err(Refusal::NotFound)),
            Some(conference) if !conference.is_empty() => {
                *place = Some(conference);
                Outcome::plain(Err(Refusal::NotEmpty))
            }
            Some(mut conference) => {
                self.calendar.remove(conference.phase(), at);
                self.slices.end(at, &mut conference);
                self.retire_share(at);
                Outcome {
                    result: Ok(()),
                    retired: Some(Retired::Conference(conference)),
                }
            }
        }
    }

    fn share(&mut self, at: ConferenceIndex, mut share: Box<Share>) -> Outcome {
        let index = at.0 as usize;
        let conference = self.conferences.get_mut(index).and_then(Option::as_deref_mut);
        let (Some(place), Some(conference)) = (self.shares.get_mut(index), conference) else {
            return Outcome::refused(Refusal::NotFound, Retired::Share(share));
        };
        match place {
            Some(old) => share.take_over(old),
            None => {
                self.shared.push(at);
                self.slices.move_to(&mut share.mix, conference);
            }
        }
        Outcome {
            result: Ok(()),
            retired: place.replace(share).map(Retired::Share),
        }
    }

    /// A conference that is gone is not shared any more.
    pub(super) fn retire_share(&mut self, at: ConferenceIndex) {
        if let Some(share) = self.shares.get_mut(at.0 as usize).and_then(Option::take) {
            self.shared.retain(|other| *other != at);
            self.retired.push(EndpointIndex(u32::MAX), Retired::Share(share));
        }
    }

    fn add_endpoint(
        &mut self,
        conference: ConferenceIndex,
        at: EndpointIndex,
        mut boxed: EndpointBox,
        now: Timestamp,
        sink: &mut impl PacketSink,
    ) -> Outcome {
        let room = self
            .conferences
            .get_mut(conference.0 as usize)
            .and_then(Option::as_deref_mut);
        let refusal = match (self.endpoints.is_taken(at), room, &mut *boxed) {
            (None, ..) => Refusal::OutOfRange,
            (_, None, _) | (.., None) => Refusal::NotFound,
            (Some(true), ..) => Refusal::Occupied,
            (Some(false), Some(room), Some(endpoint)) => match self.ports.check_free(endpoint.local_port()) {
                Err(refusal) => refusal,
                Ok(()) => {
                    endpoint.enter(conference, at, now, sink, &mut self.counters);
                    self.ports.take(endpoint.local_port(), at);
                    self.own_ssrcs.add(conference, endpoint.ssrc());
                    self.roster.join(room.list_of(endpoint), at);
                    self.endpoints.put(at, boxed);
                    return Outcome::plain(Ok(()));
                }
            },
        };
        Outcome::refused(refusal, Retired::Endpoint(boxed))
    }

    fn remove_endpoint(&mut self, at: EndpointIndex) -> Outcome {
        let Some(endpoint) = self.endpoints.get(at) else {
            return Outcome::plain(Err(Refusal::NotFound));
        };
        let room = self.conferences.get_mut(endpoint.conference().0 as usize);
        if let Some(room) = room.and_then(Option::as_deref_mut) {
            if let Some(sending) = room.sending.filter(|sending| sending.next() == at) {
                room.sending = self.roster.following(at).map(|next| sending.after(1, next));
            }
            self.roster.leave(room.list_of(endpoint), at);
        }
        self.ports.release(endpoint.local_port());
        self.own_ssrcs.remove(endpoint.conference(), endpoint.ssrc());
        Outcome {
            result: Ok(()),
            retired: self.endpoints.take(at).map(Retired::Endpoint),
        }
    }

    fn set_media(
        &mut self,
        at: EndpointIndex,
        media: Box<MediaPlan>,
        srtp: Option<Srtp>,
        now: Timestamp,
        sink: &mut impl PacketSink,
    ) -> Outcome {
        let (result, worn) = match self.endpoints.get_mut(at) {
            None => (Err(Refusal::NotFound), WornKeys::from(srtp)),
            Some(endpoint) => {
                let stayed = endpoint.has_peer_of(&media);
                // What waits of the old stream leaves under its old key.
                endpoint.set_media(&media, now, sink, &mut self.counters);
                (Ok(()), endpoint.set_keys(srtp, stayed))
            }
        };
        Outcome {
            result,
            retired: Some(Retired::Media(media, worn)),
        }
    }

    fn stop_endpoint(&mut self, at: EndpointIndex, play: Option<PlayId>) -> Outcome {
        let Self {
            endpoints,
            events,
            counters,
            ..
        } = self;
        let Some(endpoint) = endpoints.get_mut(at) else {
            return Outcome::plain(Err(Refusal::NotFound));
        };
        let conference = endpoint.conference();
        endpoint.plays().stop(play, |play| {
            let kind = EventKind::Played {
                play,
                complete: false,
            };
            events.push(
                Event {
                    conference,
                    endpoint: Some(at),
                    kind,
                },
                counters,
            );
        });
        Outcome::plain(Ok(()))
    }

    fn stop_conference(&mut self, at: ConferenceIndex, play: Option<PlayId>) -> Outcome {
        let Self {
            conferences,
            events,
            counters,
            ..
        } = self;
        let Some(conference) = conferences.get_mut(at.0 as usize).and_then(Option::as_deref_mut) else {
            return Outcome::plain(Err(Refusal::NotFound));
        };
        conference.plays.stop(play, |play| {
            let kind = EventKind::Played {
                play,
                complete: false,
            };
            events.push(
                Event {
                    conference: at,
                    endpoint: None,
                    kind,
                },
                counters,
            );
        });
        Outcome::plain(Ok(()))
    }

    fn snapshot(&self, from: EndpointIndex, buffer: &mut Vec<EndpointSnapshot>) {
        buffer.clear();
        let places = buffer.capacity();
        buffer.extend(self.endpoints.iter_from(from, places).map(Endpoint::snapshot));
    }
}
