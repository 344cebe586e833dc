//! One network interface: driver, queues, modes, offloads, rings, interrupts, steering, node.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::cores::{self, Interrupt};
use super::drivers::{self, Driver};
use super::host::{Host, Tools, number_list, show_list};
use super::netdev::XdpFeatures;
use super::process::kernel_version;
use super::{Line, Want};
use crate::config::Config;
use crate::steering::ethtool::{self, Feature, Setting};

/// Length of a ring that takes a burst; longer ones only wait longer.
const RING: u32 = 4_096;

pub(super) fn examine(host: &Host<impl Tools>, config: &Config, want: Want, interface: &str) -> Vec<Line> {
    let device = format!("sys/class/net/{interface}");
    if !host.exists(&device) {
        return vec![
            want.blocked("interface", format!("{interface} does not exist"))
                .mend("ip -br link (lists them)"),
        ];
    }
    let kernel = kernel_version(&host.read("proc/sys/kernel/osrelease").unwrap_or_default());
    let tool = match Tool::read(host, interface) {
        Ok(tool) => Some(tool),
        Err(error) => return without_ethtool(host, config, want, interface, kernel, &error),
    };
    let driver = tool.as_ref().and_then(|tool| tool.driver.clone());
    let mut lines = from_files(host, config, want, interface, kernel, driver.as_deref());
    if let Some(tool) = tool {
        lines.push(offloads(interface, driver.as_deref(), &tool.features, want));
        lines.push(rings(interface, &tool.rings));
        lines.push(queues(
            interface,
            &counted(host, &device),
            &tool.channels,
            row(driver.as_deref()),
            config.workers.cores.len(),
            want,
        ));
        if config.workers.cores.len() > 1 {
            let rss = ethtool::rss(&host.tools, interface).is_some();
            lines.push(steering(tool.features.get("ntuple-filters"), rss));
        }
    }
    lines
}

fn row(driver: Option<&str>) -> Option<&'static Driver> {
    driver.and_then(drivers::find)
}

/// What `ethtool` tells.
struct Tool {
    driver: Option<String>,
    features: BTreeMap<String, Feature>,
    rings: BTreeMap<String, Setting>,
    channels: BTreeMap<String, Setting>,
}

impl Tool {
    fn read(host: &Host<impl Tools>, interface: &str) -> io::Result<Self> {
        let run = |option| Ok::<_, io::Error>(host.tools.run(&[option, interface])?.text);
        Ok(Self {
            driver: ethtool::driver(&run("-i")?),
            features: ethtool::features(&run("-k")?),
            rings: ethtool::settings(&run("-g")?),
            channels: ethtool::settings(&run("-l")?),
        })
    }
}

fn without_ethtool(
    host: &Host<impl Tools>,
    config: &Config,
    want: Want,
    interface: &str,
    kernel: Option<(u16, u16)>,
    error: &io::Error,
) -> Vec<Line> {
    let device = format!("sys/class/net/{interface}");
    let line = if error.kind() == io::ErrorKind::NotFound {
        Line::warn(
            "ethtool",
            "not installed: offloads, rings and steering were not looked at",
        )
    } else {
        Line::warn(
            "ethtool",
            format!("cannot be run ({error}): offloads, rings and steering were not looked at"),
        )
    };
    let driver = host.link_name(&format!("{device}/device/driver"));
    let mut lines = vec![line.mend("apt-get install ethtool")];
    lines.extend(from_files(
        host,
        config,
        want,
        interface,
        kernel,
        driver.as_deref(),
    ));
    lines.push(queues(
        interface,
        &counted(host, &device),
        &BTreeMap::new(),
        row(driver.as_deref()),
        config.workers.cores.len(),
        want,
    ));
    lines
}

