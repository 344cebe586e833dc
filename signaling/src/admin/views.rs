//! What the operator's API says, as JSON. The CLI reads the same types.

use serde::{Deserialize, Serialize};
use signaling_core::effect::{ConferenceView, ParticipantView, StatusView};
use signaling_core::time::WallTime;

/// `GET /api/v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Node name.
    pub node: String,
    /// Version of the program.
    pub version: String,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Conferences now.
    pub conferences: usize,
    /// Participants now.
    pub participants: usize,
    /// SIP transactions now.
    pub transactions: usize,
    /// Dialogs now.
    pub dialogs: usize,
    /// Whether the database takes writes.
    pub database_up: bool,
    /// Mixers.
    pub mixers: Vec<MixerStatus>,
}

/// One mixer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MixerStatus {
    /// Its URL.
    pub url: String,
    /// Whether it answers.
    pub up: bool,
}

/// `GET /api/v1/conferences/{id}`, and one element of `GET /api/v1/conferences`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conference {
    /// Id.
    pub conference: String,
    /// Life-cycle state.
    pub state: String,
    /// Locked.
    pub locked: bool,
    /// Mixer URL.
    pub mixer: String,
    /// When activated, RFC 3339, UTC.
    pub activated: String,
    /// Participants in order of joining.
    pub participants: Vec<Participant>,
}

/// One participant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Id for commands.
    pub participant: String,
    /// SIP address.
    pub uri: String,
    /// Display name.
    pub display_name: String,
    /// Endpoint status (RFC 4575).
    pub status: String,
    /// Muted by command.
    pub muted: bool,
    /// Talks now.
    pub talking: bool,
    /// Codec name.
    pub codec: String,
    /// When joined, RFC 3339, UTC.
    pub joined: String,
    /// SIP Call-ID.
    pub call_id: String,
}

/// Body of `mute` and `lock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// On or off.
    pub on: bool,
}

/// RFC 9457 problem document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind: `not_found`, `refused`, `invalid`, `unauthorized`, `forbidden`, `busy`, `timeout`.
    #[serde(rename = "type")]
    pub kind: String,
    /// HTTP status.
    pub status: u16,
    /// One line for a person.
    pub detail: String,
}

/// What the shell adds to the core's status.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub(super) node: String,
    pub(super) uptime_s: u64,
    pub(super) database_up: bool,
}

impl Status {
    pub(super) fn new(view: StatusView, around: Surroundings) -> Self {
        Self {
            node: around.node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: around.uptime_s,
            conferences: view.conferences,
            participants: view.participants,
            transactions: view.transactions,
            dialogs: view.dialogs,
            database_up: around.database_up,
            mixers: view
                .mixers
                .into_iter()
                .map(|(url, up)| MixerStatus { url, up })
                .collect(),
        }
    }
}

impl From<ConferenceView> for Conference {
    fn from(view: ConferenceView) -> Self {
        Self {
            conference: view.conference,
            state: view.state.to_owned(),
            locked: view.locked,
            mixer: view.mixer,
            activated: rfc3339(view.activated),
            participants: view.participants.into_iter().map(Participant::from).collect(),
        }
    }
}

impl From<ParticipantView> for Participant {
    fn from(view: ParticipantView) -> Self {
        Self {
            participant: view.participant,
            uri: view.uri,
            display_name: view.display_name,
            status: view.status.to_owned(),
            muted: view.muted,
            talking: view.talking,
            codec: view.codec.to_owned(),
            joined: rfc3339(view.joined),
            call_id: view.call_id,
        }
    }
}

/// `2026-11-20T18:40:00.123Z`.
#[must_use]
pub fn rfc3339(time: WallTime) -> String {
    let (seconds, milliseconds) = (time.0 / 1000, time.0 % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 1970 to year, month, day in the proleptic Gregorian calendar: count from 0000-03-01,
    // so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_write_them() {
        for (milliseconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_827_696_789, "2000-02-29T12:34:56.789Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_795_200_000_001, "2026-11-20T18:40:00.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(WallTime(milliseconds)), text);
        }
    }
}
