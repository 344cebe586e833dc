//! Prompts: WAV files and built-in tones, kept as 8 kHz mono samples for the life of the process.
//!
//! They are leaked on purpose, so that a worker can hold `&'static [i16]` without counting references.

use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::path::{Path, PathBuf};

/// All prompts by name.
#[derive(Debug, Clone, Default)]
pub struct Prompts {
    by_name: BTreeMap<String, &'static [i16]>,
}

/// Why the prompt folder cannot be used. One line that names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// A folder or file cannot be read.
    #[error("{}: cannot be read: {source}; check prompts.folder and its permissions", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not WAV as we understand it.
    #[error("{}: {reason}; convert it: sox IN.wav -b 16 -r 8000 -c 1 OUT.wav", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file's name makes no prompt name.
    #[error("{}: prompt names have only a-z, 0-9, _ and -; rename the file", path.display())]
    Name {
        /// Which.
        path: PathBuf,
    },
    /// More than the process should hold.
    #[error(
        "{}: prompts are longer than {PROMPT_SECONDS_MAX} s in all; remove some files",
        path.display()
    )]
    TooMuch {
        /// The file that went over the limit.
        path: PathBuf,
    },
}

/// Longest total of all prompts, in seconds: 2 hours are 115 MB.
pub const PROMPT_SECONDS_MAX: usize = 7200;

/// Sample rate of prompts in the engine.
const RATE: u32 = 8000;

impl Prompts {
    /// The built-in tones alone.
    #[must_use]
    pub fn synthesised() -> Self {
        let tones: [(&str, &[(f64, u32)]); 4] = [
            ("en/enter", &[(523.25, 120), (659.25, 160)]),
            ("en/exit", &[(659.25, 120), (523.25, 160)]),
            ("en/beep", &[(880.0, 250)]),
            (
                "en/locked",
                &[(480.0, 200), (0.0, 100), (480.0, 200), (0.0, 100), (480.0, 200)],
            ),
        ];
        let by_name = tones
            .into_iter()
            .map(|(name, notes)| {
                let samples: Vec<i16> = notes.iter().flat_map(|&(hertz, ms)| note(hertz, ms)).collect();
                (name.to_owned(), &*samples.leak())
            })
            .collect();
        Self { by_name }
    }

    /// The built-in tones and, over them, every `*.wav` below `folder`, by path without extension.
    ///
    /// # Errors
    /// A folder or file cannot be read, has an unusable name or format, or there is too much.
    pub fn load(folder: Option<&Path>) -> Result<Self, PromptError> {
        let mut prompts = Self::synthesised();
        let Some(folder) = folder else { return Ok(prompts) };
        let mut room = PROMPT_SECONDS_MAX * RATE as usize;
        let mut folders = vec![(folder.to_owned(), String::new(), 0)];
        while let Some((folder, prefix, depth)) = folders.pop() {
            for path in entries(&folder)? {
                let stem = path
                    .file_stem()
                    .and_then(|stem| stem.to_str())
                    .unwrap_or_default();
                let name = format!("{prefix}{stem}");
                if path.is_dir() {
                    if depth < DEPTH_MAX {
                        folders.push((path, format!("{name}/"), depth + 1));
                    }
                } else if path
                    .extension()
                    .is_some_and(|extension| extension.eq_ignore_ascii_case("wav"))
                {
                    if !is_prompt_name(&name) {
                        return Err(PromptError::Name { path });
                    }
                    let samples = read_wav(&path)?;
                    room = room
                        .checked_sub(samples.len())
                        .ok_or_else(|| PromptError::TooMuch { path: path.clone() })?;
                    prompts.by_name.insert(name, samples.leak());
                }
            }
        }
        Ok(prompts)
    }

    /// The samples of a prompt, 8 kHz mono.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'static [i16]> {
        self.by_name.get(name).copied()
    }

    /// Names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Number of prompts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// Whether a name can be one of a prompt: `[a-z0-9/_-]`, 1 to 128 characters, no empty part.
#[must_use]
pub fn is_prompt_name(name: &str) -> bool {
    name.len() <= 128
        && name.split('/').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
        })
}

/// Folders below the prompt folder that are looked into.
const DEPTH_MAX: u32 = 8;