/// The checks that need no `ethtool`.
fn from_files(
    host: &Host<impl Tools>,
    config: &Config,
    want: Want,
    interface: &str,
    kernel: Option<(u16, u16)>,
    driver: Option<&str>,
) -> Vec<Line> {
    let device = format!("sys/class/net/{interface}");
    let read = |name: &str| host.read(&format!("{device}/{name}"));
    let index = read("ifindex").and_then(|index| index.parse().ok()).unwrap_or(0);
    let online = number_list(&host.read("sys/devices/system/cpu/online").unwrap_or_default());
    let workers = cores::workers(config);
    let node = read("device/numa_node").unwrap_or_default();
    let node_cores = host
        .read(&format!("sys/devices/system/node/node{node}/cpulist"))
        .map(|list| number_list(&list));
    vec![
        drivers::check(driver, kernel, want),
        modes(host.tools.xdp_features(index), want),
        mtu(
            interface,
            read("mtu").and_then(|mtu| mtu.parse().ok()),
            row(driver),
            want,
        ),
        busy_poll(
            interface,
            read("napi_defer_hard_irqs").as_deref(),
            read("gro_flush_timeout").as_deref(),
        ),
        cores::placement(
            &device_interrupts(host, &device),
            &workers,
            &online,
            irqbalance(host),
        ),
        numa(node_cores.as_ref(), &node, &workers),
    ]
}

/// Receive and transmit queues.
fn counted(host: &Host<impl Tools>, device: &str) -> (usize, usize) {
    let queues = host.list(&format!("{device}/queues"));
    let count = |kind: &str| queues.iter().filter(|name| name.starts_with(kind)).count();
    (count("rx-"), count("tx-"))
}

/// Packet interrupts of a device. A virtio device has them at the PCI device above it.
fn device_interrupts(host: &Host<impl Tools>, device: &str) -> Vec<Interrupt> {
    let mut numbers = host.list(&format!("{device}/device/msi_irqs"));
    if numbers.is_empty() {
        numbers = host.list(&format!("{device}/device/../msi_irqs"));
    }
    let own: BTreeSet<u32> = numbers.iter().filter_map(|number| number.parse().ok()).collect();
    let all = cores::interrupts(&host.read("proc/interrupts").unwrap_or_default());
    all.into_iter()
        .filter(|(number, name)| own.contains(number) && cores::carries_packets(name))
        .filter_map(|(number, name)| {
            let list = |file: &str| host.read(&format!("proc/irq/{number}/{file}"));
            // What is in effect, not what is allowed: a managed interrupt may be allowed more.
            let cores = list("effective_affinity_list")
                .filter(|list| !list.is_empty())
                .or_else(|| list("smp_affinity_list"))?;
            Some(Interrupt {
                number,
                name,
                cores: number_list(&cores),
            })
        })
        .collect()
}

fn irqbalance(host: &Host<impl Tools>) -> bool {
    host.exists("run/irqbalance") || host.exists("run/irqbalance.pid")
}

fn modes(answer: io::Result<XdpFeatures>, want: Want) -> Line {
    let what = "XDP modes";
    match answer {
        Err(error) => Line::ok(
            what,
            format!("the kernel does not tell ({error}); a start with AF_XDP tries them"),
        ),
        Ok(found) if !found.native() => want.worse(
            what,
            "none in the driver: generic mode only, hardly faster than sockets",
        ),
        Ok(found) => {
            let copies = if found.zero_copy() {
                "zero-copy"
            } else {
                "native, with a copy"
            };
            Line::ok(what, format!("{copies} ({})", found.names().join(" ")))
        }
    }
}

fn mtu(interface: &str, mtu: Option<u32>, driver: Option<&Driver>, want: Want) -> Line {
    let what = "MTU";
    match (mtu, driver.and_then(|driver| driver.mtu_max)) {
        (None, _) => Line::warn(what, "cannot be read"),
        (Some(mtu), Some(most)) if mtu > most => want
            .blocked(what, format!("{mtu}: XDP needs {most} or less with this driver"))
            .mend(format!("ip link set dev {interface} mtu 1500")),
        (Some(mtu), _) if mtu < 1_280 => Line::warn(what, format!("{mtu} is below what IPv6 needs"))
            .mend(format!("ip link set dev {interface} mtu 1500")),
        (Some(mtu), _) => Line::ok(what, mtu.to_string()),
    }
}

fn busy_poll(interface: &str, defer: Option<&str>, timeout: Option<&str>) -> Line {
    let what = "interrupt deferral";
    let set: Vec<&str> = [("napi_defer_hard_irqs", defer), ("gro_flush_timeout", timeout)]
        .into_iter()
        .filter(|(_, value)| value.is_some_and(|value| value != "0"))
        .map(|(name, _)| name)
        .collect();
    if set.is_empty() {
        return Line::ok(what, "off");
    }
    let commands: Vec<String> = set
        .iter()
        .map(|name| format!("echo 0 > /sys/class/net/{interface}/{name}"))
        .collect();
    Line::fail(
        what,
        format!(
            "{} not 0: packets wait for a timer, unless the device is verified to busy-poll",
            set.join(" and ")
        ),
    )
    .mend(commands.join(" && "))
}

