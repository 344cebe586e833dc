//! Phones on loopback: each talks a tone of its own (or nothing) and remembers what it hears.

#![expect(
    clippy::cast_possible_truncation,
    reason = "samples and codes fit by construction"
)]

use std::f64::consts::PI;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mixer_engine::srtp::{MasterKey, OVERHEAD_MAX, Receiving, Sending};

/// Tones in hertz that share no multiples.
pub(crate) const TONES: [f64; 3] = [420.0, 700.0, 1130.0];
/// Amplitude of a talked tone.
pub(crate) const LOUD: f64 = 6000.0;
/// Samples remembered: the last half second.
const HEARD: usize = 4000;

struct Phone {
    socket: UdpSocket,
    to: Option<SocketAddr>,
    tone: Option<f64>,
    samples: u32,
    sequence: u16,
    heard: Vec<i16>,
    packets: u64,
    /// Of what it sends, and of what it hears.
    keys: Option<(Sending, Receiving)>,
}

/// Phones that talk and listen until dropped.
pub(crate) struct Phones {
    phones: Arc<Mutex<Vec<Phone>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Phones {
    pub(crate) fn new(count: usize) -> Self {
        let phones = (0..count)
            .map(|_| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.set_nonblocking(true).unwrap();
                Phone {
                    socket,
                    to: None,
                    tone: None,
                    samples: 0,
                    sequence: 0,
                    heard: Vec::new(),
                    packets: 0,
                    keys: None,
                }
            })
            .collect();
        let phones: Arc<Mutex<Vec<Phone>>> = Arc::new(Mutex::new(phones));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (phones, stop) = (Arc::clone(&phones), Arc::clone(&stop));
            move || run(&phones, &stop)
        });
        Self {
            phones,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn port(&self, phone: usize) -> u16 {
        self.phones.lock().unwrap()[phone]
            .socket
            .local_addr()
            .unwrap()
            .port()
    }

    /// Connects a phone to the mixer's port.
    pub(crate) fn connect(&self, phone: usize, port: u16) {
        self.phones.lock().unwrap()[phone].to = Some(SocketAddr::from(([127, 0, 0, 1], port)));
    }

    /// The mixer's port that a phone talks to.
    pub(crate) fn to(&self, phone: usize) -> u16 {
        self.phones.lock().unwrap()[phone].to.unwrap().port()
    }

    /// Speaks SRTP from now on.
    pub(crate) fn secure(&self, phone: usize, send: MasterKey, receive: MasterKey) {
        let keys = (Sending::new(send), Receiving::new(receive));
        self.phones.lock().unwrap()[phone].keys = Some(keys);
    }

    /// Talks a tone, or silence.
    pub(crate) fn talk(&self, phone: usize, hertz: Option<f64>) {
        self.phones.lock().unwrap()[phone].tone = hertz;
    }

    /// Packets received so far.
    pub(crate) fn packets(&self, phone: usize) -> u64 {
        self.phones.lock().unwrap()[phone].packets
    }

    /// Amplitude of a frequency in the last half second a phone heard; nothing before that.
    pub(crate) fn hears(&self, phone: usize, hertz: f64) -> f64 {
        let phones = self.phones.lock().unwrap();
        let heard = &phones[phone].heard;
        if heard.len() < HEARD {
            return 0.0;
        }
        let (mut real, mut imaginary) = (0.0, 0.0);
        for (at, sample) in heard.iter().enumerate() {
            let phase = 2.0 * PI * hertz * at as f64 / 8000.0;
            real += f64::from(*sample) * phase.cos();
            imaginary += f64::from(*sample) * phase.sin();
        }
        2.0 * real.hypot(imaginary) / HEARD as f64
    }

    /// Sends any payload from a phone's socket; RTP of it goes on with its numbers.
    pub(crate) fn send_raw(&self, phone: usize, payload: &[u8]) {
        let phones = self.phones.lock().unwrap();
        phones[phone]
            .socket
            .send_to(payload, phones[phone].to.unwrap())
            .unwrap();
    }

    /// Loses so many packets of a phone on the way.
    pub(crate) fn skip_packets(&self, phone: usize, count: u16) {
        let phone = &mut self.phones.lock().unwrap()[phone];
        phone.sequence = phone.sequence.wrapping_add(count);
        phone.samples = phone.samples.wrapping_add(160 * u32::from(count));
    }

    /// Presses a key as RFC 4733 has it: the start, and three ends.
    pub(crate) fn press(&self, phone: usize, digit: u8) {
        let mut phones = self.phones.lock().unwrap();
        let phone = &mut phones[phone];
        let timestamp = phone.samples;
        for (at, (end, duration)) in [(0u8, 160u16), (0, 320), (0x80, 480), (0x80, 480), (0x80, 480)]
            .iter()
            .enumerate()
        {
            let mut packet = header(if at == 0 { 0x80 | 101 } else { 101 }, phone.sequence, timestamp);
            packet.extend([digit, end | 10]);
            packet.extend(duration.to_be_bytes());
            phone.socket.send_to(&packet, phone.to.unwrap()).unwrap();
            phone.sequence = phone.sequence.wrapping_add(1);
        }
        // The next press is another one only under another timestamp.
        phone.samples = phone.samples.wrapping_add(480);
    }
}

