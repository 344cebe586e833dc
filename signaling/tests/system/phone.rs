//! A SIP phone of plain sockets: one call, PCMU both ways.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::setup::{PATIENCE, udp};

/// One phone with at most one call.
pub(crate) struct Phone {
    sip: UdpSocket,
    server: SocketAddr,
    rtp: UdpSocket,
    number: u64,
    cseq: u32,
    room: String,
    dialog: Option<Dialog>,
}

struct Dialog {
    to: String,
    target: String,
    media: SocketAddr,
}

/// A SIP message, as far as a phone looks at it.
struct Message {
    start: String,
    headers: HashMap<String, String>,
    body: String,
    raw_headers: Vec<String>,
}

impl Message {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap().to_owned();
        let raw_headers: Vec<String> = lines.map(str::to_owned).collect();
        let pair = |line: &String| {
            let (name, value) = line.split_once(':').unwrap();
            (name.trim().to_ascii_lowercase(), value.trim().to_owned())
        };
        Self {
            start,
            headers: raw_headers.iter().map(pair).collect(),
            body: body.to_owned(),
            raw_headers,
        }
    }

    fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }
}

impl Phone {
    pub(crate) fn new(server: SocketAddr) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self {
            sip: udp(),
            server,
            rtp: udp(),
            number,
            cseq: 0,
            room: String::new(),
            dialog: None,
        }
    }

    pub(crate) fn call_id(&self) -> String {
        format!("phone-{}-{}@test", self.number, std::process::id())
    }

    fn send(&self, text: &str) {
        self.sip.send_to(text.as_bytes(), self.server).unwrap();
    }

    fn request(&mut self, method: &str, body: &str) -> String {
        if method != "ACK" {
            self.cseq += 1;
        }
        let local = self.sip.local_addr().unwrap();
        let (number, cseq, call_id) = (self.number, self.cseq, self.call_id());
        let ours = format!("sip:conf-{}@{}", self.room, self.server);
        let (target, to) = match &self.dialog {
            Some(dialog) => (dialog.target.clone(), dialog.to.clone()),
            None => (ours.clone(), format!("<{ours}>")),
        };
        let content = if body.is_empty() {
            ""
        } else {
            "Content-Type: application/sdp\r\n"
        };
        format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK-{number}-{cseq}-{method};rport\r\n\
             Max-Forwards: 70\r\nFrom: \"Phone {number}\" <sip:phone{number}@{local}>;tag=t{number}\r\nTo: {to}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContact: <sip:phone{number}@{local}>\r\n{content}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// Repeats a request until it has a final answer, as SIP over UDP does.
    fn transact(&mut self, request: &str) -> Message {
        for _ in 0..PATIENCE.as_millis() / 200 {
            self.send(request);
            while let Some(message) = self.receive() {
                let of_ours = message
                    .headers
                    .get("cseq")
                    .is_some_and(|cseq| cseq.starts_with(&self.cseq.to_string()));
                if of_ours && message.status().is_some_and(|status| status >= 200) {
                    return message;
                }
            }
        }
        panic!("no final answer to {request}");
    }

    fn receive(&self) -> Option<Message> {
        let mut buffer = [0; 4096];
        let (length, _) = self.sip.recv_from(&mut buffer).ok()?;
        Some(Message::parse(std::str::from_utf8(&buffer[..length]).unwrap()))
    }

    /// Calls a room; returns the final status.
    pub(crate) fn call(&mut self, room: &str) -> u16 {
        self.room = room.to_owned();
        let rtp = self.rtp.local_addr().unwrap();
        let sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n",
            ip = rtp.ip(),
            port = rtp.port()
        );
        let invite = self.request("INVITE", &sdp);
        let answer = self.transact(&invite);
        let status = answer.status().unwrap();
        if status == 200 {
            assert!(
                answer.headers["contact"].contains("isfocus"),
                "{}",
                answer.headers["contact"]
            );
            self.dialog = Some(Dialog {
                to: answer.headers["to"].clone(),
                target: uri_of(&answer.headers["contact"]),
                media: media_of(&answer.body),
            });
        }
        let ack = self.request("ACK", "");
        self.send(&ack);
        status
    }

    /// Hangs up; returns the final status.
    pub(crate) fn hang_up(&mut self) -> u16 {
        let bye = self.request("BYE", "");
        let status = self.transact(&bye).status().unwrap();
        self.dialog = None;
        status
    }

    /// Waits until the other side hangs up, and agrees.
    pub(crate) fn wait_for_bye(&mut self) {
        let bye = crate::setup::wait_for("BYE", || {
            self.receive().filter(|message| message.start.starts_with("BYE "))
        });
        let copied = ["via", "from", "to", "call-id", "cseq"];
        let is_copied = |line: &&String| {
            copied.contains(
                &line
                    .split(':')
                    .next()
                    .unwrap()
                    .trim()
                    .to_ascii_lowercase()
                    .as_str(),
            )
        };
        let headers: Vec<&str> = bye
            .raw_headers
            .iter()
            .filter(is_copied)
            .map(String::as_str)
            .collect();
        self.send(&format!(
            "SIP/2.0 200 OK\r\n{}\r\nContent-Length: 0\r\n\r\n",
            headers.join("\r\n")
        ));
        self.dialog = None;
    }
}

