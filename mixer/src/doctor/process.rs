//! The kernel and what this process may do: versions, limits, capabilities, ports.

use super::host::{Host, Tools};
use super::{Line, Want};
use crate::capabilities::{Capability, Missing};
use crate::config::{Config, PortRange};
use crate::limits;

/// Bytes of packet memory that one worker shares with the kernel for the first of its queues on AF_XDP.
pub const XDP_BYTES_PER_WORKER: u64 =
    (limits::XDP_RECEIVE_CHUNKS + limits::XDP_TRANSMIT_CHUNKS) as u64 * crate::io::xdp::queue::CHUNK as u64;
/// Bytes of one of those that `nr_hugepages` counts.
const HUGE_PAGE: u64 = 2 << 20;
/// Free slabs that the kernel keeps of the memory of one frame to be sent.
const SLAB: &str = "sys/kernel/slab/kmalloc-1k/min_partial";
/// So many hold the burst of some thousand legs.
const SLABS_KEPT: u64 = 64;
/// Descriptors beside those of legs: log, control connections, rings.
const OTHER_FILES: u64 = 100;

pub(super) fn examine(host: &Host<impl Tools>, config: &Config, want: Want) -> Vec<Line> {
    let read = |path| host.read(path).unwrap_or_default();
    let (status, limits) = (read("proc/self/status"), read("proc/self/limits"));
    let held = held(&status);
    let workers = config.workers.cores.len() as u64;
    vec![
        kernel(&read("proc/sys/kernel/osrelease"), want),
        io_uring(host.read("proc/sys/kernel/io_uring_disabled").as_deref()),
        capabilities(&held, config.workers.spin, want),
        locked_memory(&limits, &held, workers * XDP_BYTES_PER_WORKER, want),
        open_files(&limits, u64::from(config.limits.endpoints)),
        huge_pages(
            host.read("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
                .as_deref(),
            workers,
            want,
        ),
        send_memory(host.read(SLAB).as_deref(), want),
        ports(
            config.io.ports,
            &read("proc/sys/net/ipv4/ip_local_port_range"),
            &read("proc/sys/net/ipv4/ip_local_reserved_ports"),
        ),
    ]
}

/// Major and minor number of a kernel release.
#[must_use]
pub fn kernel_version(release: &str) -> Option<(u16, u16)> {
    let digits = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().ok()
    };
    let (major, rest) = release.split_once('.')?;
    Some((digits(major)?, digits(rest)?))
}

fn kernel(release: &str, want: Want) -> Line {
    let what = "kernel";
    let newer = "apt-get install linux-image-amd64 (then boot it)";
    match kernel_version(release) {
        None => Line::warn(what, format!("release {release:?} is not understood")),
        Some(version) if version < (6, 1) => {
            Line::fail(what, format!("{release}: io_uring needs 6.1 or newer")).mend(newer)
        }
        Some((6, 17)) if want != Want::No => want
            .worse(
                what,
                format!(
                    "{release}: other projects leave 6.17 out of their AF_XDP tests because of a kernel fault (not tried here)"
                ),
            )
            .mend(newer),
        Some(_) => Line::ok(what, release),
    }
}

fn io_uring(disabled: Option<&str>) -> Line {
    let (what, mend) = ("io_uring", "sysctl -w kernel.io_uring_disabled=0");
    match disabled {
        // Before Linux 6.6 there was no switch.
        None | Some("0") => Line::ok(what, "allowed"),
        Some("1") => Line::warn(
            what,
            "kernel.io_uring_disabled=1: allowed to CAP_SYS_ADMIN and kernel.io_uring_group only",
        )
        .mend(mend),
        Some(other) => Line::fail(
            what,
            format!("kernel.io_uring_disabled={other}: allowed to nobody"),
        )
        .mend(mend),
    }
}

/// Capabilities in force, of `/proc/PID/status`.
fn held(status: &str) -> Vec<Capability> {
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0);
    let has = |capability: &Capability| bits >> capability.bit() & 1 == 1;
    Capability::ALL.into_iter().filter(has).collect()
}

fn capabilities(held: &[Capability], spin: bool, want: Want) -> Line {
    let what = "capabilities";
    if want != Want::No
        && let Some(missing) = Missing::of(&Capability::AF_XDP, held)
    {
        let names: Vec<&str> = missing
            .capabilities()
            .iter()
            .map(|capability| capability.name())
            .collect();
        let finding = format!("AF_XDP lacks {} (of this shell's user)", names.join(" "));
        return want.blocked(what, finding).mend(format!(
            "{}, or in the unit: {}",
            missing.setcap(),
            missing.unit_line()
        ));
    }
    let nice = Missing::of(&[Capability::SysNice], held).filter(|_| !spin);
    match nice {
        Some(missing) => Line::warn(
            what,
            "no CAP_SYS_NICE: other processes may hold up a worker's core",
        )
        .mend(format!(
            "{}, or in the unit: {}",
            missing.setcap(),
            missing.unit_line()
        )),
        None => Line::ok(what, "all that is needed"),
    }
}

