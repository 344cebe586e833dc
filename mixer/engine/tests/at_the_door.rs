//! What comes in: source rules, drop reasons, digits, commands, and what happens when a conference
//! fails.

mod lab;

use std::net::{IpAddr, SocketAddr};

use lab::{EVENT, Lab, PORT_FIRST, assert_continuous, noise, plan};
use mixer_engine::command::{
    Command, ConferenceIndex, EndpointIndex, Play, PlayId, PlaySource, Refusal, Retired,
};
use mixer_engine::counters::{DropReason, FrameOutcome};
use mixer_engine::engine::{Conference, ConferenceSetup, Endpoint, EngineLimits};
use mixer_engine::event::{Event, EventKind};
use mixer_engine::media::{Codec, SourceRule};
use mixer_engine::wire::telephone_event::TelephoneEvent;

const RTP: [u8; 172] = {
    let mut packet = [0x55; 172];
    (packet[0], packet[1]) = (0x80, 0);
    packet
};

fn kinds(lab: &Lab) -> Vec<EventKind> {
    lab.events.iter().map(|event| event.kind).collect()
}

#[test]
fn every_death_has_its_reason() {
    let mut lab = Lab::new();
    let room = lab.add_conference(0);
    let leg = lab.add(room, Codec::Pcmu);
    lab.add(room, Codec::Pcmu);
    let from = lab.phones[leg].address;
    let stranger: SocketAddr = "198.51.100.1:4000".parse().unwrap();
    let mut unknown_type = RTP;
    unknown_type[1] = 77 + 1;
    let mut own = RTP;
    own[8..12].copy_from_slice(&0x00A0_0000_u32.to_be_bytes());
    let mut neighbour = RTP;
    neighbour[0] = 0x81;
    neighbour[12..16].copy_from_slice(&0x00A0_0001_u32.to_be_bytes());
    let mut version_1 = RTP;
    version_1[0] = 0x7F;
    for (reason, port, source, payload) in [
        (DropReason::UnknownPort, PORT_FIRST + 5, from, &RTP[..]),
        (DropReason::UnknownPort, PORT_FIRST - 1, from, &RTP[..]),
        (DropReason::Malformed, PORT_FIRST, from, &RTP[..11]),
        (DropReason::Malformed, PORT_FIRST, from, &[]),
        (DropReason::Rtcp, PORT_FIRST, from, &[0x80, 200, 0, 1, 0, 0, 0, 0]),
        (DropReason::NotRtp, PORT_FIRST, from, &[0, 1, 0, 0]),
        (DropReason::BadVersion, PORT_FIRST, from, &version_1),
        (DropReason::BadSource, PORT_FIRST, stranger, &RTP),
        (DropReason::UnknownPayloadType, PORT_FIRST, from, &unknown_type),
        (DropReason::Loop, PORT_FIRST, from, &own),
        (DropReason::Loop, PORT_FIRST, from, &neighbour),
        (DropReason::BadLength, PORT_FIRST, from, &RTP[..12]),
    ] {
        let before = lab.counters();
        lab.deliver(port, source, payload);
        let after = lab.counters();
        assert_eq!(
            after.dropped[reason as usize],
            before.dropped[reason as usize] + 1,
            "{reason:?}"
        );
        let dead = |counters: mixer_engine::counters::Counters| counters.dropped.iter().sum::<u64>();
        assert_eq!(dead(after), dead(before) + 1, "{reason:?}: one death, one reason");
        assert_eq!(after.rtp_received, 0);
    }
    assert_eq!(lab.snapshot(leg).bad_source, 1);
    lab.run(1);
    assert_eq!(kinds(&lab), []);
    lab.deliver(PORT_FIRST, from, &RTP);
    assert_eq!(
        (lab.counters().rtp_received, lab.counters().rtp_received_bytes),
        (1, 172)
    );
}

#[test]
fn ours_in_another_conference_is_no_loop() {
    let mut lab = Lab::new();
    let rooms = [lab.add_conference(0), lab.add_conference(0)];
    let leg = lab.add(rooms[0], Codec::Pcmu);
    lab.add(rooms[1], Codec::Pcmu);
    lab.phones[leg].ssrc = 0x00A0_0001;
    lab.phones[leg].csrc = vec![0x00A0_0001];
    lab.send(leg, true, &[0x55; 160]);
    assert_eq!(
        (lab.dropped(DropReason::Loop), lab.counters().rtp_received),
        (0, 1)
    );
}