fn numa(node_cores: Option<&BTreeSet<usize>>, node: &str, workers: &BTreeSet<usize>) -> Line {
    let what = "NUMA node";
    let Some(near) = node_cores else {
        return Line::ok(what, "the device has none");
    };
    let far: Vec<usize> = workers.difference(near).copied().collect();
    if far.is_empty() {
        return Line::ok(what, format!("{node}, as the workers"));
    }
    Line::warn(
        what,
        format!(
            "the device is on node {node}, workers on {} are not: put workers.cores within {}",
            show_list(&far),
            show_list(near)
        ),
    )
}

fn offloads(interface: &str, driver: Option<&str>, features: &BTreeMap<String, Feature>, want: Want) -> Line {
    let what = "offloads";
    let on = |name: &str| features.get(name).filter(|feature| feature.on);
    if want == Want::No {
        return Line::ok(what, "of no importance to io_uring");
    }
    if let Some(lro) = on("large-receive-offload") {
        let line = want.blocked(what, "large-receive-offload is on: XDP cannot be attached");
        return if lro.fixed {
            line
        } else {
            line.mend(format!("ethtool -K {interface} lro off"))
        };
    }
    let mut commands = Vec::new();
    let mut findings = Vec::new();
    // Without GRO a veth has no NAPI, and packets are received on their sender's core.
    let gro = driver != Some("veth");
    for (name, short, counts, why) in [
        (
            "rx-vlan-offload",
            "rxvlan",
            true,
            "VLAN tags are cut off before XDP",
        ),
        (
            "generic-receive-offload",
            "gro",
            gro,
            "costs time and merges nothing of RTP",
        ),
        ("rx-gro-hw", "rx-gro-hw", true, "merged packets do not fit XDP"),
    ] {
        let Some(feature) = on(name).filter(|_| counts) else {
            continue;
        };
        findings.push(format!("{name} is on ({why})"));
        if !feature.fixed {
            commands.push(format!("{short} off"));
        }
    }
    if findings.is_empty() {
        return Line::ok(what, "nothing in the way of XDP");
    }
    let line = want.worse(what, findings.join(", "));
    if commands.is_empty() {
        return line;
    }
    line.mend(format!("ethtool -K {interface} {}", commands.join(" ")))
}

fn rings(interface: &str, rings: &BTreeMap<String, Setting>) -> Line {
    let what = "rings";
    let short: Vec<(&str, u32, u32)> = ["RX", "TX"]
        .iter()
        .filter_map(|name| {
            let ring = rings.get(*name)?;
            let best = ring.max.min(RING);
            (ring.now < best).then_some((*name, ring.now, best))
        })
        .collect();
    if rings.is_empty() {
        return Line::ok(what, "the driver has none to set");
    }
    if short.is_empty() {
        let now = |name: &str| rings.get(name).map_or(0, |ring| ring.now);
        return Line::ok(what, format!("RX {}, TX {}", now("RX"), now("TX")));
    }
    let found: Vec<String> = short
        .iter()
        .map(|(name, now, best)| format!("{name} {now} of {best}"))
        .collect();
    let wanted: Vec<String> = short
        .iter()
        .map(|(name, _, best)| format!("{} {best}", name.to_lowercase()))
        .collect();
    Line::warn(what, format!("short for bursts: {}", found.join(", ")))
        .mend(format!("ethtool -G {interface} {}", wanted.join(" ")))
}

fn queues(
    interface: &str,
    (rx, tx): &(usize, usize),
    channels: &BTreeMap<String, Setting>,
    driver: Option<&Driver>,
    workers: usize,
    want: Want,
) -> Line {
    let what = "queues";
    let half = driver.is_some_and(|driver| driver.half_of_channels);
    let most = channels
        .get("Combined")
        .or_else(|| channels.get("RX"))
        .map(|channels| channels.max as usize)
        .map(|most| if half { most / 2 } else { most });
    let finding = format!("{rx} to receive, {tx} to send, {workers} workers");
    let setting = if channels.contains_key("Combined") {
        format!("combined {workers}")
    } else {
        format!("rx {workers} tx {workers}")
    };
    match most {
        _ if *rx == workers => Line::ok(what, finding),
        Some(most) if most < workers => want.worse(
            what,
            format!(
                "{finding}; the driver allows AF_XDP {most}{}: packets for the other workers are handed over; or fewer workers.cores",
                if half { " (half of its channels)" } else { "" }
            ),
        ),
        Some(_) => want
            .worse(
                what,
                format!("{finding}: AF_XDP wants one to receive for each worker, and none beside"),
            )
            .mend(format!("ethtool -L {interface} {setting}")),
        None if *rx > workers => want.worse(
            what,
            format!("{finding}: what arrives at a queue without a worker goes through the kernel"),
        ),
        None => want.worse(
            what,
            format!("{finding}: packets for the other workers are handed over"),
        ),
    }
}

