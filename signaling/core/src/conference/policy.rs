//! Who may do what: each command is checked here, once, for every face.
//!
//! | command | trusted peer | operator | system |
//! |---|---|---|---|
//! | create | where rooms are created by callers | yes | no |
//! | join | unless locked, full or ending | no: has no endpoint | no |
//! | leave | its own endpoint | no: that is kick | yes |
//! | kick, mute, unmute, lock, unlock, end | no (roles come later) | yes | yes |

use thiserror::Error;

use super::lifecycle::State;

/// Who asks, as far as it was proved. A face never raises trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// A peer of a trusted network.
    Trusted {
        /// Its address of record, as it states it.
        identity: String,
    },
    /// An operator over the CLI or HTTP.
    Operator,
    /// The appliance itself.
    System(SystemReason),
}

/// Why the appliance acts of its own accord.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemReason {
    /// A mixer failed or was lost.
    Mixer,
    /// A timer ran out (ACK, session, media).
    Timer,
    /// Reconciliation after a restart.
    Restart,
    /// The conference is ending.
    Ending,
}

/// What is asked, as far as policy is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// Make a conference.
    Create,
    /// Come in.
    Join,
    /// Go.
    Leave,
    /// Remove somebody.
    Kick,
    /// Mute somebody.
    Mute,
    /// Unmute somebody.
    Unmute,
    /// No more joins.
    Lock,
    /// Joins again.
    Unlock,
    /// End the conference.
    End,
}

/// Why a command was refused. Faces map this to their own codes in one table each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum Refused {
    /// No such conference.
    #[error("no such conference")]
    NotFound,
    /// No such endpoint or participant in it.
    #[error("no such participant")]
    NoSuchParticipant,
    /// The id is not one that a conference can have.
    #[error("not a conference id: 1 to 64 of letters, digits, hyphen, underscore and dot")]
    BadName,
    /// The conference is locked.
    #[error("the conference is locked")]
    Locked,
    /// The conference has as many endpoints as it may have.
    #[error("the conference is full")]
    Full,
    /// The conference is ending.
    #[error("the conference is ending")]
    Ending,
    /// This node has as many conferences as it may have.
    #[error("too many conferences")]
    TooManyConferences,
    /// Who asks may not do that.
    #[error("not allowed")]
    NotAllowed,
}

/// What a conference looks like to policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Situation {
    pub(super) state: State,
    pub(super) locked: bool,
    pub(super) full: bool,
}

/// Whether `asker` may do `command`. `conference` is none when there is none of that id;
/// `auto_create` says whether callers may create.
pub(super) fn check(
    command: Command,
    asker: &Asker,
    conference: Option<Situation>,
    auto_create: bool,
) -> Result<(), Refused> {
    let Some(conference) = conference else {
        return match (command, asker) {
            (Command::Create | Command::Join, Asker::Trusted { .. }) if auto_create => Ok(()),
            (Command::Create, Asker::Operator) => Ok(()),
            (Command::Create, _) => Err(Refused::NotAllowed),
            (_, _) => Err(Refused::NotFound),
        };
    };
    match (command, asker) {
        (Command::Join, Asker::Trusted { .. }) => admission(conference),
        (Command::Create, Asker::Trusted { .. } | Asker::Operator)
        | (Command::Leave, Asker::Trusted { .. } | Asker::System(_))
        | (
            Command::Kick | Command::Mute | Command::Unmute | Command::Lock | Command::Unlock | Command::End,
            Asker::Operator | Asker::System(_),
        ) => Ok(()),
        (_, _) => Err(Refused::NotAllowed),
    }
}

fn admission(conference: Situation) -> Result<(), Refused> {
    if !conference.state.admits() {
        Err(Refused::Ending)
    } else if conference.locked {
        Err(Refused::Locked)
    } else if conference.full {
        Err(Refused::Full)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Situation = Situation {
        state: State::Active,
        locked: false,
        full: false,
    };
    const COMMANDS: [Command; 9] = [
        Command::Create,
        Command::Join,
        Command::Leave,
        Command::Kick,
        Command::Mute,
        Command::Unmute,
        Command::Lock,
        Command::Unlock,
        Command::End,
    ];

    fn trusted() -> Asker {
        Asker::Trusted {
            identity: "sip:alice@example.com".to_owned(),
        }
    }

    fn row(asker: &Asker, conference: Option<Situation>, auto_create: bool) -> [Option<Refused>; 9] {
        COMMANDS.map(|command| check(command, asker, conference, auto_create).err())
    }

    #[test]
    fn rows_of_the_table() {
        let (no, yes) = (Some(Refused::NotAllowed), None);
        //                                     create join leave kick mute unmute lock unlock end
        assert_eq!(
            row(&trusted(), Some(OPEN), true),
            [yes, yes, yes, no, no, no, no, no, no]
        );
        assert_eq!(
            row(&Asker::Operator, Some(OPEN), true),
            [yes, no, no, yes, yes, yes, yes, yes, yes]
        );
        let system = Asker::System(SystemReason::Timer);
        assert_eq!(
            row(&system, Some(OPEN), true),
            [no, no, yes, yes, yes, yes, yes, yes, yes]
        );
    }

    #[test]
    fn without_a_conference_only_creation_is_possible() {
        let absent = Some(Refused::NotFound);
        let mut expected = [absent; 9];
        expected[0] = None;
        expected[1] = None;
        assert_eq!(row(&trusted(), None, true), expected);
        expected[0] = Some(Refused::NotAllowed);
        expected[1] = absent;
        assert_eq!(row(&trusted(), None, false), expected);
        expected[0] = None;
        assert_eq!(row(&Asker::Operator, None, false), expected);
    }

    #[test]
    fn joins_are_refused_with_the_reason_that_lasts_longest() {
        let join = |situation| check(Command::Join, &trusted(), Some(situation), true);
        assert_eq!(join(Situation { locked: true, ..OPEN }), Err(Refused::Locked));
        assert_eq!(join(Situation { full: true, ..OPEN }), Err(Refused::Full));
        assert_eq!(
            join(Situation {
                locked: true,
                full: true,
                ..OPEN
            }),
            Err(Refused::Locked)
        );
        let ending = Situation {
            state: State::Ending,
            locked: true,
            full: true,
        };
        assert_eq!(join(ending), Err(Refused::Ending));
    }
}
