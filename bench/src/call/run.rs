//! A run from options to report.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mixer::config::{BackendChoice, XdpMode};
use mixer::io::PacketIo;
use mixer::placement::PortBlock;
use mixer_engine::time::Timestamp;

use super::delay::Delays;
use super::judge::{Heard, judge};
use super::leg::{Sender, Source};
use super::receiver::{PacketStats, Receiver, Recording};
use super::report::{LegCost, Pacing, Report, ServerTotal};
use super::secure::Keys;
use super::stage::{CallState, Leg, Stage};
use super::{CallError, Options};
use crate::napi::{Napi, NapiError};
use crate::open::{self, Job, Setup};
use crate::process::{self, Sample, Usage};
use crate::seed::Seed;
use crate::sip::message::{Ends, Transport};
use crate::sip::uac::Uac;
use crate::sip::wire::Wire;
use crate::sound::FRAME;
use crate::sound::g711::Law;
use crate::sound::plan::TonePlan;

/// Silence after the last answer: streams start, jitter buffers settle.
const SETTLE: Duration = Duration::from_millis(1_500);
/// Tone before the recording: longer than any mixer's start-up of a talker.
const LEAD: Duration = Duration::from_millis(1_000);
/// Calls per second to hang up at least.
const HANG_UP_RATE_MIN: f64 = 50.0;
/// Ports for SIP that the kernel may offer before all of them are RTP's.
const SIP_PORTS_TRIED: u32 = 64;
/// Failures listed one by one.
const FAILURES_MAX: usize = 20;

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> CallError {
    let what = what.into();
    move |error| CallError::Io { what, error }
}

/// Makes the run.
///
/// # Errors
/// When it could not be made. A run that was made and went wrong is a report.
pub fn run(options: &Options) -> Result<Report, CallError> {
    let base = base_rss(options)?;
    let napi = options.napi_of.as_deref();
    let napi = napi.map(|interface| Napi::find(interface, options.netns.as_deref()));
    let napi = napi.transpose()?;
    let plan = Plan::new(options)?;
    let mut setup = setup(options)?;
    let wire = open_wire(options, &setup)?;
    setup.address = wire.local().ip();
    let run = Run {
        options,
        plan,
        base,
        napi,
        wire,
    };
    open::with(&setup, run)
}

/// All that a run takes but packet I/O.
struct Run<'a> {
    options: &'a Options,
    plan: Plan,
    /// Resident memory of each server process before the first call.
    base: Vec<u64>,
    napi: Option<Napi>,
    wire: Wire,
}

impl Job for Run<'_> {
    type Output = Report;
    type Error = CallError;

    fn run<Io: PacketIo>(self, io: Io, locals: &[SocketAddr]) -> Result<Report, CallError> {
        let (options, plan) = (self.options, self.plan);
        let mut stage = raise(options, &plan, self.wire, io, locals);
        stage
            .place_calls(options.rate, |conference| {
                format!("conf-bench-{}", options.first_conference as usize + conference)
            })
            .map_err(failed("SIP"))?;
        let mut measured = Measured::default();
        if stage.up() > 0 {
            measured = measure(options, self.napi.as_ref(), &mut stage).map_err(|error| match error {
                MeasureError::Io(error) => failed("SIP")(error),
                MeasureError::Process(error) => error.into(),
                MeasureError::Napi(error) => error.into(),
            })?;
        }
        let recordings: Vec<Recording> = stage.legs.iter_mut().map(|leg| leg.receiver.end()).collect();
        let answered = stage.up();
        stage
            .hang_up(options.rate.max(HANG_UP_RATE_MIN))
            .map_err(failed("SIP"))?;
        if let Some(folder) = &options.wav {
            write_wavs(folder, options.codec, &recordings)?;
        }
        let mut report = summarise(options, &plan, &stage, &recordings, answered, measured, self.base);
        report.conclude(&options.limits);
        Ok(report)
    }
}

/// Who sits where and says what.
#[derive(Debug)]
struct Plan {
    conference: Vec<usize>,
    sources: Vec<Option<Source>>,
    shared: bool,
}

