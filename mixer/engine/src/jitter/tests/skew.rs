//! A day of a clock that runs apart, and what must not be touched when it does not.

use std::collections::BTreeSet;
use std::f64::consts::TAU;

use super::*;
use crate::codec::g711;

/// What one run over a network is made of.
#[derive(Debug, Clone, Copy)]
struct Way {
    ppm: f64,
    /// Later beginning of the sender.
    phase_us: u64,
    /// Every packet is delayed by up to so much.
    jitter_us: u64,
    /// 5 % loss in bursts of five packets on average (Gilbert-Elliott).
    lossy: bool,
    /// Every one to three minutes everything comes up to 60 ms later for up to three seconds.
    bursts: bool,
    hertz: u32,
    minutes: u64,
    /// From this minute to that the sender sends digital silence.
    silent: (u64, u64),
}

const BAD: Way = Way {
    ppm: 200.0,
    phase_us: 0,
    jitter_us: 8_000,
    lossy: true,
    bursts: true,
    hertz: 1004,
    minutes: 24 * 60,
    silent: (0, 0),
};

/// What one run showed.
#[derive(Debug, Default)]
struct Seen {
    /// Median of the added delay of every minute, milliseconds: from the time at which the sender sends a
    /// sample to the beginning of the tick that plays it first. The network takes no time but for jitter.
    delays: Vec<f64>,
    /// Largest share of energy in a frame far from a loss that the tone does not explain.
    click: f64,
    /// Frames in which that was looked for.
    looked_at: u64,
    /// Frames passed through.
    passed: u64,
    /// Of them those of digital silence that nobody had to decode.
    idle: u64,
}

impl Seen {
    /// The delay that is to be kept: that of the fifth minute.
    fn start(&self) -> f64 {
        self.delays[4]
    }

    /// Largest distance of a later minute's delay from it.
    fn furthest(&self) -> f64 {
        let far = self
            .delays
            .iter()
            .skip(5)
            .map(|delay| f64::abs(delay - self.start()));
        far.fold(0.0, f64::max)
    }

    fn click_db(&self) -> f64 {
        10.0 * self.click.log10()
    }
}

/// A second of a tone of a whole number of hertz, again and again.
fn tone(hertz: u32) -> Vec<u8> {
    let samples: Vec<i16> = (0..8000)
        .map(|n| {
            let angle = f64::from(n) * f64::from(hertz) * TAU / 8000.0;
            #[expect(clippy::cast_possible_truncation, reason = "within range by its factor")]
            let sample = (angle.sin() * 8000.0).round() as i16;
            sample
        })
        .collect();
    let mut codes = vec![0; 8000];
    g711::compress_pcmu(&samples, &mut codes);
    codes
}

/// Looks for clicks in a tone.
struct Ear {
    /// The tone itself, and what a Hann window shows of it: 150 Hz on both sides, of which 100 are its main lobe and up
    /// to 25 the distance to a bin of 50 Hz.
    tone: Vec<(f64, f64)>,
    lobe: Vec<Vec<(f64, f64)>>,
}

impl Ear {
    fn new(hertz: u32) -> Self {
        let wave = |hertz: u32| {
            let step = f64::from(hertz) * TAU / 8000.0;
            (0..160).map(|n| (f64::from(n) * step).sin_cos()).collect()
        };
        let bin = (hertz + 25) / 50;
        Self {
            tone: wave(hertz),
            lobe: (bin - 3..=bin + 3).map(|bin| wave(bin * 50)).collect(),
        }
    }

    /// Share of a frame's energy that no tone explains.
    fn click(&self, frame: &[i16; FRAME]) -> f64 {
        let residual = self.residual(frame);
        // A step may bend the phase a little, which stays close to the tone. What fits without needs no second look.
        if residual < CLICK {
            residual
        } else {
            self.outside(frame)
        }
    }

