//! The published counters of one worker: plain atomics with a single writer.

use std::sync::atomic::{AtomicU64, Ordering};

use mixer_engine::counters::Counters;
use serde::{Deserialize, Serialize};

use crate::io::IoCounters;

/// Counters of the worker's loop itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerCounters {
    /// Turns of the loop.
    pub turns: u64,
    /// Slots run.
    pub slots: u64,
    /// Slots run a whole slot or more after their due time.
    pub slots_late: u64,
    /// Late slots that came due while the worker waited: not its own work made them late, but whatever
    /// had its core. Begins anew with an upgrade.
    #[serde(skip)]
    pub slots_overslept: u64,
    /// Slots run muted or left out, because the worker stood still for too long.
    pub slots_skipped: u64,
    /// Nanoseconds spent in turns, that is not waiting.
    pub busy_ns: u64,
    /// Nanoseconds since the worker's start.
    pub alive_ns: u64,
    /// Requests applied.
    pub requests: u64,
    /// Times the reply ring was full, so that requests had to wait.
    pub replies_full: u64,
    /// Endpoints now.
    pub endpoints: u64,
    /// Conferences now.
    pub conferences: u64,
    /// Inputs of the engine that came after the recording was full.
    #[serde(skip)]
    pub inputs_left_out: u64,
}

/// Everything one worker counts, at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    /// Of its engine.
    pub engine: Counters,
    /// Of its packet I/O.
    pub io: IoCounters,
    /// Of its loop.
    pub worker: WorkerCounters,
}

/// Declares the atomic twin of counter structs, with `store` and `load` that cannot forget a field:
/// both name every field and the structs are destructured without `..`.
macro_rules! twin {
    ($(#[$doc:meta])* $name:ident of $plain:ty {
        $($field:ident,)*
        $([$array:ident; $length:expr],)*
    }) => {
        $(#[$doc])*
        #[derive(Debug)]
        struct $name {
            $($field: AtomicU64,)*
            $($array: [AtomicU64; $length],)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: AtomicU64::new(0),)*
                    $($array: std::array::from_fn(|_| AtomicU64::new(0)),)*
                }
            }
        }

        impl $name {
            fn store(&self, plain: &$plain) {
                type Plain = $plain;
                let Plain { $($field,)* $($array,)* } = plain;
                $(self.$field.store(*$field, Ordering::Relaxed);)*
                $(for (cell, value) in self.$array.iter().zip($array) {
                    cell.store(*value, Ordering::Relaxed);
                })*
            }

            fn load(&self) -> $plain {
                type Plain = $plain;
                Plain {
                    $($field: self.$field.load(Ordering::Relaxed),)*
                    $($array: std::array::from_fn(|at| self.$array[at].load(Ordering::Relaxed)),)*
                }
            }
        }
    };
}

twin! {
    EngineCells of Counters {
        rtp_received, rtp_received_bytes, rtp_sent, rtp_sent_bytes,
        ticks, passthrough, frames_left_out, partials_added, partials_missing, digits, conferences_failed, events_lost,
        [dropped; mixer_engine::counters::DropReason::ALL.len()],
        [frames; mixer_engine::counters::FrameOutcome::ALL.len()],
        [encodes; mixer_engine::media::Codec::ALL.len()],
    }
}

twin! {
    IoCells of IoCounters {
        received, sent, truncated, receive_ring_full, send_failed, no_send_buffer,
        no_remote, unknown_flow, socket_errors, rearmed, completion_overflow,
        unknown_port, malformed, bad_checksum, wrong_vlan, no_route, interface_down, handed_over, taken_over, handoff_full,
    }
}

twin! {
    WorkerCells of WorkerCounters {
        turns, slots, slots_late, slots_overslept, slots_skipped, busy_ns, alive_ns, requests, replies_full,
        endpoints, conferences, inputs_left_out,
    }
}

/// Counters as published, at most once per turn. One writer, the worker; readers compute differences,
/// nobody resets. Aligned so that no reader's cache line is shared with anything the worker writes
/// more often (two lines: processors fetch them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerStats {
    engine: EngineCells,
    io: IoCells,
    worker: WorkerCells,
}

impl WorkerStats {
    /// Publishes. Only the worker calls it.
    pub fn publish(&self, engine: &Counters, io: &IoCounters, worker: &WorkerCounters) {
        self.engine.store(engine);
        self.io.store(io);
        self.worker.store(worker);
    }

    /// The counters as last published. Fields may stem from two neighbouring turns.
    #[must_use]
    pub fn read(&self) -> StatsSnapshot {
        StatsSnapshot {
            engine: self.engine.load(),
            io: self.io.load(),
            worker: self.worker.load(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mixer_engine::counters::{DropReason, FrameOutcome};

    #[test]
    fn what_is_published_is_read() {
        let stats = WorkerStats::default();
        let mut engine = Counters {
            rtp_sent: 3,
            events_lost: 4,
            ..Counters::default()
        };
        engine.drop_packet(DropReason::RingFull);
        engine.frame(FrameOutcome::Skew);
        engine.encodes[2] = 9;
        let io = IoCounters {
            truncated: 7,
            completion_overflow: 8,
            ..IoCounters::default()
        };
        let worker = WorkerCounters {
            turns: 11,
            conferences: 12,
            ..WorkerCounters::default()
        };
        stats.publish(&engine, &io, &worker);
        assert_eq!(stats.read(), StatsSnapshot { engine, io, worker });
    }

    #[test]
    fn aligned_to_a_pair_of_cache_lines() {
        assert_eq!(align_of::<WorkerStats>(), 128);
    }
}
