//! The plays of one target, mixed into one signal.

use serde::{Deserialize, Serialize};

use super::tone::Tone;
use crate::command::{Play, PlayId, PlaySource, Refusal};
use crate::engine::state::packed;

/// Number of a prompt that nobody has named.
pub(crate) const NO_PROMPT: u32 = u32::MAX;

/// Samples of one tick.
const FRAME: usize = 160;

/// Up to `N` plays at once.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plays<const N: usize> {
    #[serde(with = "packed::places")]
    running: [Option<Running>; N],
}

/// One play under way.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename = "RunningPlay")]
struct Running {
    id: PlayId,
    source: Source,
    /// Turns left, the current one included; 0 never ends.
    turns: u32,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename = "RunningSource")]
pub(crate) enum Source {
    Tone(Tone),
    Pcm {
        #[serde(skip)]
        samples: &'static [i16],
        position: usize,
        /// What the samples are called in the state; has no meaning between exports.
        prompt: u32,
    },
}

impl<const N: usize> Plays<N> {
    /// Nothing plays.
    #[must_use]
    pub fn new() -> Self {
        Self { running: [None; N] }
    }

    /// Starts a play with the next frame.
    ///
    /// # Errors
    /// [`Refusal::TooManyPlays`] when all places are taken, [`Refusal::Occupied`] when a play of
    /// that number is running.
    pub fn start(&mut self, play: Play) -> Result<(), Refusal> {
        if self.running.iter().flatten().any(|running| running.id == play.id) {
            return Err(Refusal::Occupied);
        }
        let place = self
            .running
            .iter_mut()
            .find(|place| place.is_none())
            .ok_or(Refusal::TooManyPlays)?;
        let source = match play.source {
            PlaySource::Tone {
                hertz,
                attenuation_db,
                duration_ms,
            } => Source::Tone(Tone::new(hertz, attenuation_db, duration_ms)),
            PlaySource::Pcm(samples) => Source::Pcm {
                samples,
                position: 0,
                prompt: NO_PROMPT,
            },
        };
        *place = Some(Running {
            id: play.id,
            source,
            turns: play.repeat,
        });
        Ok(())
    }

    /// Stops one play, or all of them. `stopped` gets each that was running.
    pub fn stop(&mut self, play: Option<PlayId>, mut stopped: impl FnMut(PlayId)) {
        for place in &mut self.running {
            if place.is_some_and(|running| play.is_none_or(|id| id == running.id)) {
                stopped(place.take().map_or(PlayId(0), |running| running.id));
            }
        }
    }

    /// Writes beside every prompt what it is called in the state.
    pub(crate) fn name_prompts(&mut self, mut number_of: impl FnMut(&'static [i16]) -> Option<u32>) {
        for running in self.running.iter_mut().flatten() {
            if let Source::Pcm { samples, prompt, .. } = &mut running.source {
                *prompt = number_of(samples).unwrap_or(NO_PROMPT);
            }
        }
    }

    /// Gives every prompt its samples again. A play of one that is not known ends; `stopped` gets it.
    pub(crate) fn find_prompts(
        &mut self,
        mut prompt_of: impl FnMut(u32) -> Option<&'static [i16]>,
        mut stopped: impl FnMut(PlayId),
    ) {
        for place in &mut self.running {
            let Some(Running {
                id,
                source: Source::Pcm { samples, prompt, .. },
                ..
            }) = place
            else {
                continue;
            };
            if let Some(found) = prompt_of(*prompt) {
                *samples = found;
            } else {
                stopped(*id);
                *place = None;
            }
        }
    }

    /// Whether anything plays.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.running.iter().any(Option::is_some)
    }

    /// Adds the next 20 ms of every play to `sum`. `finished` gets each play that ran to its end
    /// with this frame. Returns whether anything was added.
    pub fn mix_into(&mut self, sum: &mut [i32; FRAME], mut finished: impl FnMut(PlayId)) -> bool {
        let mut active = false;
        for place in &mut self.running {
            let Some(running) = place else { continue };
            active = true;
            let mut frame = [0_i16; FRAME];
            let ended = running.fill(&mut frame);
            for (total, sample) in sum.iter_mut().zip(&frame) {
                *total = total.saturating_add(i32::from(*sample));
            }
            if ended {
                finished(running.id);
                *place = None;
            }
        }
        active
    }

    /// The next 20 ms of every play, limited to full scale, in `out`; silence when nothing plays.
    /// `finished` as in [`Self::mix_into`]. Returns whether anything played.
    pub fn next_frame(&mut self, out: &mut [i16; FRAME], finished: impl FnMut(PlayId)) -> bool {
        let mut sum = [0_i32; FRAME];
        let active = self.is_active() && self.mix_into(&mut sum, finished);
        for (sample, total) in out.iter_mut().zip(&sum) {
            #[expect(clippy::cast_possible_truncation, reason = "limited to full scale")]
            let limited = (*total).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
            *sample = limited;
        }
        active
    }
}

impl<const N: usize> Default for Plays<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl Running {
    /// Writes the next frame, silent from where the play ends. True when it ended.
    fn fill(&mut self, frame: &mut [i16; FRAME]) -> bool {
        let mut filled = 0;
        while let Some(rest) = frame.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let count = self.source.fill(rest);
            filled += count;
            if !self.source.has_ended() {
                return false;
            }
            if self.turns == 1 {
                return true;
            }
            if self.source.is_empty() {
                // Nothing to repeat: silence until stopped, or an end at once.
                return self.turns != 0;
            }
            self.turns = self.turns.saturating_sub(1);
            self.source.rewind();
        }
        false
    }
}

impl Source {
    fn fill(&mut self, out: &mut [i16]) -> usize {
        match self {
            Self::Tone(tone) => tone.fill(out),
            Self::Pcm {
                samples, position, ..
            } => {
                let rest = samples.get(*position..).unwrap_or_default();
                for (sample, from) in out.iter_mut().zip(rest) {
                    *sample = *from;
                }
                let count = rest.len().min(out.len());
                *position += count;
                count
            }
        }
    }

    fn has_ended(&self) -> bool {
        match self {
            Self::Tone(tone) => tone.has_ended(),
            Self::Pcm {
                samples, position, ..
            } => *position >= samples.len(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Tone(tone) => tone.is_empty(),
            Self::Pcm { samples, .. } => samples.is_empty(),
        }
    }

    fn rewind(&mut self) {
        match self {
            Self::Tone(tone) => tone.rewind(),
            Self::Pcm { position, .. } => *position = 0,
        }
    }
}

#[cfg(test)]
mod tests;
