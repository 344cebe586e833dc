//! The runner against a NIC in memory that behaves like drivers of several kinds.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;

use super::*;
use crate::placement::port_blocks;
use crate::steering::toeplitz::Fields;

/// A NIC behind a fake `ethtool`.
#[derive(Debug)]
struct Nic {
    state: RefCell<State>,
    /// `None`: no ntuple at all. `Some(n)`: room for n rules.
    room: Option<usize>,
    /// Whether the hashed fields can be changed, and read.
    port_hash: bool,
    rss: bool,
    /// Prints no rule number, as the older interface.
    silent: bool,
    /// Rounds masks away, as a driver that only knows exact ports.
    exact: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct State {
    ntuple_on: bool,
    rules: Vec<(u32, Rule)>,
    fields: [String; 2],
    calls: Vec<String>,
}

impl Nic {
    fn new(room: Option<usize>, port_hash: bool, rss: bool) -> Self {
        let fields = ["sd".to_owned(), "sdfn".to_owned()];
        Self {
            state: RefCell::new(State {
                fields,
                ..State::default()
            }),
            room,
            port_hash,
            rss,
            silent: false,
            exact: false,
        }
    }

    fn settled(&self) -> State {
        State {
            calls: Vec::new(),
            ..self.state.borrow().clone()
        }
    }

