//! Machines as texts. virtio and veth are recorded from a virtual machine; mlx5, ice and ena are
//! written after published output of those drivers, cut to what is read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::doctor::host::Tools;
use crate::doctor::netdev::XdpFeatures;
use crate::steering::ethtool::{Ethtool, Output};

/// A machine with one interface.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) interface: &'static str,
    pub(super) has_ethtool: bool,
    files: Vec<(String, String)>,
    /// Path and what it points to.
    links: Vec<(String, String)>,
    /// Option of ethtool and its output.
    outputs: Vec<(&'static str, String)>,
    actions: u64,
}

impl Ethtool for &Machine {
    fn run(&self, arguments: &[&str]) -> io::Result<Output> {
        if !self.has_ethtool {
            return Err(io::ErrorKind::NotFound.into());
        }
        let asked = match arguments {
            ["-n", _, "rx-flow-hash", _] => "-n rx-flow-hash",
            [option, ..] => option,
            [] => "",
        };
        let known = self.outputs.iter().find(|(option, _)| *option == asked);
        Ok(Output {
            ok: known.is_some(),
            text: known.map(|(_, text)| text.clone()).unwrap_or_default(),
            error: "Operation not supported".to_owned(),
        })
    }
}

impl Tools for &Machine {
    fn xdp_features(&self, interface_index: u32) -> io::Result<XdpFeatures> {
        if interface_index == 0 {
            return Err(io::Error::from_raw_os_error(19));
        }
        Ok(XdpFeatures {
            actions: self.actions,
            socket: 0,
        })
    }
}

/// The files of a machine in a folder of their own, gone with the value.
#[derive(Debug)]
pub(super) struct Tree(PathBuf);

impl Tree {
    pub(super) fn of(machine: &Machine) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("mixminus-doctor-{}-{number}", std::process::id()));
        for (path, text) in &machine.files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        for (path, target) in &machine.links {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(target, path).unwrap();
        }
        Self(root)
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // A folder that stays behind harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What every machine has.
struct Builder {
    interface: &'static str,
    files: Vec<(String, String)>,
}