    /// What is left when the tone that fits best is taken away.
    fn residual(&self, frame: &[i16; FRAME]) -> f64 {
        let (mut cc, mut cs, mut ss, mut xc, mut xs, mut xx) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        for (sample, (sine, cosine)) in frame.iter().zip(&self.tone) {
            let x = f64::from(*sample);
            cc += cosine * cosine;
            cs += cosine * sine;
            ss += sine * sine;
            xc += x * cosine;
            xs += x * sine;
            xx += x * x;
        }
        let det = cc * ss - cs * cs;
        let (a, b) = ((xc * ss - xs * cs) / det, (xs * cc - xc * cs) / det);
        (xx - a * xc - b * xs) / xx
    }

    /// What lies outside of the tone's lobe.
    fn outside(&self, frame: &[i16; FRAME]) -> f64 {
        let hann = |n: u32| 1.0 - (f64::from(n) * TAU / 160.0).cos();
        let windowed = (0..160)
            .zip(frame)
            .map(|(n, sample)| f64::from(*sample) * hann(n));
        let windowed: Vec<f64> = windowed.collect();
        let all: f64 = windowed.iter().map(|x| x * x).sum();
        let within = self.lobe.iter().map(|wave| {
            let both = windowed.iter().zip(wave);
            let (sines, cosines) = both.fold((0.0, 0.0), |(sines, cosines), (x, (sine, cosine))| {
                (sines + x * sine, cosines + x * cosine)
            });
            2.0 * (sines * sines + cosines * cosines) / 160.0
        });
        1.0 - within.sum::<f64>() / all
    }
}

/// -36 dB. The quantising noise of G.711 alone is -38 to -40 dB below the tones here; a fade from one frame into
/// the next whatever their phases, -16.
const CLICK: f64 = 2.5e-4;

/// Chance of the network.
struct Network {
    way: Way,
    chance: Chance,
    bad: bool,
    /// Packets until the next burst, or left of it.
    until_burst: u64,
    burst_left: u64,
    burst_us: u64,
}

impl Network {
    fn new(way: Way) -> Self {
        Self {
            way,
            chance: Chance(way.ppm.to_bits() ^ way.phase_us),
            bad: false,
            until_burst: 10_000,
            burst_left: 0,
            burst_us: 0,
        }
    }

    /// Delay of the next packet; none when it is lost.
    fn next(&mut self) -> Option<u64> {
        let turn = self.chance.below(100_000);
        self.bad = if self.bad { turn >= 20_000 } else { turn < 1_053 };
        self.until_burst -= 1;
        if self.until_burst == 0 {
            self.until_burst = 3_000 + self.chance.below(6_000);
            self.burst_left = 1 + self.chance.below(150);
            self.burst_us = 10_000 + self.chance.below(50_000);
        }
        let extra = if self.way.bursts && self.burst_left > 0 {
            self.burst_left -= 1;
            self.burst_us
        } else {
            0
        };
        let delay = self.chance.below(self.way.jitter_us.max(1)) + extra;
        (!(self.way.lossy && self.bad)).then_some(delay)
    }
}

/// A sender and its way to the buffer.
struct Line {
    way: Way,
    talker: Talker,
    codes: Vec<u8>,
    network: Network,
    /// Number of the next packet to be sent.
    next: u64,
    /// What is on its way, by arrival.
    coming: BTreeSet<(u64, u64)>,
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a day has few enough nanoseconds"
)]
impl Line {
    fn new(way: Way) -> Self {
        let talker = Talker::new();
        Self {
            way,
            talker,
            codes: tone(way.hertz),
            network: Network::new(way),
            next: 0,
            coming: BTreeSet::new(),
        }
    }

    /// When a sample of the sender is sent, nanoseconds.
    fn sent_at(&self, samples: f64) -> f64 {
        let begins = self.talker.begins.0 + self.way.phase_us * 1000;
        begins as f64 + samples * 125_000.0 / (1.0 + self.way.ppm / 1e6)
    }

    /// Milliseconds from the sending of the sample at the play position to the tick that plays it.
    fn delay_ms(&self, position: u64, at: Timestamp) -> f64 {
        let first = (1 << 40) + u64::from(self.talker.timestamp);
        let samples = position.saturating_sub(first);
        (at.0 as f64 - self.sent_at(samples as f64)) / 1e6
    }

