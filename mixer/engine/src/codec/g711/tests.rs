//! The reference here is the recommendation read literally: segment end points and equal steps.

use super::*;

/// Decision and decoder output values of one polarity, in 16-bit units, lowest step first: eight
/// segments of sixteen steps (G.711 tables 1 and 2). `first` and `double_from` tell the step width
/// of the first segment and the first segment that is wider than the one before.
fn steps(first: i32, double_from: i32, offset: i32) -> Vec<(i32, i32)> {
    let mut steps = Vec::new();
    let mut begins = -offset;
    for segment in 0..8 {
        let width = first << (segment - double_from + 1).max(0);
        for _ in 0..16 {
            steps.push((begins, begins + width / 2));
            begins += width;
        }
    }
    steps
}

/// Mu-law: the first step is half as wide and is decoded as 0.
fn pcmu_steps() -> Vec<(i32, i32)> {
    steps(8, 1, 4)
}

/// A-law: the first two segments have the same step.
fn pcma_steps() -> Vec<(i32, i32)> {
    steps(16, 2, 0)
}

fn step_of_sample(steps: &[(i32, i32)], sample: i16) -> u8 {
    // G.191: -1 mirrors 0.
    let magnitude = if sample < 0 {
        -1 - i32::from(sample)
    } else {
        i32::from(sample)
    };
    let above = steps
        .iter()
        .take_while(|(begins, _)| *begins <= magnitude)
        .count();
    u8::try_from(above - 1).unwrap()
}

#[test]
fn all_codes_expand_to_the_middle_of_their_step() {
    for code in 0..=255_u8 {
        let mut out = [0_i16; 1];

        assert_eq!(expand_pcmu(&[code], &mut out), 1);
        let (_, middle) = pcmu_steps()[usize::from(!code & 0x7f)];
        assert_eq!(
            i32::from(out[0]),
            if code & 0x80 != 0 { middle } else { -middle },
            "mu-law {code:#x}"
        );

        assert_eq!(expand_pcma(&[code], &mut out), 1);
        let (_, middle) = pcma_steps()[usize::from((code ^ 0x55) & 0x7f)];
        assert_eq!(
            i32::from(out[0]),
            if code & 0x80 != 0 { middle } else { -middle },
            "A-law {code:#x}"
        );
    }
}

#[test]
fn all_samples_compress_to_the_step_they_lie_in() {
    let (mu, a) = (pcmu_steps(), pcma_steps());
    for sample in i16::MIN..=i16::MAX {
        let mut out = [0_u8; 1];
        let positive = if sample < 0 { 0 } else { 0x80 };

        assert_eq!(compress_pcmu(&[sample], &mut out), 1);
        let expected = positive | (!step_of_sample(&mu, sample) & 0x7f);
        assert_eq!(out[0], expected, "mu-law of {sample}");

        assert_eq!(compress_pcma(&[sample], &mut out), 1);
        let expected = (positive | step_of_sample(&a, sample)) ^ 0x55;
        assert_eq!(out[0], expected, "A-law of {sample}");
    }
}

#[test]
fn published_values() {
    let mut out = [0_i16; 5];
    expand_pcmu(&[0xff, 0x7f, 0x80, 0x00, 0xfe], &mut out);
    assert_eq!(out, [0, 0, 32_124, -32_124, 8]);
    expand_pcma(&[0xd5, 0x55, 0xaa, 0x2a, 0xd4], &mut out);
    assert_eq!(out, [8, -8, 32_256, -32_256, 24]);
}

#[test]
fn what_was_expanded_compresses_to_the_same_code() {
    let codes: Vec<u8> = (0..=255).collect();
    let (mut pcm, mut back) = ([0_i16; 256], [0_u8; 256]);
    expand_pcma(&codes, &mut pcm);
    compress_pcma(&pcm, &mut back);
    assert_eq!(back[..], codes[..]);
    expand_pcmu(&codes, &mut pcm);
    compress_pcmu(&pcm, &mut back);
    // Mu-law has two zeros; the negative one comes back as the positive one.
    let expected: Vec<u8> = codes
        .iter()
        .map(|code| if *code == 0x7f { 0xff } else { *code })
        .collect();
    assert_eq!(back[..], expected[..]);
}
