//! Idempotency: what was answered to which command id.
//!
//! A command id is open from its first request until its outcome, and then remembered for a
//! bounded number of later commands. The same id with the same content joins or gets the stored
//! answer; with other content it is a conflict. Refusals that a retry or a correction may overcome
//! are forgotten.

use std::collections::{BTreeMap, HashMap, VecDeque};

use mixer_control::reply::{Done, EndpointCreated, Problem, ProblemKind};
use mixer_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What a command ends in.
pub type Answer = Result<Reply, Problem>;

/// A successful answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It took effect.
    Done(Done),
    /// An endpoint exists.
    Endpoint(EndpointCreated),
}

/// Answers by command id; `W` is whoever waits for one.
#[derive(Debug)]
pub(crate) struct Answers<W> {
    open: BTreeMap<String, Open<W>>,
    finished: HashMap<String, (u64, Answer)>,
    /// Ids of `finished`, oldest first.
    order: VecDeque<String>,
    capacity: usize,
}

#[derive(Debug)]
struct Open<W> {
    fingerprint: u64,
    waiting: Vec<(Timestamp, W)>,
}

/// Finished commands as they can be written down, oldest first: id, fingerprint, answer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct AnswersState(Vec<(String, u64, AnswerRecord)>);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum AnswerRecord {
    Done(Done),
    Endpoint(Done, std::net::SocketAddr, u32),
    Problem(Problem),
}

impl AnswerRecord {
    fn of(answer: &Answer) -> Self {
        match answer {
            Ok(Reply::Done(done)) => Self::Done(done.clone()),
            Ok(Reply::Endpoint(EndpointCreated { done, local, ssrc })) => {
                Self::Endpoint(done.clone(), *local, *ssrc)
            }
            Err(problem) => Self::Problem(problem.clone()),
        }
    }

    fn answer(self) -> Answer {
        match self {
            Self::Done(done) => Ok(Reply::Done(done)),
            Self::Endpoint(done, local, ssrc) => Ok(Reply::Endpoint(EndpointCreated { done, local, ssrc })),
            Self::Problem(problem) => Err(problem),
        }
    }
}

/// What a command's beginning means.
#[derive(Debug)]
pub(crate) enum Begin<W> {
    /// It is new and open now: execute it, then call [`Answers::finish`].
    New,
    /// It is being executed; the waiter was added.
    Joined,
    /// It ended before.
    Finished(W, Answer),
}

impl<W> Answers<W> {
    /// Remembers `capacity` finished commands.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            open: BTreeMap::new(),
            finished: HashMap::with_capacity(capacity.min(1024)),
            order: VecDeque::new(),
            capacity,
        }
    }

    /// A command arrives; its waiter is served until `deadline`.
    pub(crate) fn begin(&mut self, id: &str, fingerprint: u64, deadline: Timestamp, waiter: W) -> Begin<W> {
        if let Some(open) = self.open.get_mut(id) {
            if open.fingerprint != fingerprint {
                return Begin::Finished(waiter, Err(conflict(id)));
            }
            open.waiting.push((deadline, waiter));
            return Begin::Joined;
        }
        if let Some((known, answer)) = self.finished.get(id) {
            let answer = if *known == fingerprint {
                answer.clone()
            } else {
                Err(conflict(id))
            };
            return Begin::Finished(waiter, answer);
        }
        self.open.insert(
            id.to_owned(),
            Open {
                fingerprint,
                waiting: vec![(deadline, waiter)],
            },
        );
        Begin::New
    }

    /// A command ends; gives back who waits for its answer.
    pub(crate) fn finish(&mut self, id: &str, answer: &Answer) -> Vec<W> {
        let Some(open) = self.open.remove(id) else {
            return Vec::new();
        };
        let forget = matches!(
            answer,
            Err(problem) if problem.kind.is_retryable() || problem.kind == ProblemKind::Invalid
        );
        if !forget {
            while self.order.len() >= self.capacity {
                if let Some(oldest) = self.order.pop_front() {
                    self.finished.remove(&oldest);
                }
            }
            self.order.push_back(id.to_owned());
            self.finished
                .insert(id.to_owned(), (open.fingerprint, answer.clone()));
        }
        open.waiting.into_iter().map(|(_, waiter)| waiter).collect()
    }

    /// Takes the waiters whose deadline has passed; their commands stay open.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<W> {
        let mut expired = Vec::new();
        for open in self.open.values_mut() {
            let mut place = 0;
            while let Some((deadline, _)) = open.waiting.get(place) {
                if *deadline <= now {
                    expired.push(open.waiting.swap_remove(place).1);
                } else {
                    place += 1;
                }
            }
        }
        expired
    }

    /// The finished commands.
    pub(crate) fn export_state(&self) -> AnswersState {
        let record = |id: &String| {
            let (fingerprint, answer) = self.finished.get(id)?;
            Some((id.clone(), *fingerprint, AnswerRecord::of(answer)))
        };
        AnswersState(self.order.iter().filter_map(record).collect())
    }

    /// Remembers finished commands of another run, the newest if there are too many.
    pub(crate) fn import_state(&mut self, state: AnswersState) {
        let surplus = state.0.len().saturating_sub(self.capacity);
        for (id, fingerprint, record) in state.0.into_iter().skip(surplus) {
            self.order.push_back(id.clone());
            self.finished.insert(id, (fingerprint, record.answer()));
        }
    }

    /// Whether somebody's command is being executed.
    pub(crate) fn any_open(&self) -> bool {
        !self.open.is_empty()
    }
}