    /// Hands over what arrives by then.
    fn deliver(&mut self, until: Timestamp, bench: &mut Bench) {
        while self.sent_at(self.next as f64 * 160.0) as u64 <= until.0 {
            if let Some(delay_us) = self.network.next() {
                let arrives = self.sent_at(self.next as f64 * 160.0) as u64 + delay_us * 1000;
                self.coming.insert((arrives, self.next));
            }
            self.next += 1;
        }
        let (from, to) = self.way.silent;
        while let Some((arrives, n)) = self.coming.first().copied().filter(|(at, _)| *at <= until.0) {
            self.coming.pop_first();
            let meta = PacketMeta {
                sequence: self.talker.sequence.wrapping_add(n as u16),
                timestamp: self.talker.timestamp.wrapping_add((n as u32).wrapping_mul(160)),
                marker: n == 0,
                ssrc: SSRC,
                codec: Codec::Pcmu,
            };
            let at = usize::try_from(n * 160 % 8000).unwrap();
            let silent = (from * 3000..to * 3000).contains(&n);
            let payload = if silent {
                &[0xff; 160]
            } else {
                &self.codes[at..at + 160]
            };
            bench
                .buffer
                .insert(Timestamp(arrives), meta, payload, &mut bench.counters);
        }
    }
}

/// Runs a tone over a way into a buffer that is ticked.
fn run(way: Way) -> (Bench, Seen) {
    let mut line = Line::new(way);
    let ear = Ear::new(way.hertz);
    let (mut bench, mut seen) = (Bench::new(16), Seen::default());
    let (mut good, mut last, mut minute) = (0, [0; FRAME], Vec::new());
    for tick in 0..way.minutes * 3000 {
        let at = Timestamp(line.talker.begins.0 + tick * 20_000_000);
        line.deliver(at, &mut bench);
        minute.push(line.delay_ms(bench.buffer.position, at));
        let mut out = [0; FRAME];
        let pulled = bench.buffer.pull(at, at, &mut out, &mut bench.counters);
        seen.passed += u64::from(pulled.passthrough.is_some());
        seen.idle += u64::from(pulled.frame == FrameKind::Idle);
        bench.asked += u64::from(pulled.frame != FrameKind::Nothing);
        good = if pulled.frame == FrameKind::Decoded {
            good + 1
        } else {
            0
        };
        // The two frames before may have been blended in after a loss.
        if good > 3 && way.silent == (0, 0) {
            // Frame by frame, and across their joints.
            let joint = std::array::from_fn(|n| if n < 80 { last[n + 80] } else { out[n - 80] });
            seen.looked_at += 1;
            seen.click = seen.click.max(ear.click(&out)).max(ear.click(&joint));
        }
        last = out;
        if minute.len() == 3000 {
            minute.sort_by(f64::total_cmp);
            seen.delays.push(minute[1500]);
            minute.clear();
        }
    }
    bench.check_totals();
    (bench, seen)
}

const CLEAN: Way = Way {
    jitter_us: 2_000,
    lossy: false,
    bursts: false,
    minutes: 60,
    ..BAD
};

