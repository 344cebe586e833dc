//! The life of a conference as one table. Lock is an attribute of a conference, not a state.

/// Where a conference is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Defined, costs no mixer resource.
    Scheduled,
    /// A mixer was asked for it.
    Activating,
    /// Ready, but its host is not there yet.
    Waiting,
    /// Mixed.
    Active,
    /// Nobody is let in, those inside are hung up.
    Ending,
    /// Over.
    Ended,
}

/// What moves a conference on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    /// First admitted join, or an operator's wish.
    Activate,
    /// The mixer has it.
    Ready,
    /// The mixer has it, and its definition wants a host first.
    ReadyWithoutHost,
    /// The host joined.
    HostJoined,
    /// The host left, and its definition does not let the others go on.
    HostLeft,
    /// A command, a rule or a failure ends it.
    End,
    /// The last endpoint left.
    Emptied,
}

/// Every permitted step. What is not here does not happen.
const STEPS: [(State, Trigger, State); 16] = [
    (State::Scheduled, Trigger::Activate, State::Activating),
    (State::Scheduled, Trigger::End, State::Ended),
    (State::Activating, Trigger::Ready, State::Active),
    (State::Activating, Trigger::ReadyWithoutHost, State::Waiting),
    (State::Activating, Trigger::End, State::Ending),
    (State::Activating, Trigger::Emptied, State::Ended),
    (State::Waiting, Trigger::HostJoined, State::Active),
    (State::Waiting, Trigger::End, State::Ending),
    (State::Waiting, Trigger::Emptied, State::Ended),
    (State::Active, Trigger::HostLeft, State::Waiting),
    (State::Active, Trigger::End, State::Ending),
    (State::Active, Trigger::Emptied, State::Ended),
    // A late answer of the mixer changes nothing any more.
    (State::Ending, Trigger::Ready, State::Ending),
    (State::Ending, Trigger::ReadyWithoutHost, State::Ending),
    (State::Ending, Trigger::End, State::Ending),
    (State::Ending, Trigger::Emptied, State::Ended),
];

impl State {
    /// The state after `trigger`, or none when it has no meaning here.
    #[must_use]
    pub fn after(self, trigger: Trigger) -> Option<Self> {
        STEPS
            .iter()
            .find(|(from, by, _)| *from == self && *by == trigger)
            .map(|(_, _, to)| *to)
    }

    /// Name for people and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Activating => "activating",
            Self::Waiting => "waiting",
            Self::Active => "active",
            Self::Ending => "ending",
            Self::Ended => "ended",
        }
    }

    /// Whether a join would be let in, as far as the state is concerned (RFC 4575 5.5.2 `active`).
    #[must_use]
    pub fn admits(self) -> bool {
        match self {
            Self::Scheduled | Self::Activating | Self::Waiting | Self::Active => true,
            Self::Ending | Self::Ended => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const STATES: [State; 6] = [
        State::Scheduled,
        State::Activating,
        State::Waiting,
        State::Active,
        State::Ending,
        State::Ended,
    ];
    const TRIGGERS: [Trigger; 7] = [
        Trigger::Activate,
        Trigger::Ready,
        Trigger::ReadyWithoutHost,
        Trigger::HostJoined,
        Trigger::HostLeft,
        Trigger::End,
        Trigger::Emptied,
    ];

    /// The table as a person would draw it; `.` is "no meaning".
    const DRAWN: [(State, &str); 6] = [
        // Activate Ready ReadyWithoutHost HostJoined HostLeft End Emptied
        (State::Scheduled, "activating . . . . ended ."),
        (State::Activating, ". active waiting . . ending ended"),
        (State::Waiting, ". . . active . ending ended"),
        (State::Active, ". . . . waiting ending ended"),
        (State::Ending, ". ending ending . . ending ended"),
        (State::Ended, ". . . . . . ."),
    ];

    #[test]
    fn every_cell_is_as_drawn() {
        for (state, row) in DRAWN {
            let cells: Vec<_> = TRIGGERS
                .iter()
                .map(|trigger| state.after(*trigger).map_or(".", State::as_str))
                .collect();
            assert_eq!(cells.join(" "), row, "{state:?}");
        }
    }

    #[test]
    fn no_step_is_listed_twice() {
        let steps: BTreeSet<_> = STEPS.iter().map(|(from, by, _)| (*from, *by)).collect();
        assert_eq!(steps.len(), STEPS.len());
    }

    #[test]
    fn ended_is_reachable_from_everywhere_and_left_by_nothing() {
        for state in STATES {
            let mut now = state;
            for trigger in [Trigger::End, Trigger::Emptied] {
                now = now.after(trigger).unwrap_or(now);
            }
            assert_eq!(now, State::Ended, "from {state:?}");
            assert!(
                TRIGGERS
                    .iter()
                    .all(|trigger| State::Ended.after(*trigger).is_none())
            );
        }
    }

    #[test]
    fn nobody_is_admitted_to_the_end() {
        assert_eq!(STATES.map(State::admits), [true, true, true, true, false, false]);
    }
}