impl Plan {
    fn new(options: &Options) -> Result<Self, CallError> {
        let (legs, conferences) = (options.legs as usize, options.conferences as usize);
        if conferences > legs {
            return Err(CallError::Options(format!(
                "{conferences} conferences need as many --legs"
            )));
        }
        let conference: Vec<usize> = (0..legs).map(|leg| leg % conferences).collect();
        let mut talkers = vec![0; conferences];
        conference.iter().for_each(|&k| talkers[k] += 1);
        let most = options.talkers.map_or(usize::MAX, |talkers| talkers as usize);
        talkers.iter_mut().for_each(|count| *count = most.min(*count));
        let tones = TonePlan::new(&talkers);
        let speech = options
            .wav_source
            .as_deref()
            .map(|path| read_wav(path, options.codec))
            .transpose()?;
        let mut seed = Seed::new(options.seed ^ 0x70_6c_61_6e);
        let sources = (0..legs)
            .map(|leg| {
                let (k, place) = (leg % conferences, leg / conferences);
                let hertz = *tones.hertz[k].get(place)?;
                if place == 0
                    && let Some(bytes) = &speech
                {
                    return Some(Source {
                        bytes: bytes.clone(),
                        tone: None,
                    });
                }
                let phase = seed.fraction() * std::f64::consts::TAU;
                Some(Source::tone(options.codec, hertz, talkers[k], phase, &mut seed))
            })
            .collect();
        Ok(Self {
            conference,
            sources,
            shared: tones.shared,
        })
    }

    fn rooms(&self) -> Vec<(Vec<usize>, Vec<usize>)> {
        let count = self.conference.iter().max().map_or(0, |last| last + 1);
        let mut rooms = vec![(Vec::new(), Vec::new()); count];
        for (leg, (&k, source)) in self.conference.iter().zip(&self.sources).enumerate() {
            if source.as_ref().is_some_and(|source| source.tone.is_some()) {
                rooms[k].0.push(leg);
            }
            rooms[k].1.push(leg);
        }
        rooms
    }
}

/// Call-IDs, tags and branches must differ from run to run (RFC 3261 8.1.1.4), whatever the seed.
fn unique() -> Seed {
    Seed::new(RandomState::new().build_hasher().finish())
}

fn setup(options: &Options) -> Result<Setup, CallError> {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    if options.backend != BackendChoice::Uring && options.bind.is_none() {
        let backend = options.backend.name();
        return Err(CallError::Options(format!("--backend {backend} needs --bind")));
    }
    Ok(Setup {
        backend: options.backend,
        interface: options.interface.clone(),
        // Known when the kernel has said where it routes SIP from.
        address: options.bind.unwrap_or(any),
        ports: options.ports,
        any_port: options.backend == BackendChoice::Uring,
        parity: 0,
        flows: options.legs,
        core: options.core,
        xdp_mode: XdpMode::Driver,
        vlan: options.vlan.clone(),
    })
}

fn transport(options: &Options) -> Transport {
    if options.tcp {
        Transport::Tcp
    } else {
        Transport::Udp
    }
}

/// Opens SIP on a port that is none of RTP's: the XDP program would take its answers.
fn open_wire(options: &Options, setup: &Setup) -> Result<Wire, CallError> {
    for _ in 0..SIP_PORTS_TRIED {
        let wire =
            Wire::open(transport(options), options.target, options.bind).map_err(failed("SIP socket"))?;
        let port = wire.local().port();
        if setup.any_port || setup.local_ports().all(|rtp| rtp != port) {
            return Ok(wire);
        }
    }
    let PortBlock { first, last } = setup.ports;
    Err(CallError::Options(format!(
        "--ports {first}-{last} leave the kernel no port for SIP"
    )))
}

/// The stage, with every leg in its place.
fn raise<Io: PacketIo>(
    options: &Options,
    plan: &Plan,
    wire: Wire,
    io: Io,
    locals: &[SocketAddr],
) -> Stage<Io> {
    let mut seed = Seed::new(options.seed);
    let ends = Ends {
        local: wire.local(),
        target: options.target,
        transport: transport(options),
    };
    let uac = Uac::new(ends, options.codec, unique());
    let law = options.codec;
    let seats = plan.conference.iter().zip(&plan.sources);
    let frames = usize::try_from(options.seconds * 50).unwrap_or(0);
    let legs: Vec<Leg> = locals
        .iter()
        .zip(seats)
        .map(|(&local, (&conference, source))| Leg {
            conference,
            local,
            sender: Sender::new(law.payload_type(), law.silence(), source.clone(), &mut seed),
            receiver: Receiver::new(law.payload_type(), frames),
            keys: options.srtp.map(|suite| Keys::new(suite, &mut seed)),
            call: CallState::Waiting,
        })
        .collect();
    let delays = Delays::new(legs.len(), plan.rooms(), Seed::new(seed.bits()));
    Stage::new(io, wire, uac, law, legs, delays)
}

/// What was read while the stage ran.
#[derive(Debug, Default)]
struct Measured {
    before: Vec<Sample>,
    after: Vec<Sample>,
    /// Percent of a core.
    napi_percent: Option<f64>,
    io_failures: u64,
    sent: u64,
    late: u64,
    late_talkers: Vec<String>,
    stall_ns: u64,
}

enum MeasureError {
    Io(io::Error),
    Process(process::ProcessError),
    Napi(NapiError),
}