/// Hard limit of a row of `/proc/PID/limits`; `None` is unlimited.
fn hard_limit(limits: &str, row: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix(row))?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Likewise the soft one, which a program may not exceed.
fn soft_limit(limits: &str, row: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix(row))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn locked_memory(limits: &str, held: &[Capability], needed: u64, want: Want) -> Line {
    let what = "locked memory";
    match soft_limit(limits, "Max locked memory") {
        _ if held.contains(&Capability::IpcLock) => Line::ok(what, "CAP_IPC_LOCK: no limit"),
        None => Line::ok(what, "no limit"),
        Some(limit) if limit >= needed => Line::ok(what, format!("{} MiB", limit >> 20)),
        Some(limit) => want
            .blocked(
                what,
                format!(
                    "{} MiB allowed, AF_XDP takes {} MiB ({} a worker)",
                    limit >> 20,
                    needed >> 20,
                    XDP_BYTES_PER_WORKER >> 20
                ),
            )
            .mend("ulimit -l unlimited, or in the unit: LimitMEMLOCK=infinity"),
    }
}

fn open_files(limits: &str, endpoints: u64) -> Line {
    let what = "open files";
    let needed = endpoints + u64::from(limits::CLOSING_FLOWS) + OTHER_FILES;
    match hard_limit(limits, "Max open files") {
        Some(hard) if hard < needed => Line::fail(
            what,
            format!("{hard} allowed, {endpoints} legs (limits.endpoints) take {needed}"),
        )
        .mend(format!(
            "ulimit -Hn {needed}, or in the unit: LimitNOFILE={needed}"
        )),
        Some(hard) => Line::ok(what, format!("{hard} allowed, {needed} needed")),
        None => Line::ok(what, "no limit"),
    }
}

/// Packet memory lies in them where there are enough.
fn huge_pages(all: Option<&str>, workers: u64, want: Want) -> Line {
    let what = "huge pages";
    let all = all.and_then(|all| all.parse::<u64>().ok()).unwrap_or(0);
    let needed = workers * XDP_BYTES_PER_WORKER.div_ceil(HUGE_PAGE);
    if want == Want::No {
        return Line::ok(what, format!("{all} of 2 MiB; io_uring uses none"));
    }
    if all >= needed {
        return Line::ok(what, format!("{all} of 2 MiB, {needed} needed"));
    }
    Line::warn(
        what,
        format!(
            "{all} of 2 MiB, {needed} needed: packet memory is of small pages, a leg costs some 5 % more"
        ),
    )
    .mend(format!(
        "sysctl -w vm.nr_hugepages={needed}, before the mixer starts"
    ))
}

/// In copy mode the kernel makes a buffer for every frame that is sent. Those of a burst are all away at once, and a
/// kernel that gives their memory back to the pages each time takes it from there again for the next one.
fn send_memory(kept: Option<&str>, want: Want) -> Line {
    let what = "send memory";
    match kept.and_then(|kept| kept.parse::<u64>().ok()) {
        Some(kept) if kept < SLABS_KEPT && want != Want::No => Line::warn(
            what,
            format!(
                "the kernel keeps {kept} free slabs of send buffers: in copy mode a leg costs up to 15 % more"
            ),
        )
        .mend(format!(
            "echo {SLABS_KEPT} | tee /{SLAB} /sys/kernel/slab/skbuff_head_cache/min_partial"
        )),
        Some(kept) => Line::ok(
            what,
            format!("the kernel keeps {kept} free slabs of send buffers"),
        ),
        None => Line::ok(what, "this kernel does not tell"),
    }
}

