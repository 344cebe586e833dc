//! CPU time and memory of other processes, from `/proc`.

use std::fs;
use std::time::Duration;

use mixer_engine::time::Timestamp;
use serde::Serialize;

/// Readings of one process.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Process id.
    pub pid: u32,
    /// User and system time so far.
    pub cpu: Duration,
    /// Resident memory, KiB.
    pub rss_kib: u64,
    /// When it was read.
    pub at: Timestamp,
}

/// What a process used between two samples.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Usage {
    /// Process id.
    pub pid: u32,
    /// Percent of one core.
    pub cpu_percent: f64,
    /// Resident memory at the end, KiB.
    pub rss_kib: u64,
    /// Resident memory above the base, KiB.
    pub rss_above_base_kib: i64,
}

/// `USER_HZ`: the unit of `/proc/PID/stat`, 100 on every Linux architecture Rust runs on.
const TICKS_PER_SECOND: u64 = 100;

/// Why a process cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("process {pid}: {what}")]
pub struct ProcessError {
    /// Which.
    pub pid: u32,
    /// What was wrong.
    pub what: String,
}

/// Reads one process.
///
/// # Errors
/// When there is no such process or its files cannot be understood.
pub fn sample(pid: u32, at: Timestamp) -> Result<Sample, ProcessError> {
    let read = |name: &str| {
        fs::read_to_string(format!("/proc/{pid}/{name}")).map_err(|error| ProcessError {
            pid,
            what: format!("{name}: {error}"),
        })
    };
    let unclear = |what: &str| ProcessError {
        pid,
        what: format!("{what} not understood"),
    };
    let ticks = cpu_ticks(&read("stat")?).ok_or_else(|| unclear("stat"))?;
    let rss_kib = resident_kib(&read("status")?).ok_or_else(|| unclear("status"))?;
    Ok(Sample {
        pid,
        cpu: Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND),
        rss_kib,
        at,
    })
}

/// Time that the living threads of a process have run, to the nanosecond; what a thread that runs now has run since
/// its last interruption is not in it.
///
/// # Errors
/// When there is no such process or its files cannot be understood.
pub fn run_time(pid: u32) -> Result<Duration, ProcessError> {
    let failed = |error: std::io::Error| ProcessError {
        pid,
        what: format!("schedstat: {error}"),
    };
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).map_err(failed)? {
        let path = task.map_err(failed)?.path().join("schedstat");
        // A thread may have ended since the folder was read.
        let Ok(text) = fs::read_to_string(path) else {
            continue;
        };
        sum += run_time_ns(&text).ok_or_else(|| failed(std::io::ErrorKind::InvalidData.into()))?;
    }
    Ok(Duration::from_nanos(sum))
}

/// First field: time on a CPU.
fn run_time_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

/// Usage between two samples; memory against `base_kib`.
#[must_use]
pub fn usage(before: &Sample, after: &Sample, base_kib: u64) -> Usage {
    let wall = after.at.since(before.at).as_secs_f64();
    let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    Usage {
        pid: after.pid,
        cpu_percent: if wall > 0.0 { 100.0 * cpu / wall } else { 0.0 },
        rss_kib: after.rss_kib,
        rss_above_base_kib: i64::try_from(after.rss_kib).unwrap_or(i64::MAX)
            - i64::try_from(base_kib).unwrap_or(0),
    }
}

/// Fields 14 and 15 (utime, stime); the name in parentheses may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 123 45 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(168));
        assert_eq!(run_time_ns("123456 789 10\n"), Some(123_456));
        assert_eq!(resident_kib("Name:\tx\nVmRSS:\t   5120 kB\n"), Some(5_120));
    }

    #[test]
    fn usage_is_percent_of_a_core() {
        let before = Sample {
            pid: 1,
            cpu: Duration::from_secs(10),
            rss_kib: 900,
            at: Timestamp(0),
        };
        let after = Sample {
            cpu: Duration::from_secs(12),
            rss_kib: 800,
            at: Timestamp(10_000_000_000),
            ..before
        };
        let usage = usage(&before, &after, 1_000);
        assert!((usage.cpu_percent - 20.0).abs() < 1e-9);
        assert_eq!(usage.rss_above_base_kib, -200);
    }

    #[test]
    fn this_process_can_be_read() {
        assert!(sample(std::process::id(), Timestamp(0)).unwrap().rss_kib > 0);
        assert!(run_time(std::process::id()).is_ok());
    }
}