impl Drop for Phones {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a phone sends every 20 ms of real time")]
fn run(phones: &Mutex<Vec<Phone>>, stop: &AtomicBool) {
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for phone in phones.lock().unwrap().iter_mut() {
            phone.listen();
            phone.say_frame();
        }
        due += Duration::from_millis(20);
        super::pause(due.saturating_duration_since(Instant::now()));
    }
}

impl Phone {
    fn listen(&mut self) {
        let mut buffer = [0; 2048];
        while let Ok((length, _)) = self.socket.recv_from(&mut buffer) {
            self.packets += 1;
            let length = match &mut self.keys {
                None => length,
                // Plain RTP may still be on its way; it would be heard as noise if it were not refused.
                Some((_, keys)) => match keys.unprotect(&mut buffer[..length]) {
                    Ok(length) => length,
                    Err(_) => continue,
                },
            };
            // Our mixer sends no extension and no padding; it may list contributing sources.
            let payload = 12 + 4 * usize::from(buffer[0] & 15);
            self.heard
                .extend(buffer[payload..length].iter().map(|code| expand(*code)));
            let surplus = self.heard.len().saturating_sub(HEARD);
            self.heard.drain(..surplus);
        }
    }

    fn say_frame(&mut self) {
        let Some(to) = self.to else { return };
        let mut packet = header(0, self.sequence, self.samples);
        for _ in 0..160 {
            let sample = self.tone.map_or(0.0, |hertz| {
                LOUD * (2.0 * PI * hertz * f64::from(self.samples) / 8000.0).sin()
            });
            packet.push(compress(sample as i16));
            self.samples = self.samples.wrapping_add(1);
        }
        self.sequence = self.sequence.wrapping_add(1);
        if let Some((keys, _)) = &self.keys {
            let length = packet.len();
            packet.resize(length + OVERHEAD_MAX, 0);
            let length = keys.protect(&mut packet, length).unwrap();
            packet.truncate(length);
        }
        // The mixer's port may be gone already.
        let _ = self.socket.send_to(&packet, to);
    }
}

pub(crate) fn header(marker_and_type: u8, sequence: u16, timestamp: u32) -> Vec<u8> {
    let mut packet = vec![0x80, marker_and_type];
    packet.extend(sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(0x1234_5678u32.to_be_bytes());
    packet
}

/// G.711 mu-law, by its definition.
fn compress(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = i32::from(sample).abs().min(32_635) + 132;
    let exponent = (magnitude >> 7).ilog2();
    let mantissa = (magnitude >> (exponent + 3)) & 15;
    !(sign | (exponent << 4) as u8 | mantissa as u8)
}

fn expand(code: u8) -> i16 {
    let code = !code;
    let magnitude = ((i32::from(code & 15) << 3) + 132) << ((code >> 4) & 7);
    let sample = if code & 0x80 == 0 {
        magnitude - 132
    } else {
        132 - magnitude
    };
    sample as i16
}

/// Three phones in conference `c`, all talking.
pub(crate) fn three_phones(mixer: &super::Mixer) -> Phones {
    let phones = Phones::new(3);
    mixer.conference("c");
    for (phone, name) in ["a", "b", "c"].into_iter().enumerate() {
        let port = mixer.endpoint("c", name, phones.port(phone));
        phones.connect(phone, port);
        phones.talk(phone, Some(TONES[phone]));
    }
    phones
}

/// A phone hears a talker at about full level.
pub(crate) fn hears(phones: &Phones, phone: usize, talker: usize) -> bool {
    (0.7 * LOUD..1.3 * LOUD).contains(&phones.hears(phone, TONES[talker]))
}

/// A phone does not hear a talker.
pub(crate) fn hears_not(phones: &Phones, phone: usize, talker: usize) -> bool {
    phones.hears(phone, TONES[talker]) < 0.01 * LOUD
}

/// Who hears whom is as wanted: `wanted[listener]` lists the talkers.
pub(crate) fn matrix(phones: &Phones, what: &str, wanted: [&[usize]; 3]) {
    super::eventually(what, || {
        (0..3).all(|phone| {
            (0..3).all(|talker| match wanted[phone].contains(&talker) {
                true => hears(phones, phone, talker),
                false => hears_not(phones, phone, talker),
            })
        })
    });
}

/// Everybody hears the others.
pub(crate) const ALL: [&[usize]; 3] = [&[1, 2], &[0, 2], &[0, 1]];
