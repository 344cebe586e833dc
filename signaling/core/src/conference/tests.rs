//! Commands one by one, then at random.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::record::DialogRecord;
use crate::sdp::{Agreed, Direction, Occasion, Offer, Security, plan};
use crate::srtp::{KeySeed, KeySource, SrtpPolicy};
use crate::time::WallTime;

use super::*;

const NOW: WallTime = WallTime(1_000_000);
const LIMITS: Limits = Limits {
    conferences_max: 3,
    endpoints_max: 4,
    auto_create: true,
};

fn table() -> Conferences {
    Conferences::new(LIMITS, [7; 32])
}

fn peer() -> Asker {
    Asker::Trusted {
        identity: "sip:gateway@example.com".to_owned(),
    }
}

fn enter(table: &mut Conferences, conference: &str, address: &str) -> Result<JoinOutcome, Refused> {
    let join = Join {
        conference,
        address,
        display_name: "Alice",
        call_id: "call-1",
    };
    table.join(&peer(), &join, NOW)
}

fn admitted(table: &mut Conferences, conference: &str, address: &str) -> String {
    enter(table, conference, address)
        .expect("admitted")
        .endpoint
        .to_string()
}

fn offered(direction: &str, occasion: Occasion) -> Agreed {
    let text = format!("v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 8\r\na={direction}\r\n");
    let mut security = Security {
        policy: SrtpPolicy::Off,
        keys: &mut KeySource::new(&KeySeed([0; 32])),
        current: None,
    };
    plan(
        &Offer::parse(text.as_bytes()).expect("parsed"),
        occasion,
        &mut security,
    )
    .expect("planned")
    .agreed
}

fn events(conference: &Conference) -> Vec<Event> {
    conference
        .log()
        .since(0)
        .into_iter()
        .flatten()
        .map(|entry| entry.event.clone())
        .collect()
}

#[test]
fn first_caller_creates_and_last_one_ends() {
    let mut table = table();
    let first = enter(&mut table, "42", "sip:alice@example.com").expect("admitted");
    assert!(first.created);
    assert_eq!(table.get("42").map(Conference::state), Some(State::Activating));
    assert!(table.ready("42", "http://mixer", NOW));
    assert!(table.connected(first.endpoint.as_str(), NOW));
    let second = enter(&mut table, "42", "sip:bob@example.com").expect("admitted");
    assert!(!second.created);
    assert_eq!(table.endpoints_len(), 2);

    let left = table
        .leave(first.endpoint.as_str(), LeaveCause::Bye, NOW)
        .expect("left");
    assert!(left.was_connected && !left.conference_ended);
    let left = table
        .leave(second.endpoint.as_str(), LeaveCause::Cancelled, NOW)
        .expect("left");
    assert!(!left.was_connected && left.conference_ended);
    assert!(table.is_empty());
    assert!(
        table
            .leave(second.endpoint.as_str(), LeaveCause::Bye, NOW)
            .is_none()
    );

    let ended: Vec<_> = table.ended().collect();
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].state(), State::Ended);
    let (alice, bob) = (first.endpoint, second.endpoint);
    assert_eq!(
        events(ended[0]),
        [
            Event::Activated,
            Event::Arrived {
                endpoint: alice.clone(),
                entity: "sip:alice@example.com".to_owned()
            },
            Event::Ready,
            Event::Joined {
                endpoint: alice.clone()
            },
            Event::Arrived {
                endpoint: bob.clone(),
                entity: "sip:bob@example.com".to_owned()
            },
            Event::Left {
                endpoint: alice,
                cause: LeaveCause::Bye
            },
            Event::Left {
                endpoint: bob,
                cause: LeaveCause::Cancelled
            },
            Event::Ended {
                cause: EndCause::Empty
            },
        ]
    );
}

