use proptest::prelude::*;

use super::*;

#[expect(clippy::cast_possible_truncation, reason = "amplitudes stay within range")]
fn tone(hertz: f64, amplitude: f64, samples: u32) -> Vec<i16> {
    (0..samples)
        .map(|n| ((f64::from(n) * hertz / 8000.0 * std::f64::consts::TAU).sin() * amplitude).round() as i16)
        .collect()
}

/// Something like a vowel: harmonics of a pitch with falling levels.
fn vowel(pitch: f64, samples: u32) -> Vec<i16> {
    let harmonics: Vec<Vec<i16>> = (1..9_u8)
        .map(|k| tone(pitch * f64::from(k), 6000.0 / f64::from(k), samples))
        .collect();
    (0..harmonics[0].len())
        .map(|n| harmonics.iter().map(|harmonic| harmonic[n]).sum())
        .collect()
}

/// Loses every frame for which `lost` says so; returns what is heard.
fn hear(sent: &[i16], frame: usize, lost: impl Fn(usize) -> bool) -> Vec<i16> {
    let mut concealer = Concealer::new();
    let mut heard = sent.to_vec();
    for (n, piece) in heard.chunks_mut(frame).enumerate() {
        if lost(n) {
            concealer.conceal(piece);
        } else {
            concealer.good(piece);
        }
    }
    heard
}

fn energy(samples: impl Iterator<Item = i32>) -> f64 {
    samples.map(|sample| f64::from(sample) * f64::from(sample)).sum()
}

fn steepest(samples: &[i16]) -> u32 {
    samples
        .windows(2)
        .map(|pair| i32::from(pair[1]).abs_diff(i32::from(pair[0])))
        .max()
        .unwrap()
}

#[test]
fn nothing_lost_nothing_touched() {
    let sent = vowel(130.0, 1600);
    let mut concealer = Concealer::new();
    for frame in sent.chunks(160) {
        let mut heard = frame.to_vec();
        assert!(!concealer.good(&mut heard));
        assert_eq!(heard, frame);
    }
}

#[test]
fn single_losses_of_steady_sounds_leave_little_error_and_no_click() {
    let sounds = [60.0, 110.0, 205.0].map(|pitch| vowel(pitch, 16_000));
    let tones = [100.0, 440.0, 1004.0, 2100.0].map(|hertz| tone(hertz, 10_000.0, 16_000));
    for (n, sent) in sounds.iter().chain(&tones).enumerate() {
        for (frame, voice, tone) in [(80, -20.0, -9.0), (160, -15.0, -6.0), (240, -11.0, -4.0)] {
            let lost = |at: usize| at % 7 == 5;
            let heard = hear(sent, frame, lost);
            let error = energy(
                sent.iter()
                    .zip(&heard)
                    .map(|(a, b)| i32::from(*a) - i32::from(*b)),
            );
            let zeros = sent.chunks(frame).enumerate().filter(|(at, _)| lost(*at));
            let error_of_zeros = energy(
                zeros
                    .flat_map(|(_, piece)| piece)
                    .map(|sample| i32::from(*sample)),
            );
            let decibel = 10.0 * (error / error_of_zeros).log10();
            // A period of whole samples does not fit every tone; 1,004 Hz is the worst of these.
            let allowed = if n < sounds.len() { voice } else { tone };
            assert!(decibel < allowed, "sound {n}, frame {frame}: {decibel:.1} dB");
            assert!(
                steepest(&heard) <= steepest(sent) * 5 / 4,
                "sound {n}, frame {frame} clicks"
            );
        }
    }
}

#[test]
fn silence_is_reached_within_60_ms_and_stays() {
    let mut concealer = Concealer::new();
    concealer.good(&mut tone(300.0, 20_000.0, 480));
    let mut out = [0_i16; 160];
    let peaks: Vec<u16> = (0..6)
        .map(|_| {
            concealer.conceal(&mut out);
            out.iter().map(|sample| sample.unsigned_abs()).max().unwrap()
        })
        .collect();
    assert!(
        peaks[0] > 18_000 && peaks[1] < 18_500 && peaks[2] < 8_500,
        "{peaks:?}"
    );
    assert_eq!(peaks[3..], [0, 0, 0]);
}

#[test]
fn a_good_frame_after_a_long_loss_is_faded_in() {
    let sent = tone(300.0, 20_000.0, 1600);
    let heard = hear(&sent, 160, |n| (2..7).contains(&n));
    assert!(steepest(&heard) <= steepest(&sent) * 5 / 4);
    assert_eq!(heard[1120 + 80..], sent[1120 + 80..]);
}

#[test]
fn without_history_there_is_silence() {
    let mut out = [9_i16; 480];
    Concealer::new().conceal(&mut out);
    assert_eq!(out, [0; 480]);
}

#[test]
fn state_is_small() {
    assert!(size_of::<Concealer>() < 1536);
}

proptest! {
    #[test]
    fn any_frames_of_any_length_are_taken(
        pieces in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(any::<i16>(), 0..481)), 0..20),
    ) {
        let mut concealer = Concealer::new();
        let mut after_loss = false;
        for (lost, mut piece) in pieces {
            let before = piece.clone();
            if lost {
                concealer.conceal(&mut piece);
                after_loss |= !piece.is_empty();
            } else {
                let altered = concealer.good(&mut piece);
                prop_assert!(altered || piece == before);
                prop_assert!(!altered || after_loss);
                after_loss &= before.is_empty();
            }
        }
    }
}

#[test]
fn silence_taken_without_looking_is_remembered_like_any_other() {
    let (mut looked, mut trusted) = (Concealer::new(), Concealer::new());
    let mut seed = 1_u32;
    let mut noise = || {
        std::array::from_fn::<i16, 160, _>(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 18) as i16
        })
    };
    for round in 0..60_u16 {
        let value = if round % 5 == 0 { 8 } else { 0 };
        for _ in 0..round % 4 {
            let mut frame = [value; 160];
            let altered = looked.good(&mut frame);
            assert_eq!(trusted.good_steady(value), !altered, "round {round}");
            if altered {
                trusted.good(&mut [value; 160]);
            }
        }
        if round % 3 == 0 {
            let (mut one, mut other) = ([0; 160], [0; 160]);
            looked.conceal(&mut one);
            trusted.conceal(&mut other);
            assert_eq!(one, other, "round {round}");
        }
        let frame = noise();
        assert_eq!(looked.good(&mut frame.clone()), trusted.good(&mut frame.clone()));
    }
}
