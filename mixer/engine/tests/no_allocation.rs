//! After its construction an engine neither allocates nor frees: not for packets, not for ticks, not
//! for commands.

#![expect(unsafe_code, reason = "an allocator that counts cannot be written without")]

mod lab;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use lab::secure::keys;
use lab::{Lab, PORT_FIRST, noise, plan};
use mixer_engine::command::{Command, EndpointIndex, Play, PlayId, PlaySource};
use mixer_engine::counters::DropReason;
use mixer_engine::engine::share::{Partial, Parts, RoomId, Share, ShareSetup};
use mixer_engine::engine::{Conference, ConferenceSetup, Endpoint, EndpointSetup};
use mixer_engine::media::Codec;
use mixer_engine::packet::{Datagram, Filled, FlowId, PacketSink};
use mixer_engine::srtp::{OVERHEAD_MAX, Suite};
use mixer_engine::time::{Slot, Timestamp};

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    CALLS.with(|calls| calls.set(calls.get() + 1));
    BYTES.with(|total| total.set(total.get() + bytes));
}

struct Counting;

// SAFETY: every call goes on to the system's allocator with unchanged arguments; the counter is
// thread-local, needs no destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn calls() -> u64 {
    CALLS.with(Cell::get)
}

/// Takes everything and keeps nothing.
struct Drain {
    buffer: [u8; 1472],
    sent: u64,
}

impl PacketSink for Drain {
    fn transmit<F: Into<Filled>>(&mut self, _flow: FlowId, fill: impl FnOnce(&mut [u8]) -> F) -> bool {
        self.sent += u64::from(fill(&mut self.buffer).into().length > 0);
        true
    }

    fn set_remote(&mut self, _flow: FlowId, _remote: std::net::SocketAddr) {}
}

/// Seconds of packets of 20 talking legs of all codecs, made before.
fn packets() -> Vec<(u64, u16, std::net::SocketAddr, Vec<u8>)> {
    let mut packets = Vec::new();
    for leg in 0..20_u16 {
        let codec = Codec::ALL[usize::from(leg) % 3];
        let plan = plan(usize::from(leg), codec);
        for n in 0..150_u16 {
            let header = mixer_engine::wire::rtp::RtpRepr {
                payload_type: plan.send_payload_type,
                marker: n == 0,
                sequence: n,
                timestamp: u32::from(n) * 160,
                ssrc: u32::from(leg) + 77,
                csrc: &[],
            };
            let mut bytes = vec![0; 12];
            assert_eq!(header.emit(&mut bytes), 12);
            bytes.extend(lab::encode(codec, &noise(usize::from(leg), u64::from(n), 2_000)));
            // Some are lost, some come late.
            if n % 29 != 5 {
                let late = if n % 17 == 3 { 45 } else { 0 };
                packets.push((u64::from(n) * 20 + late, PORT_FIRST + leg, plan.remote, bytes));
            }
        }
    }
    packets.sort_by_key(|packet| packet.0);
    packets
}

/// Of which every fourth leg's are SRTP, and every nineteenth of those damaged.
fn protected(lab: &Lab) -> Vec<(u64, u16, std::net::SocketAddr, Vec<u8>)> {
    let mut packets = packets();
    for (n, (_, port, _, bytes)) in packets.iter_mut().enumerate() {
        let leg = usize::from(*port - PORT_FIRST);
        if let Some(keys) = &lab.phones[leg].keys {
            let length = bytes.len();
            bytes.resize(length + OVERHEAD_MAX, 0);
            let length = keys.protect(bytes, length).expect("room");
            bytes.truncate(length);
            bytes[length / 2] ^= u8::from(n % 19 == 0);
        }
    }
    packets
}

