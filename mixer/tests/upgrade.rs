//! The real program replaced by itself under talking legs, twice: what every leg gets goes on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with other test programs, which need other parts")]
mod control;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use control::http::{Answer, Events, request};
use control::{eventually, media, pause, random_ports};
use mixer::clock::Clock;
use mixer::config::PortRange;
use mixer::placement;
use mixer_engine::time::Timestamp;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mixminus-mixer");

/// Talking legs, two to a conference.
fn legs() -> usize {
    let wanted = std::env::var("MIXMINUS_UPGRADE_LEGS").ok();
    wanted.and_then(|legs| legs.parse().ok()).unwrap_or(40)
}

/// Writes an executable file. `install` does it: a file that this process holds open for writing cannot be run
/// ("text file busy") as long as a child that another test starts just then holds it too.
fn put_program(bytes: &[u8], path: &Path) {
    let mut install = Command::new("install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    install.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(install.wait().unwrap().success());
}

/// The program in a folder of its own, so that its file can be replaced.
struct Running {
    child: Child,
    folder: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
    address: SocketAddr,
}

impl Running {
    /// With `more` at the end of its configuration.
    fn start(name: &str, ports: PortRange, more: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("mixminus-upgrade-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let program = folder.join("mixer");
        put_program(&std::fs::read(PROGRAM).unwrap(), &program);
        let text = format!("[io]\nports = \"{ports}\"\n[control]\nlisten = \"127.0.0.1:0\"\n{more}");
        std::fs::write(folder.join("mixer.toml"), text).unwrap();
        let mut child = Command::new(&program)
            .arg("--config")
            .arg(folder.join("mixer.toml"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (lines, stderr) = (Arc::clone(&log), BufReader::new(child.stderr.take().unwrap()));
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let mut running = Self {
            child,
            folder,
            log,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let line = running.line_with("mixer runs", 1);
        let address = line.split("control=").nth(1).unwrap().split(' ').next().unwrap();
        running.address = address.parse().unwrap();
        running
    }

    /// The `count`th log line with a text in it.
    fn line_with(&self, text: &str, count: usize) -> String {
        let found = || {
            let log = self.log.lock().unwrap();
            log.iter()
                .filter(|line| line.contains(text))
                .nth(count - 1)
                .cloned()
        };
        eventually(&format!("{text:?} in the log, {:?}", self.log), || {
            found().is_some()
        });
        found().unwrap()
    }

    /// Puts a script in the place of the program.
    fn replace_file(&self, text: &str) {
        let new = self.folder.join("new");
        put_program(text.as_bytes(), &new);
        std::fs::rename(new, self.folder.join("mixer")).unwrap();
    }

    fn ask_for_upgrade(&self) {
        let id = self.child.id().to_string();
        let kill = Command::new("kill").args(["-s", "USR2", &id]).status().unwrap();
        assert!(kill.success());
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        request(self.address, method, path, &[], body.to_string().as_bytes())
    }

    fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.send(method, path, body);
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        answer.json()
    }

    fn state(&self) -> Value {
        request(self.address, "GET", "/v1/state", &[], b"").json()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// One packet as a phone got it.
#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Timestamp,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    marker: bool,
    /// Number of the partner's packet that was passed on, if it is one.
    frame: Option<u32>,
}

struct Phone {
    socket: UdpSocket,
    to: SocketAddr,
    sent: u32,
    heard: Vec<Heard>,
}

/// Phones that number what they say.
struct Phones {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Phone>>,
}

impl Phones {
    fn start(mut phones: Vec<Phone>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let clock = Clock::start();
            while !stopped.load(Ordering::Relaxed) {
                for phone in &mut phones {
                    phone.listen(clock.now());
                    phone.say(clock.now());
                }
                pause(Duration::from_millis(1));
            }
            phones
        });
        Self { stop, thread }
    }

    fn stop(self) -> Vec<Phone> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

impl Phone {
    fn listen(&mut self, at: Timestamp) {
        let mut packet = [0; 2048];
        while let Ok((length, _)) = self.socket.recv_from(&mut packet) {
            let word = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
            let payload = &packet[12 + 4 * usize::from(packet[0] & 15)..length];
            self.heard.push(Heard {
                at,
                ssrc: word(8),
                sequence: u16::from_be_bytes([packet[2], packet[3]]),
                timestamp: word(4),
                marker: packet[1] & 0x80 != 0,
                frame: number(payload),
            });
        }
    }

    /// Says what is due: a packet every 20 ms.
    fn say(&mut self, now: Timestamp) {
        while u64::from(self.sent) * 20_000_000 <= now.0 {
            let sequence = u16::try_from(self.sent & 0xffff).unwrap();
            let mut packet = control::phones::header(0, sequence, self.sent.wrapping_mul(160));
            packet.extend(frame(self.sent));
            // The mixer may be gone at the end.
            let _ = self.socket.send_to(&packet, self.to);
            self.sent += 1;
        }
    }
}

/// A loud frame with a number in it.
fn frame(number: u32) -> [u8; 160] {
    let bytes = number.to_be_bytes();
    std::array::from_fn(|at| {
        if at < 8 {
            bytes[at / 2] >> (4 * (at % 2)) & 15 | 0x10
        } else {
            0x15 ^ if at % 16 < 8 { 0x80 } else { 0 }
        }
    })
}

fn number(payload: &[u8]) -> Option<u32> {
    let nibble = |at: usize| u32::from(payload.get(at).copied().unwrap_or(0) & 15);
    let number = (0..4).fold(0, |sum, byte| {
        sum << 8 | nibble(2 * byte + 1) << 4 | nibble(2 * byte)
    });
    (payload == frame(number)).then_some(number)
}

/// Sets up the legs; gives their phones.
fn set_up(mixer: &Running, legs: usize) -> Vec<Phone> {
    let mut phones = Vec::new();
    for leg in 0..legs {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let conference = format!("/v1/conferences/c{}", leg / 2);
        if leg % 2 == 0 {
            mixer.done(
                "PUT",
                &conference,
                &json!({"command": format!("c{leg}"), "owner": "test"}),
            );
        }
        let body = json!({"command": format!("e{leg}"), "media": media(socket.local_addr().unwrap().port())});
        let created = mixer.done("PUT", &format!("{conference}/endpoints/e{leg}"), &body);
        phones.push(Phone {
            socket,
            to: created["local"].as_str().unwrap().parse().unwrap(),
            sent: 0,
            heard: Vec::new(),
        });
    }
    phones
}

/// Judges what one phone heard; gives the longest time between two packets and how often the
/// partner's numbers did not go on by one.
fn judge(phone: &Phone) -> (Duration, usize) {
    let heard = &phone.heard;
    assert!(heard.len() > 100);
    for pair in heard.windows(2) {
        let [before, after] = pair else { panic!() };
        assert_eq!(after.ssrc, before.ssrc);
        assert_eq!(after.sequence, before.sequence.wrapping_add(1), "{pair:?}");
        assert_eq!(after.timestamp, before.timestamp.wrapping_add(160), "{pair:?}");
        assert!(!after.marker, "{pair:?}");
    }
    let gap = heard
        .windows(2)
        .map(|pair| pair[1].at.since(pair[0].at))
        .max()
        .unwrap();
    let frames: Vec<u32> = heard.iter().skip(10).filter_map(|heard| heard.frame).collect();
    let jumps = frames.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    (gap, jumps)
}

#[test]
fn two_upgrades_under_talking_legs_cost_no_packet() {
    upgrade_twice("talk", legs(), "");
}

#[test]
fn several_workers_are_upgraded_at_once() {
    let cores = placement::available_cores();
    let [first, second, ..] = cores[..] else {
        println!("not run: this machine has one core");
        return;
    };
    upgrade_twice(
        "workers",
        12,
        &format!("[workers]\ncores = [{first}, {second}]\n"),
    );
}

fn upgrade_twice(name: &str, legs: usize, more: &str) {
    let ports = u16::try_from(2 * legs + 100).unwrap();
    let mixer = Running::start(name, random_ports(ports), more);
    let mut events = Events::open(mixer.address, "", &[]);
    let phones = Phones::start(set_up(&mixer, legs));
    let play = json!({"command": "play", "verb": "play", "play": "endless", "repeat": 0,
        "source": {"kind": "prompt", "name": "en/beep"}});
    mixer.done(
        "PUT",
        "/v1/conferences/music",
        &json!({"command": "m", "owner": "test"}),
    );
    let played = mixer.send("POST", "/v1/conferences/music/commands", &play);
    assert_eq!(played.status, 200, "{played:?}");
    let before = mixer.state();
    let mut last = Value::Null;
    for _ in 0..legs {
        last = events.next_of("talk")["seq"].clone();
    }

    for round in 1..=2 {
        pause(Duration::from_millis(700));
        mixer.ask_for_upgrade();
        println!("{}", mixer.line_with("upgraded", round));
        let after = mixer.state();
        assert_eq!(after["instance"], before["instance"]);
        assert!(after["event_seq"].as_u64() >= last.as_u64());
        let names = |state: &Value| {
            let all = state["conferences"].as_array().unwrap().iter();
            all.map(|one| {
                (
                    one["conference"].clone(),
                    one["endpoints"].as_array().unwrap().len(),
                )
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(names(&after), names(&before));
        let repeated = json!({"command": "c0", "owner": "test"});
        assert_eq!(mixer.send("PUT", "/v1/conferences/c0", &repeated).status, 200);
        let conflict = json!({"command": "c0", "owner": "another"});
        assert_eq!(mixer.send("PUT", "/v1/conferences/c0", &conflict).status, 409);
        assert_eq!(
            mixer.send("POST", "/v1/conferences/music/commands", &play).status,
            200
        );
    }
    pause(Duration::from_millis(700));
    let phones = phones.stop();
    let judged: Vec<_> = phones.iter().map(judge).collect();
    let gap = judged.iter().map(|(gap, _)| *gap).max().unwrap();
    let jumps: usize = judged.iter().map(|(_, jumps)| jumps).sum();
    println!("{legs} legs, two upgrades: longest gap {gap:?}, frames not heard in turn {jumps}");

    stream_goes_on_after(&mixer, last.as_u64().unwrap());
    assert_eq!(mixer.state()["instance"], before["instance"]);
}

/// The stream is resumed by number: the next event after the last one read is the next number, and
/// none tells that the endless play ended before it was stopped.
fn stream_goes_on_after(mixer: &Running, last: u64) {
    let mut events = Events::open(mixer.address, &format!("?after={last}"), &[]);
    mixer.done(
        "POST",
        "/v1/conferences/music/commands",
        &json!({"command": "stop", "verb": "stop", "play": "endless"}),
    );
    let mut next = last;
    loop {
        let event = events.next();
        next += 1;
        assert_eq!(event["seq"], next, "{event}");
        if event["event"] == "played" {
            assert_eq!(
                (&event["play"], &event["complete"]),
                (&json!("endless"), &json!(false))
            );
            break;
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_in_one_line_and_nothing_stops() {
    let ports = random_ports(100);
    let mixer = Running::start("refused", ports, "");
    let instance = mixer.state()["instance"].clone();
    let (program, config) = (mixer.folder.join("mixer"), mixer.folder.join("mixer.toml"));
    let replace = |text: &str| mixer.replace_file(text);
    let mut refusals = 0;
    let mut refused = |why: &str| {
        refusals += 1;
        mixer.ask_for_upgrade();
        let line = mixer.line_with("upgrade refused", refusals);
        assert!(line.contains(why), "{line}");
        assert_eq!(mixer.state()["instance"], instance);
    };
    replace("#!/bin/sh\necho 999\n");
    refused("reads state format 999");
    replace("#!/bin/sh\necho broken >&2; exit 1\n");
    refused("broken");
    replace("no program");
    refused("cannot be run");
    std::fs::remove_file(&program).unwrap();
    refused("cannot be run");
    put_program(&std::fs::read(PROGRAM).unwrap(), &program);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replace(&ports.to_string(), &random_ports(102).to_string()),
    )
    .unwrap();
    refused("io.ports was changed");
    std::fs::write(&config, format!("{text}[prompts]\nfolder = \"/nonexistent\"\n")).unwrap();
    refused("prompts.folder");
    std::fs::write(&config, "[io]\nnonsense = 1\n").unwrap();
    refused(":2: ");
    std::fs::write(&config, text).unwrap();
    mixer.ask_for_upgrade();
    mixer.line_with("upgraded", 1);
    assert_eq!(mixer.state()["instance"], instance);
}

/// A program that answers as it should and then does not find what it was left.
#[test]
fn a_failure_after_the_stop_is_one_line_and_70() {
    let mut mixer = Running::start("lost", random_ports(100), "");
    mixer.replace_file(&format!(
        "#!/bin/sh\ncase \"$*\" in *--state-format*|*--check*) ;; *) MIXMINUS_STATE_FD=77 ;; esac\nexec {PROGRAM} \"$@\"\n"
    ));
    mixer.ask_for_upgrade();
    assert_eq!(mixer.child.wait().unwrap().code(), Some(70));
    let line = mixer.line_with("mixminus-mixer: ", 1);
    assert!(line.contains("handed over"), "{line}");
    let log = mixer.log.lock().unwrap();
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:?}");
}