#[test]
fn active_is_told_once_per_media_and_timeout_once_per_silence() {
    let mut lab = Lab::with_limits(EngineLimits {
        conferences: 1,
        endpoints: 4,
        port_first: PORT_FIRST,
        port_last: PORT_FIRST + 3,
        events: 64,
        media_timeout_ms: 2_000,
    });
    let room = lab.add_conference(0);
    let leg = lab.add(room, Codec::Pcmu);
    lab.say(leg, |n| noise(0, n, 40));
    lab.run(1000);
    assert_eq!(kinds(&lab), [EventKind::Active]);
    assert!(lab.snapshot(leg).active);
    lab.hush(leg);
    lab.run(1900);
    assert_eq!(lab.events.len(), 1);
    lab.run(4000);
    assert_eq!(kinds(&lab), [EventKind::Active, EventKind::MediaTimeout]);
    lab.say(leg, |n| noise(0, n, 40));
    lab.run(100);
    lab.hush(leg);
    lab.run(4000);
    assert_eq!(kinds(&lab)[2..], [EventKind::MediaTimeout], "once per silence");
    lab.events.clear();
    let at = lab.phones[leg].at;
    let mut media = plan(leg, Codec::Pcma);
    lab.set_media(leg, media);
    assert!(!lab.snapshot(leg).active);
    lab.must(Command::Hold { at, on: true });
    lab.run(5000);
    assert_eq!(kinds(&lab), [], "not while held");
    lab.must(Command::Hold { at, on: false });
    lab.run(1900);
    assert_eq!(kinds(&lab), []);
    lab.run(200);
    assert_eq!(kinds(&lab), [EventKind::MediaTimeout]);
    media.direction.receive = false;
    lab.set_media(leg, media);
    lab.run(5000);
    assert_eq!(lab.events.len(), 1, "not while nothing should come");
    lab.send(leg, true, &[0x55; 160]);
    assert_eq!(lab.dropped(DropReason::NotReceiving), 1);
    media.direction.receive = true;
    lab.set_media(leg, media);
    lab.send(leg, true, &[0x55; 160]);
    lab.run(1);
    assert_eq!(kinds(&lab)[1..], [EventKind::Active]);
}

#[test]
fn an_identical_media_description_changes_nothing() {
    let mut lab = Lab::new();
    let room = lab.add_conference(0);
    let leg = lab.add(room, Codec::Pcmu);
    lab.say(leg, |n| noise(0, n, 40));
    lab.run(500);
    lab.ears.remotes[0] = Some("203.0.113.1:1".parse().unwrap());
    let retired = lab.must(Command::SetMedia {
        at: EndpointIndex(0),
        media: Box::new(lab.phones[leg].plan),
        srtp: None,
    });
    assert!(matches!(retired, Some(Retired::Media(..))));
    assert!(lab.snapshot(leg).active);
    lab.run(500);
    assert_eq!(kinds(&lab), [EventKind::Active]);
    assert_eq!(
        lab.heard(leg).last().unwrap().remote,
        "203.0.113.1:1".parse().unwrap()
    );
    assert_continuous(lab.heard(leg), 1);
}

#[test]
fn a_nat_is_learnt_from_three_packets_and_locked() {
    let mut lab = Lab::new();
    let room = lab.add_conference(0);
    let mut media = plan(0, Codec::Pcmu);
    let nat: SocketAddr = "198.51.100.7:61000".parse().unwrap();
    media.source = SourceRule::Learn {
        allowed: [Some(nat.ip()), None, None, None],
    };
    let leg = lab.add_with(room, media);
    lab.phones[leg].address = nat;
    lab.say(leg, |n| noise(0, n, 40));
    lab.run(40);
    assert_eq!(
        (lab.dropped(DropReason::Probation), lab.counters().rtp_received),
        (2, 0)
    );
    assert!(
        lab.heard(leg).iter().all(|packet| packet.remote == media.remote),
        "not before it is locked"
    );
    lab.run(60);
    assert_eq!(
        kinds(&lab),
        [EventKind::SourceLearnt { source: nat }, EventKind::Active]
    );
    assert!(lab.heard(leg)[3..].iter().all(|packet| packet.remote == nat));
    for source in ["198.51.100.7:61002", "203.0.113.1:61000"] {
        lab.deliver(PORT_FIRST, source.parse().unwrap(), &RTP);
    }
    assert_eq!(lab.dropped(DropReason::BadSource), 2);
    // Another codec of the same peer: the lock stays.
    media.send_codec = Codec::Pcma;
    media.send_payload_type = 8;
    lab.set_media(leg, media);
    lab.run(40);
    assert_eq!(lab.dropped(DropReason::Probation), 2);
    assert_eq!(lab.heard(leg).last().unwrap().remote, nat);
    assert_continuous(lab.heard(leg), 1);
}

