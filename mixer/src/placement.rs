//! Who gets what: ports and cores to workers, conferences to workers and phases.

use crate::worker::WorkerId;
use mixer_engine::engine::slices::{SLICE, SLICES};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use thread_priority::unix::{
    RealtimeThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};
use thread_priority::{ThreadPriority, ThreadPriorityValue};

/// The local UDP ports of one worker, both ends included. Starts with an even port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortBlock {
    /// First port, even.
    pub first: u16,
    /// Last port, odd.
    pub last: u16,
}

impl PortBlock {
    /// RTP ports in it: every even one, its odd neighbour being RTCP's (RFC 3550 11).
    pub fn rtp_ports(self) -> impl DoubleEndedIterator<Item = u16> + Clone {
        (self.first..=self.last).step_by(2)
    }

    /// How many endpoints it can carry.
    #[must_use]
    pub fn endpoints(self) -> u32 {
        (u32::from(self.last) - u32::from(self.first)).div_ceil(2)
    }

    /// Whether a port lies in it.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// Why a layout of ports or cores is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// The range has no pair of ports for every worker.
    #[error("ports {first}-{last} are too few for {workers} workers")]
    TooFewPorts {
        /// First port of the range.
        first: u16,
        /// Last port of the range.
        last: u16,
        /// Workers to serve.
        workers: usize,
    },
    /// No worker at all, or more than [`crate::limits::WORKERS_MAX`].
    #[error("{0} workers: must be 1 to {max}", max = crate::limits::WORKERS_MAX)]
    WorkerCount(usize),
    /// Two workers on one core.
    #[error("core {0} is given to two workers")]
    CoreTwice(usize),
    /// A core that does not exist or is not allowed to this process.
    #[error("core {0} does not exist or is not allowed to this process")]
    NoSuchCore(usize),
}

/// Divides `first..=last` into one block per worker, all of the same size.
///
/// One worker gets the whole range. With several, every block consists of a few naturally aligned
/// powers of two ("grains"), so that few mask rules of a NIC can steer a block to its queue; the
/// price is at most about an eighth of the range.
///
/// # Errors
/// No worker, or a range too small.
pub fn port_blocks(first: u16, last: u16, workers: usize) -> Result<Vec<PortBlock>, PlacementError> {
    if workers == 0 || workers > crate::limits::WORKERS_MAX {
        return Err(PlacementError::WorkerCount(workers));
    }
    let too_few = PlacementError::TooFewPorts { first, last, workers };
    let count = u32::try_from(workers).map_err(|_| too_few)?;
    let (from, end) = (u32::from(first), u32::from(last) + 1);
    let share = end.saturating_sub(from) / count;
    let grain = if workers == 1 {
        2
    } else {
        previous_power_of_two(share / GRAINS).max(2)
    };
    let from = from.next_multiple_of(grain);
    let size = end.saturating_sub(from) / count / grain * grain;
    if size == 0 {
        return Err(too_few);
    }
    let block = |worker: u32| {
        let start = from + worker * size;
        let (first, last) = (u16::try_from(start).ok()?, u16::try_from(start + size - 1).ok()?);
        Some(PortBlock { first, last })
    };
    (0..count).map(|worker| block(worker).ok_or(too_few)).collect()
}

/// A block has about so many grains at least.
const GRAINS: u32 = 8;

fn previous_power_of_two(number: u32) -> u32 {
    number.checked_ilog2().map_or(0, |log| 1 << log)
}

/// How full a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerLoad {
    /// Which.
    pub worker: WorkerId,
    /// Endpoints now.
    pub endpoints: u32,
    /// Endpoints at most.
    pub endpoints_max: u32,
    /// Conferences now.
    pub conferences: u32,
    /// Conferences at most.
    pub conferences_max: u32,
    /// False while it drains or has died.
    pub accepts: bool,
}

/// The worker for a new conference: that with the fewest endpoints, then the fewest conferences,
/// then the lowest number. `None` when all are full.
#[must_use]
pub fn choose_worker(loads: &[WorkerLoad]) -> Option<WorkerId> {
    loads
        .iter()
        .filter(|load| {
            load.accepts && load.endpoints < load.endpoints_max && load.conferences < load.conferences_max
        })
        .min_by_key(|load| (load.endpoints, load.conferences, load.worker))
        .map(|load| load.worker)
}

