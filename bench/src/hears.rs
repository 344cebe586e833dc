//! Who hears whom, told from recordings alone: what each client sent and what it received.
//!
//! Speech is matched block by block: the best correlation of a sent block anywhere in a received
//! recording, as the gain with which the block arrived. Both are differentiated first, so that a
//! common pitch does not count as likeness. Nothing here asks the server.

use std::path::{Path, PathBuf};

use rustfft::FftPlanner;
use rustfft::num_complex::Complex32;
use serde::Serialize;

/// One client's two recordings, 8 kHz mono.
#[derive(Debug, Clone)]
pub struct Leg {
    /// Who.
    pub name: String,
    /// What it sent.
    pub sent: Vec<f32>,
    /// What it received.
    pub heard: Vec<f32>,
}

/// How loud one client's voice arrived at one client.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// Who listens.
    pub listener: String,
    /// Whose voice.
    pub talker: String,
    /// Median gain over all blocks of speech; 1 is unchanged.
    pub gain: f32,
    /// Whether it must be heard.
    pub expected: bool,
    /// Whether the gain says what is expected.
    pub ok: bool,
}

/// Why recordings cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum HearsError {
    /// A recording cannot be read.
    #[error("{path}: {reason}")]
    Recording {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A talker said nothing.
    #[error("{name}: the sent recording holds less than {BLOCKS_MIN} blocks of speech")]
    NothingSaid {
        /// Which client.
        name: String,
    },
    /// A `--leg` argument is not `NAME=SENT:HEARD`.
    #[error("`{0}`: a leg is given as NAME=SENT.wav:HEARD.wav")]
    Argument(String),
}

impl Leg {
    /// Reads `NAME=SENT.wav:HEARD.wav`.
    ///
    /// # Errors
    /// When the argument has another form or a file is not 8 kHz mono 16 bit WAV.
    pub fn from_argument(argument: &str) -> Result<Self, HearsError> {
        let (name, files) = argument
            .split_once('=')
            .ok_or_else(|| HearsError::Argument(argument.into()))?;
        let (sent, heard) = files
            .split_once(':')
            .ok_or_else(|| HearsError::Argument(argument.into()))?;
        Ok(Self {
            name: name.into(),
            sent: read(Path::new(sent))?,
            heard: read(Path::new(heard))?,
        })
    }
}

/// Judges every ordered pair, the own voice included.
///
/// # Errors
/// When a client said too little to be judged.
pub fn judge(legs: &[Leg]) -> Result<Vec<Pair>, HearsError> {
    let mut pairs = Vec::new();
    for listener in legs {
        let heard = differentiate(&listener.heard);
        for talker in legs {
            let gain = arrival_gain(&differentiate(&talker.sent), &heard).ok_or_else(|| {
                HearsError::NothingSaid {
                    name: talker.name.clone(),
                }
            })?;
            let expected = listener.name != talker.name;
            let ok = if expected {
                gain >= HEARD_GAIN
            } else {
                gain <= SILENT_GAIN
            };
            pairs.push(Pair {
                listener: listener.name.clone(),
                talker: talker.name.clone(),
                gain,
                expected,
                ok,
            });
        }
    }
    Ok(pairs)
}

/// The table a person reads.
#[must_use]
pub fn table(pairs: &[Pair]) -> String {
    let mut text = format!(
        "{:<10} {:<10} {:>6}  {:<7} verdict\n",
        "listener", "talker", "gain", "expect"
    );
    for pair in pairs {
        let heard = if pair.gain >= HEARD_GAIN {
            "hears"
        } else {
            "silent"
        };
        text += &format!(
            "{:<10} {:<10} {:>6.3}  {:<7} {}{}\n",
            pair.listener,
            pair.talker,
            pair.gain,
            if pair.expected { "yes" } else { "no" },
            heard,
            if pair.ok { "" } else { "  <-- WRONG" },
        );
    }
    let (others, own): (Vec<_>, Vec<_>) = pairs.iter().partition(|pair| pair.expected);
    let right = |list: &[&Pair]| list.iter().filter(|pair| pair.ok).count();
    text += &format!(
        "hears-yes {} of {}, own-voice-no {} of {}\n",
        right(&others),
        others.len(),
        right(&own),
        own.len()
    );
    text
}

fn read(path: &Path) -> Result<Vec<f32>, HearsError> {
    let fail = |reason: String| HearsError::Recording {
        path: path.to_owned(),
        reason,
    };
    let mut reader = hound::WavReader::open(path).map_err(|error| fail(error.to_string()))?;
    let spec = reader.spec();
    if spec.sample_rate != 8_000 || spec.channels != 1 || spec.bits_per_sample != 16 {
        return Err(fail(format!("not 8 kHz mono 16 bit but {spec:?}")));
    }
    reader
        .samples::<i16>()
        .map(|sample| sample.map(f32::from).map_err(|error| fail(error.to_string())))
        .collect()
}