#[test]
fn nothing_is_learnt_from_strangers_or_too_late() {
    let mut lab = Lab::new();
    let room = lab.add_conference(0);
    let mut media = plan(0, Codec::Pcmu);
    let allowed: IpAddr = "198.51.100.7".parse().unwrap();
    media.source = SourceRule::Learn {
        allowed: [None, Some(allowed), None, None],
    };
    let leg = lab.add_with(room, media);
    lab.phones[leg].address = "203.0.113.1:61000".parse().unwrap();
    lab.say(leg, |n| noise(0, n, 40));
    lab.run(3100);
    lab.phones[leg].address = SocketAddr::new(allowed, 61000);
    lab.run(1000);
    assert_eq!(lab.counters().rtp_received, 0);
    assert_eq!(lab.dropped(DropReason::BadSource), 155 + 50);
    assert!(lab.heard(leg).iter().all(|packet| packet.remote == media.remote));
}

#[test]
fn nothing_is_heard_or_said_before_media_is_set() {
    let mut lab = Lab::new();
    let room = lab.add_conference(0);
    let media = plan(0, Codec::Pcmu);
    let setup = lab.setup(None);
    let leg = lab.add_box(room, media, Endpoint::new(setup));
    lab.say(leg, |n| noise(0, n, 40));
    lab.run(200);
    assert!(lab.heard(leg).is_empty());
    assert_eq!(lab.dropped(DropReason::NotReceiving), 10);
    lab.set_media(leg, media);
    lab.run(200);
    assert_eq!(lab.heard(leg).len(), 10);
    assert!(lab.heard(leg)[0].marker);
    assert_eq!(lab.counters().rtp_received, 10);
}

/// Presses a key as RFC 4733 2.5.1 has it: a packet every 20 ms, the last one three times.
fn press(lab: &mut Lab, phone: usize, event: u8, packets: u16) {
    let timestamp = lab.phones[phone].timestamp;
    lab.phones[phone].payload_type = EVENT;
    let voice = lab.phones[phone].voice.take();
    for n in 1..=packets + 2 {
        let payload = TelephoneEvent {
            event,
            end: n >= packets,
            volume: 10,
            duration: 160 * n.min(packets),
        }
        .emit();
        lab.phones[phone].timestamp = timestamp;
        lab.send(phone, n == 1, &payload);
        lab.run(20);
    }
    lab.phones[phone].payload_type = 0;
    lab.phones[phone].voice = voice;
    lab.phones[phone].next_at = lab.slot;
    lab.phones[phone].timestamp = timestamp.wrapping_add(160 * u32::from(packets + 2));
}

#[test]
fn one_press_is_one_digit_and_stays_out_of_the_mix() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    let (leg, listener) = (lab.add(room, Codec::Pcmu), lab.add(room, Codec::Pcmu));
    lab.say(leg, |n| noise(0, n, 4_000));
    lab.run(1000);
    lab.events.clear();
    lab.clear();
    press(&mut lab, leg, 11, 8);
    let held = lab.heard(listener).len();
    lab.run(1000);
    let digits: Vec<_> = kinds(&lab)
        .into_iter()
        .filter(|kind| matches!(kind, EventKind::Digit { .. }))
        .collect();
    assert_eq!(
        digits,
        [EventKind::Digit {
            digit: '#',
            duration_ms: 160
        }]
    );
    assert_eq!(lab.counters().digits, 1);
    assert_eq!(
        lab.snapshot(leg).lost,
        0,
        "event packets take sequence numbers, too"
    );
    assert_eq!(lab.counters().frames[FrameOutcome::NetworkLost as usize], 0);
    // The tick that follows the first event packet is silent already, although audio still waits.
    let quiet = lab.heard(listener)[..held]
        .iter()
        .filter(|packet| packet.payload == [0xFF; 160])
        .count();
    assert_eq!(quiet, held);
    assert!(
        lab.heard(listener)[held + 5..]
            .iter()
            .all(|packet| packet.payload != [0xFF; 160])
    );
}