fn entries(folder: &Path) -> Result<Vec<PathBuf>, PromptError> {
    let unreadable = |source| PromptError::Unreadable {
        path: folder.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        paths.push(entry.map_err(unreadable)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn read_wav(path: &Path) -> Result<Vec<i16>, PromptError> {
    let unusable = |reason: String| PromptError::Unusable {
        path: path.to_owned(),
        reason,
    };
    let file = std::fs::File::open(path).map_err(|source| PromptError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let mut reader =
        hound::WavReader::new(std::io::BufReader::new(file)).map_err(|error| unusable(error.to_string()))?;
    let spec = reader.spec();
    if spec.sample_format != hound::SampleFormat::Int || spec.bits_per_sample != 16 {
        return Err(unusable(format!(
            "{} bit {:?} samples",
            spec.bits_per_sample, spec.sample_format
        )));
    }
    if !matches!(spec.channels, 1 | 2) || !matches!(spec.sample_rate, 8000 | 16_000 | 48_000) {
        return Err(unusable(format!(
            "{} Hz, {} channels",
            spec.sample_rate, spec.channels
        )));
    }
    if reader.duration() as usize > PROMPT_SECONDS_MAX * spec.sample_rate as usize {
        return Err(PromptError::TooMuch {
            path: path.to_owned(),
        });
    }
    let samples = reader
        .samples::<i16>()
        .collect::<Result<Vec<i16>, _>>()
        .map_err(|error| unusable(error.to_string()))?;
    if samples.is_empty() {
        return Err(unusable("no samples".to_owned()));
    }
    let mono: Vec<f64> = samples
        .chunks_exact(usize::from(spec.channels))
        .map(|frame| frame.iter().map(|sample| f64::from(*sample)).sum::<f64>() / f64::from(spec.channels))
        .collect();
    Ok(decimate(&mono, spec.sample_rate / RATE))
}

/// Keeps every `factor`-th sample behind a low-pass (windowed sinc, cut off at 3.6 kHz).
fn decimate(samples: &[f64], factor: u32) -> Vec<i16> {
    if factor <= 1 {
        return samples.iter().map(|sample| to_i16(*sample)).collect();
    }
    // 32 periods of the output rate on either side: about 70 dB down at 4.4 kHz.
    let reach = 32 * i64::from(factor);
    let cutoff = 0.45 / f64::from(factor);
    let taps: Vec<f64> = (-reach..=reach)
        .map(|tap| {
            let x = tap as f64;
            let sinc = if tap == 0 {
                2.0 * cutoff
            } else {
                (2.0 * PI * cutoff * x).sin() / (PI * x)
            };
            let turn = PI * x / reach as f64;
            sinc * (0.42 + 0.5 * turn.cos() + 0.08 * (2.0 * turn).cos())
        })
        .collect();
    let gain: f64 = taps.iter().sum();
    (0..samples.len())
        .step_by(factor as usize)
        .map(|centre| {
            let first = centre as i64 - reach;
            let sum: f64 = taps
                .iter()
                .enumerate()
                .filter_map(|(place, tap)| {
                    let at = usize::try_from(first + place as i64).ok()?;
                    samples.get(at).map(|sample| sample * tap)
                })
                .sum();
            to_i16(sum / gain)
        })
        .collect()
}

/// A sine of 12 dB below full scale with 10 ms ramps; silence for 0 Hz.
fn note(hertz: f64, duration_ms: u32) -> impl Iterator<Item = i16> {
    let length = duration_ms * RATE / 1000;
    let ramp = RATE / 100;
    (0..length).map(move |at| {
        let envelope = f64::from(at.min(length - 1 - at).min(ramp)) / f64::from(ramp);
        let phase = 2.0 * PI * hertz * f64::from(at) / f64::from(RATE);
        to_i16(8231.0 * envelope * phase.sin())
    })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "clamped to the range of i16 before"
)]
fn to_i16(value: f64) -> i16 {
    value.round().clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mixminus-prompts-{}-{name}", std::process::id()));
            std::fs::create_dir_all(path.join("de")).unwrap();
            Self(path)
        }

        fn wav(&self, name: &str, rate: u32, channels: u16, bits: u16, samples: impl Iterator<Item = i16>) {
            let spec = hound::WavSpec {
                channels,
                sample_rate: rate,
                bits_per_sample: bits,
                sample_format: hound::SampleFormat::Int,
            };
            let mut writer = hound::WavWriter::create(self.0.join(name), spec).unwrap();
            for sample in samples {
                if bits == 8 {
                    writer.write_sample(i8::try_from(sample / 256).unwrap()).unwrap();
                } else {
                    writer.write_sample(sample).unwrap();
                }
            }
            writer.finalize().unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn sine(hertz: f64, rate: u32, count: u32) -> impl Iterator<Item = i16> {
        (0..count)
            .map(move |at| to_i16(10_000.0 * (2.0 * PI * hertz * f64::from(at) / f64::from(rate)).sin()))
    }

    /// Amplitude of one frequency in 8 kHz samples, the edges left out.
    fn amplitude(samples: &[i16], hertz: f64) -> f64 {
        let inner = &samples[400..samples.len() - 400];
        let (mut real, mut imaginary) = (0.0, 0.0);
        for (at, sample) in inner.iter().enumerate() {
            let phase = 2.0 * PI * hertz * at as f64 / 8000.0;
            real += f64::from(*sample) * phase.cos();
            imaginary += f64::from(*sample) * phase.sin();
        }
        2.0 * real.hypot(imaginary) / inner.len() as f64
    }

    #[test]
    fn the_synthesised_set_is_audible_and_never_clips() {
        let prompts = Prompts::synthesised();
        assert_eq!(
            prompts.names().collect::<Vec<_>>(),
            ["en/beep", "en/enter", "en/exit", "en/locked"]
        );
        let beep = prompts.get("en/beep").unwrap();
        assert_eq!(beep.len(), 2000);
        assert!(amplitude(beep, 880.0) > 7000.0);
        assert!(
            prompts
                .names()
                .all(|name| prompts.get(name).unwrap().iter().all(|s| s.unsigned_abs() < 9000))
        );
    }

    #[test]
    fn files_are_found_by_path_and_override_the_built_in_ones() {
        let folder = Folder::new("found");
        std::fs::create_dir_all(folder.0.join("en")).unwrap();
        folder.wav("de/hallo.wav", 8000, 1, 16, sine(440.0, 8000, 8000));
        folder.wav("en/beep.WAV", 8000, 1, 16, [1, 2, 3].into_iter());
        std::fs::write(folder.0.join("README"), "not a prompt").unwrap();
        let prompts = Prompts::load(Some(&folder.0)).unwrap();
        assert_eq!(prompts.get("en/beep"), Some(&[1i16, 2, 3][..]));
        assert_eq!(prompts.len(), 5);
        let exact: Vec<i16> = sine(440.0, 8000, 8000).collect();
        assert_eq!(prompts.get("de/hallo"), Some(&exact[..]));
    }

    #[test]
    fn other_rates_are_converted_without_aliases() {
        let folder = Folder::new("rates");
        for (rate, channels) in [(16_000, 1), (48_000, 1), (48_000, 2), (16_000, 2)] {
            let doubled = |hertz| {
                sine(hertz, rate, rate)
                    .flat_map(move |sample| std::iter::repeat_n(sample, usize::from(channels)))
            };
            folder.wav("de/low.wav", rate, channels, 16, doubled(1000.0));
            folder.wav("de/high.wav", rate, channels, 16, doubled(5000.0));
            let prompts = Prompts::load(Some(&folder.0)).unwrap();
            let low = prompts.get("de/low").unwrap();
            assert_eq!(low.len(), 8000);
            let level = amplitude(low, 1000.0);
            assert!((9900.0..10_100.0).contains(&level), "{rate} Hz: {level}");
            // 5 kHz would fold to 3 kHz.
            let alias = amplitude(prompts.get("de/high").unwrap(), 3000.0);
            assert!(alias < 10.0, "{rate} Hz: {alias}");
        }
    }

    #[test]
    fn unusable_files_are_named_with_the_remedy() {
        let folder = Folder::new("bad");
        let fails = |wanted: &str, remedy: &str| {
            let line = Prompts::load(Some(&folder.0)).unwrap_err().to_string();
            assert!(line.contains(wanted) && line.contains(remedy), "{line}");
            assert_eq!(line.lines().count(), 1);
        };
        folder.wav("de/a.wav", 44_100, 1, 16, sine(440.0, 44_100, 441));
        fails("44100 Hz", "sox");
        folder.wav("de/a.wav", 8000, 1, 8, sine(440.0, 8000, 80));
        fails("8 bit", "sox");
        folder.wav("de/a.wav", 8000, 1, 16, std::iter::empty());
        fails("no samples", "sox");
        std::fs::write(folder.0.join("de/a.wav"), "RIFFrubbish").unwrap();
        fails("de/a.wav", "");
        std::fs::remove_file(folder.0.join("de/a.wav")).unwrap();
        folder.wav("de/Hello World.wav", 8000, 1, 16, sine(440.0, 8000, 80));
        fails("Hello World.wav", "rename");
        assert!(matches!(
            Prompts::load(Some(Path::new("/nonexistent"))),
            Err(PromptError::Unreadable { .. })
        ));
    }

    #[test]
    fn prompt_names() {
        assert!(is_prompt_name("en/enter") && is_prompt_name("a_b-9"));
        for bad in [
            "", "/", "en/", "/en", "en//x", "../x", "en/..", "En", "a b", "a.b",
        ] {
            assert!(!is_prompt_name(bad), "{bad:?}");
        }
    }
}