fn uri_of(contact: &str) -> String {
    let (_, rest) = contact.split_once('<').unwrap();
    rest.split_once('>').unwrap().0.to_owned()
}

fn media_of(sdp: &str) -> SocketAddr {
    let find = |prefix: &str| sdp.lines().find_map(|line| line.strip_prefix(prefix)).unwrap();
    let port = find("m=audio ").split(' ').next().unwrap();
    format!("{}:{port}", find("c=IN IP4 ")).parse().unwrap()
}

/// What one phone heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    packets: AtomicU64,
    /// Places where sequence number or timestamp did not go on by one frame.
    breaks: AtomicU64,
    /// Packets that are not silence.
    sounding: AtomicU64,
}

impl Heard {
    pub(crate) fn packets(&self) -> u64 {
        self.packets.load(Ordering::SeqCst)
    }

    pub(crate) fn breaks(&self) -> u64 {
        self.breaks.load(Ordering::SeqCst)
    }

    pub(crate) fn sounding(&self) -> u64 {
        self.sounding.load(Ordering::SeqCst)
    }
}

/// All phones talking at once, on one thread that paces 20 ms frames.
pub(crate) struct Talk {
    pub(crate) heard: Vec<Arc<Heard>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Leg {
    rtp: UdpSocket,
    media: SocketAddr,
    ssrc: u32,
    heard: Arc<Heard>,
    last: Option<(u16, u32)>,
}

impl Leg {
    fn speak(&self, frame: u32) {
        let mut packet = vec![0x80, 0];
        packet.extend_from_slice(&u16::try_from(frame & 0xffff).unwrap().to_be_bytes());
        packet.extend_from_slice(&frame.wrapping_mul(160).to_be_bytes());
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        // A square wave of 500 Hz at a modest level.
        packet.extend((0..160_u32).map(|sample| if sample / 8 % 2 == 0 { 0xb0 } else { 0x30 }));
        self.rtp.send_to(&packet, self.media).unwrap();
    }

    fn listen(&mut self) {
        let mut packet = [0; 2048];
        while let Ok(length) = self.rtp.recv(&mut packet) {
            let Some((header, payload)) = packet[..length].split_first_chunk::<12>() else {
                continue;
            };
            let sequence = u16::from_be_bytes([header[2], header[3]]);
            let timestamp = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let next = self
                .last
                .map(|(sequence, timestamp)| (sequence.wrapping_add(1), timestamp.wrapping_add(160)));
            if next.is_some_and(|next| next != (sequence, timestamp)) {
                self.heard.breaks.fetch_add(1, Ordering::SeqCst);
            }
            self.last = Some((sequence, timestamp));
            self.heard.packets.fetch_add(1, Ordering::SeqCst);
            if payload.iter().any(|byte| byte & 0x7f < 0x70) {
                self.heard.sounding.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

impl Talk {
    /// Starts; every phone must have a call.
    pub(crate) fn start(phones: &[Phone]) -> Self {
        let mut legs: Vec<Leg> = phones
            .iter()
            .map(|phone| {
                let rtp = phone.rtp.try_clone().unwrap();
                rtp.set_nonblocking(true).unwrap();
                Leg {
                    rtp,
                    media: phone.dialog.as_ref().unwrap().media,
                    ssrc: u32::try_from(phone.number).unwrap(),
                    heard: Arc::default(),
                    last: None,
                }
            })
            .collect();
        let heard = legs.iter().map(|leg| Arc::clone(&leg.heard)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            #[expect(clippy::disallowed_methods, reason = "a phone paces its own voice")]
            let start = std::time::Instant::now();
            for frame in 0.. {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                legs.iter().for_each(|leg| leg.speak(frame));
                legs.iter_mut().for_each(Leg::listen);
                let due = Duration::from_millis(20) * (frame + 1);
                #[expect(clippy::disallowed_methods, reason = "a phone paces its own voice")]
                std::thread::sleep(due.saturating_sub(start.elapsed()));
            }
        });
        Self {
            heard,
            stop,
            thread: Some(thread),
        }
    }

    /// Everybody falls silent.
    pub(crate) fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
