use super::*;
use crate::sound::g711::Law;
use crate::sound::plan::TonePlan;
use crate::sound::tone::Tone;

const FRAME: usize = crate::sound::FRAME;

/// Three seconds of a lone talker's tone as a listener decodes it.
fn stream(hertz: u16) -> (Vec<f32>, f64) {
    let tone = Tone::new(Law::Pcmu, hertz, 8_000.0, 1.1);
    let once: Vec<f32> = tone
        .codes
        .iter()
        .map(|&code| f32::from(Law::Pcmu.decode(code)))
        .collect();
    (
        once.iter().copied().cycle().take(3 * RATE).collect(),
        tone.nominal,
    )
}

fn lone_tones() -> impl Iterator<Item = u16> {
    TonePlan::new(&[1; 24]).hertz.into_iter().map(|room| room[0])
}

fn judge_one(hertz: u16, samples: &[f32], nominal: f64) -> Continuity {
    Demodulator::new(&[hertz]).unwrap().judge(samples, &[nominal])[0]
}

/// Every position of the damage relative to blocks and frames of the listener.
fn positions() -> impl Iterator<Item = usize> {
    (0..23).map(|step| 9_000 + 7 * step)
}

#[test]
fn a_perfect_stream_has_no_event() {
    for hertz in lone_tones() {
        let (samples, nominal) = stream(hertz);
        assert!(judge_one(hertz, &samples, nominal).is_perfect());
        assert!(judge_one(hertz, &samples[137..], nominal).is_perfect());
    }
}

#[test]
fn a_silent_frame_is_one_hole_and_nothing_else() {
    for hertz in lone_tones() {
        for at in positions() {
            let (mut samples, nominal) = stream(hertz);
            samples[at..at + FRAME].fill(0.0);
            let found = judge_one(hertz, &samples, nominal);
            assert_eq!((found.holes, found.jumps), (1, 0), "{hertz} at {at}: {found:?}");
        }
    }
}

#[test]
fn a_frame_left_out_is_one_jump() {
    for hertz in lone_tones() {
        for at in positions() {
            let (mut samples, nominal) = stream(hertz);
            samples.drain(at..at + FRAME);
            let found = judge_one(hertz, &samples, nominal);
            assert!(found.jumps == 1 && found.holes <= 1, "{hertz} at {at}: {found:?}");
        }
    }
}

#[test]
fn a_frame_played_twice_is_one_jump() {
    for hertz in lone_tones() {
        for at in positions() {
            let (mut samples, nominal) = stream(hertz);
            let again = samples[at..at + FRAME].to_vec();
            samples.splice(at..at, again);
            let found = judge_one(hertz, &samples, nominal);
            assert!(found.jumps == 1 && found.holes <= 1, "{hertz} at {at}: {found:?}");
        }
    }
}

#[test]
fn a_slip_of_one_sample_is_one_jump() {
    for hertz in lone_tones() {
        for at in positions() {
            let (mut samples, nominal) = stream(hertz);
            samples.remove(at);
            let found = judge_one(hertz, &samples, nominal);
            // Halves of a block in opposite phase cancel: that may look like a hole of one block too.
            assert!(
                found.jumps == 1 && found.hole_blocks <= 1,
                "{hertz} at {at}: {found:?}"
            );
        }
    }
}

/// G.711 appendix I style: the last pitch period repeated, fading by a fifth per 10 ms after the first.
fn conceal(samples: &mut [f32], at: usize) {
    let likeness = |lag: usize| {
        (0..160)
            .map(|n| samples[at - 160 + n] * samples[at - 160 + n - lag])
            .sum::<f32>()
    };
    let lag = (40..=120)
        .max_by(|&a, &b| likeness(a).total_cmp(&likeness(b)))
        .unwrap();
    for n in 0..FRAME {
        let fade = if n < 80 {
            1.0
        } else {
            1.0 - 0.2 * (n - 80) as f32 / 80.0
        };
        samples[at + n] = samples[at + n - lag] * fade;
    }
}

#[test]
fn a_concealed_frame_is_found_however_well_it_is_concealed() {
    for hertz in lone_tones() {
        for at in positions() {
            let (mut samples, nominal) = stream(hertz);
            conceal(&mut samples, at);
            let found = judge_one(hertz, &samples, nominal);
            assert!(!found.is_perfect(), "{hertz} at {at}");
        }
    }
}

#[test]
fn two_tones_are_judged_apart() {
    let room = TonePlan::new(&[3]).hertz[0].clone();
    let heard = &room[1..];
    let (a, nominal_a) = stream(heard[0]);
    let (mut b, nominal_b) = stream(heard[1]);
    let demodulator = Demodulator::new(heard).unwrap();
    let mix = |b: &[f32]| a.iter().zip(b).map(|(x, y)| x + y).collect::<Vec<f32>>();
    let both = demodulator.judge(&mix(&b), &[nominal_a, nominal_b]);
    assert!(both.iter().all(Continuity::is_perfect), "{both:?}");
    b[9_100..9_100 + FRAME].fill(0.0);
    let both = demodulator.judge(&mix(&b), &[nominal_a, nominal_b]);
    assert_eq!((both[0].holes, both[0].jumps), (0, 0));
    assert_eq!((both[1].holes, both[1].jumps), (1, 0), "{both:?}");
}

#[test]
fn silence_throughout_is_one_long_hole() {
    let found = judge_one(1_019, &[0.0; RATE], 8_000.0);
    assert_eq!((found.holes, found.hole_blocks), (1, 200));
}