    fn list(&self) -> Output {
        let Some(_) = self.room else {
            return refuse("rxclass: Cannot get RX class rule count: Operation not supported");
        };
        let mut text = String::new();
        for (number, rule) in &self.state.borrow().rules {
            let (version, all) = match rule.family {
                Family::Udp4 => ("4", "0.0.0.0 mask: 255.255.255.255"),
                Family::Udp6 => ("6", ":: mask: ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            };
            let _ = write!(
                text,
                "Filter: {number}\n\tRule Type: UDP over IPv{version}\n\tSrc IP addr: {all}\n\tDest IP addr: {all}\n\
                 \tTOS: 0x0 mask: 0xff\n\tSrc port: 0 mask: 0xffff\n\tDest port: {} mask: 0x{:x}\n\
                 \tAction: Direct to queue {}\n\n",
                rule.port, rule.ignored, rule.queue
            );
        }
        done(&text)
    }

    fn add(&self, arguments: &[&str]) -> Output {
        let mut state = self.state.borrow_mut();
        if self.room.is_none_or(|room| state.rules.len() >= room) || !state.ntuple_on {
            return refuse("rmgr: Cannot insert RX class rule: No space left on device");
        }
        let after = |name: &str| {
            let at = arguments.iter().position(|argument| *argument == name)?;
            Some(arguments[at + 1])
        };
        let number = 999 - u32::try_from(state.rules.len()).unwrap();
        let ignored = after("m").map_or(0, |mask| {
            u16::from_str_radix(mask.trim_start_matches("0x"), 16).unwrap()
        });
        let rule = Rule {
            family: if arguments[3] == "udp4" {
                Family::Udp4
            } else {
                Family::Udp6
            },
            port: after("dst-port").unwrap().parse().unwrap(),
            ignored: if self.exact { 0 } else { ignored },
            queue: after("action").unwrap().parse().unwrap(),
        };
        state.rules.push((number, rule));
        if self.silent {
            done("")
        } else {
            done(&format!("Added rule with ID {number}\n"))
        }
    }

    fn hash(&self, set: bool, arguments: &[&str]) -> Output {
        let place = usize::from(arguments[3] == "udp6");
        let fields = &mut self.state.borrow_mut().fields[place];
        if set {
            // As the real program: a refusal does not change the exit code.
            if self.port_hash {
                *fields = arguments[4].to_owned();
            }
            return done("");
        }
        let mut text = "UDP flows use these fields for computing Hash flow key:\n".to_owned();
        for (letter, line) in [
            ('s', "IP SA"),
            ('d', "IP DA"),
            ('f', "L4 bytes 0 & 1 [TCP/UDP src port]"),
            ('n', "L4 bytes 2 & 3 [TCP/UDP dst port]"),
        ] {
            if fields.contains(letter) {
                text.push_str(line);
                text.push('\n');
            }
        }
        done(&text)
    }
}

fn done(text: &str) -> Output {
    Output {
        ok: true,
        text: text.to_owned(),
        error: String::new(),
    }
}

fn refuse(error: &str) -> Output {
    Output {
        ok: false,
        text: String::new(),
        error: error.to_owned(),
    }
}

impl Ethtool for Nic {
    fn run(&self, arguments: &[&str]) -> io::Result<Output> {
        self.state.borrow_mut().calls.push(arguments.join(" "));
        assert_eq!(arguments[1], "ens1");
        Ok(match arguments {
            ["-k", _] => {
                let on = if self.state.borrow().ntuple_on {
                    "on"
                } else {
                    "off"
                };
                let fixed = if self.room.is_none() { " [fixed]" } else { "" };
                done(&format!("Features for ens1:\nntuple-filters: {on}{fixed}\n"))
            }
            ["-K", _, "ntuple", state] => {
                self.state.borrow_mut().ntuple_on = *state == "on";
                done("")
            }
            ["-x", _] if self.rss => done(
                "RX flow hash indirection table for ens1 with 4 RX ring(s):\n    0:      0     1     2     3\n\
                 RSS hash key:\n6d:5a:56:da:25:5b:0e:c2:41:67\nRSS hash function:\n    toeplitz: on\n",
            ),
            ["-x", _] => refuse("Operation not supported"),
            ["-n", _] => self.list(),
            ["-n", _, "rx-flow-hash", _] => self.hash(false, arguments),
            ["-N", _, "rx-flow-hash", _, _] => self.hash(true, arguments),
            ["-N", _, "flow-type", ..] => self.add(arguments),
            ["-N", _, "delete", number] => {
                let number: u32 = number.parse().unwrap();
                self.state
                    .borrow_mut()
                    .rules
                    .retain(|(listed, _)| *listed != number);
                done("")
            }
            other => panic!("unexpected {other:?}"),
        })
    }
}

fn targets(workers: usize) -> Vec<Target> {
    let blocks = port_blocks(10_000, 32_767, workers).unwrap();
    (0u16..)
        .zip(blocks)
        .map(|(queue, block)| Target { block, queue })
        .collect()
}

#[test]
fn rules_are_added_read_back_and_undone() {
    for silent in [false, true] {
        let nic = Nic {
            silent,
            ..Nic::new(Some(100), true, true)
        };
        let before = nic.settled();
        let steering = Steering::start(&nic, "ens1", &targets(4));
        assert_eq!(
            steering.outcome().method,
            Method::Ntuple(plan::wanted_rules(&targets(4)))
        );
        assert_eq!(nic.settled().rules.len(), plan::wanted_rules(&targets(4)).len());
        assert!(nic.settled().ntuple_on);
        drop(steering);
        assert_eq!(nic.settled(), before);
        let calls = nic.state.borrow().calls.clone();
        let deleted: Vec<&String> = calls.iter().filter(|call| call.contains("delete")).collect();
        assert!(deleted.is_sorted(), "last added, first deleted: {deleted:?}");
        assert_eq!(calls.last().unwrap(), "-K ens1 ntuple off");
    }
}

#[test]
fn too_little_room_ends_in_the_next_method_with_nothing_left_behind() {
    let nic = Nic::new(Some(3), true, true);
    let mut steering = Steering::start(&nic, "ens1", &targets(4));
    let outcome = steering.outcome().clone();
    assert_eq!(outcome.method.name(), "port-hash", "{outcome:?}");
    assert!(outcome.reason.contains("No space left"), "{outcome:?}");
    assert_eq!(outcome.rss().unwrap().udp4, Fields::LOCAL_PORT);
    assert_eq!(nic.settled().fields, ["n", "n"]);
    assert!(nic.settled().rules.is_empty() && !nic.settled().ntuple_on);
    steering.undo();
    assert_eq!(nic.settled().fields, ["sd", "sdfn"]);
    assert_eq!(steering.outcome().method, Method::HandOff);
}

#[test]
fn masks_that_read_back_differently_are_not_trusted() {
    let nic = Nic {
        exact: true,
        ..Nic::new(Some(1_000), false, false)
    };
    let steering = Steering::start(&nic, "ens1", &targets(4));
    assert_eq!(steering.outcome().method, Method::HandOff);
    assert!(
        steering.outcome().reason.contains("reads back differently"),
        "{:?}",
        steering.outcome()
    );
    assert!(nic.settled().rules.is_empty());
}

#[test]
fn fields_that_cannot_be_changed_leave_the_choice_of_ports() {
    let nic = Nic::new(None, false, true);
    let steering = Steering::start(&nic, "ens1", &targets(2));
    let rss = steering.outcome().rss().cloned().unwrap();
    assert_eq!(steering.outcome().method.name(), "port-choice");
    assert_eq!((rss.udp4, rss.udp6), (Fields::ADDRESSES, Fields::FOUR_TUPLE));
}

#[test]
fn nothing_on_offer_is_no_error() {
    let nic = Nic::new(None, false, false);
    let steering = Steering::start(&nic, "ens1", &targets(2));
    assert_eq!(steering.outcome().reason, NOT_OFFERED);
    let changing = |call: &String| call.starts_with("-N") || call.starts_with("-K");
    assert!(!nic.state.borrow().calls.iter().any(changing));
}

#[test]
fn one_worker_asks_nothing() {
    let nic = Nic::new(Some(100), true, true);
    let steering = Steering::start(&nic, "ens1", &targets(1));
    assert_eq!(steering.outcome().method, Method::HandOff);
    assert!(nic.state.borrow().calls.is_empty());
}

#[test]
fn rules_of_a_killed_run_are_replaced_and_others_stay() {
    let nic = Nic::new(Some(100), true, true);
    std::mem::forget(Steering::start(&nic, "ens1", &targets(4)));
    let foreign = Rule {
        family: Family::Udp4,
        port: 5060,
        ignored: 0,
        queue: 1,
    };
    nic.state.borrow_mut().rules.push((7, foreign));
    let steering = Steering::start(&nic, "ens1", &targets(4));
    assert_eq!(
        nic.settled().rules.len(),
        1 + plan::wanted_rules(&targets(4)).len()
    );
    drop(steering);
    assert_eq!(nic.settled().rules, [(7, foreign)]);
}

#[test]
fn without_the_program_workers_hand_over() {
    #[derive(Debug)]
    struct Absent;
    impl Ethtool for Absent {
        fn run(&self, _: &[&str]) -> io::Result<Output> {
            Err(io::ErrorKind::NotFound.into())
        }
    }
    assert_eq!(
        Steering::start(Absent, "ens1", &targets(2)).outcome().method,
        Method::HandOff
    );
}