#[test]
fn a_press_without_end_is_told_when_its_packets_stop() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    let leg = lab.add(room, Codec::Pcmu);
    lab.phones[leg].payload_type = EVENT;
    let payload = TelephoneEvent {
        event: 5,
        end: false,
        volume: 10,
        duration: 800,
    }
    .emit();
    lab.send(leg, true, &payload);
    lab.run(200);
    assert_eq!(
        kinds(&lab),
        [
            EventKind::Active,
            EventKind::Digit {
                digit: '5',
                duration_ms: 100
            }
        ]
    );
}

#[test]
fn a_failing_conference_takes_nobody_with_it() {
    let mut lab = Lab::new();
    let rooms = [
        lab.add_conference(5),
        lab.add_conference(5),
        lab.add_conference(5),
    ];
    for (number, &room) in [rooms[0], rooms[1], rooms[2], rooms[2], rooms[1]]
        .iter()
        .enumerate()
    {
        let phone = lab.add(room, Codec::Pcmu);
        lab.say(phone, move |n| noise(number, n, 4_000));
    }
    lab.run(500);
    lab.events.clear();
    let media = plan(5, Codec::Pcmu);
    let setup = lab.setup(Some(media));
    let bad = lab.add_box(rooms[1], media, Endpoint::with_planted_failure(setup));
    lab.run(500);
    let failed = Event {
        conference: rooms[1],
        endpoint: None,
        kind: EventKind::ConferenceFailed,
    };
    assert_eq!(lab.events, [failed]);
    assert_eq!(lab.counters().conferences_failed, 1);
    let mut retired = Vec::new();
    while let Some((at, retired_box)) = lab.engine.poll_retired() {
        match retired_box {
            Retired::Conference(_) => assert_eq!(at, EndpointIndex(u32::MAX)),
            Retired::Endpoint(_) => retired.push(at.0),
            Retired::Media(..) | Retired::Snapshot(_) | Retired::Share(_) => {
                panic!("not retired by a failure")
            }
        }
    }
    assert_eq!(retired, [1, 4, 5]);
    for phone in [0, 2, 3] {
        assert_eq!(lab.heard(phone).len(), 50);
        assert_continuous(lab.heard(phone), 1);
    }
    assert_eq!((lab.heard(1).len(), lab.heard(bad).len()), (25, 0));
    assert_eq!(
        lab.refused(Command::RemoveEndpoint { at: EndpointIndex(1) }),
        Refusal::NotFound
    );
    assert_eq!(
        lab.refused(Command::RemoveConference { at: rooms[1] }),
        Refusal::NotFound
    );
    assert!(lab.dropped(DropReason::UnknownPort) > 40, "its ports are free");
    // Everything it held can be used again.
    let (phase, talkers) = (5, None);
    lab.must(Command::AddConference {
        at: rooms[1],
        conference: Conference::new(ConferenceSetup { phase, talkers }),
    });
    let endpoint = Endpoint::new(mixer_engine::engine::EndpointSetup {
        local_port: PORT_FIRST + 1,
        ..setup
    });
    lab.must(Command::AddEndpoint {
        conference: rooms[1],
        at: EndpointIndex(1),
        endpoint,
    });
    let before = lab.heard(1).len();
    lab.run(100);
    assert_eq!(lab.heard(1).len(), before + 5);
}

#[test]
fn a_packet_that_breaks_its_endpoint_ends_its_conference_only() {
    let mut lab = Lab::new();
    let rooms = [lab.add_conference(5), lab.add_conference(5)];
    let (other, media) = (lab.add(rooms[0], Codec::Pcmu), plan(1, Codec::Pcmu));
    let setup = lab.setup(Some(media));
    lab.add_box(rooms[1], media, Endpoint::with_planted_failure(setup));
    lab.deliver(PORT_FIRST + 1, media.remote, &RTP);
    lab.run(100);
    let failed = Event {
        conference: rooms[1],
        endpoint: None,
        kind: EventKind::ConferenceFailed,
    };
    assert_eq!(lab.events, [failed]);
    assert!(matches!(
        lab.engine.poll_retired(),
        Some((_, Retired::Conference(_)))
    ));
    assert!(matches!(
        lab.engine.poll_retired(),
        Some((EndpointIndex(1), Retired::Endpoint(_)))
    ));
    assert!(lab.engine.poll_retired().is_none());
    assert_eq!(lab.heard(other).len(), 5);
}

