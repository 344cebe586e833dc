//! The replaying side: an engine over a recording, as fast as it goes.

use std::net::SocketAddr;

use mixer_engine::command::{Command, Play, PlaySource};
use mixer_engine::engine::state::StateError;
use mixer_engine::engine::{Conference, Endpoint, Engine};
use mixer_engine::media::MediaPlan;
use mixer_engine::packet::{Datagram, Filled, FlowId, PacketSink};
use mixer_engine::srtp::Srtp;
use mixer_engine::time::{Slot, Timestamp};

use super::recorder::LENGTH;
use super::{Action, Entry, FORMAT, Header, MAGIC, Sound};
use crate::limits;

/// A packet that the engine sends.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// The slot that runs, or will run next when a command sends it.
    pub slot: Slot,
    /// Whose packet it is: the flow of an endpoint.
    pub flow: FlowId,
    /// UDP payload.
    pub payload: &'a [u8],
}

/// What a recording held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Played {
    /// Datagrams received.
    pub datagrams: u64,
    /// Commands applied.
    pub commands: u64,
    /// Slots run.
    pub slots: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets written that packet I/O did not take.
    pub not_taken: u64,
}

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It is something else.
    #[error("it is no recording")]
    NoRecording,
    /// Another version of the program wrote it.
    #[error("the recording has format {found}, this program reads {FORMAT}")]
    Format {
        /// The number it carries.
        found: u32,
    },
    /// It ends within an entry, or one cannot be understood.
    #[error("the recording is broken at entry {entry}")]
    Broken {
        /// Counted from 0.
        entry: u64,
    },
    /// The state it begins with cannot be read.
    #[error("{0}")]
    State(#[from] StateError),
}

type Read = Action<Box<Conference>, Box<Option<Endpoint>>, Box<MediaPlan>, Srtp>;

/// Replays a recording; `sent` gets every packet in its order.
///
/// # Errors
/// See [`ReplayError`].
pub fn play(recording: &[u8], sent: impl FnMut(Sent<'_>)) -> Result<Played, ReplayError> {
    let rest = recording.strip_prefix(MAGIC).ok_or(ReplayError::NoRecording)?;
    let (header, entries) = split(rest).ok_or(ReplayError::NoRecording)?;
    let header: Header = rmp_serde::from_slice(header).map_err(|_| ReplayError::NoRecording)?;
    if header.format != FORMAT {
        let found = header.format;
        return Err(ReplayError::Format { found });
    }
    // Prompts live as long as the process, here as on a worker.
    let prompts: Vec<&'static [i16]> = header.prompts.iter().map(|samples| leak(samples)).collect();
    let prompt_of = |number| prompts.get(usize::try_from(number).ok()?).copied();
    let mut engine = match &header.state {
        Some(state) => Engine::import_state(header.limits(), state, prompt_of)?,
        None => Engine::new(header.limits()),
    };
    engine.set_origin(header.origin);
    let mut stage = Stage {
        engine,
        prompts,
        played: Played::default(),
    };
    let mut out = Out {
        slot: Slot(0),
        muted: false,
        not_taken: Vec::new(),
        written: 0,
        taken: 0,
        buffer: [0; limits::DATAGRAM_MAX],
        sent,
    };
    let mut entries = Entries {
        rest: entries,
        number: 0,
    };
    while let Some(entry) = entries.next()? {
        stage.take(entry, &mut entries, &mut out)?;
    }
    stage.played.sent = out.taken;
    Ok(stage.played)
}

fn leak(samples: &[i16]) -> &'static [i16] {
    samples.to_vec().leak()
}

/// Something behind its length, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

/// What is still to come.
#[derive(Debug)]
struct Entries<'a> {
    rest: &'a [u8],
    number: u64,
}

impl<'a> Entries<'a> {
    fn next(&mut self) -> Result<Option<Entry<'a, Read>>, ReplayError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let broken = ReplayError::Broken { entry: self.number };
        let Some((entry, rest)) = split(self.rest) else {
            return Err(broken);
        };
        let entry = rmp_serde::from_slice(entry).map_err(|_| broken)?;
        self.rest = rest;
        self.number += 1;
        Ok(Some(entry))
    }

    /// Numbers of the packets that were not taken from the input before.
    fn not_taken(&mut self, numbers: &mut Vec<u32>) -> Result<(), ReplayError> {
        numbers.clear();
        loop {
            let (rest, number) = (self.rest, self.number);
            match self.next()? {
                Some(Entry::NotTaken(packet)) => numbers.push(packet),
                _ => {
                    (self.rest, self.number) = (rest, number);
                    return Ok(());
                }
            }
        }
    }
}

/// The engine on its stage.
struct Stage {
    engine: Engine,
    prompts: Vec<&'static [i16]>,
    played: Played,
}