impl Builder {
    fn new(interface: &'static str, kernel: &str, online: &str, isolated: &str) -> Self {
        let mut builder = Self {
            interface,
            files: Vec::new(),
        };
        builder.file("proc/sys/kernel/osrelease", kernel);
        builder.file("proc/sys/kernel/io_uring_disabled", "0\n");
        builder.file("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
        builder.file("proc/sys/net/ipv4/ip_local_reserved_ports", "\n");
        builder.file("sys/devices/system/cpu/online", online);
        builder.file("sys/devices/system/cpu/isolated", isolated);
        builder.device("ifindex", "2\n");
        builder.device("mtu", "1500\n");
        builder.device("napi_defer_hard_irqs", "0\n");
        builder.device("gro_flush_timeout", "0\n");
        builder
    }

    fn file(&mut self, path: &str, text: &str) {
        self.files.retain(|(known, _)| known != path);
        self.files.push((path.to_owned(), text.to_owned()));
    }

    fn device(&mut self, name: &str, text: &str) {
        self.file(&format!("sys/class/net/{}/{name}", self.interface), text);
    }

    fn process(&mut self, capabilities: &str, files: u32, locked: &str) {
        self.file(
            "proc/self/status",
            &format!("Name:\tmixminus-mixer\nCapEff:\t{capabilities}\n"),
        );
        self.file(
            "proc/self/limits",
            &format!(
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max open files            1024                 {files}               files     \n\
                 Max locked memory         {locked}              {locked}              bytes     \n"
            ),
        );
    }

    fn queues(&mut self, count: u32) {
        for queue in 0..count {
            self.device(&format!("queues/rx-{queue}/rps_cpus"), "0\n");
            self.device(&format!("queues/tx-{queue}/xps_cpus"), "0\n");
        }
    }

    /// Interrupts by number, name and core; `folder` is where the device lists them.
    fn interrupts(&mut self, folder: &str, rows: &[(u32, &str, &str)]) {
        let mut text = "            CPU0       CPU1\n".to_owned();
        for (number, name, core) in rows {
            text += &format!(
                "{number:>4}:       1234          0 IR-PCI-MSIX-0000:41:00.0   0-edge      {name}\n"
            );
            self.device(&format!("{folder}/msi_irqs/{number}"), "msix\n");
            self.file(&format!("proc/irq/{number}/smp_affinity_list"), core);
            self.file(&format!("proc/irq/{number}/effective_affinity_list"), core);
        }
        self.file("proc/interrupts", &text);
    }

    fn core(&mut self, core: u32, governor: &str, siblings: &str) {
        let folder = format!("sys/devices/system/cpu/cpu{core}");
        self.file(&format!("{folder}/cpufreq/scaling_governor"), governor);
        self.file(&format!("{folder}/topology/thread_siblings_list"), siblings);
    }

    fn done(self, driver: &str, actions: u64, outputs: Vec<(&'static str, String)>) -> Machine {
        let link = format!("sys/class/net/{}/device/driver", self.interface);
        let target = format!("../../../bus/pci/drivers/{driver}");
        let mut outputs = outputs;
        outputs.push(("-i", format!("driver: {driver}\nversion: x\n")));
        let links = if driver == "veth" {
            Vec::new()
        } else {
            vec![(link, target)]
        };
        Machine {
            interface: self.interface,
            has_ethtool: true,
            files: self.files,
            links,
            outputs,
            actions,
        }
    }
}

fn channels(max: u32, now: u32) -> (&'static str, String) {
    let text = format!(
        "Channel parameters for x:\nPre-set maximums:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\nCombined:\t{max}\n\
         Current hardware settings:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\nCombined:\t{now}\n"
    );
    ("-l", text)
}

fn rings(max: u32, now: u32) -> (&'static str, String) {
    let text = format!(
        "Ring parameters for x:\nPre-set maximums:\nRX:\t\t{max}\nRX Mini:\tn/a\nRX Jumbo:\tn/a\nTX:\t\t{max}\n\
         Current hardware settings:\nRX:\t\t{now}\nRX Mini:\tn/a\nRX Jumbo:\tn/a\nTX:\t\t{now}\n\
         RX Buf Len:\t\tn/a\nCQE Size:\t\tn/a\nTX Push:\toff\n"
    );
    ("-g", text)
}

fn features(gro: &str, lro: &str, rxvlan: &str, ntuple: &str) -> (&'static str, String) {
    let text = format!(
        "Features for x:\nrx-checksumming: on\n\ttx-checksum-ipv4: off [fixed]\ngeneric-receive-offload: {gro}\n\
         large-receive-offload: {lro}\nrx-vlan-offload: {rxvlan}\nntuple-filters: {ntuple}\nrx-gro-hw: off [fixed]\n"
    );
    ("-k", text)
}

fn rss() -> [(&'static str, String); 2] {
    let table = "RX flow hash indirection table for x with 4 RX ring(s):\n    0:      0     1     2     3\n\
                 RSS hash key:\n6d:5a:56:da:25:5b:0e:c2\nRSS hash function:\n    toeplitz: on\n    xor: off\n";
    let fields = "UDP over IPV4 flows use these fields for computing Hash flow key:\nIP SA\nIP DA\n\
                  L4 bytes 0 & 1 [TCP/UDP src port]\nL4 bytes 2 & 3 [TCP/UDP dst port]\n\n";
    [("-x", table.to_owned()), ("-n rx-flow-hash", fields.to_owned())]
}

/// A server set up by the book: eight workers on isolated cores 2 to 9.
pub(super) fn ice() -> Machine {
    let mut builder = Builder::new("ens1f0", "6.12.9-amd64\n", "0-9\n", "2-9\n");
    builder.process("000001ffffffffff", 524_288, "unlimited");
    builder.file("sys/devices/system/cpu/nohz_full", "2-9\n");
    builder.file("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "128\n");
    builder.device("device/numa_node", "0\n");
    builder.file("sys/devices/system/node/node0/cpulist", "0-9\n");
    builder.queues(8);
    for core in 0..10 {
        builder.core(core, "performance\n", &format!("{core}\n"));
    }
    let names: Vec<String> = (0..8).map(|queue| format!("ice-ens1f0-TxRx-{queue}")).collect();
    let mut rows = vec![(120, "ice-0000:31:00.0:misc", "3\n")];
    rows.extend(
        (121..)
            .zip(&names)
            .map(|(number, name)| (number, name.as_str(), "0-1\n")),
    );
    builder.interrupts("device", &rows);
    let mut outputs = vec![
        channels(40, 8),
        rings(8_160, 4_096),
        features("off", "off", "off", "on"),
    ];
    outputs.extend(rss());
    builder.done("ice", 0b10_1111, outputs)
}

/// A server as it comes: jumbo frames, merging on, everything else at its default; run by a plain user.
pub(super) fn mlx5() -> Machine {
    let mut builder = Builder::new("ens2f0np0", "6.8.0-45-generic\n", "0-7\n", "\n");
    builder.process("0000000000000000", 4_096, "8388608");
    builder.file("sys/devices/system/cpu/nohz_full", "(null)\n");
    builder.file("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0\n");
    builder.device("device/numa_node", "1\n");
    builder.file("sys/devices/system/node/node1/cpulist", "4-7\n");
    builder.device("mtu", "9000\n");
    builder.device("gro_flush_timeout", "20000\n");
    builder.queues(8);
    for core in 0..8 {
        builder.core(core, "powersave\n", &format!("{},{}\n", core % 4, core % 4 + 4));
    }
    builder.interrupts(
        "device",
        &[
            (95, "mlx5_async0@pci:0000:41:00.0", "2\n"),
            (96, "mlx5_comp0@pci:0000:41:00.0", "0\n"),
            (97, "mlx5_comp1@pci:0000:41:00.0", "1\n"),
            (98, "mlx5_comp2@pci:0000:41:00.0", "2\n"),
            (99, "mlx5_comp3@pci:0000:41:00.0", "3\n"),
        ],
    );
    let mut outputs = vec![
        channels(63, 8),
        rings(8_192, 1_024),
        features("on", "on", "on", "off"),
    ];
    outputs.extend(rss());
    builder.done("mlx5_core", 0b110_1111, outputs)
}

/// A cloud instance with four cores and four channels.
pub(super) fn ena() -> Machine {
    let mut builder = Builder::new("ens5", "6.8.0-1021-aws\n", "0-3\n", "\n");
    builder.process("000001ffffffffff", 1_048_576, "8388608");
    builder.device("device/numa_node", "-1\n");
    builder.queues(4);
    builder.interrupts(
        "device",
        &[
            (26, "ena-mgmnt@pci:0000:00:05.0", "1\n"),
            (27, "ens5-Tx-Rx-0", "0\n"),
            (28, "ens5-Tx-Rx-1", "1\n"),
        ],
    );
    let mut outputs = vec![
        channels(4, 4),
        rings(16_384, 1_024),
        features("on", "off [fixed]", "off [fixed]", "off [fixed]"),
    ];
    outputs.extend(rss());
    builder.done("ena", 0b111, outputs)
}

/// A virtual machine with two cores and one queue, recorded.
pub(super) fn virtio() -> Machine {
    let mut builder = Builder::new("eth0", "6.18.44\n", "0-1\n", "\n");
    builder.process("000001fffeffffff", 524_288, "8388608");
    builder.queues(1);
    // The device is a child of the PCI device that has the interrupts.
    builder.device("pci/virtio2/vendor", "0x1af4\n");
    builder.interrupts(
        "pci",
        &[
            (37, "virtio2-config", "0\n"),
            (38, "virtio2-input.0", "1\n"),
            (39, "virtio2-output.0", "0\n"),
        ],
    );
    let text = features("on", "off [fixed]", "off [fixed]", "off [fixed]").1;
    let outputs = vec![
        channels(1, 1),
        rings(256, 256),
        ("-k", text.replace("rx-gro-hw: off", "rx-gro-hw: on")),
        (
            "-x",
            "RX flow hash indirection table for eth0 with 1 RX ring(s):\nOperation not supported\n\
             RSS hash key:\nOperation not supported\nRSS hash function:\n    toeplitz: on\n"
                .to_owned(),
        ),
    ];
    let mut machine = builder.done("virtio_net", 0b1111, outputs);
    machine.links = vec![
        ("sys/class/net/eth0/device".to_owned(), "pci/virtio2".to_owned()),
        (
            "sys/class/net/eth0/pci/virtio2/driver".to_owned(),
            "../../../bus/virtio/drivers/virtio_net".to_owned(),
        ),
    ];
    machine
}

/// One end of a veth pair in a network namespace, recorded.
pub(super) fn veth() -> Machine {
    let mut builder = Builder::new("veth0", "6.18.44\n", "0-1\n", "\n");
    builder.process("000001fffeffffff", 524_288, "8388608");
    builder.queues(2);
    let outputs = vec![
        (
            "-l",
            "Channel parameters for veth0:\nPre-set maximums:\nRX:\t\t2\nTX:\t\t2\nOther:\t\tn/a\nCombined:\tn/a\n\
             Current hardware settings:\nRX:\t\t2\nTX:\t\t2\nOther:\t\tn/a\nCombined:\tn/a\n"
                .to_owned(),
        ),
        features("on", "off [fixed]", "on", "off [fixed]"),
    ];
    builder.done("veth", 0b10_0011, outputs)
}