/// The phase for a new conference among `rooms`, of which phase and members are given: that in whose turn the fewest
/// are sent to, so that all turns of a tick cost the same; of those slots in which a turn begins. Ties go to the lowest.
#[must_use]
pub fn choose_phase(rooms: impl Iterator<Item = (u8, u32)>) -> u8 {
    let mut sent = [0; 20];
    for (phase, members) in rooms {
        let slice = members.div_ceil(SLICES).max(SLICE);
        let mut left = members + ROOM_LOAD;
        for slot in 0..SLICES {
            let now = left.min(slice + ROOM_LOAD);
            sent[(usize::from(phase) + slot as usize) % 20] += now;
            left -= now;
        }
    }
    // A turn runs its own slot after those since the last turn.
    let slots = usize::try_from(crate::limits::SLOTS_PER_TURN).unwrap_or(1);
    let turn = |phase: u8| -> u32 {
        (0..slots)
            .map(|before| sent[(usize::from(phase) + 20 - before) % 20])
            .sum()
    };
    (0..20u8)
        .filter(|phase| u64::from(*phase) % crate::limits::SLOTS_PER_TURN == 0)
        .min_by_key(|phase| turn(*phase))
        .unwrap_or(0)
}

/// A room without members counts as so many.
const ROOM_LOAD: u32 = 3;

/// The cores that a thread of this process can be pinned to, in order: all of its cpuset, those that the kernel
/// keeps other threads off (`isolcpus`) included.
#[must_use]
pub fn available_cores() -> Vec<usize> {
    // Asked for all, the kernel gives what is allowed; by a thread of its own, so that the caller stays where it is.
    let ask = || {
        let mut all = CpuSet::new();
        (0..CpuSet::MAX_CPU).for_each(|core| all.set(core));
        // Refused, the thread has what its maker has.
        let _ = sched_setaffinity(None, &all);
        ordinary_cores()
    };
    std::thread::spawn(ask).join().unwrap_or_default()
}

/// The cores that the calling thread runs on while it is not pinned, in order.
#[must_use]
pub fn ordinary_cores() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

/// Puts the calling thread before ordinary ones on its core (SCHED_FIFO, lowest place), so that another
/// process's burst does not delay packets. Only for threads that sleep between slots. False when the
/// system does not allow it (CAP_SYS_NICE) or there is only one core, which others need as well.
#[must_use]
pub fn prefer_realtime() -> bool {
    let lowest = ThreadPriorityValue::try_from(1_u8);
    available_cores().len() > 1
        && lowest.is_ok_and(|lowest| {
            set_thread_priority_and_policy(
                thread_native_id(),
                ThreadPriority::Crossplatform(lowest),
                ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo),
            )
            .is_ok()
        })
}

/// What a valid core map means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreMap {
    /// No core is left for control and the kernel's housekeeping: worth a warning.
    pub no_housekeeping_core: bool,
}