fn conflict(id: &str) -> Problem {
    Problem::new(
        ProblemKind::Conflict,
        format!("command id {id:?} was used for another request; use a fresh id for every command"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(id: &str) -> Answer {
        Ok(Reply::Done(Done {
            command: id.to_owned(),
            worker: 0,
            tick: 7,
        }))
    }

    const SOON: Timestamp = Timestamp(10);

    #[test]
    fn the_same_command_joins_and_later_gets_the_first_answer() {
        let mut answers = Answers::new(4);
        assert!(matches!(answers.begin("a", 1, SOON, 'x'), Begin::New));
        assert!(matches!(answers.begin("a", 1, SOON, 'y'), Begin::Joined));
        assert_eq!(answers.finish("a", &done("a")), ['x', 'y']);
        assert!(!answers.any_open());
        assert!(
            matches!(answers.begin("a", 1, SOON, 'z'), Begin::Finished('z', answer) if answer == done("a"))
        );
    }

    #[test]
    fn other_content_under_the_same_id_is_a_conflict() {
        let mut answers = Answers::new(4);
        answers.begin("a", 1, SOON, 'x');
        let is_conflict = |begin| {
            matches!(
                begin,
                Begin::Finished(
                    _,
                    Err(Problem {
                        kind: ProblemKind::Conflict,
                        ..
                    })
                )
            )
        };
        assert!(is_conflict(answers.begin("a", 2, SOON, 'y')));
        answers.finish("a", &done("a"));
        assert!(is_conflict(answers.begin("a", 2, SOON, 'y')));
    }

    #[test]
    fn retryable_refusals_are_forgotten_and_final_ones_kept() {
        for (kind, kept) in [
            (ProblemKind::NoPorts, false),
            (ProblemKind::Invalid, false),
            (ProblemKind::Locked, true),
        ] {
            let mut answers = Answers::new(4);
            answers.begin("a", 1, SOON, 'x');
            answers.finish("a", &Err(Problem::new(kind, "")));
            assert_eq!(
                matches!(answers.begin("a", 1, SOON, 'x'), Begin::Finished(..)),
                kept,
                "{kind:?}"
            );
        }
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut answers = Answers::new(2);
        for id in ["a", "b", "c"] {
            answers.begin(id, 1, SOON, 'x');
            answers.finish(id, &done(id));
        }
        assert!(matches!(answers.begin("a", 1, SOON, 'x'), Begin::New));
        assert!(matches!(answers.begin("b", 1, SOON, 'x'), Begin::Finished(..)));
        assert!(matches!(answers.begin("c", 1, SOON, 'x'), Begin::Finished(..)));
    }

    #[test]
    fn an_expired_waiter_leaves_its_command_open() {
        let mut answers = Answers::new(2);
        answers.begin("a", 1, Timestamp(10), 'x');
        answers.begin("a", 1, Timestamp(20), 'y');
        assert_eq!(answers.expire(Timestamp(10)), ['x']);
        assert_eq!(answers.finish("a", &done("a")), ['y']);
        assert!(matches!(
            answers.begin("a", 1, Timestamp(30), 'z'),
            Begin::Finished('z', Ok(_))
        ));
    }
}