/// Two port ranges from white-space or comma separated text.
fn ports(range: PortRange, ephemeral: &str, reserved: &str) -> Line {
    let what = "ports";
    let bounds: Vec<u16> = ephemeral
        .split_whitespace()
        .filter_map(|port| port.parse().ok())
        .collect();
    let [low, high] = bounds[..] else {
        return Line::warn(what, "net.ipv4.ip_local_port_range cannot be read");
    };
    let (first, last) = (range.first.max(low), range.last.min(high));
    if first > last {
        return Line::ok(
            what,
            format!("io.ports {range} lie outside of the kernel's own {low}-{high}"),
        );
    }
    let reserved = super::host::number_list(reserved);
    if (first..=last).all(|port| reserved.contains(&usize::from(port))) {
        return Line::ok(
            what,
            format!("io.ports {range} overlap the kernel's own {low}-{high}, and are reserved"),
        );
    }
    Line::warn(
        what,
        format!(
            "io.ports {range} overlap the kernel's own {low}-{high}: other programs take some now and then"
        ),
    )
    .mend(format!("sysctl -w net.ipv4.ip_local_reserved_ports={range}"))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Fail, Ok, Warn};
    use super::*;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
        Max cpu time              unlimited            unlimited            seconds   \n\
        Max open files            1024                 4096                 files     \n\
        Max locked memory         8388608              8388608              bytes     \n";

    #[test]
    fn kernels() {
        assert_eq!(kernel_version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(kernel_version("6.1-rc3"), Some((6, 1)));
        assert_eq!(kernel_version("unknown"), None);
        assert_eq!(kernel("5.15.0-91-generic", Want::No).verdict, Fail);
        assert_eq!(kernel("6.17.3", Want::Maybe).verdict, Warn);
        assert_eq!(kernel("6.17.3", Want::No).verdict, Ok);
        assert_eq!(kernel("6.8.0-45-generic", Want::Yes).verdict, Ok);
    }

    #[test]
    fn the_switch_of_io_uring() {
        let verdict = |disabled| io_uring(disabled).verdict;
        assert_eq!(
            [
                verdict(None),
                verdict(Some("0")),
                verdict(Some("1")),
                verdict(Some("2"))
            ],
            [Ok, Ok, Warn, Fail]
        );
    }

    #[test]
    fn capabilities_are_read_bit_by_bit() {
        let raw = held("Name:\tx\nCapInh:\t0000000000000000\nCapEff:\t0000000000002000\n");
        assert_eq!(raw, [Capability::NetRaw]);
        let line = capabilities(&raw, false, Want::Yes);
        assert_eq!(line.verdict, Fail);
        assert!(
            line.finding.contains("CAP_NET_ADMIN CAP_BPF") && !line.finding.contains("NET_RAW"),
            "{line}"
        );
        assert_eq!(capabilities(&raw, false, Want::Maybe).verdict, Warn);
        let line = capabilities(&raw, false, Want::No);
        assert!(
            line.verdict == Warn && line.finding.contains("CAP_SYS_NICE"),
            "{line}"
        );
        assert_eq!(capabilities(&raw, true, Want::No).verdict, Ok);
        let all = held("CapEff:\t000001fffeffffff\n");
        assert_eq!(all, Capability::ALL);
        assert_eq!(capabilities(&all, false, Want::Yes).verdict, Ok);
    }

    #[test]
    fn memory_that_may_be_locked() {
        let verdict = |held, needed, want| locked_memory(LIMITS, held, needed, want).verdict;
        assert_eq!(verdict(&[], 32 << 20, Want::Yes), Fail);
        assert_eq!(verdict(&[], 32 << 20, Want::No), Ok);
        assert_eq!(verdict(&[], 8 << 20, Want::Yes), Ok);
        assert_eq!(verdict(&[Capability::IpcLock], 32 << 20, Want::Yes), Ok);
        let unlimited = LIMITS.replace("8388608              8388608", "unlimited            unlimited");
        assert_eq!(locked_memory(&unlimited, &[], 1 << 40, Want::Yes).verdict, Ok);
    }

    #[test]
    fn files() {
        let line = open_files(LIMITS, 10_000);
        assert_eq!(line.verdict, Fail);
        assert_eq!(
            line.command.as_deref(),
            Some("ulimit -Hn 10612, or in the unit: LimitNOFILE=10612")
        );
        assert_eq!(open_files(LIMITS, 3_000).verdict, Ok);
    }

    #[test]
    fn pages() {
        let verdict = |all, want| huge_pages(all, 2, want).verdict;
        assert_eq!(verdict(Some("24"), Want::Yes), Ok);
        assert_eq!(verdict(Some("23"), Want::No), Ok);
        assert_eq!(verdict(Some("23"), Want::Maybe), Warn);
        let line = huge_pages(None, 2, Want::Yes);
        assert_eq!(line.verdict, Warn);
        assert_eq!(
            line.command.as_deref(),
            Some("sysctl -w vm.nr_hugepages=24, before the mixer starts")
        );
    }

    #[test]
    fn memory_for_sending() {
        assert_eq!(send_memory(Some("64"), Want::Yes).verdict, Ok);
        assert_eq!(send_memory(Some("5"), Want::No).verdict, Ok);
        assert_eq!(send_memory(None, Want::Yes).verdict, Ok);
        let line = send_memory(Some("5"), Want::Yes);
        assert_eq!(line.verdict, Warn);
        assert_eq!(
            line.command.as_deref(),
            Some(
                "echo 64 | tee /sys/kernel/slab/kmalloc-1k/min_partial \
                 /sys/kernel/slab/skbuff_head_cache/min_partial"
            )
        );
    }

    #[test]
    fn port_ranges() {
        let range = |first, last| PortRange { first, last };
        let usual = "32768\t60999";
        assert_eq!(ports(range(10_000, 32_767), usual, "").verdict, Ok);
        let line = ports(range(30_000, 40_000), usual, "");
        assert_eq!(line.verdict, Warn);
        assert_eq!(
            line.command.as_deref(),
            Some("sysctl -w net.ipv4.ip_local_reserved_ports=30000-40000")
        );
        assert_eq!(
            ports(range(30_000, 40_000), usual, "8080,32768-40000").verdict,
            Ok
        );
        assert_eq!(ports(range(30_000, 40_000), usual, "32768-39999").verdict, Warn);
        assert_eq!(ports(range(30_000, 40_000), "", "").verdict, Warn);
    }
}
