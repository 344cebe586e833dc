//! The workers' cores: isolation, clock, siblings, and the interrupts of a NIC.

use std::collections::BTreeSet;

use super::Line;
use super::host::{Host, Tools, number_list, show_list};
use crate::config::Config;

pub(super) fn examine(host: &Host<impl Tools>, config: &Config) -> Vec<Line> {
    let workers = workers(config);
    let list = |path: &str| number_list(&host.read(path).unwrap_or_default());
    let online = list("sys/devices/system/cpu/online");
    let governors: Vec<(usize, String)> = workers
        .iter()
        .filter_map(|core| {
            let path = format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor");
            Some((*core, host.read(&path)?))
        })
        .collect();
    let siblings: Vec<(usize, BTreeSet<usize>)> = workers
        .iter()
        .map(|core| {
            let path = format!("sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
            (*core, list(&path))
        })
        .collect();
    let nohz = host.read("sys/devices/system/cpu/nohz_full");
    vec![
        core_map(&workers, &online),
        isolation(&workers, &online, &list("sys/devices/system/cpu/isolated")),
        ticks(&workers, nohz.as_deref()),
        governor(&governors),
        smt(&siblings, &workers),
    ]
}

/// The cores of the workers.
#[must_use]
pub fn workers(config: &Config) -> BTreeSet<usize> {
    config.workers.cores.iter().copied().collect()
}

fn core_map(workers: &BTreeSet<usize>, online: &BTreeSet<usize>) -> Line {
    let what = "cores";
    let absent: Vec<usize> = workers.difference(online).copied().collect();
    if !absent.is_empty() {
        return Line::fail(
            what,
            format!(
                "workers.cores {} are not online (online: {})",
                show_list(&absent),
                show_list(online)
            ),
        );
    }
    let others: Vec<usize> = online.difference(workers).copied().collect();
    if others.is_empty() {
        return Line::warn(
            what,
            "every core has a worker: signaling, control and the kernel share with them",
        );
    }
    Line::ok(
        what,
        format!(
            "workers on {}, the rest on {}",
            show_list(workers),
            show_list(&others)
        ),
    )
}

fn isolation(workers: &BTreeSet<usize>, online: &BTreeSet<usize>, isolated: &BTreeSet<usize>) -> Line {
    let what = "isolation";
    let shared: Vec<usize> = workers.difference(isolated).copied().collect();
    if shared.is_empty() {
        return Line::ok(what, format!("cores {} are isolated", show_list(workers)));
    }
    let others: Vec<usize> = online.difference(workers).copied().collect();
    let line = Line::warn(
        what,
        format!(
            "the scheduler puts other work on the workers' cores {}",
            show_list(&shared)
        ),
    );
    if others.is_empty() {
        return line;
    }
    let (list, others) = (show_list(workers), show_list(&others));
    line.mend(format!(
        "echo 'GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX isolcpus=managed_irq,domain,{list} nohz_full={list} \
         rcu_nocbs={list} irqaffinity={others}\"' > /etc/default/grub.d/mixminus.cfg && update-grub && reboot"
    ))
}

fn ticks(workers: &BTreeSet<usize>, nohz_full: Option<&str>) -> Line {
    let what = "timer ticks";
    match nohz_full {
        None => Line::ok(
            what,
            "this kernel is built without nohz_full: a tick costs a worker a few microseconds",
        ),
        Some(list) if workers.is_subset(&number_list(list)) => Line::ok(what, "off on the workers' cores"),
        Some(_) => Line::warn(
            what,
            "on: nohz_full does not name the workers' cores (see isolation)",
        ),
    }
}

fn governor(governors: &[(usize, String)]) -> Line {
    let what = "governor";
    if governors.is_empty() {
        return Line::ok(
            what,
            "the clock is not scaled by this kernel (usual in a virtual machine)",
        );
    }
    let slow: Vec<&(usize, String)> = governors
        .iter()
        .filter(|(_, name)| name != "performance")
        .collect();
    let Some((core, name)) = slow.first() else {
        return Line::ok(what, "performance");
    };
    let files: Vec<String> = slow
        .iter()
        .map(|(core, _)| format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"))
        .collect();
    Line::warn(
        what,
        format!("{name} on core {core}: the clock follows the load too late"),
    )
    .mend(format!("echo performance | tee {}", files.join(" ")))
}

fn smt(siblings: &[(usize, BTreeSet<usize>)], workers: &BTreeSet<usize>) -> Line {
    let what = "SMT siblings";
    let mut busy: BTreeSet<usize> = BTreeSet::new();
    for (core, threads) in siblings {
        let others = threads.iter().filter(|thread| *thread != core);
        let (both, other): (Vec<usize>, Vec<usize>) = others.partition(|thread| workers.contains(thread));
        if let Some(second) = both.first() {
            return Line::warn(
                what,
                format!(
                    "workers on {core} and {second} share one physical core: together they carry little more than one; take one out of workers.cores"
                ),
            );
        }
        busy.extend(other);
    }
    if busy.is_empty() {
        return Line::ok(what, "none beside a worker");
    }
    let commands: Vec<String> = busy
        .iter()
        .map(|thread| format!("echo 0 > /sys/devices/system/cpu/cpu{thread}/online"))
        .collect();
    Line::warn(
        what,
        format!(
            "{} share a physical core with a worker: leave them idle",
            show_list(&busy)
        ),
    )
    .mend(commands.join(" && "))
}

/// An interrupt of a NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number.
    pub number: u32,
    /// As `/proc/interrupts` names it.
    pub name: String,
    /// Cores that may take it.
    pub cores: BTreeSet<usize>,
}

/// Number and name of every interrupt, of `/proc/interrupts`.
#[must_use]
pub fn interrupts(text: &str) -> Vec<(u32, String)> {
    let row = |line: &str| {
        let (number, rest) = line.split_once(':')?;
        let name = rest.split_whitespace().next_back()?;
        Some((number.trim().parse().ok()?, name.to_owned()))
    };
    text.lines().filter_map(row).collect()
}

/// Interrupts that carry packets, of a device with these numbers.
#[must_use]
pub fn carries_packets(name: &str) -> bool {
    const OTHER: [&str; 6] = ["config", "async", "misc", "mgmnt", "control", "event"];
    !OTHER.iter().any(|word| name.contains(word))
}

/// Whether packet interrupts stay off the workers' cores.
pub(super) fn placement(
    interrupts: &[Interrupt],
    workers: &BTreeSet<usize>,
    online: &BTreeSet<usize>,
    irqbalance: bool,
) -> Line {
    let what = "interrupts";
    if interrupts.is_empty() {
        return Line::ok(what, "the device has none of its own");
    }
    let bad: Vec<&Interrupt> = interrupts
        .iter()
        .filter(|interrupt| !interrupt.cores.is_disjoint(workers))
        .collect();
    let Some(first) = bad.first() else {
        let balanced = if irqbalance {
            "; irqbalance runs and may change that"
        } else {
            ""
        };
        return Line::ok(what, format!("off the workers' cores{balanced}"));
    };
    let line = Line::warn(
        what,
        format!(
            "{} of {} may run on workers' cores, first {} ({}) on {}",
            bad.len(),
            interrupts.len(),
            first.number,
            first.name,
            show_list(&first.cores)
        ),
    );
    let others: Vec<usize> = online.difference(workers).copied().collect();
    if others.is_empty() {
        return line;
    }
    let numbers: Vec<String> = bad.iter().map(|interrupt| interrupt.number.to_string()).collect();
    let stop = if irqbalance {
        "systemctl disable --now irqbalance; "
    } else {
        ""
    };
    line.mend(format!(
        "{stop}for irq in {}; do echo {} > /proc/irq/$irq/smp_affinity_list; done",
        numbers.join(" "),
        show_list(&others)
    ))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Fail, Ok, Warn};
    use super::*;

    fn set(list: &str) -> BTreeSet<usize> {
        number_list(list)
    }

    #[test]
    fn lists() {
        assert_eq!(set("0-3,8"), BTreeSet::from([0, 1, 2, 3, 8]));
        assert!(set("(null)").is_empty() && set("").is_empty());
        assert_eq!(show_list(&set("8,0-3,5")), "0-3,5,8");
    }

    #[test]
    fn maps() {
        assert_eq!(core_map(&set("1"), &set("0-1")).verdict, Ok);
        assert_eq!(core_map(&set("0-1"), &set("0-1")).verdict, Warn);
        assert_eq!(core_map(&set("4"), &set("0-1")).verdict, Fail);
    }

    #[test]
    fn isolated_cores() {
        assert_eq!(isolation(&set("2-9"), &set("0-9"), &set("2-9")).verdict, Ok);
        let line = isolation(&set("2-9"), &set("0-9"), &set("2-5"));
        assert!(
            line.verdict == Warn && line.finding.contains("cores 6-9"),
            "{line}"
        );
        assert!(
            line.command
                .unwrap()
                .contains("isolcpus=managed_irq,domain,2-9 nohz_full=2-9 rcu_nocbs=2-9 irqaffinity=0-1")
        );
        assert_eq!(ticks(&set("2-9"), Some("2-9")).verdict, Ok);
        assert_eq!(ticks(&set("2-9"), Some("(null)")).verdict, Warn);
        assert_eq!(ticks(&set("2-9"), None).verdict, Ok);
    }

    #[test]
    fn governors() {
        assert_eq!(governor(&[]).verdict, Ok);
        assert_eq!(governor(&[(2, "performance".to_owned())]).verdict, Ok);
        let line = governor(&[(2, "performance".to_owned()), (3, "powersave".to_owned())]);
        assert_eq!(
            line.command.as_deref(),
            Some("echo performance | tee /sys/devices/system/cpu/cpu3/cpufreq/scaling_governor")
        );
    }

    #[test]
    fn siblings() {
        assert_eq!(smt(&[(1, set("1"))], &set("1")).verdict, Ok);
        let line = smt(&[(2, set("2,34"))], &set("2"));
        assert_eq!(
            line.command.as_deref(),
            Some("echo 0 > /sys/devices/system/cpu/cpu34/online")
        );
        let line = smt(&[(2, set("2-3")), (3, set("2-3"))], &set("2-3"));
        assert!(line.finding.contains("workers on 2 and 3 share"), "{line}");
    }

    #[test]
    fn interrupts_of_several_machines() {
        let text = "           CPU0       CPU1       \n  24:          1          0  IO-APIC   5-edge      ACPI:Ged\n\
            38:          0       2155 PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0\n\
            96:          7          0 IR-PCI-MSIX-0000:41:00.0    1-edge      mlx5_comp0@pci:0000:41:00.0\n\
            NMI:          0          0   Non-maskable interrupts\n";
        let found = interrupts(text);
        assert_eq!(
            found,
            [
                (24, "ACPI:Ged".to_owned()),
                (38, "virtio2-input.0".to_owned()),
                (96, "mlx5_comp0@pci:0000:41:00.0".to_owned())
            ]
        );
        for name in [
            "virtio2-input.0",
            "mlx5_comp0@pci:0000:41:00.0",
            "ice-ens1f0-TxRx-0",
            "ens5-Tx-Rx-0",
        ] {
            assert!(carries_packets(name), "{name}");
        }
        for name in [
            "virtio2-config",
            "mlx5_async0@pci:0000:41:00.0",
            "ena-mgmnt@pci:0000:00:05.0",
            "ice-0000:31:00.0:misc",
        ] {
            assert!(!carries_packets(name), "{name}");
        }
    }

    #[test]
    fn interrupts_stay_off_workers() {
        let on = |cores: &str| Interrupt {
            number: 38,
            name: "virtio2-input.0".to_owned(),
            cores: set(cores),
        };
        assert_eq!(placement(&[], &set("1"), &set("0-1"), false).verdict, Ok);
        assert_eq!(placement(&[on("0")], &set("1"), &set("0-1"), true).verdict, Ok);
        let line = placement(&[on("0"), on("1")], &set("1"), &set("0-1"), true);
        assert_eq!(line.verdict, Warn);
        assert_eq!(
            line.command.as_deref(),
            Some(
                "systemctl disable --now irqbalance; for irq in 38; do echo 0 > /proc/irq/$irq/smp_affinity_list; done"
            )
        );
        assert_eq!(
            placement(&[on("1")], &set("0-1"), &set("0-1"), false).command,
            None
        );
    }
}
