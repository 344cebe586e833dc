//! How a request begins: from what exists to the request for a worker.

use std::sync::Arc;

use mixer_control::reply::{Problem, ProblemKind};
use mixer_control::request::{
    ConferenceCommand, ConferenceVerb, EndpointCommand, EndpointVerb, Play, SetMedia,
};
use mixer_engine::command::{self, Command, EndpointIndex, PlayId};
use mixer_engine::time::Timestamp;

use super::entries::{Action, Outstanding, Presence};
use super::{Directory, Link, busy};
use crate::control::answers::Reply;
use crate::control::call::{Body, Call, media_plan, play_source, srtp_keys};
use crate::control::rings::IoChange;

/// `None`: the answer comes with an outcome.
pub(super) type Started = Result<Option<Reply>, Problem>;

impl<L: Link, W> Directory<L, W> {
    pub(super) fn start(&mut self, now: Timestamp, call: &Call) -> Started {
        match &call.body {
            Body::CreateConference(body) => self.create_conference(&call.conference, body),
            Body::DeleteConference(command) => self.delete_conference(&call.conference, command),
            Body::ConferenceCommand(body) => self.conference_command(&call.conference, body),
            Body::CreateEndpoint(body) => self.create_endpoint(now, &call.conference, &call.endpoint, body),
            Body::SetMedia(body) => self.set_media(&call.conference, &call.endpoint, body),
            Body::EndpointCommand(body) => self.endpoint_command(&call.conference, &call.endpoint, body),
            Body::DeleteEndpoint(command) => self.delete_endpoint(&call.conference, &call.endpoint, command),
        }
    }

    /// Lets a command end with a request that is on its way already.
    pub(super) fn join(&mut self, request: u64, command: &str) -> Started {
        match self.outstanding.get_mut(&request) {
            Some(outstanding) => {
                outstanding.commands.push(command.to_owned());
                Ok(None)
            }
            None => Err(internal("a request was lost")),
        }
    }

    fn delete_conference(&mut self, name: &str, command: &str) -> Started {
        let Some((name, _)) = self.conferences.get_key_value(name) else {
            return Ok(Some(Reply::Done(self.done(command, 0, self.tick_of(0)))));
        };
        let name = Arc::clone(name);
        self.end(&name, Some(command));
        Ok(None)
    }

    fn conference_command(&mut self, name: &str, body: &ConferenceCommand) -> Started {
        let Some((name, entry)) = self.conferences.get_key_value(name) else {
            return Err(no_conference());
        };
        if entry.ending.is_some() {
            return Err(no_conference());
        }
        let (name, parts, worker) = (Arc::clone(name), entry.parts.clone(), entry.home());
        if parts.iter().any(|part| self.room(part.worker) == 0) {
            return Err(busy());
        }
        let (action, command): (_, Box<dyn Fn(_) -> Command>) = match &body.verb {
            ConferenceVerb::Lock { on } => {
                let reply = Reply::Done(self.done(&body.command, worker, self.tick_of(worker)));
                if let Some(entry) = self.conferences.get_mut(&name) {
                    entry.locked = *on;
                    tracing::info!(conference = %name, locked = on, "conference lock");
                }
                return Ok(Some(reply));
            }
            ConferenceVerb::Play(play) => {
                let (action, play) = self.play(play, &name, None)?;
                (action, Box::new(move |at| Command::PlayToConference { at, play }))
            }
            ConferenceVerb::Stop { play } => {
                let known = entry
                    .plays
                    .iter()
                    .find(|(_, id)| Some(id) == play.as_ref())
                    .map(|(id, _)| *id);
                if play.is_some() && known.is_none() {
                    return Ok(Some(Reply::Done(self.done(
                        &body.command,
                        worker,
                        self.tick_of(worker),
                    ))));
                }
                let stop = move |at| Command::StopConference { at, play: known };
                (Action::Stop, Box::new(stop))
            }
        };
        let nobody: Arc<str> = Arc::from("");
        let commands = vec![body.command.clone()];
        let Some((home, others)) = parts.split_first() else {
            return Err(no_conference());
        };
        let id = self.send(
            worker,
            (&name, &nobody),
            action,
            command(home.index),
            IoChange::None,
            commands,
        )?;
        for part in others {
            self.tell_part(&name, *part, command(part.index))?;
        }
        if let (ConferenceVerb::Play(play), Some(play_id)) = (&body.verb, self.play_of(id))
            && let Some(entry) = self.conferences.get_mut(&name)
        {
            entry.plays.push((play_id, play.play.clone()));
        }
        Ok(None)
    }

    /// A play for the engine, if its id is not in use on the target.
    fn play(
        &mut self,
        play: &Play,
        conference: &str,
        endpoint: Option<&str>,
    ) -> Result<(Action, command::Play), Problem> {
        let source = play_source(&play.source, &self.prompts)?;
        let plays = self.conferences.get(conference).and_then(|entry| match endpoint {
            None => Some(&entry.plays),
            Some(endpoint) => entry.endpoints.get(endpoint).map(|entry| &entry.plays),
        });
        if plays.is_some_and(|plays| plays.iter().any(|(_, id)| *id == play.play)) {
            let detail = format!("play: {:?} is being played here; use a fresh id", play.play);
            return Err(Problem::new(ProblemKind::Conflict, detail));
        }
        let id = PlayId(self.next_play);
        self.next_play = self.next_play.wrapping_add(1);
        Ok((
            Action::Play(id),
            command::Play {
                id,
                source,
                repeat: play.repeat,
            },
        ))
    }