fn measure(
    options: &Options,
    napi: Option<&Napi>,
    stage: &mut Stage<impl PacketIo>,
) -> Result<Measured, MeasureError> {
    let seconds = Duration::from_secs(options.seconds);
    stage.silence(SETTLE).map_err(MeasureError::Io)?;
    if !options.delay && options.delay_seconds > 0 && stage.delays.possible() {
        stage
            .measure_delay(Duration::from_secs(options.delay_seconds))
            .map_err(MeasureError::Io)?;
        stage.silence(LEAD).map_err(MeasureError::Io)?;
    }
    if !options.delay {
        stage.talk(LEAD).map_err(MeasureError::Io)?;
    }
    let sent_before: u64 = stage.legs.iter().map(|leg| leg.sender.sent).sum();
    let io_before = io_failures(stage);
    let now = stage.now();
    let before = samples(options, now).map_err(MeasureError::Process)?;
    let napi_time = || napi.map(Napi::run_time).transpose().map_err(MeasureError::Napi);
    let napi_before = napi_time()?;
    let began = now;
    stage.begin_recording();
    if options.delay {
        stage.measure_delay(seconds)
    } else {
        stage.talk(seconds)
    }
    .map_err(MeasureError::Io)?;
    let now = stage.now();
    let after = samples(options, now).map_err(MeasureError::Process)?;
    let napi_spent = napi_time()?
        .zip(napi_before)
        .map(|(after, before)| after.saturating_sub(before));
    let wall = now.since(began).as_secs_f64();
    Ok(Measured {
        before,
        after,
        napi_percent: napi_spent.map(|spent| 100.0 * spent.as_secs_f64() / wall),
        io_failures: io_failures(stage) - io_before,
        sent: stage.legs.iter().map(|leg| leg.sender.sent).sum::<u64>() - sent_before,
        late: stage.legs.iter().map(|leg| leg.sender.late).sum(),
        late_talkers: late_talkers(stage),
        stall_ns: stage.stall_max_ns,
    })
}

fn late_talkers(stage: &Stage<impl PacketIo>) -> Vec<String> {
    let talkers = stage
        .legs
        .iter()
        .enumerate()
        .filter(|(_, leg)| leg.sender.source().is_some());
    let late = talkers.filter(|(_, leg)| leg.sender.late > 0);
    late.map(|(index, leg)| format!("leg {index} ({:.1} ms)", leg.sender.worst_ns as f64 / 1e6))
        .take(FAILURES_MAX)
        .collect()
}

fn io_failures(stage: &Stage<impl PacketIo>) -> u64 {
    let counters = stage.io_counters();
    counters.send_failed + counters.no_send_buffer + counters.receive_ring_full + counters.completion_overflow
}

fn samples(options: &Options, at: Timestamp) -> Result<Vec<Sample>, process::ProcessError> {
    options
        .server_pids
        .iter()
        .map(|&pid| process::sample(pid, at))
        .collect()
}

/// Resident memory of each server process before the first call.
fn base_rss(options: &Options) -> Result<Vec<u64>, CallError> {
    let now = samples(options, Timestamp(0))?;
    Ok(now.iter().map(|sample| sample.rss_kib).collect())
}

fn summarise(
    options: &Options,
    plan: &Plan,
    stage: &Stage<impl PacketIo>,
    recordings: &[Recording],
    answered: usize,
    measured: Measured,
    base: Vec<u64>,
) -> Report {
    let refused = refused(options, stage);
    let hearing = if options.delay {
        judge(options.codec, &[])
    } else {
        judged(options, plan, recordings, &refused)
    };
    let server: Vec<Usage> = measured
        .before
        .iter()
        .zip(&measured.after)
        .zip(&base)
        .map(|((before, after), &base)| process::usage(before, after, base))
        .collect();
    let failures = stage
        .legs
        .iter()
        .enumerate()
        .filter_map(|(index, leg)| match &leg.call {
            CallState::Failed(why) => Some(format!("leg {index}: {why}")),
            CallState::NoRoom(why) if !options.overload => Some(format!("leg {index}: {why}")),
            CallState::NoRoom(_)
            | CallState::Waiting
            | CallState::Calling
            | CallState::Up
            | CallState::Closed => None,
        });
    let ms = |quantile| stage.setup.value_at_quantile(quantile) as f64 / 1_000.0;
    let (sip_retransmissions, sip_strays) = stage.sip_counters();
    Report {
        verdict: "ok",
        reasons: Vec::new(),
        legs: options.legs as usize,
        answered,
        refused: refused.iter().filter(|refused| **refused).count(),
        conferences: options.conferences as usize,
        talkers: plan.sources.iter().flatten().count(),
        seconds: options.seconds,
        seed: options.seed,
        call_failures: failures.take(FAILURES_MAX).collect(),
        setup_ms: (ms(0.5), ms(0.99)),
        sip_retransmissions,
        sip_strays,
        hearing,
        tones_shared: plan.shared,
        rtp: total(recordings),
        delay: stage.delays.report(),
        server_total: server_total(options, &server, measured.napi_percent, answered),
        server,
        pacing: Pacing {
            sent: measured.sent,
            late: measured.late,
            late_talkers: measured.late_talkers,
            longest_stall_ms: measured.stall_ns as f64 / 1e6,
            io_failures: measured.io_failures,
        },
    }
}