fn differentiate(samples: &[f32]) -> Vec<f32> {
    samples
        .windows(2)
        .map(|pair| if let [a, b] = pair { b - a } else { 0.0 })
        .collect()
}

/// Median over the blocks with speech of the strongest gain at any lag.
fn arrival_gain(sent: &[f32], heard: &[f32]) -> Option<f32> {
    let size = (heard.len() + BLOCK).next_power_of_two();
    let mut planner = FftPlanner::new();
    let forward = planner.plan_fft_forward(size);
    let inverse = planner.plan_fft_inverse(size);
    let transform = |samples: &[f32]| {
        let mut buffer: Vec<Complex32> = samples.iter().map(|s| Complex32::new(*s, 0.0)).collect();
        buffer.resize(size, Complex32::default());
        forward.process(&mut buffer);
        buffer
    };
    let spectrum = transform(heard);
    let loudest = sent.chunks_exact(BLOCK).map(energy).fold(0.0, f32::max);
    let mut gains: Vec<f32> = sent
        .chunks_exact(BLOCK)
        .filter(|block| energy(block) > loudest / 10.0)
        .map(|block| {
            let mut product: Vec<Complex32> = transform(block)
                .iter()
                .zip(&spectrum)
                .map(|(b, h)| b.conj() * h)
                .collect();
            inverse.process(&mut product);
            let best = product.iter().map(|value| value.re).fold(0.0, f32::max);
            best / (size as f32 * energy(block))
        })
        .collect();
    if gains.len() < BLOCKS_MIN || loudest < 1.0 {
        return None;
    }
    gains.sort_by(f32::total_cmp);
    gains.get(gains.len() / 2).copied()
}

fn energy(samples: &[f32]) -> f32 {
    samples.iter().map(|s| s * s).sum()
}

/// One second: long enough that other speech does not match, short enough that a client's own
/// clock slipping by a frame spoils only one block.
const BLOCK: usize = 8_000;
/// Fewer blocks than this are no evidence.
const BLOCKS_MIN: usize = 3;
/// From here on a voice counts as heard (-6 dB).
const HEARD_GAIN: f32 = 0.5;
/// Up to here a voice counts as absent: unrelated speech correlates by up to about 0.2.
const SILENT_GAIN: f32 = 0.3;

#[cfg(test)]
mod tests {
    use super::*;

    /// Speech-like noise: own seed, own envelope, 6 s.
    fn voice(seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..48_000_u32)
            .map(|n| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let noise = (state >> 16) as f32 - 32_768.0;
                noise * 0.2 * (0.6 + 0.4 * (n as f32 / (900.0 + seed as f32)).sin())
            })
            .collect()
    }

    fn shifted(voice: &[f32], by: usize) -> Vec<f32> {
        std::iter::repeat_n(0.0, by)
            .chain(voice.iter().copied())
            .collect()
    }

    fn add(a: &[f32], b: &[f32]) -> Vec<f32> {
        a.iter().zip(b).map(|(x, y)| x + y).collect()
    }

    fn room() -> Vec<Leg> {
        let voices = [voice(11), voice(22), voice(33)];
        let leg = |name: &str, own: usize, a: usize, b: usize| Leg {
            name: name.into(),
            sent: voices[own].clone(),
            heard: add(&shifted(&voices[a], 700), &shifted(&voices[b], 1_500)),
        };
        vec![leg("a", 0, 1, 2), leg("b", 1, 0, 2), leg("c", 2, 0, 1)]
    }

    #[test]
    fn a_right_room_is_six_yes_and_three_no() {
        let pairs = judge(&room()).unwrap();
        assert!(pairs.iter().all(|pair| pair.ok), "{}", table(&pairs));
        assert!(table(&pairs).contains("hears-yes 6 of 6, own-voice-no 3 of 3"));
    }

    #[test]
    fn a_muted_talker_is_found() {
        let mut legs = room();
        legs[0].heard = shifted(&voice(33), 1_500);
        let wrong: Vec<_> = judge(&legs)
            .unwrap()
            .into_iter()
            .filter(|pair| !pair.ok)
            .collect();
        assert_eq!(wrong.len(), 1);
        assert_eq!((wrong[0].listener.as_str(), wrong[0].talker.as_str()), ("a", "b"));
    }

    #[test]
    fn an_own_voice_is_found() {
        let mut legs = room();
        legs[1].heard = add(&legs[1].heard, &shifted(&voice(22), 900));
        let wrong: Vec<_> = judge(&legs)
            .unwrap()
            .into_iter()
            .filter(|pair| !pair.ok)
            .collect();
        assert_eq!(wrong.len(), 1);
        assert_eq!((wrong[0].listener.as_str(), wrong[0].talker.as_str()), ("b", "b"));
    }

    #[test]
    fn silence_is_no_evidence() {
        let mut legs = room();
        legs[2].sent = vec![0.0; 48_000];
        assert!(matches!(judge(&legs), Err(HearsError::NothingSaid { .. })));
    }
}