    fn play_of(&self, request: u64) -> Option<PlayId> {
        match self.outstanding.get(&request) {
            Some(Outstanding {
                action: Action::Play(id),
                ..
            }) => Some(*id),
            _ => None,
        }
    }

    fn set_media(&mut self, conference: &str, name: &str, body: &SetMedia) -> Started {
        let plan = media_plan(&body.media, self.setup.address)?;
        let srtp = srtp_keys(&body.media)?;
        let command = |at| Command::SetMedia {
            at,
            media: Box::new(plan),
            srtp,
        };
        let suite = body.media.srtp.as_ref().map(|srtp| srtp.suite);
        let action = Action::SetMedia(Box::new(body.media.without_keys()), suite);
        self.command_endpoint(conference, name, &body.command, action, command)
    }

    fn endpoint_command(&mut self, conference: &str, name: &str, body: &EndpointCommand) -> Started {
        let id = &body.command;
        match &body.verb {
            EndpointVerb::Mute { on } => {
                let on = *on;
                self.command_endpoint(conference, name, id, Action::Mute(on), |at| Command::Mute {
                    at,
                    on,
                })
            }
            EndpointVerb::Deaf { on } => {
                let on = *on;
                self.command_endpoint(conference, name, id, Action::Deaf(on), |at| Command::Deaf {
                    at,
                    on,
                })
            }
            EndpointVerb::Hold { on } => {
                let on = *on;
                self.command_endpoint(conference, name, id, Action::Hold(on), |at| Command::Hold {
                    at,
                    on,
                })
            }
            EndpointVerb::Gain { centibel } => {
                let centibel = *centibel;
                let command = |at| Command::Gain { at, centibel };
                self.command_endpoint(conference, name, id, Action::Gain(centibel), command)
            }
            EndpointVerb::Play(play) => {
                let (action, engine_play) = self.play(play, conference, Some(name))?;
                let play_id = engine_play.id;
                let command = |at| Command::PlayToEndpoint {
                    at,
                    play: engine_play,
                };
                let started = self.command_endpoint(conference, name, id, action, command)?;
                if let Some(entry) = self.endpoint_mut(conference, name) {
                    entry.plays.push((play_id, play.play.clone()));
                }
                Ok(started)
            }
            EndpointVerb::Stop { play } => {
                let entry = self
                    .conferences
                    .get(conference)
                    .and_then(|entry| entry.endpoints.get(name));
                let worker = entry.map(|entry| entry.worker);
                let plays = entry.map(|entry| entry.plays.as_slice()).unwrap_or_default();
                let known = plays
                    .iter()
                    .find(|(_, id)| Some(id) == play.as_ref())
                    .map(|(id, _)| *id);
                if let (Some(_), None, Some(worker)) = (play, known, worker) {
                    return Ok(Some(Reply::Done(self.done(id, worker, self.tick_of(worker)))));
                }
                let command = |at| Command::StopEndpoint { at, play: known };
                self.command_endpoint(conference, name, id, Action::Stop, command)
            }
        }
    }

    fn command_endpoint(
        &mut self,
        conference: &str,
        name: &str,
        command_id: &str,
        action: Action,
        command: impl FnOnce(EndpointIndex) -> Command,
    ) -> Started {
        let Some((conference, holder)) = self.conferences.get_key_value(conference) else {
            return Err(no_conference());
        };
        let Some((name, entry)) = holder.endpoints.get_key_value(name) else {
            return Err(no_endpoint());
        };
        if holder.ending.is_some() || matches!(entry.presence, Presence::Removing(_)) {
            return Err(no_endpoint());
        }
        let (conference, name) = (Arc::clone(conference), Arc::clone(name));
        let (worker, command) = (entry.worker, command(entry.index));
        let commands = vec![command_id.to_owned()];
        self.send(
            worker,
            (&conference, &name),
            action,
            command,
            IoChange::None,
            commands,
        )?;
        Ok(None)
    }

    fn delete_endpoint(&mut self, conference: &str, name: &str, command: &str) -> Started {
        let holder = self.conferences.get_key_value(conference);
        let worker = holder.map_or(0, |(_, holder)| holder.home());
        let found = holder.and_then(|(conference, holder)| {
            let (name, entry) = holder.endpoints.get_key_value(name)?;
            Some((Arc::clone(conference), Arc::clone(name), entry.presence))
        });
        let Some((conference, name, presence)) = found else {
            return Ok(Some(Reply::Done(self.done(
                command,
                worker,
                self.tick_of(worker),
            ))));
        };
        if let Presence::Removing(request) = presence {
            return self.join(request, command);
        }
        self.send_removal(&conference, &name, vec![command.to_owned()])?;
        Ok(None)
    }
}

pub(super) fn no_conference() -> Problem {
    Problem::new(ProblemKind::NotFound, "no such conference")
}

pub(super) fn no_endpoint() -> Problem {
    Problem::new(ProblemKind::NotFound, "no such endpoint")
}

pub(super) fn no_headroom(detail: &str) -> Problem {
    Problem::new(ProblemKind::NoHeadroom, detail).retry_after(10)
}

pub(super) fn internal(detail: &str) -> Problem {
    Problem::new(ProblemKind::Internal, detail)
}