#[test]
fn packets_ticks_and_commands_allocate_and_free_nothing() {
    let mut lab = Lab::new();
    // More talk than it mixes.
    let room = lab.add_limited(5, Some(3));
    for leg in 0..20_usize {
        let mut media = plan(leg, Codec::ALL[leg % 3]);
        media.send_ptime_ms = [10, 20, 30, 40, 60][leg % 5];
        let setup = EndpointSetup {
            trunk: leg % 10 == 4 || leg == 7,
            ..lab.setup(Some(media))
        };
        if leg % 4 == 3 {
            lab.add_secure_with(room, media, setup, Suite::ALL[leg / 4]);
        } else {
            lab.add_box(room, media, Endpoint::new(setup));
        }
    }
    let packets = protected(&lab);
    let mut next = packets.iter().peekable();
    let mut drain = Drain {
        buffer: [0; 1472],
        sent: 0,
    };
    let partial = foreign_partial();
    let mut retired = Vec::with_capacity(100);
    let mut commands = commands(&lab).into_iter();
    let before = calls();
    for slot in 0..3_000_u64 {
        let now = Slot(slot).begins(Timestamp(0));
        while let Some((_, local_port, source, payload)) = next.next_if(|packet| packet.0 <= slot) {
            let datagram = Datagram {
                local_port: *local_port,
                source: *source,
                payload,
                received_at: now,
            };
            lab.engine.handle_datagram(&datagram);
        }
        if slot % 100 == 50
            && let Some(command) = commands.next()
        {
            retired.push(lab.engine.apply(now, Slot(slot), command, &mut drain));
        }
        lab.engine.run_slot(Slot(slot), now, &mut drain);
        while lab.engine.poll_event().is_some() {}
        while lab.engine.poll_partial().is_some() {}
        lab.engine.take_partial(&partial);
    }
    assert_eq!(calls() - before, 0);
    assert!(lab.counters().partials_missing > 10);
    assert!(commands.next().is_none() && next.next().is_none());
    assert!(lab.counters().frames_left_out > 1_000);
    assert!(lab.dropped(DropReason::SrtpAuth) > 20);
    assert!(drain.sent > 2_000 && lab.counters().rtp_received > 2_000);
    assert!(retired.iter().all(|outcome| outcome.result.is_ok()));
    drop(retired);
    assert!(calls() > before, "the counter counts");
}

#[test]
fn an_endpoint_with_16_slots_is_below_16_kib() {
    let lab = Lab::new();
    let mut setup = lab.setup(Some(plan(0, Codec::Pcmu)));
    // With L16 the slots are twice as long.
    if let Some(media) = &mut setup.media {
        media.receive[2] = None;
    }
    let before = BYTES.with(Cell::get);
    let endpoint = Endpoint::new(setup);
    let bytes = BYTES.with(Cell::get) - before;
    assert!(
        bytes >= std::mem::size_of_val(&*endpoint) && bytes < 16 * 1024,
        "{bytes}"
    );
}

fn share(own: u8, other: u8) -> Box<Share> {
    Share::new(ShareSetup {
        room: RoomId(1),
        own,
        others: Parts::NONE.with(other),
    })
}

/// What another part of the room tells.
fn foreign_partial() -> Partial {
    let mut lab = Lab::new();
    let at = lab.add_conference(5);
    lab.must(Command::Share {
        at,
        share: share(1, 0),
    });
    lab.run(20);
    lab.engine.poll_partial().expect("a tick has begun").clone()
}

fn commands(lab: &Lab) -> Vec<Command> {
    let room = mixer_engine::command::ConferenceIndex(0);
    let other = mixer_engine::command::ConferenceIndex(1);
    let (at, newcomer) = (EndpointIndex(3), EndpointIndex(20));
    let play = |id, source| Play {
        id: PlayId(id),
        source,
        repeat: 3,
    };
    let tone = PlaySource::Tone {
        hertz: 440,
        attenuation_db: 10,
        duration_ms: 120,
    };
    let set_media = |srtp| Command::SetMedia {
        at,
        media: Box::new(plan(3, Codec::L16)),
        srtp,
    };
    vec![
        Command::Share {
            at: room,
            share: share(0, 1),
        },
        Command::Share {
            at: room,
            share: share(0, 1),
        },
        Command::AddConference {
            at: other,
            conference: Conference::new(ConferenceSetup {
                phase: 7,
                talkers: None,
            }),
        },
        Command::AddEndpoint {
            conference: other,
            at: newcomer,
            endpoint: Endpoint::new(lab.setup(Some(plan(20, Codec::Pcmu)))),
        },
        Command::Mute { at, on: true },
        Command::Deaf { at, on: true },
        Command::PlayToEndpoint {
            at,
            play: play(1, tone),
        },
        Command::PlayToConference {
            at: room,
            play: play(2, PlaySource::Pcm(&[99; 1000])),
        },
        Command::Gain { at, centibel: -300 },
        Command::Hold { at, on: true },
        Command::StopEndpoint { at, play: None },
        Command::StopConference {
            at: room,
            play: Some(PlayId(2)),
        },
        set_media(Some(keys(Suite::AeadAes256Gcm, 3, 1))),
        set_media(Some(keys(Suite::AesCm128HmacSha1Tag80, 3, 0))),
        set_media(None),
        Command::Hold { at, on: false },
        Command::Snapshot {
            from: EndpointIndex(0),
            buffer: Box::new(Vec::with_capacity(30)),
        },
        Command::RemoveEndpoint { at: newcomer },
        Command::RemoveConference { at: other },
        Command::RemoveEndpoint { at },
    ]
}