#[test]
fn commands_that_cannot_be_applied_change_nothing_and_give_the_box_back() {
    let mut lab = Lab::new();
    let room = lab.add_conference(0);
    lab.add(room, Codec::Pcmu);
    let conference = || {
        Conference::new(ConferenceSetup {
            phase: 0,
            talkers: None,
        })
    };
    let outcome = lab.apply(Command::AddConference {
        at: room,
        conference: conference(),
    });
    assert!(matches!(outcome.retired, Some(Retired::Conference(_))));
    assert_eq!(outcome.result, Err(Refusal::Occupied));
    let far = ConferenceIndex(4);
    assert_eq!(
        lab.refused(Command::AddConference {
            at: far,
            conference: conference()
        }),
        Refusal::OutOfRange
    );
    assert_eq!(
        lab.refused(Command::RemoveConference { at: room }),
        Refusal::NotEmpty
    );
    assert_eq!(
        lab.refused(Command::RemoveConference { at: far }),
        Refusal::NotFound
    );
    let mut setup = lab.setup(None);
    for (conference, at, port, refusal) in [
        (room, 0, PORT_FIRST + 1, Refusal::Occupied),
        (room, 1, PORT_FIRST, Refusal::Occupied),
        (room, 64, PORT_FIRST + 1, Refusal::OutOfRange),
        (room, 1, PORT_FIRST + 64, Refusal::OutOfRange),
        (far, 1, PORT_FIRST + 1, Refusal::NotFound),
        (ConferenceIndex(1), 1, PORT_FIRST + 1, Refusal::NotFound),
    ] {
        setup.local_port = port;
        let endpoint = Endpoint::new(setup);
        let outcome = lab.apply(Command::AddEndpoint {
            conference,
            at: EndpointIndex(at),
            endpoint,
        });
        assert_eq!(outcome.result, Err(refusal));
        assert!(matches!(outcome.retired, Some(Retired::Endpoint(_))));
    }
}

#[test]
fn commands_to_nobody_are_refused() {
    let mut lab = Lab::new();
    let room = lab.add_conference(0);
    lab.add(room, Codec::Pcmu);
    let far = ConferenceIndex(4);
    let nobody = EndpointIndex(9);
    let play = Play {
        id: PlayId(1),
        source: PlaySource::Pcm(&[1, 2, 3]),
        repeat: 0,
    };
    let media = Box::new(plan(0, Codec::Pcma));
    for command in [
        Command::RemoveEndpoint { at: nobody },
        Command::SetMedia {
            at: nobody,
            media,
            srtp: None,
        },
        Command::Mute { at: nobody, on: true },
        Command::Deaf { at: nobody, on: true },
        Command::Gain {
            at: nobody,
            centibel: 0,
        },
        Command::Hold { at: nobody, on: true },
        Command::PlayToEndpoint { at: nobody, play },
        Command::PlayToConference { at: far, play },
        Command::StopEndpoint {
            at: nobody,
            play: None,
        },
        Command::StopConference { at: far, play: None },
    ] {
        assert_eq!(lab.refused(command), Refusal::NotFound);
    }
}

#[test]
fn plays_at_once_are_bounded() {
    let mut lab = Lab::new();
    let room = lab.add_conference(0);
    lab.add(room, Codec::Pcmu);
    let play = Play {
        id: PlayId(1),
        source: PlaySource::Pcm(&[1, 2, 3]),
        repeat: 0,
    };
    let plays = |lab: &mut Lab, id| {
        let play = Play {
            id: PlayId(id),
            ..play
        };
        lab.apply(Command::PlayToEndpoint {
            at: EndpointIndex(0),
            play,
        })
        .result
    };
    let first_refusal = (0..100).find_map(|id| plays(&mut lab, id).err());
    assert_eq!(first_refusal, Some(Refusal::TooManyPlays));
    lab.run(100);
    assert_eq!(lab.heard(0).len(), 5);
}

#[test]
fn events_beyond_the_ring_are_counted() {
    let mut lab = Lab::with_limits(EngineLimits {
        conferences: 1,
        endpoints: 4,
        port_first: PORT_FIRST,
        port_last: PORT_FIRST + 3,
        events: 2,
        media_timeout_ms: 60_000,
    });
    let room = lab.add_conference(0);
    for _ in 0..4 {
        let leg = lab.add(room, Codec::Pcmu);
        lab.send(leg, true, &[0x55; 160]);
    }
    lab.run(1);
    assert_eq!(kinds(&lab), [EventKind::Active; 2]);
    assert_eq!(lab.counters().events_lost, 2);
}
