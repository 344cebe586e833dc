//! Headroom: workers whose counters the test publishes.

use mixer_engine::counters::Counters;

use super::*;
use crate::io::IoCounters;
use crate::worker::stats::WorkerCounters;

/// A directory over workers that do what they are asked, as busy as the test says.
struct Busy {
    directory: Tested,
    ends: Vec<WorkerEnd<SimPrepared>>,
    counters: Vec<WorkerCounters>,
    now: Timestamp,
    commands: u32,
}

impl Busy {
    fn new(workers: u16) -> Self {
        let (mut links, mut ends) = (Vec::new(), Vec::new());
        for place in 0..workers {
            let (link, end) = rings::pair(limits::REQUEST_RING, limits::REPLY_RING);
            let first = 20_000 + place * 1_000;
            let last = first + 999;
            links.push((link, PortBlock { first, last }));
            ends.push(end);
        }
        let (directory, _) = directory(setup(), links);
        let counters = vec![WorkerCounters::default(); usize::from(workers)];
        Self {
            directory,
            ends,
            counters,
            now: Timestamp(0),
            commands: 0,
        }
    }

    /// Lets seconds pass in which the workers are busy for so many percent of the time.
    fn pass(&mut self, seconds: u64, busy_percent: &[u64]) {
        for _ in 0..2 * seconds {
            self.now = self.now.after(Duration::from_millis(500));
            let workers = self.counters.iter_mut().zip(&self.ends).zip(busy_percent);
            for ((counters, end), percent) in workers {
                counters.alive_ns += 500_000_000;
                counters.busy_ns += 5_000_000 * percent;
                counters.slots += 500;
                end.stats()
                    .publish(&Counters::default(), &IoCounters::default(), counters);
            }
            self.directory.poll(self.now);
        }
    }

    fn say(&mut self, call: impl FnOnce(String) -> Call) -> Answer {
        self.commands += 1;
        let call = call(format!("n{}", self.commands));
        self.directory.call(self.now, &call, 1);
        for end in &mut self.ends {
            while let Ok(request) = end.requests.pop() {
                let mut retired = None;
                if let Command::Snapshot { buffer, .. } = request.command {
                    retired = Some(Retired::Snapshot(buffer));
                }
                let result = Ok(());
                let done = FromWorker::Done {
                    id: request.id,
                    slot: Slot(7),
                    outcome: Outcome { result, retired },
                    released: None,
                };
                end.replies.push(done).unwrap();
            }
        }
        self.directory.poll(self.now);
        let answer = self.directory.ready().map(|(_, answer)| answer).next();
        answer.unwrap()
    }

    fn conference(&mut self, name: &str) -> Answer {
        self.say(|id| conference(name, "me", &id))
    }

    fn endpoint(&mut self, name: &str) -> Answer {
        self.say(|id| endpoint("c", name, &id, Some(media(4000))))
    }

    fn figures(&mut self) -> AdmissionFigures {
        self.directory.figures(self.now).admission
    }
}

#[test]
fn a_busy_worker_refuses_with_a_spread_of_times_and_takes_endpoints_again() {
    let mut rig = Busy::new(1);
    rig.conference("c").unwrap();
    rig.endpoint("a").unwrap();
    rig.pass(3, &[79]);
    rig.endpoint("b").unwrap();
    rig.pass(3, &[82]);
    let mut times = BTreeSet::new();
    for number in 0..100 {
        let problem = rig.endpoint(&format!("x{number}")).unwrap_err();
        assert_eq!((problem.kind, problem.status), (ProblemKind::NoHeadroom, 503));
        assert!(problem.detail.contains("admission.busy_percent"), "{problem}");
        times.insert(problem.retry_after_s.unwrap());
    }
    assert!(
        times.len() > 4 && times.iter().all(|s| (4..12).contains(s)),
        "{times:?}"
    );
    // Nothing was taken for those refused, and what is there is served.
    let free = rig.directory.workers[0].free_endpoints.len();
    assert_eq!((free, rig.directory.endpoints), (ENDPOINTS as usize - 2, 2));
    assert_eq!(rig.directory.workers[0].ports.resting(), 0);
    assert!(rig.endpoint("a").is_ok());
    let figures = rig.figures();
    assert_eq!(figures.refused, [100, 0]);
    assert!(!figures.workers[0].open && figures.workers[0].load_ppm > 800_000);
    rig.pass(10, &[76]);
    assert_eq!(rig.endpoint("y").unwrap_err().kind, ProblemKind::NoHeadroom);
    rig.pass(10, &[70]);
    assert!(rig.figures().workers[0].open);
    rig.endpoint("y").unwrap();
}

#[test]
fn a_new_conference_goes_where_there_is_room() {
    let mut rig = Busy::new(2);
    rig.conference("c").unwrap();
    rig.endpoint("a").unwrap();
    let worker = |answer: Answer| match answer.unwrap() {
        Reply::Done(done) => done.worker,
        Reply::Endpoint(made) => made.done.worker,
    };
    rig.pass(5, &[10, 90]);
    assert_eq!(worker(rig.conference("d")), 0, "the other one is empty, but busy");
    rig.pass(5, &[90, 90]);
    let problem = rig.conference("e").unwrap_err();
    assert_eq!(problem.kind, ProblemKind::NoHeadroom);
    assert!(problem.retry_after_s.is_some_and(|s| (4..12).contains(&s)));
    rig.pass(10, &[90, 10]);
    assert_eq!(worker(rig.conference("e")), 1);
}

#[test]
fn a_worker_that_comes_late_without_being_busy_keeps_half_of_its_mark() {
    let mut rig = Busy::new(1);
    rig.conference("c").unwrap();
    // 20 of 100 slots; the counters are published twice a second.
    for _ in 0..20 {
        rig.counters[0].slots_overslept += 200;
        rig.pass(1, &[30]);
    }
    rig.endpoint("a").unwrap();
    for _ in 0..5 {
        rig.counters[0].slots_overslept += 200;
        rig.pass(1, &[50]);
    }
    let problem = rig.endpoint("b").unwrap_err();
    assert!(problem.detail.contains("something else"), "{problem}");
    assert_eq!(rig.figures().refused, [0, 1]);
    rig.pass(60, &[50]);
    rig.endpoint("b").unwrap();
}