/// Checks the cores of the workers against those available.
///
/// # Errors
/// No core, a core twice, or one that is not available.
pub fn check_cores(cores: &[usize], available: &[usize]) -> Result<CoreMap, PlacementError> {
    if cores.is_empty() || cores.len() > crate::limits::WORKERS_MAX {
        return Err(PlacementError::WorkerCount(cores.len()));
    }
    for (at, core) in cores.iter().enumerate() {
        if cores[..at].contains(core) {
            return Err(PlacementError::CoreTwice(*core));
        }
        if !available.contains(core) {
            return Err(PlacementError::NoSuchCore(*core));
        }
    }
    Ok(CoreMap {
        no_housekeeping_core: cores.len() == available.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_worker_gets_the_default_range_whole() {
        let blocks = port_blocks(10_000, 32_767, 1).unwrap();
        assert_eq!(
            blocks,
            [PortBlock {
                first: 10_000,
                last: 32_767
            }]
        );
        assert_eq!(blocks[0].endpoints(), 11_384);
        assert_eq!(blocks[0].rtp_ports().count(), 11_384);
    }

    #[test]
    fn an_odd_end_is_left_out() {
        assert_eq!(
            port_blocks(20_001, 20_006, 1).unwrap(),
            [PortBlock {
                first: 20_002,
                last: 20_005
            }]
        );
    }

    #[test]
    fn too_few_ports_are_refused() {
        assert!(matches!(
            port_blocks(20_000, 20_002, 2),
            Err(PlacementError::TooFewPorts { .. })
        ));
        assert!(matches!(
            port_blocks(20_001, 20_001, 1),
            Err(PlacementError::TooFewPorts { .. })
        ));
        assert!(matches!(
            port_blocks(20_002, 20_000, 1),
            Err(PlacementError::TooFewPorts { .. })
        ));
        assert_eq!(
            port_blocks(10_000, 32_767, 0),
            Err(PlacementError::WorkerCount(0))
        );
    }

    proptest! {
        #[test]
        fn blocks_are_equal_disjoint_inside_and_of_few_grains(
            first in 1_024u16..60_000, length in 256u16..5_000, workers in 1usize..16,
        ) {
            let last = first.saturating_add(length);
            let blocks = port_blocks(first, last, workers).unwrap();
            prop_assert_eq!(blocks.len(), workers);
            let size = blocks[0].last - blocks[0].first + 1;
            let mut free_from = first;
            for block in &blocks {
                prop_assert!(block.first >= free_from && block.last <= last);
                prop_assert_eq!(block.last - block.first + 1, size);
                prop_assert_eq!(block.first % 2, 0);
                prop_assert_eq!(u32::from(size) / 2, block.endpoints());
                free_from = block.last.saturating_add(1);
            }
            let used = usize::from(size) * workers;
            let range = usize::from(last - first) + 1;
            prop_assert!(used * 4 >= range * 3 - 8 * workers, "{} of {}", used, range);
            if workers > 1 {
                let grain_bits = size.trailing_zeros().min(blocks[0].first.trailing_zeros());
                prop_assert!(size >> grain_bits <= 16, "{:?} needs too many mask rules", blocks[0]);
            }
        }
    }

    fn load(worker: u16, endpoints: u32, conferences: u32) -> WorkerLoad {
        let worker = WorkerId(worker);
        WorkerLoad {
            worker,
            endpoints,
            endpoints_max: 10,
            conferences,
            conferences_max: 5,
            accepts: true,
        }
    }

    #[test]
    fn the_emptiest_worker_is_chosen() {
        assert_eq!(
            choose_worker(&[load(0, 3, 1), load(1, 2, 4), load(2, 2, 2)]),
            Some(WorkerId(2))
        );
        assert_eq!(choose_worker(&[load(0, 2, 2), load(1, 2, 2)]), Some(WorkerId(0)));
        assert_eq!(choose_worker(&[load(0, 10, 1), load(1, 1, 5)]), None);
        assert_eq!(
            choose_worker(&[
                WorkerLoad {
                    accepts: false,
                    ..load(0, 0, 0)
                },
                load(1, 9, 1)
            ]),
            Some(WorkerId(1))
        );
    }

    #[test]
    fn the_emptiest_phase_is_chosen() {
        let rooms = |sizes: [u32; 20]| choose_phase((0..20).zip(sizes));
        let mut members = [5; 20];
        assert_eq!(rooms(members), 0);
        members[18] = 4;
        assert_eq!(rooms(members), 18);
        members[17] = 3;
        members[13] = 1;
        assert_eq!(
            rooms(members),
            14,
            "a turn runs two slots and begins in an even one"
        );
        assert_eq!(
            choose_phase([(0, 0), (2, 0)].into_iter()),
            4,
            "a room is a load in itself"
        );
    }

    #[test]
    fn the_slices_of_a_large_room_count_where_they_are_sent() {
        let mut rooms = vec![(0, 5_000)];
        for _ in 0..15 {
            let phase = choose_phase(rooms.iter().copied());
            rooms.push((phase, 200));
        }
        // Its tick is in phase 0 and its last slice in slot 7, which the turn of phase 8 runs.
        let chosen = |phase: u8| rooms[1..].iter().filter(|room| room.0 == phase).count();
        assert_eq!([10, 12, 14, 16, 18].map(chosen), [3; 5], "{rooms:?}");
    }

    #[test]
    fn core_maps() {
        assert_eq!(
            check_cores(&[1], &[0, 1]),
            Ok(CoreMap {
                no_housekeeping_core: false
            })
        );
        assert_eq!(
            check_cores(&[1, 0], &[0, 1]),
            Ok(CoreMap {
                no_housekeeping_core: true
            })
        );
        assert_eq!(check_cores(&[1, 1], &[0, 1]), Err(PlacementError::CoreTwice(1)));
        assert_eq!(check_cores(&[2], &[0, 1]), Err(PlacementError::NoSuchCore(2)));
        assert_eq!(check_cores(&[], &[0, 1]), Err(PlacementError::WorkerCount(0)));
    }
}
