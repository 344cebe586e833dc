//! The recording side: on a worker, so it neither allocates nor waits.

use std::borrow::Cow;

use mixer_engine::command::{Command, Play, PlaySource};
use mixer_engine::engine::{Conference, Endpoint, EngineLimits};
use mixer_engine::media::MediaPlan;
use mixer_engine::packet::Datagram;
use mixer_engine::srtp::Srtp;
use mixer_engine::time::{Slot, Timestamp};
use serde::Serialize;
use serde_bytes::ByteBuf;

use super::{Action, Entry, FORMAT, Header, MAGIC, Sound};

/// Prompts that are told apart; one beyond is written again whenever it is played.
const PROMPTS: usize = 64;

/// Where an engine begins.
#[derive(Debug)]
pub struct Beginning<'a> {
    /// Sizes of the engine.
    pub limits: EngineLimits,
    /// When slot 0 was due.
    pub origin: Timestamp,
    /// What it goes on from ([`mixer_engine::engine::Engine::export_state`]), if it does.
    pub state: Option<&'a [u8]>,
    /// Prompts that the state plays, by number.
    pub prompts: &'a [&'static [i16]],
}

/// Takes down one engine's inputs until its memory is full.
#[derive(Debug)]
pub struct Recorder {
    beginning: Vec<u8>,
    entries: Box<[u8]>,
    /// So much of the entries is written.
    length: usize,
    /// Where the newest input began, with what belongs to it.
    input: usize,
    ended: bool,
    left_out: u64,
    /// Prompts that were written, by number.
    prompts: Vec<&'static [i16]>,
    next_prompt: u32,
}

type Written<'a> = Entry<'a, Action<&'a Conference, &'a Option<Endpoint>, &'a MediaPlan, &'a Srtp>>;

impl Recorder {
    /// A recorder with memory for so many bytes; everything it will ever need is allocated here.
    #[must_use]
    pub fn new(bytes: usize, beginning: &Beginning<'_>) -> Self {
        let limits = beginning.limits;
        let header = Header {
            format: FORMAT,
            conferences: limits.conferences,
            endpoints: limits.endpoints,
            port_first: limits.port_first,
            port_last: limits.port_last,
            events: limits.events,
            media_timeout_ms: limits.media_timeout_ms,
            origin: beginning.origin,
            state: beginning.state.map(ByteBuf::from),
            prompts: beginning.prompts.iter().map(|samples| samples.to_vec()).collect(),
        };
        let mut prompts = Vec::with_capacity(PROMPTS.max(beginning.prompts.len()));
        prompts.extend_from_slice(beginning.prompts);
        Self {
            // Writing to memory cannot fail; a header that is not there is refused when it is read.
            beginning: rmp_serde::to_vec(&header).unwrap_or_default(),
            // Written to once, so that the pages are there before they are needed.
            entries: vec![0xFF; bytes].into_boxed_slice(),
            length: 0,
            input: 0,
            ended: false,
            left_out: 0,
            next_prompt: u32::try_from(prompts.len()).unwrap_or(u32::MAX),
            prompts,
        }
    }

    /// A datagram is about to enter the engine.
    pub fn datagram(&mut self, datagram: &Datagram<'_>) {
        self.input = self.length;
        self.put(&Written::Datagram {
            at: datagram.received_at,
            port: datagram.local_port,
            source: datagram.source,
            payload: datagram.payload,
        });
    }

    /// A slot is about to run.
    pub fn slot(&mut self, slot: Slot, now: Timestamp, muted: bool) {
        self.input = self.length;
        self.put(&Written::Slot { slot, now, muted });
    }

    /// A command is about to be applied.
    pub fn command(&mut self, now: Timestamp, slot: Slot, command: &Command) {
        self.input = self.length;
        let action = match command {
            Command::AddConference { at, conference } => Action::AddConference(*at, &**conference),
            Command::RemoveConference { at } => Action::RemoveConference(*at),
            Command::Share { .. } => return self.end(),
            Command::AddEndpoint {
                conference,
                at,
                endpoint,
            } => Action::AddEndpoint(*conference, *at, &**endpoint),
            Command::RemoveEndpoint { at } => Action::RemoveEndpoint(*at),
            Command::SetMedia { at, media, srtp } => Action::SetMedia(*at, &**media, srtp.as_ref()),
            Command::Mute { at, on } => Action::Mute(*at, *on),
            Command::Deaf { at, on } => Action::Deaf(*at, *on),
            Command::Gain { at, centibel } => Action::Gain(*at, *centibel),
            Command::Hold { at, on } => Action::Hold(*at, *on),
            Command::PlayToEndpoint { at, play } => {
                Action::PlayToEndpoint(*at, play.id, self.sound(play), play.repeat)
            }
            Command::PlayToConference { at, play } => {
                Action::PlayToConference(*at, play.id, self.sound(play), play.repeat)
            }
            Command::StopEndpoint { at, play } => Action::StopEndpoint(*at, *play),
            Command::StopConference { at, play } => Action::StopConference(*at, *play),
            // It changes nothing.
            Command::Snapshot { .. } => return,
        };
        self.put(&Written::Command { now, slot, action });
    }

    /// Of the packets that this slot or command wrote, the one of this number was not taken.
    pub fn not_taken(&mut self, number: u32) {
        self.put(&Written::NotTaken(number));
    }

    /// What came after the memory was full.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The recording in bytes, for a file.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        let length = u32::try_from(self.beginning.len()).unwrap_or(0);
        let entries = self.entries.get(..self.length).unwrap_or_default();
        [MAGIC.as_slice(), &length.to_le_bytes(), &self.beginning, entries].concat()
    }

    fn sound(&mut self, play: &Play) -> Sound {
        match play.source {
            PlaySource::Tone {
                hertz,
                attenuation_db,
                duration_ms,
            } => Sound::Tone {
                hertz,
                attenuation_db,
                duration_ms,
            },
            PlaySource::Pcm(samples) => Sound::Prompt(self.prompt(samples)),
        }
    }

    /// Number of a prompt; its samples are written when it is played first, which takes about a millisecond
    /// for half a minute of it.
    fn prompt(&mut self, samples: &'static [i16]) -> u32 {
        let known = self
            .prompts
            .iter()
            .position(|known| std::ptr::eq(*known, samples));
        if let Some(number) = known {
            return u32::try_from(number).unwrap_or(u32::MAX);
        }
        self.put(&Written::Prompt(Cow::Borrowed(samples)));
        if self.prompts.len() < self.prompts.capacity() {
            self.prompts.push(samples);
        }
        self.next_prompt += 1;
        self.next_prompt - 1
    }

    /// Ends the recording before the present input: it is not recorded, and without it no later one is true.
    pub fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            self.length = self.input;
        }
        self.left_out += 1;
    }

    /// Writes an entry behind its length. The first that does not fit is the end: an input is there with all that
    /// belongs to it or not at all.
    fn put(&mut self, entry: &impl Serialize) {
        if self.ended {
            self.left_out += 1;
            return;
        }
        let room = self.entries.get_mut(self.length..).unwrap_or_default();
        let written = room.split_first_chunk_mut::<LENGTH>().and_then(|(length, room)| {
            let whole = room.len();
            let mut rest = room;
            entry.serialize(&mut rmp_serde::Serializer::new(&mut rest)).ok()?;
            let used = whole - rest.len();
            *length = u32::try_from(used).ok()?.to_le_bytes();
            Some(LENGTH + used)
        });
        match written {
            Some(written) => self.length += written,
            None => self.end(),
        }
    }
}

/// Bytes before each entry that tell its length.
pub(super) const LENGTH: usize = size_of::<u32>();
