use super::*;
use proptest::prelude::*;

const SECOND_NS: u64 = 1_000_000_000;
/// Time between two measurements.
const HALF_NS: u64 = SECOND_NS / 2;

fn marks(busy_percent: u32, reopen_percent: u32) -> Marks {
    Marks::new(&AdmissionConfig {
        busy_percent,
        reopen_percent,
    })
}

/// A worker whose every heard endpoint costs the same, and its headroom.
struct Modelled {
    headroom: Headroom,
    reading: Reading,
    /// True cost of an endpoint, parts per million of a core.
    cost_ppm: u64,
    /// Load without any.
    idle_ppm: u64,
    /// Half seconds after which an endpoint is heard.
    silent_for: usize,
    /// Endpoints admitted in each of the last half seconds; the newest last.
    young: Vec<u32>,
    heard: u32,
}

impl Modelled {
    fn new(cost_ppm: u64) -> Self {
        let mut headroom = Headroom::new(marks(80, 75));
        let reading = Reading {
            alive_ns: SECOND_NS,
            ..Reading::default()
        };
        headroom.measure(reading);
        Self {
            headroom,
            reading,
            cost_ppm,
            idle_ppm: 0,
            silent_for: 0,
            young: Vec::new(),
            heard: 0,
        }
    }

    fn endpoints(&self) -> u32 {
        self.heard + self.young.iter().sum::<u32>()
    }

    /// Load once everybody is heard.
    fn true_load(&self) -> u64 {
        self.idle_ppm + u64::from(self.endpoints()) * self.cost_ppm
    }

    /// Offers endpoints and gives how many were admitted.
    fn offer(&mut self, count: u32) -> u32 {
        let mut admitted = 0;
        for _ in 0..count {
            if self.headroom.admit(self.endpoints() + admitted).is_ok() {
                admitted += 1;
            }
        }
        self.young.push(admitted);
        admitted
    }

    /// Half a second goes by; the measured load is off by so many percent.
    fn pass(&mut self, noise_percent: i64) {
        while self.young.len() > self.silent_for {
            self.heard += self.young.remove(0);
        }
        let load = self.idle_ppm + u64::from(self.heard) * self.cost_ppm;
        let load = load.min(CORE_PPM) * 100u64.saturating_add_signed(noise_percent) / 100;
        let frames = u64::from(self.heard) * 25;
        let endpoints = self.endpoints();
        let Reading {
            busy_ns,
            alive_ns,
            slots,
            sent,
            frames: heard,
            ..
        } = &mut self.reading;
        *busy_ns += load * HALF_NS / CORE_PPM;
        *alive_ns += HALF_NS;
        *slots += 500;
        *sent += frames;
        *heard += frames;
        self.reading.endpoints = endpoints;
        self.headroom.measure(self.reading);
    }

    fn oversleep(&mut self, slots: u64) {
        self.reading.overslept += slots;
        self.pass(0);
    }

    fn leave(&mut self, count: u32) {
        self.heard -= count;
    }

    fn settle(&mut self) {
        (0..40).for_each(|_| {
            self.offer(0);
            self.pass(0);
        });
    }
}

#[test]
fn without_knowledge_a_burst_gets_what_the_prior_allows() {
    let mut worker = Modelled::new(200);
    assert_eq!(worker.offer(5_000), 1_600, "80 % of 2,000 a core");
    assert_eq!(worker.headroom.admit(1_600), Err(Full::Busy));
}

#[test]
fn the_cost_is_learnt_and_the_limit_follows_it() {
    for cost in [100, 200, 400] {
        let mut worker = Modelled::new(cost);
        for _ in 0..240 {
            worker.offer(50);
            worker.pass(0);
        }
        let limit = 800_000 / cost;
        let found = u64::from(worker.endpoints());
        assert!(
            (limit * 93 / 100..=limit).contains(&found),
            "{found} instead of {limit}"
        );
        let figures = worker.headroom.figures(worker.endpoints());
        assert!(figures.endpoint_ppm.abs_diff(cost) <= cost / 50, "{figures:?}");
    }
}

#[test]
fn nothing_is_learnt_from_a_nearly_empty_worker() {
    let mut worker = Modelled::new(200);
    worker.idle_ppm = 10_000;
    worker.offer(20);
    worker.settle();
    assert_eq!(worker.headroom.figures(20).endpoint_ppm, PRIOR_PPM);
}

#[test]
fn endpoints_that_are_not_heard_yet_count_in_full() {
    let mut worker = Modelled::new(400);
    worker.offer(1_000);
    worker.settle();
    // None of them sends or is sent to before all have been admitted.
    worker.silent_for = 100;
    for _ in 0..10 {
        worker.offer(1_000);
        worker.pass(0);
    }
    let all = u64::from(worker.endpoints());
    assert!((1_900..=2_000).contains(&all), "{all}");
}