#[test]
fn the_same_id_again_is_another_epoch() {
    let mut table = table();
    let endpoint = admitted(&mut table, "42", "sip:a@x");
    let epoch = table.get("42").map(Conference::epoch);
    table.leave(&endpoint, LeaveCause::Bye, NOW);
    admitted(&mut table, "42", "sip:a@x");
    assert!(table.get("42").map(Conference::epoch) > epoch);
}

#[test]
fn a_locked_conference_keeps_its_people_and_takes_no_more() {
    let mut table = table();
    let endpoint = admitted(&mut table, "42", "sip:a@x");
    assert_eq!(table.lock(&Asker::Operator, "42", true, NOW), Ok(true));
    assert_eq!(table.lock(&Asker::Operator, "42", true, NOW), Ok(false));
    assert_eq!(table.lock(&peer(), "42", false, NOW), Err(Refused::NotAllowed));
    assert_eq!(enter(&mut table, "42", "sip:b@x"), Err(Refused::Locked));
    assert!(table.endpoint(&endpoint).is_some());
    assert!(
        table
            .get("42")
            .is_some_and(|conference| conference.record().locked)
    );
    assert_eq!(table.lock(&Asker::Operator, "42", false, NOW), Ok(true));
    assert!(enter(&mut table, "42", "sip:b@x").is_ok());
    assert_eq!(
        table.lock(&Asker::Operator, "43", true, NOW),
        Err(Refused::NotFound)
    );
}

#[test]
fn limits_hold() {
    let mut table = table();
    for _ in 0..LIMITS.endpoints_max {
        admitted(&mut table, "a", "sip:a@x");
    }
    assert_eq!(enter(&mut table, "a", "sip:a@x"), Err(Refused::Full));
    for id in ["b", "c"] {
        admitted(&mut table, id, "sip:a@x");
    }
    assert_eq!(
        enter(&mut table, "d", "sip:a@x"),
        Err(Refused::TooManyConferences)
    );
    assert_eq!(enter(&mut table, "../d", "sip:a@x"), Err(Refused::BadName));
    assert_eq!(table.len(), LIMITS.conferences_max);
}

#[test]
fn without_auto_create_only_operators_make_conferences() {
    let mut table = Conferences::new(
        Limits {
            auto_create: false,
            ..LIMITS
        },
        [7; 32],
    );
    assert_eq!(enter(&mut table, "42", "sip:a@x"), Err(Refused::NotFound));
    assert_eq!(table.create(&peer(), "42", NOW), Err(Refused::NotAllowed));
    assert_eq!(table.create(&Asker::Operator, "42", NOW), Ok(true));
    assert_eq!(table.create(&Asker::Operator, "42", NOW), Ok(false));
    assert!(!enter(&mut table, "42", "sip:a@x").expect("admitted").created);
}

#[test]
fn end_hangs_everybody_up_and_is_over_with_the_last() {
    let mut table = table();
    let endpoints: Vec<_> = (0..3).map(|_| admitted(&mut table, "42", "sip:a@x")).collect();
    table.ready("42", "http://mixer", NOW);
    assert_eq!(table.end(&peer(), "42", NOW), Err(Refused::NotAllowed));
    let outcome = table.end(&Asker::Operator, "42", NOW).expect("ending");
    let hung_up: Vec<_> = outcome.endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(hung_up, endpoints);
    assert!(!outcome.conference_ended);
    assert_eq!(enter(&mut table, "42", "sip:b@x"), Err(Refused::Ending));
    assert_eq!(
        table.lock(&Asker::Operator, "42", true, NOW),
        Err(Refused::Ending)
    );
    let statuses: BTreeSet<_> = table.views()[0]
        .participants
        .iter()
        .map(|view| view.status)
        .collect();
    assert_eq!(statuses, BTreeSet::from(["disconnecting"]));
    assert!(
        !table.connected(&endpoints[0], NOW),
        "a late ACK does not bring it back"
    );
    for (index, endpoint) in endpoints.iter().enumerate() {
        let left = table.leave(endpoint, LeaveCause::Ended, NOW).expect("left");
        assert_eq!(left.conference_ended, index == 2);
    }
    let last = table.ended().last().map(events).unwrap_or_default().pop();
    assert_eq!(
        last,
        Some(Event::Ended {
            cause: EndCause::Command
        })
    );
}

