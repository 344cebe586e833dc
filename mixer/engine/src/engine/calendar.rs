//! Which conferences tick in which of the 20 slots of a tick.

use crate::command::ConferenceIndex;
use crate::conference::PHASES;

/// Conferences by phase. Every list has room for all of them from the start.
#[derive(Debug)]
pub(crate) struct Calendar {
    phases: [Vec<ConferenceIndex>; PHASES],
}

impl Calendar {
    pub(crate) fn new(conferences: usize) -> Self {
        Self {
            phases: std::array::from_fn(|_| Vec::with_capacity(conferences)),
        }
    }

    pub(crate) fn add(&mut self, phase: usize, at: ConferenceIndex) {
        if let Some(list) = self.phases.get_mut(phase) {
            assert!(list.len() < list.capacity(), "a conference is in one phase only");
            list.push(at);
        }
    }

    pub(crate) fn remove(&mut self, phase: usize, at: ConferenceIndex) {
        if let Some(list) = self.phases.get_mut(phase)
            && let Some(place) = list.iter().position(|&other| other == at)
        {
            list.swap_remove(place);
        }
    }

    /// All phases, each in the order in which its conferences tick.
    pub(crate) fn lists(&self) -> &[Vec<ConferenceIndex>] {
        &self.phases
    }

    /// The `place`th conference of a phase.
    pub(crate) fn get(&self, phase: usize, place: usize) -> Option<ConferenceIndex> {
        self.phases.get(phase)?.get(place).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conference_is_due_in_its_phase_until_removed() {
        let mut calendar = Calendar::new(3);
        for at in 0..3 {
            calendar.add(19, ConferenceIndex(at));
        }
        calendar.remove(19, ConferenceIndex(0));
        let due: Vec<_> = (0..)
            .map_while(|place| calendar.get(19, place))
            .map(|at| at.0)
            .collect();
        assert_eq!(due, [2, 1]);
        assert_eq!(calendar.get(0, 0), None);
        assert_eq!(calendar.get(PHASES, 0), None);
    }
}