/// A day over a bad network: the delay stays, nothing clicks, every frame has one cause.
fn a_day(ppm: f64) {
    let (bench, seen) = run(Way { ppm, ..BAD });
    eprintln!(
        "{ppm} ppm: delay {:.1} ms, off by {:.1} ms at most, click {:.1} dB in {} frames, {:?}",
        seen.start(),
        seen.furthest(),
        seen.click_db(),
        seen.looked_at,
        bench.counters.frames
    );
    assert_eq!(seen.delays.len(), 24 * 60);
    assert!(seen.furthest() < 5.0, "{}", seen.furthest());
    assert!(seen.start() < 40.0, "jitter is 8 of them: {}", seen.start());
    assert!(seen.click < CLICK, "{} dB", seen.click_db());
    assert!(seen.looked_at > 3_500_000);
    // `run` has compared the sum of all outcomes with the frames asked for. 5 % of packets are lost, some of
    // them while the source was taken for stopped; a packet that spans two ticks spoils both.
    let share = |outcome: FrameOutcome| bench.outcome(outcome) * 1000 / bench.asked;
    assert!(
        (30..100).contains(&share(FrameOutcome::NetworkLost)),
        "{:?}",
        bench.counters.frames
    );
    assert!(
        share(FrameOutcome::NetworkLate) < 1,
        "{:?}",
        bench.counters.frames
    );
    assert!(share(FrameOutcome::Played) > 900, "{:?}", bench.counters.frames);
    // 17.3 s of drift, in steps of 2 to 5 ms.
    assert!(bench.outcome(FrameOutcome::Skew) > 17_280 / 5);
    assert_eq!(
        bench.outcome(FrameOutcome::WorkerLate) + bench.outcome(FrameOutcome::RingFull),
        0
    );
}

#[test]
fn a_day_of_a_clock_200_ppm_fast_leaves_the_delay_where_it_was() {
    a_day(200.0);
}

#[test]
fn a_day_of_a_clock_200_ppm_slow_leaves_the_delay_where_it_was() {
    a_day(-200.0);
}

#[test]
fn no_tone_clicks_at_a_step() {
    for ppm in [200.0, -200.0] {
        for hertz in [300, 440, 697, 1000, 1004, 1633, 1850, 2100, 2657, 3100] {
            let (bench, seen) = run(Way {
                ppm,
                hertz,
                phase_us: u64::from(hertz) * 7,
                minutes: 20,
                ..CLEAN
            });
            assert!(
                seen.click < CLICK,
                "{ppm} ppm, {hertz} Hz: {} dB",
                seen.click_db()
            );
            assert!(
                seen.furthest() < 5.0,
                "{ppm} ppm, {hertz} Hz: {}",
                seen.furthest()
            );
            // 240 ms of drift.
            assert!(bench.outcome(FrameOutcome::Skew) >= 220 / 5);
            assert_eq!(bench.concealed(), 0);
        }
    }
}

#[test]
fn a_bad_network_is_not_taken_for_a_clock() {
    for phase_us in [0, 7_000, 15_000] {
        let (bench, seen) = run(Way {
            ppm: 0.0,
            phase_us,
            minutes: 6 * 60,
            ..BAD
        });
        assert!(!bench.buffer.drift.known());
        assert_eq!(bench.buffer.offset, 0);
        // Whatever was not spoilt by a loss was passed through.
        assert!(
            seen.passed * 100 > bench.asked * 90,
            "{} of {}",
            seen.passed,
            bench.asked
        );
    }
}

#[test]
fn slower_clocks_are_told_in_their_time() {
    for ppm in [20.0, -20.0, 5.0, -5.0] {
        let (bench, seen) = run(Way {
            ppm,
            minutes: 240,
            ..CLEAN
        });
        assert!(bench.buffer.drift.known(), "{ppm}");
        // A frame's worth of drift at most until the delay is where it is held.
        let settled = seen.delays.get(90..).unwrap();
        let (least, most) = settled
            .iter()
            .fold((f64::MAX, f64::MIN), |(least, most), &delay| {
                (least.min(delay), most.max(delay))
            });
        assert!(most - least < 5.0, "{ppm}: {least} to {most}");
        assert_eq!(bench.concealed(), 0);
    }
}