#[test]
fn ending_an_empty_conference_is_immediate() {
    let mut table = table();
    assert_eq!(table.create(&Asker::Operator, "42", NOW), Ok(true));
    let outcome = table
        .end(&Asker::System(SystemReason::Mixer), "42", NOW)
        .expect("ended");
    assert_eq!(
        outcome,
        EndOutcome {
            endpoints: Vec::new(),
            conference_ended: true
        }
    );
    assert!(table.get("42").is_none());
    let last = table.ended().last().map(events).unwrap_or_default().pop();
    assert_eq!(
        last,
        Some(Event::Ended {
            cause: EndCause::MixerLost
        })
    );
}

#[test]
fn mute_is_seen_in_views_and_documents() {
    let mut table = table();
    let endpoint = admitted(&mut table, "42", "sip:a@x");
    table.connected(&endpoint, NOW);
    table.media_changed(&endpoint, &offered("sendrecv", Occasion::First), NOW);
    assert_eq!(
        table.mute(&peer(), &endpoint, true, NOW),
        Err(Refused::NotAllowed)
    );
    assert_eq!(table.mute(&Asker::Operator, &endpoint, true, NOW), Ok(true));
    assert_eq!(table.mute(&Asker::Operator, &endpoint, true, NOW), Ok(false));
    assert_eq!(
        table.mute(&Asker::Operator, "nobody", true, NOW),
        Err(Refused::NoSuchParticipant)
    );
    let found = table.endpoint(&endpoint).expect("there");
    assert_eq!(found.status(), EndpointStatus::MutedViaFocus);
    assert_eq!(found.media_direction(), Some(Direction::RecvOnly));
    let view = &table.views()[0].participants[0];
    assert_eq!((view.status, view.muted, view.codec), ("connected", true, "PCMA"));
}

#[test]
fn hold_and_resume_are_seen() {
    let mut table = table();
    let endpoint = admitted(&mut table, "42", "sip:a@x");
    let status = |table: &Conferences| table.views()[0].participants[0].status;
    assert_eq!(status(&table), "dialing-in");
    table.connected(&endpoint, NOW);
    assert!(table.media_changed(&endpoint, &offered("sendrecv", Occasion::First), NOW));
    assert_eq!(status(&table), "connected");
    assert!(table.media_changed(&endpoint, &offered("sendonly", Occasion::Again), NOW));
    assert_eq!(status(&table), "on-hold");
    assert!(table.media_changed(&endpoint, &offered("recvonly", Occasion::Again), NOW));
    assert_eq!(status(&table), "connected");
    // M-63: the participant's view is what documents show.
    assert_eq!(
        table.endpoint(&endpoint).and_then(Endpoint::media_direction),
        Some(Direction::RecvOnly)
    );
    assert!(!table.media_changed(&endpoint, &offered("recvonly", Occasion::Again), NOW));
}

#[test]
fn talking_is_news_only_when_it_changes() {
    let mut table = table();
    let endpoint = admitted(&mut table, "42", "sip:a@x");
    assert!(!table.talking(&endpoint, false, NOW));
    assert!(table.talking(&endpoint, true, NOW));
    assert!(!table.talking(&endpoint, true, NOW));
    assert!(table.views()[0].participants[0].talking);
    assert!(table.digit(&endpoint, '5', 80, NOW));
    assert!(table.digit(&endpoint, '5', 80, NOW), "each press counts");
}

