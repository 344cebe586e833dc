use super::*;

/// 1, 2, 3 and so on.
static RAMP: [i16; 200] = {
    let mut samples = [1_i16; 200];
    let mut n = 1;
    while n < 200 {
        samples[n] = samples[n - 1] + 1;
        n += 1;
    }
    samples
};

fn pcm(id: u32, samples: &'static [i16], repeat: u32) -> Play {
    Play {
        id: PlayId(id),
        source: PlaySource::Pcm(samples),
        repeat,
    }
}

/// Plays until everything ended or `frames` passed: the sound and who finished in which frame.
fn run<const N: usize>(plays: &mut Plays<N>, frames: usize) -> (Vec<i16>, Vec<(usize, u32)>) {
    let (mut sound, mut ends) = (Vec::new(), Vec::new());
    for at in 0..frames {
        let mut frame = [-1_i16; FRAME];
        if !plays.next_frame(&mut frame, |id| ends.push((at, id.0))) {
            assert_eq!(frame, [0; FRAME]);
            break;
        }
        sound.extend_from_slice(&frame);
    }
    (sound, ends)
}

#[test]
fn one_play_sounds_once_and_ends_in_silence() {
    let mut plays = Plays::<4>::new();
    plays.start(pcm(7, &RAMP, 1)).unwrap();
    let (sound, ends) = run(&mut plays, 10);
    assert_eq!(ends, [(1, 7)]);
    assert_eq!(sound[..200], RAMP);
    assert_eq!(sound[200..], [0; 120]);
    assert!(!plays.is_active());
}

#[test]
fn repeats_follow_without_a_gap() {
    let mut plays = Plays::<4>::new();
    plays.start(pcm(1, &RAMP, 3)).unwrap();
    let (sound, ends) = run(&mut plays, 10);
    assert_eq!(sound[..600], RAMP.repeat(3)[..]);
    assert_eq!(ends, [(3, 1)]);
}

#[test]
fn zero_repeats_for_ever_until_stopped() {
    let mut plays = Plays::<2>::new();
    plays.start(pcm(1, &RAMP[..160], 0)).unwrap();
    let (sound, ends) = run(&mut plays, 500);
    assert_eq!((sound.len(), ends.len()), (500 * FRAME, 0));
    assert_eq!(sound[160 * 499..], RAMP[..160]);
    let mut stopped = Vec::new();
    plays.stop(Some(PlayId(2)), |id| stopped.push(id));
    assert!(stopped.is_empty() && plays.is_active());
    plays.stop(Some(PlayId(1)), |id| stopped.push(id));
    assert_eq!(stopped, [PlayId(1)]);
    assert!(!plays.is_active());
}

#[test]
fn a_play_that_fills_its_last_frame_exactly_ends_with_it() {
    let mut plays = Plays::<1>::new();
    plays.start(pcm(1, &RAMP[..160], 2)).unwrap();
    let (sound, ends) = run(&mut plays, 10);
    assert_eq!((sound.len(), ends), (320, vec![(1, 1)]));
}

#[test]
fn empty_sources_do_not_hang() {
    let mut plays = Plays::<4>::new();
    plays.start(pcm(1, &[], 0)).unwrap();
    plays.start(pcm(2, &[], 5)).unwrap();
    plays.start(pcm(3, &[], 1)).unwrap();
    let silent = PlaySource::Tone {
        hertz: 400,
        attenuation_db: 0,
        duration_ms: 0,
    };
    plays
        .start(Play {
            id: PlayId(4),
            source: silent,
            repeat: 2,
        })
        .unwrap();
    let (_, ends) = run(&mut plays, 3);
    assert_eq!(ends, [(0, 2), (0, 3), (0, 4)]);
    assert!(plays.is_active());
}

#[test]
fn places_and_numbers_are_guarded() {
    let mut plays = Plays::<2>::new();
    plays.start(pcm(1, &RAMP, 1)).unwrap();
    assert_eq!(plays.start(pcm(1, &RAMP, 1)), Err(Refusal::Occupied));
    plays.start(pcm(2, &RAMP, 1)).unwrap();
    assert_eq!(plays.start(pcm(3, &RAMP, 1)), Err(Refusal::TooManyPlays));
    let mut stopped = Vec::new();
    plays.stop(None, |id| stopped.push(id.0));
    assert_eq!(stopped, [1, 2]);
    plays.start(pcm(3, &RAMP, 1)).unwrap();
}

#[test]
fn plays_add_up_and_full_scale_limits() {
    static LOUD: [i16; 160] = [30_000; 160];
    let mut plays = Plays::<2>::new();
    plays.start(pcm(1, &LOUD, 1)).unwrap();
    plays.start(pcm(2, &RAMP[..160], 1)).unwrap();
    let mut sum = [5_i32; FRAME];
    assert!(plays.mix_into(&mut sum, |_| {}));
    assert_eq!((sum[0], sum[159]), (30_006, 30_165));
    plays.start(pcm(1, &LOUD, 1)).unwrap();
    plays.start(pcm(2, &LOUD, 1)).unwrap();
    let (sound, _) = run(&mut plays, 1);
    assert_eq!(sound, [32_767; 160]);
}