fn steering(ntuple: Option<&Feature>, rss: bool) -> Line {
    let what = "steering";
    if ntuple.is_some_and(|feature| feature.on || !feature.fixed) {
        Line::ok(
            what,
            "ntuple rules can be asked for; a start tries them, then RSS on the port",
        )
    } else if rss {
        Line::ok(
            what,
            "no ntuple rules; RSS can be read: a start tries it on the port, then chooses ports by its hash",
        )
    } else {
        Line::ok(what, crate::steering::plan::NOT_OFFERED)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Fail, Ok as Fine, Warn};
    use super::*;

    #[test]
    fn modes_of_a_device() {
        let of = |actions, want| modes(Ok(XdpFeatures { actions, socket: 0 }), want).verdict;
        assert_eq!(of(0b1011, Want::Yes), Fine);
        assert_eq!(of(0, Want::Yes), Warn);
        assert_eq!(of(0, Want::No), Fine);
        assert_eq!(
            modes(Err(io::ErrorKind::NotFound.into()), Want::Yes).verdict,
            Fine
        );
    }

    #[test]
    fn mtu_against_the_driver() {
        let of = |mtu, driver, want| self::mtu("ens1", Some(mtu), drivers::find(driver), want);
        assert_eq!(of(1_500, "ice", Want::Yes).verdict, Fine);
        assert_eq!(of(9_000, "ice", Want::Yes).verdict, Fail);
        assert_eq!(of(9_000, "ice", Want::No).verdict, Fine);
        assert_eq!(of(9_000, "igb", Want::Yes).verdict, Fine);
        assert_eq!(
            of(9_000, "ena", Want::Maybe).command.as_deref(),
            Some("ip link set dev ens1 mtu 1500")
        );
    }

    #[test]
    fn deferral_must_be_off() {
        assert_eq!(busy_poll("eth0", Some("0"), Some("0")).verdict, Fine);
        assert_eq!(busy_poll("eth0", None, None).verdict, Fine);
        let line = busy_poll("eth0", Some("2"), Some("2000000"));
        assert_eq!(line.verdict, Fail);
        assert_eq!(
            line.command.as_deref(),
            Some(
                "echo 0 > /sys/class/net/eth0/napi_defer_hard_irqs && echo 0 > /sys/class/net/eth0/gro_flush_timeout"
            )
        );
    }

    #[test]
    fn nodes() {
        let near = number_list("0-15");
        assert_eq!(numa(None, "-1", &number_list("1")).verdict, Fine);
        assert_eq!(numa(Some(&near), "0", &number_list("2-9")).verdict, Fine);
        let line = numa(Some(&near), "0", &number_list("14-17"));
        assert!(line.verdict == Warn && line.finding.contains("16-17"), "{line}");
    }

    #[test]
    fn queue_counts() {
        let channels = |max, now| BTreeMap::from([("Combined".to_owned(), Setting { max, now })]);
        let of = |rx, most, driver, workers| {
            queues(
                "ens1",
                &(rx, rx),
                &channels(most, 1),
                drivers::find(driver),
                workers,
                Want::Yes,
            )
        };
        assert_eq!(of(8, 63, "mlx5_core", 8).verdict, Fine);
        assert_eq!(
            of(63, 63, "mlx5_core", 8).command.as_deref(),
            Some("ethtool -L ens1 combined 8")
        );
        let line = of(8, 8, "ena", 6);
        assert!(
            line.command.is_none() && line.finding.contains("half of its channels"),
            "{line}"
        );
        let none = queues("veth0", &(1, 1), &BTreeMap::new(), None, 2, Want::Yes);
        assert_eq!((none.verdict, none.command), (Warn, None));
    }
}