#[test]
fn one_participant_may_have_several_endpoints_but_anonymous_ones_are_many() {
    let mut table = table();
    let endpoints: Vec<_> = [
        "sip:a@x",
        "sip:a@x",
        "sip:anonymous@anonymous.invalid",
        "sip:anonymous@anonymous.invalid",
    ]
    .into_iter()
    .map(|address| admitted(&mut table, "42", address))
    .collect();
    let participants = |table: &Conferences| {
        let roster = table.get("42").map(Conference::roster);
        roster
            .into_iter()
            .flat_map(Roster::participants)
            .map(|who| who.entity.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        participants(&table),
        [
            "sip:a@x",
            "sip:anonymous3@anonymous.invalid",
            "sip:anonymous4@anonymous.invalid"
        ]
    );
    let meant = table
        .get("42")
        .map(|conference| conference.roster().find("sip:a@x"))
        .unwrap_or_default();
    assert_eq!(
        meant.iter().map(ToString::to_string).collect::<Vec<_>>(),
        endpoints[..2]
    );
    table.leave(&endpoints[0], LeaveCause::Bye, NOW);
    assert_eq!(participants(&table).len(), 3);
    table.leave(&endpoints[1], LeaveCause::Bye, NOW);
    assert_eq!(participants(&table).len(), 2);
}

#[test]
fn kick_marks_and_leave_removes() {
    let mut table = table();
    let endpoint = admitted(&mut table, "42", "sip:a@x");
    assert_eq!(table.kick(&peer(), &endpoint, NOW), Err(Refused::NotAllowed));
    assert_eq!(table.kick(&Asker::Operator, &endpoint, NOW), Ok(()));
    assert_eq!(table.views()[0].participants[0].status, "disconnecting");
    assert!(
        table
            .leave(&endpoint, LeaveCause::Kicked, NOW)
            .is_some_and(|left| left.conference_ended)
    );
}

fn record(endpoint: &str, muted: bool) -> DialogRecord {
    DialogRecord {
        endpoint: endpoint.to_owned(),
        conference: "42".to_owned(),
        call_id: "call-9".to_owned(),
        local_tag: "l".to_owned(),
        remote_tag: "r".to_owned(),
        local_uri: "sip:conf-42@x".to_owned(),
        remote_uri: "sip:bob@example.com".to_owned(),
        remote_target: "sip:bob@192.0.2.1".to_owned(),
        route_set: String::new(),
        local_cseq: 1,
        remote_cseq: 2,
        flow: String::new(),
        local_sdp: String::new(),
        remote_sdp: String::new(),
        muted,
        joined: WallTime(77),
    }
}

#[test]
fn a_restart_finds_conference_endpoint_lock_and_mute_again() {
    let mut before = table();
    let first = admitted(&mut before, "42", "sip:a@x");
    before.ready("42", "http://mixer", NOW);
    before.lock(&Asker::Operator, "42", true, NOW).expect("locked");
    let saved = before.get("42").map(Conference::record).expect("there");

    let mut after = table();
    assert!(after.restore_conference(&saved));
    assert!(!after.restore_conference(&saved));
    let agreed = offered("sendrecv", Occasion::First);
    assert!(after.restore_endpoint(&record(&first, true), "Bob", Some(&agreed), NOW));
    assert!(!after.restore_endpoint(&record(&first, true), "Bob", None, NOW));
    assert_eq!(after.get("42").map(Conference::record), Some(saved));
    let view = after.views()[0].participants[0].clone();
    assert_eq!(
        (view.participant.as_str(), view.status, view.muted),
        (first.as_str(), "connected", true)
    );
    assert_eq!(
        (view.joined, view.codec, view.display_name.as_str()),
        (WallTime(77), "PCMA", "Bob")
    );
    // Same seed and same clock: ids must not repeat all the same.
    after.lock(&Asker::Operator, "42", false, NOW).expect("unlocked");
    assert_ne!(admitted(&mut after, "42", "sip:c@x"), first);
    assert!(!after.restore_endpoint(
        &DialogRecord {
            conference: "gone".into(),
            ..record("x-1", false)
        },
        "",
        None,
        NOW
    ));
}

/// One random command.
#[derive(Debug, Clone)]
enum Step {
    Create(usize, bool),
    Join(usize, u8),
    Ready(usize),
    Connected(usize),
    Leave(usize),
    Kick(usize),
    Mute(usize, bool, bool),
    Lock(usize, bool, bool),
    End(usize, bool),
    Talk(usize, bool),
    Media(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let (conference, endpoint) = (0..5_usize, 0..40_usize);
    prop_oneof![
        1 => (conference.clone(), any::<bool>()).prop_map(|(id, operator)| Step::Create(id, operator)),
        8 => (conference.clone(), 0..4_u8).prop_map(|(id, who)| Step::Join(id, who)),
        2 => conference.clone().prop_map(Step::Ready),
        4 => endpoint.clone().prop_map(Step::Connected),
        4 => endpoint.clone().prop_map(Step::Leave),
        1 => endpoint.clone().prop_map(Step::Kick),
        2 => (endpoint.clone(), any::<bool>(), any::<bool>()).prop_map(|(id, on, operator)| Step::Mute(id, on, operator)),
        2 => (conference.clone(), any::<bool>(), any::<bool>()).prop_map(|(id, on, operator)| Step::Lock(id, on, operator)),
        1 => (conference, any::<bool>()).prop_map(|(id, operator)| Step::End(id, operator)),
        2 => (endpoint.clone(), any::<bool>()).prop_map(|(id, on)| Step::Talk(id, on)),
        2 => (endpoint, any::<bool>()).prop_map(|(id, held)| Step::Media(id, held)),
    ]
}

/// What a naive observer believes: which endpoint is in which conference.
#[derive(Default)]
struct Oracle {
    inside: BTreeMap<String, String>,
    given_out: Vec<String>,
}

impl Oracle {
    fn apply(&mut self, table: &mut Conferences, step: &Step) {
        let asker = |operator| if operator { Asker::Operator } else { peer() };
        let id = |index: usize| format!("c{index}");
        let endpoint = |index: usize| self.given_out.get(index).cloned().unwrap_or_default();
        match *step {
            Step::Create(index, operator) => drop(table.create(&asker(operator), &id(index), NOW)),
            Step::Join(index, who) => {
                if let Ok(outcome) = enter(table, &id(index), &format!("sip:{who}@x")) {
                    assert!(
                        !self.given_out.contains(&outcome.endpoint.to_string()),
                        "endpoint id reused"
                    );
                    self.given_out.push(outcome.endpoint.to_string());
                    self.inside.insert(outcome.endpoint.to_string(), id(index));
                }
            }
            Step::Ready(index) => drop(table.ready(&id(index), "http://mixer", NOW)),
            Step::Connected(index) => drop(table.connected(&endpoint(index), NOW)),
            Step::Leave(index) => {
                let left = table.leave(&endpoint(index), LeaveCause::Bye, NOW);
                let believed = self.inside.remove(&endpoint(index));
                assert_eq!(left.as_ref().map(|left| left.conference.to_string()), believed);
                let alone = believed.filter(|id| !self.inside.values().any(|other| other == id));
                assert_eq!(left.is_some_and(|left| left.conference_ended), alone.is_some());
            }
            Step::Kick(index) => drop(table.kick(&Asker::Operator, &endpoint(index), NOW)),
            Step::Mute(index, on, operator) => drop(table.mute(&asker(operator), &endpoint(index), on, NOW)),
            Step::Lock(index, on, operator) => drop(table.lock(&asker(operator), &id(index), on, NOW)),
            Step::End(index, operator) => {
                if let Ok(outcome) = table.end(&asker(operator), &id(index), NOW) {
                    let inside = self.inside.values().filter(|other| **other == id(index)).count();
                    assert_eq!(outcome.endpoints.len(), inside);
                    assert_eq!(outcome.conference_ended, inside == 0);
                }
            }
            Step::Talk(index, on) => drop(table.talking(&endpoint(index), on, NOW)),
            Step::Media(index, held) => {
                let direction = if held { "inactive" } else { "sendrecv" };
                table.media_changed(&endpoint(index), &offered(direction, Occasion::Again), NOW);
            }
        }
    }

    fn compare(&self, table: &Conferences) {
        assert_eq!(table.endpoints_len(), self.inside.len());
        let listed: usize = table.iter().map(|conference| conference.roster().len()).sum();
        assert_eq!(listed, self.inside.len(), "roster count");
        assert!(table.len() <= LIMITS.conferences_max);
        for (endpoint, conference) in &self.inside {
            let found = table.conference_of(endpoint).map(|found| found.id().as_str());
            assert_eq!(found, Some(conference.as_str()), "endpoint in its one conference");
        }
        for conference in table.iter() {
            assert!(conference.roster().len() <= LIMITS.endpoints_max);
            assert_ne!(conference.state(), State::Ended, "ended ones leave the table");
            replay(conference);
        }
        for conference in table.ended() {
            assert_eq!(conference.state(), State::Ended);
            assert!(conference.roster().is_empty(), "ended conference has nobody");
            replay(conference);
        }
    }
}

/// The log alone must tell what the conference looks like.
fn replay(conference: &Conference) {
    let Ok(entries) = conference.log().since(0) else {
        return;
    };
    let (mut locked, mut talking, mut muted) = (false, BTreeSet::new(), BTreeSet::new());
    let (mut stages, mut media) = (BTreeMap::new(), BTreeMap::new());
    for (expected, entry) in (1..).zip(entries) {
        assert_eq!(entry.number, expected, "numbers without gaps");
        match &entry.event {
            Event::Arrived { endpoint, .. } => drop(stages.insert(endpoint, Stage::DialingIn)),
            Event::Joined { endpoint } => drop(stages.insert(endpoint, Stage::Connected)),
            Event::Disconnecting { endpoint } => drop(stages.insert(endpoint, Stage::Disconnecting)),
            Event::Left { endpoint, .. } => {
                assert!(stages.remove(endpoint).is_some(), "left without arriving");
                talking.remove(endpoint);
                muted.remove(endpoint);
                media.remove(endpoint);
            }
            Event::Lock { on } => locked = *on,
            Event::Mute { endpoint, on: true } => drop(muted.insert(endpoint)),
            Event::Mute { endpoint, on: false } => drop(muted.remove(endpoint)),
            Event::Talk {
                endpoint,
                talking: true,
            } => drop(talking.insert(endpoint)),
            Event::Talk {
                endpoint,
                talking: false,
            } => drop(talking.remove(endpoint)),
            Event::MediaChanged { endpoint, media: now } => drop(media.insert(endpoint, *now)),
            Event::Ended { .. } => assert!(stages.is_empty(), "ended with people inside"),
            Event::Activated | Event::Ready | Event::Ending { .. } | Event::Digit { .. } => {}
        }
    }
    assert_eq!(locked, conference.locked());
    assert_eq!(stages.len(), conference.roster().len());
    for endpoint in conference.roster().endpoints() {
        assert_eq!(stages.get(&endpoint.id), Some(&endpoint.stage));
        assert_eq!(media.get(&endpoint.id).copied(), endpoint.media);
        assert_eq!(talking.contains(&endpoint.id), endpoint.talking);
        assert_eq!(muted.contains(&endpoint.id), endpoint.muted);
    }
}

proptest! {
    #[test]
    fn random_commands_keep_the_table_in_order(steps in proptest::collection::vec(step(), 1..120)) {
        let mut table = table();
        let mut oracle = Oracle::default();
        for step in &steps {
            oracle.apply(&mut table, step);
            oracle.compare(&table);
        }
    }
}