impl Stage {
    fn take<F: FnMut(Sent<'_>)>(
        &mut self,
        entry: Entry<'_, Read>,
        entries: &mut Entries<'_>,
        out: &mut Out<F>,
    ) -> Result<(), ReplayError> {
        match entry {
            Entry::Datagram {
                at,
                port,
                source,
                payload,
            } => self.datagram(at, port, source, payload),
            Entry::Slot { slot, now, muted } => {
                out.begin(slot, muted, entries)?;
                self.engine.run_slot(slot, now, out);
                self.played.slots += 1;
                self.played.not_taken += out.not_taken.len() as u64;
                while self.engine.poll_event().is_some() {}
                while self.engine.poll_retired().is_some() {}
            }
            Entry::Command { now, slot, action } => {
                let entry = entries.number;
                let command = self.command(action).ok_or(ReplayError::Broken { entry })?;
                out.begin(slot, false, entries)?;
                self.engine.apply(now, slot, command, out);
                self.played.commands += 1;
                self.played.not_taken += out.not_taken.len() as u64;
            }
            Entry::Prompt(samples) => self.prompts.push(leak(&samples)),
            Entry::NotTaken(_) => {
                let entry = entries.number;
                return Err(ReplayError::Broken { entry });
            }
        }
        Ok(())
    }

    fn datagram(&mut self, received_at: Timestamp, local_port: u16, source: SocketAddr, payload: &[u8]) {
        self.engine.handle_datagram(&Datagram {
            local_port,
            source,
            payload,
            received_at,
        });
        self.played.datagrams += 1;
    }

    /// `None` when it plays a prompt that was not recorded.
    fn command(&self, action: Read) -> Option<Command> {
        let play = |id, sound, repeat| {
            let source = match sound {
                Sound::Tone {
                    hertz,
                    attenuation_db,
                    duration_ms,
                } => PlaySource::Tone {
                    hertz,
                    attenuation_db,
                    duration_ms,
                },
                Sound::Prompt(number) => {
                    PlaySource::Pcm(self.prompts.get(usize::try_from(number).ok()?).copied()?)
                }
            };
            Some(Play { id, source, repeat })
        };
        Some(match action {
            Action::AddConference(at, conference) => Command::AddConference { at, conference },
            Action::RemoveConference(at) => Command::RemoveConference { at },
            Action::AddEndpoint(conference, at, endpoint) => Command::AddEndpoint {
                conference,
                at,
                endpoint,
            },
            Action::RemoveEndpoint(at) => Command::RemoveEndpoint { at },
            Action::SetMedia(at, media, srtp) => Command::SetMedia { at, media, srtp },
            Action::Mute(at, on) => Command::Mute { at, on },
            Action::Deaf(at, on) => Command::Deaf { at, on },
            Action::Gain(at, centibel) => Command::Gain { at, centibel },
            Action::Hold(at, on) => Command::Hold { at, on },
            Action::PlayToEndpoint(at, id, sound, repeat) => Command::PlayToEndpoint {
                at,
                play: play(id, sound, repeat)?,
            },
            Action::PlayToConference(at, id, sound, repeat) => Command::PlayToConference {
                at,
                play: play(id, sound, repeat)?,
            },
            Action::StopEndpoint(at, play) => Command::StopEndpoint { at, play },
            Action::StopConference(at, play) => Command::StopConference { at, play },
        })
    }
}

/// Takes what was taken then.
struct Out<F> {
    slot: Slot,
    muted: bool,
    /// Numbers of the packets of this input that were not taken.
    not_taken: Vec<u32>,
    /// Packets of this input so far.
    written: u32,
    taken: u64,
    buffer: [u8; limits::DATAGRAM_MAX],
    sent: F,
}

impl<F> Out<F> {
    fn begin(&mut self, slot: Slot, muted: bool, entries: &mut Entries<'_>) -> Result<(), ReplayError> {
        (self.slot, self.muted, self.written) = (slot, muted, 0);
        entries.not_taken(&mut self.not_taken)
    }
}

impl<F: FnMut(Sent<'_>)> PacketSink for Out<F> {
    fn transmit<W: Into<Filled>>(&mut self, flow: FlowId, fill: impl FnOnce(&mut [u8]) -> W) -> bool {
        let number = self.written;
        self.written += 1;
        if self.not_taken.contains(&number) {
            return false;
        }
        let length = fill(&mut self.buffer).into().length;
        self.taken += 1;
        (self.sent)(Sent {
            slot: self.slot,
            flow,
            payload: self.buffer.get(..length).unwrap_or_default(),
        });
        true
    }

    fn set_remote(&mut self, _flow: FlowId, _remote: SocketAddr) {}

    fn is_muted(&self) -> bool {
        self.muted
    }
}