/// Which legs had to be refused and were. They neither hear nor are heard.
fn refused(options: &Options, stage: &Stage<impl PacketIo>) -> Vec<bool> {
    let no_room = |leg: &Leg| options.overload && matches!(leg.call, CallState::NoRoom(_));
    stage.legs.iter().map(no_room).collect()
}

fn judged(
    options: &Options,
    plan: &Plan,
    recordings: &[Recording],
    refused: &[bool],
) -> super::judge::Verdict {
    let legs: Vec<Heard<'_>> = recordings
        .iter()
        .enumerate()
        .filter(|(leg, _)| !refused[*leg])
        .map(|(leg, recording)| Heard {
            leg,
            conference: plan.conference[leg],
            source: plan.sources[leg].as_ref(),
            recording,
        })
        .collect();
    judge(options.codec, &legs)
}

fn server_total(
    options: &Options,
    server: &[Usage],
    napi_percent: Option<f64>,
    legs: usize,
) -> Option<ServerTotal> {
    if server.is_empty() || legs == 0 {
        return None;
    }
    let cpu_percent: f64 = server.iter().map(|usage| usage.cpu_percent).sum();
    let resident: u64 = server.iter().map(|usage| usage.rss_kib).sum();
    let above: i64 = match options.rss_base {
        Some(base) => i64::try_from(resident).unwrap_or(0) - i64::try_from(base).unwrap_or(0),
        None => server.iter().map(|usage| usage.rss_above_base_kib).sum(),
    };
    Some(ServerTotal {
        cpu_percent,
        cpu_percent_per_1000_legs: cpu_percent * 1_000.0 / legs as f64,
        napi_percent,
        ns_per_leg: LegCost::new(cpu_percent, napi_percent, legs),
        rss_kib_per_leg: above as f64 / legs as f64,
    })
}

fn total(recordings: &[Recording]) -> PacketStats {
    recordings.iter().fold(PacketStats::default(), |sum, recording| {
        let one = &recording.stats;
        PacketStats {
            received: sum.received + one.received,
            lost: sum.lost + one.lost,
            duplicate: sum.duplicate + one.duplicate,
            reordered: sum.reordered + one.reordered,
            gaps: sum.gaps + one.gaps,
            longest_gap_us: sum.longest_gap_us.max(one.longest_gap_us),
            ssrc_changes: sum.ssrc_changes + one.ssrc_changes,
            timestamp_breaks: sum.timestamp_breaks + one.timestamp_breaks,
            unusable: sum.unusable + one.unusable,
        }
    })
}

fn read_wav(path: &Path, law: Law) -> Result<Arc<Vec<u8>>, CallError> {
    let wrong = |what: String| CallError::Wav {
        path: path.to_owned(),
        what,
    };
    let mut reader = hound::WavReader::open(path).map_err(|error| wrong(error.to_string()))?;
    let spec = reader.spec();
    if (spec.sample_rate, spec.channels, spec.bits_per_sample) != (8_000, 1, 16) {
        return Err(wrong("must be 8 kHz, mono, 16 bit".into()));
    }
    let samples: Result<Vec<i16>, _> = reader.samples::<i16>().collect();
    let samples = samples.map_err(|error| wrong(error.to_string()))?;
    if samples.len() < FRAME {
        return Err(wrong("shorter than one frame".into()));
    }
    Ok(Arc::new(
        samples.into_iter().map(|sample| law.encode(sample)).collect(),
    ))
}

fn write_wavs(folder: &Path, law: Law, recordings: &[Recording]) -> Result<(), CallError> {
    std::fs::create_dir_all(folder).map_err(failed(folder.display().to_string()))?;
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    for (leg, recording) in recordings.iter().enumerate() {
        let path = folder.join(format!("leg-{leg}.wav"));
        let wrong = |error: hound::Error| CallError::Wav {
            path: path.clone(),
            what: error.to_string(),
        };
        let mut writer = hound::WavWriter::create(&path, spec).map_err(wrong)?;
        for frame in recording.frames() {
            for n in 0..FRAME {
                let sample = frame.map_or(0, |frame| law.decode(frame[n]));
                writer.write_sample(sample).map_err(wrong)?;
            }
        }
        writer.finalize().map_err(wrong)?;
    }
    Ok(())
}