#[test]
fn digital_silence_is_passed_and_talk_after_it_gets_its_delay_back() {
    for ppm in [200.0, -200.0] {
        let way = Way {
            ppm,
            silent: (10, 40),
            ..CLEAN
        };
        let (bench, seen) = run(way);
        assert!(seen.idle > 29 * 3000, "{ppm}: {}", seen.idle);
        let far = |minute: usize| f64::abs(seen.delays[minute] - seen.start());
        assert!(
            (11..40).all(|minute| far(minute) < 16.0),
            "{ppm}: {:?}",
            seen.delays
        );
        assert!(
            (41..60).all(|minute| far(minute) < 5.0),
            "{ppm}: {:?}",
            seen.delays
        );
        let own = bench.buffer.counters();
        assert_eq!(
            bench.outcome(FrameOutcome::NetworkLate) + bench.outcome(FrameOutcome::NetworkLost),
            0
        );
        assert!(
            own.left_out + own.concealed >= 15,
            "30 minutes are 18 frames: {own:?}"
        );
    }
}

#[test]
fn a_clock_that_was_set_right_leaves_packets_whole_again() {
    let mut bench = Bench::new(16);
    let (mut talker, minute) = (
        Talker {
            ppm: 200.0,
            code: 0xfe,
            ..Talker::new()
        },
        3000,
    );
    let mut flights = talker.packets(0..10 * minute, |_| delay_ms(0));
    talker.begins = flights.last().unwrap().at.after(TICK);
    talker.ppm = 0.0;
    talker.sequence = talker.sequence.wrapping_add(30_000);
    talker.timestamp += 30_000 * 160;
    flights.extend(talker.packets(0..60 * minute, |_| delay_ms(0)));
    for flight in &mut flights {
        flight.payload.fill(0xfe);
    }
    bench.run(&flights, ms(1010), 69 * minute);
    let passed = |minutes: std::ops::Range<usize>| {
        let range = minutes.start * 3000..minutes.end * 3000;
        bench.heard[range]
            .iter()
            .filter(|heard| heard.payload.is_some())
            .count()
    };
    assert!(passed(5..10) < 8_000, "{}", passed(5..10));
    assert_eq!(passed(45..69), 24 * 3000);
}

/// V.21: 300 bauds of 1650 and 1850 Hz, without a jump of the phase.
fn fsk(samples: usize) -> Vec<i16> {
    let (mut bits, mut hertz, mut phase) = (Chance(21), 1850.0, 0.0_f64);
    (0..samples)
        .map(|n| {
            // A bit lasts 26 2/3 samples.
            if n * 3 % 80 < 3 {
                hertz = if bits.below(2) == 0 { 1850.0 } else { 1650.0 };
            }
            phase = (phase + hertz * TAU / 8000.0) % TAU;
            #[expect(clippy::cast_possible_truncation, reason = "within range by its factor")]
            let sample = (phase.sin() * 6000.0) as i16;
            sample
        })
        .collect()
}

#[test]
fn without_skew_a_tone_and_fsk_come_through_byte_identical() {
    let mut burst = vec![0; 400 * FRAME];
    g711::compress_pcmu(&fsk(burst.len()), &mut burst);
    let tone = tone(1000);
    for phase in [0, 4, 9, 16] {
        let mut chance = Chance(phase);
        let talker = Talker {
            begins: ms(1000 + phase),
            ..Talker::new()
        };
        let mut flights = talker.packets(0..30_000, |_| Some(Duration::from_micros(chance.below(2_000))));
        for (n, flight) in flights.iter_mut().enumerate() {
            // 8 s of FSK in every 20 s of tone.
            let at = n % 1000;
            flight.payload = match burst.get(at * FRAME..(at + 1) * FRAME) {
                Some(payload) => payload.to_vec(),
                None => tone[at % 50 * FRAME..][..FRAME].to_vec(),
            };
        }
        let mut bench = Bench::new(16);
        bench.run(&flights, ms(1025), 29_900);
        let sent: Vec<&[u8]> = flights.iter().map(|flight| &*flight.payload).collect();
        let heard: Vec<&[u8]> = bench
            .heard
            .iter()
            .filter_map(|heard| heard.payload.as_deref())
            .collect();
        assert_eq!(bench.outcome(FrameOutcome::Skew), 0, "phase {phase}");
        assert!(heard.len() >= 29_898, "phase {phase}: {}", heard.len());
        assert!(heard == sent[..heard.len()], "phase {phase}");
    }
}