#[test]
fn closed_admission_opens_below_the_lower_mark_only() {
    let mut worker = Modelled::new(200);
    for _ in 0..60 {
        worker.offer(200);
        worker.pass(0);
    }
    worker.settle();
    assert!(!worker.headroom.figures(worker.endpoints()).open);
    let per_percent = 10_000 / 200;
    // To 76 %: still closed, for ever.
    let at = worker.endpoints();
    worker.leave(at - 76 * per_percent);
    worker.settle();
    assert_eq!(worker.offer(10), 0);
    worker.pass(0);
    worker.leave(2 * per_percent);
    worker.settle();
    assert_eq!(worker.offer(10), 10);
}

#[test]
fn load_rises_fast_and_falls_slowly() {
    let mut worker = Modelled::new(1);
    let load = |worker: &Modelled| worker.headroom.load;
    worker.idle_ppm = 800_000;
    worker.pass(0);
    worker.pass(0);
    assert_eq!(load(&worker), 600_000);
    worker.settle();
    assert_eq!(load(&worker), 800_000);
    assert_eq!(worker.offer(1), 0);
    worker.idle_ppm = 0;
    worker.pass(0);
    worker.pass(0);
    assert_eq!(load(&worker), 450_000);
    worker.settle();
    assert!(load(&worker) < 10);
    assert_eq!(worker.offer(1), 1);
}

#[test]
fn lateness_lowers_the_marks_by_its_share_to_half_at_most_and_passes() {
    let mut worker = Modelled::new(400);
    worker.offer(1_500);
    worker.settle();
    let mark = |worker: &Modelled| worker.headroom.figures(0).mark_ppm;
    worker.oversleep(60);
    assert!(
        (750_000..770_000).contains(&mark(&worker)),
        "one stall of 60 ms is soon forgotten"
    );
    assert_eq!(worker.offer(1), 1);
    worker.settle();
    assert!(mark(&worker) > 799_000);
    (0..60).for_each(|_| worker.oversleep(5));
    assert!((767_000..769_000).contains(&mark(&worker)), "1 % is worth 4");
    assert_eq!(worker.offer(1), 1, "60 % of 76");
    (0..60).for_each(|_| worker.oversleep(50));
    assert_eq!(worker.headroom.admit(worker.endpoints()), Err(Full::Late));
    (0..60).for_each(|_| worker.oversleep(500));
    assert_eq!(mark(&worker), 400_000);
    worker.leave(750);
    (0..60).for_each(|_| worker.oversleep(500));
    assert_eq!(worker.offer(1), 1, "30 % of 40");
    worker.settle();
    worker.settle();
    worker.idle_ppm = 900_000;
    worker.settle();
    assert_eq!(worker.headroom.admit(worker.endpoints()), Err(Full::Busy));
}

#[test]
fn a_hundred_percent_is_off() {
    let mut worker = Modelled::new(2_000);
    worker.headroom = Headroom::new(marks(100, 93));
    assert_eq!(worker.offer(5_000), 5_000);
    worker.pass(0);
    worker.pass(0);
    (0..50).for_each(|_| worker.oversleep(500));
    assert_eq!(worker.offer(10), 10);
    assert_eq!(worker.headroom.figures(0).mark_ppm, CORE_PPM);
}

#[test]
fn a_worker_that_stands_still_or_begins_anew_is_not_misjudged() {
    let mut worker = Modelled::new(200);
    worker.offer(500);
    (0..5).for_each(|_| worker.settle());
    let before = worker.headroom.figures(500);
    worker.headroom.measure(worker.reading);
    assert_eq!(worker.headroom.figures(500), before);
    // Counters of packet I/O and of oversleeping begin anew with an upgrade.
    worker.reading.overslept = 0;
    worker.reading.sent = 0;
    worker.pass(0);
    assert_eq!(worker.headroom.figures(500), before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However they come and however late they are heard, and with a measurement that is off by up to
    /// 5 percent: endpoints that cost no more than the prior never exceed the mark by more than a
    /// tenth, and patient callers find room up to the lower mark.
    #[test]
    fn bursts_do_not_overshoot_and_room_is_found(
        cost in 60u64..=500,
        idle in 0u64..20_000,
        silent_for in 0usize..4,
        bursts in prop::collection::vec((0u32..3_000, 0u32..400, -5i64..=5), 1..80),
    ) {
        let mut worker = Modelled::new(cost);
        worker.idle_ppm = idle;
        worker.silent_for = silent_for;
        for (joining, leaving, noise) in bursts {
            worker.leave(leaving.min(worker.heard));
            worker.offer(joining);
            worker.pass(noise);
            prop_assert!(worker.true_load() <= 880_000, "{} of {} ppm", worker.true_load(), cost);
        }
        for step in 0..400 {
            worker.offer(50);
            worker.pass([3, -3][step % 2]);
            prop_assert!(worker.true_load() <= 880_000, "{}", worker.true_load());
        }
        prop_assert!(worker.true_load() >= 720_000, "{}", worker.true_load());
    }
}
