//! Whether a tone arrives without a break: demodulated in short blocks, holes and phase jumps
//! counted. Packet counts prove nothing here: a mixer can send every packet on time and leave out a
//! third of the sound.

use std::f64::consts::PI;

use super::RATE;

/// Samples from one block to the next (5 ms).
pub const HOP: usize = 40;
/// Below this share of the expected amplitude a block is a hole.
const HOLE: f64 = 0.5;
/// Beyond this the phase jumped, radian (30 degrees).
const JUMP: f64 = PI / 6.0;
/// Beyond this share of the expected amplitude a block is disturbed.
const DISTURBANCE: f64 = 0.05;
/// At most so many tones are demodulated at once.
pub const TONES_MAX: usize = 4;

/// What happened to one tone at one listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Continuity {
    /// Stretches of at least one block (5 ms) below half of the amplitude.
    pub holes: u32,
    /// Blocks in them.
    pub hole_blocks: u32,
    /// Phase steps of more than 30 degrees.
    pub jumps: u32,
    /// Other stretches in which amplitude or phase moved by more than a twentieth: concealment, mostly.
    pub disturbances: u32,
}

impl Continuity {
    /// Nothing happened.
    #[must_use]
    pub fn is_perfect(&self) -> bool {
        *self == Self::default()
    }
}

/// Demodulates up to [`TONES_MAX`] tones of known frequency by least squares in short blocks.
#[derive(Debug, Clone)]
pub struct Demodulator {
    hertz: Vec<u16>,
    block: usize,
    /// Pseudo-inverse of the block's cosines and sines, one row per unknown.
    inverse: Vec<Vec<f64>>,
}

#[derive(Debug, Clone, Copy)]
struct Phasor {
    re: f64,
    im: f64,
}

impl Phasor {
    fn norm(self) -> f64 {
        self.re.hypot(self.im)
    }

    fn minus(self, other: Self) -> Self {
        Self {
            re: self.re - other.re,
            im: self.im - other.im,
        }
    }

    /// Angle from `other` to `self`.
    fn angle_from(self, other: Self) -> f64 {
        (self.im * other.re - self.re * other.im).atan2(self.re * other.re + self.im * other.im)
    }
}

impl Demodulator {
    /// A demodulator, or `None` when there are too many tones or two are closer than 100 Hz.
    #[must_use]
    pub fn new(hertz: &[u16]) -> Option<Self> {
        let close = |a: u16, b: u16| a.abs_diff(b) < 100;
        let crowded = hertz
            .iter()
            .enumerate()
            .any(|(i, &a)| hertz[i + 1..].iter().any(|&b| close(a, b)));
        if hertz.is_empty() || hertz.len() > TONES_MAX || crowded {
            return None;
        }
        let block = if hertz.len() == 1 { HOP } else { 2 * HOP };
        let columns: Vec<Vec<f64>> = hertz
            .iter()
            .flat_map(|&f| {
                let turn = move |n: usize| 2.0 * PI * f64::from(f) * n as f64 / RATE as f64;
                [
                    (0..block).map(|n| turn(n).cos()).collect(),
                    (0..block).map(|n| -turn(n).sin()).collect(),
                ]
            })
            .collect();
        Some(Self {
            hertz: hertz.to_vec(),
            block,
            inverse: pseudo_inverse(&columns),
        })
    }

    /// Judges `samples`, in which tone `i` should have the amplitude `nominal[i]`.
    #[must_use]
    pub fn judge(&self, samples: &[f32], nominal: &[f64]) -> Vec<Continuity> {
        let mut tracks: Vec<Vec<Phasor>> = vec![Vec::with_capacity(samples.len() / HOP); self.hertz.len()];
        let mut start = 0;
        while start + self.block <= samples.len() {
            let block = &samples[start..start + self.block];
            for (tone, track) in tracks.iter_mut().enumerate() {
                track.push(self.demodulate(tone, start, block));
            }
            start += HOP;
        }
        let reach = self.block / HOP + 1;
        tracks
            .iter()
            .zip(nominal)
            .map(|(track, &amplitude)| judge(track, amplitude, reach))
            .collect()
    }

    /// The tone's phasor in one block, referred to the start of the stream: constant for a steady tone.
    fn demodulate(&self, tone: usize, start: usize, block: &[f32]) -> Phasor {
        let dot = |row: &[f64]| row.iter().zip(block).map(|(a, &x)| a * f64::from(x)).sum::<f64>();
        let (re, im) = (dot(&self.inverse[2 * tone]), dot(&self.inverse[2 * tone + 1]));
        let steps = usize::from(self.hertz[tone]) * start % RATE;
        let (sin, cos) = (-2.0 * PI * steps as f64 / RATE as f64).sin_cos();
        Phasor {
            re: re * cos - im * sin,
            im: re * sin + im * cos,
        }
    }
}

/// `reach` blocks apart two blocks share no sample and at most one event lies between them.
fn judge(track: &[Phasor], amplitude: f64, reach: usize) -> Continuity {
    let mut result = Continuity::default();
    let mut good: Vec<(usize, Phasor)> = Vec::with_capacity(track.len());
    let mut in_hole = false;
    for (at, &phasor) in track.iter().enumerate() {
        let hole = phasor.norm() < HOLE * amplitude;
        if hole {
            result.holes += u32::from(!in_hole);
            result.hole_blocks += 1;
        } else {
            good.push((at, phasor));
        }
        in_hole = hole;
    }
    // One event shows at several neighbouring blocks: it is counted once, as the worst it was.
    let (mut event, mut event_jumped, mut event_hole) = (false, false, false);
    for index in reach..good.len() {
        let ((from, before), (to, after)) = (good[index - reach], good[index]);
        let moved = after.minus(before).norm() > DISTURBANCE * amplitude;
        let jumped = after.angle_from(before).abs() > JUMP;
        if moved || jumped {
            result.jumps += u32::from(jumped && !event_jumped);
            event_jumped |= jumped;
            event_hole |= to - from > reach;
            event = true;
        } else if event {
            result.disturbances += u32::from(!event_jumped && !event_hole);
            (event, event_jumped, event_hole) = (false, false, false);
        }
    }
    result.disturbances += u32::from(event && !event_jumped && !event_hole);
    result
}

/// Rows of `(AᵀA)⁻¹Aᵀ` for a matrix given by columns.
fn pseudo_inverse(columns: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let unknowns = columns.len();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let mut normal: Vec<Vec<f64>> = columns
        .iter()
        .map(|a| columns.iter().map(|b| dot(a, b)).collect())
        .collect();
    let mut rows = columns.to_vec();
    for pivot in 0..unknowns {
        // Gauss-Jordan; the normal matrix is positive definite, so the diagonal never vanishes.
        let scale = normal[pivot][pivot];
        normal[pivot].iter_mut().for_each(|x| *x /= scale);
        rows[pivot].iter_mut().for_each(|x| *x /= scale);
        let (pivot_normal, pivot_row) = (normal[pivot].clone(), rows[pivot].clone());
        for other in (0..unknowns).filter(|&other| other != pivot) {
            let factor = normal[other][pivot];
            normal[other]
                .iter_mut()
                .zip(&pivot_normal)
                .for_each(|(x, p)| *x -= factor * p);
            rows[other]
                .iter_mut()
                .zip(&pivot_row)
                .for_each(|(x, p)| *x -= factor * p);
        }
    }
    rows
}

#[cfg(test)]
mod tests;
