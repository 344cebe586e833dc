//! SRTP and SRTCP against libsrtp, both ways: what one protects the other unprotects, byte for byte the same, through a
//! roll-over and out of order.
//!
//! The oracle is a small C program, compiled here; without a compiler or libsrtp's headers it is said loudly and nothing
//! is proved.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use mixer_engine::srtp::{MasterKey, OVERHEAD_MAX, Receiving, Sending, Suite};
use mixer_engine::wire::rtp::RtpRepr;

/// Compiles the oracle; `None`, and said so, when that is not possible here.
fn oracle(name: &str) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/libsrtp.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("libsrtp-{name}"));
    let compiled = Command::new("cc")
        .args(["-O1", "-o"])
        .args([&program, &source])
        .arg("-lsrtp2")
        .output();
    match compiled {
        Ok(output) if output.status.success() => Some(program),
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr);
            not_run(reason.lines().next().unwrap_or("cc failed"))
        }
        Err(error) => not_run(&format!("cc: {error}")),
    }
}

fn not_run(reason: &str) -> Option<PathBuf> {
    // Unlike what is printed this is not captured.
    let _ = writeln!(
        std::io::stderr(),
        "NOT RUN: libsrtp as an oracle ({reason}); install build-essential and libsrtp2-dev"
    );
    None
}

/// One session of the oracle.
struct Session {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Session {
    fn new(program: &Path, way: &str, suite: Suite, key: &[u8]) -> Self {
        let mut child = Command::new(program)
            .args([way, &format!("{suite:?}"), &hex(key)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            child,
            to,
            from: BufReader::new(from),
        }
    }

    /// What becomes of a packet; `None` when it is refused.
    fn ask(&mut self, kind: &str, packet: &[u8]) -> Option<Vec<u8>> {
        writeln!(self.to, "{kind} {}", hex(packet)).unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the oracle has died");
        let bytes = line.trim().as_bytes();
        (!line.starts_with("error")).then(|| {
            bytes
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect()
        })
    }

    fn end(self) {
        let Self { mut child, to, .. } = self;
        drop(to);
        assert!(child.wait().unwrap().success());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn key(suite: Suite) -> Vec<u8> {
    (0..suite.key_bytes() + suite.salt_bytes())
        .map(|n| u8::try_from(n * 29 % 251).unwrap() ^ suite as u8)
        .collect()
}

/// The `n`th packet from one before the end of the sequence numbers on; extensions and CSRCs now and then.
fn rtp(n: u16) -> Vec<u8> {
    let csrc = [0x0102_0304, u32::from(n)];
    let header = RtpRepr {
        payload_type: 8,
        marker: n.is_multiple_of(7),
        sequence: n.wrapping_sub(FIRST),
        timestamp: u32::from(n) * 160,
        ssrc: 0xcafe_babe,
        csrc: &csrc[..usize::from(n % 3)],
    };
    let mut bytes = vec![0; header.header_length()];
    assert_eq!(header.emit(&mut bytes), bytes.len());
    if n.is_multiple_of(5) {
        bytes[0] |= 0x10;
        bytes.extend([0xbe, 0xde, 0, 1, 0x10, 0x99, 0, 0]);
    }
    bytes.extend((0..40 + n).map(|at| u8::try_from(at % 256).unwrap()));
    bytes
}

fn rtcp(n: u16) -> Vec<u8> {
    let mut bytes = vec![0x80, 201, 0, 1, 0xca, 0xfe, 0xba, 0xbe, 0x81, 202, 0, 3];
    bytes.extend((0..4 * (1 + n % 5)).map(|at| u8::try_from(at).unwrap()));
    bytes
}

/// Places behind which the sequence number comes round.
const FIRST: u16 = 20;
const PACKETS: u16 = 60;

#[test]
fn libsrtp_unprotects_what_we_protect() {
    let Some(program) = oracle("ours") else { return };
    for suite in Suite::ALL {
        let mut keys = Sending::new(MasterKey::new(suite, &key(suite)).unwrap());
        let mut session = Session::new(&program, "unprotect", suite, &key(suite));
        let mut reference = Session::new(&program, "protect", suite, &key(suite));
        for n in 0..PACKETS {
            if n == FIRST {
                keys.roll_over();
            }
            for (kind, plain) in [("rtp", rtp(n)), ("rtcp", rtcp(n))] {
                let mut packet = plain.clone();
                packet.resize(plain.len() + OVERHEAD_MAX, 0);
                let length = if kind == "rtp" {
                    keys.protect(&mut packet, plain.len())
                } else {
                    keys.protect_rtcp(&mut packet, plain.len())
                };
                packet.truncate(length.unwrap());
                assert_eq!(
                    session.ask(kind, &packet),
                    Some(plain.clone()),
                    "{suite:?} {kind} {n}"
                );
                assert_eq!(session.ask(kind, &packet), None, "a replay");
                let theirs = reference.ask(kind, &plain);
                // libsrtp counts SRTCP from 1 on, we from 0; everything else is the same.
                if kind == "rtp" {
                    assert_eq!(theirs, Some(packet), "{suite:?} {kind} {n}");
                }
            }
        }
        session.end();
        reference.end();
    }
}

#[test]
fn we_unprotect_what_libsrtp_protects() {
    let Some(program) = oracle("theirs") else { return };
    for suite in Suite::ALL {
        let mut keys = Receiving::new(MasterKey::new(suite, &key(suite)).unwrap());
        let mut session = Session::new(&program, "protect", suite, &key(suite));
        let packets: Vec<_> = (0..PACKETS)
            .map(|n| {
                (
                    session.ask("rtp", &rtp(n)).unwrap(),
                    session.ask("rtcp", &rtcp(n)).unwrap(),
                )
            })
            .collect();
        // Each group of five comes backwards, also across the roll-over.
        for n in (0..PACKETS).map(|n| n / 5 * 5 + 4 - n % 5) {
            let (mut packet, mut control) = packets[usize::from(n)].clone();
            let length = keys.unprotect(&mut packet).unwrap();
            assert_eq!(packet[..length], rtp(n), "{suite:?} {n}");
            let length = keys.unprotect_rtcp(&mut control).unwrap();
            assert_eq!(control[..length], rtcp(n), "{suite:?} {n}");
            assert!(keys.unprotect(&mut packets[usize::from(n)].0.clone()).is_err());
        }
        session.end();
    }
}
