//! What is known of NIC drivers. The table of `hardware.md` is this one (a test holds it).
//!
//! Kernel versions: ebpf-docs' table of AF_XDP drivers; cautions: the drivers' issue trackers and
//! commits. Nothing of it was tried on a physical NIC here. The probe of the device goes before it.

use super::{Line, Want};

/// Since when a driver does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// This kernel version.
    Kernel(u16, u16),
    /// It does; the version is not known.
    Yes,
    /// It does not.
    Never,
}

impl Since {
    fn holds(self, kernel: (u16, u16)) -> bool {
        match self {
            Self::Kernel(major, minor) => kernel >= (major, minor),
            Self::Yes => true,
            Self::Never => false,
        }
    }

    fn show(self) -> String {
        match self {
            Self::Kernel(major, minor) => format!("{major}.{minor}"),
            Self::Yes => "yes".to_owned(),
            Self::Never => "none".to_owned(),
        }
    }
}

/// A driver.
#[derive(Debug, Clone, Copy)]
pub struct Driver {
    /// Name as `ethtool -i` tells it.
    pub name: &'static str,
    /// What it drives.
    pub hardware: &'static str,
    /// XDP in the driver.
    pub native: Since,
    /// AF_XDP without a copy.
    pub zero_copy: Since,
    /// Highest MTU with XDP; `None` when not known.
    pub mtu_max: Option<u32>,
    /// XDP needs transmit queues of its own: use at most half of the channels.
    pub half_of_channels: bool,
    /// Known bad below this kernel.
    pub bad_below: Option<(u16, u16)>,
    /// What to look out for.
    pub caution: &'static str,
}

const PLAIN: Driver = Driver {
    name: "",
    hardware: "",
    native: Since::Yes,
    zero_copy: Since::Never,
    mtu_max: None,
    half_of_channels: false,
    bad_below: None,
    caution: "",
};

/// All drivers that something is known of.
pub const TABLE: [Driver; 16] = [
    Driver {
        name: "ice",
        hardware: "Intel E810",
        native: Since::Kernel(5, 5),
        zero_copy: Since::Kernel(5, 5),
        mtu_max: Some(3_046),
        bad_below: Some((6, 12)),
        caution: "the NIC could hang when AF_XDP sockets came or went under transmit load; fixed mid-2024, so 6.12 \
                  or newer with the driver of the kernel, not the one from the vendor",
        ..PLAIN
    },
    Driver {
        name: "i40e",
        hardware: "Intel X710",
        native: Since::Kernel(4, 13),
        zero_copy: Since::Kernel(4, 20),
        mtu_max: Some(3_046),
        caution: "frames in several fragments must be dropped by the XDP program; the vendor's driver 2.17.4 \
                  reported no native XDP",
        ..PLAIN
    },
    Driver {
        name: "ixgbe",
        hardware: "Intel 82599",
        native: Since::Kernel(4, 12),
        zero_copy: Since::Kernel(4, 20),
        mtu_max: Some(3_050),
        ..PLAIN
    },
    Driver {
        name: "mlx5_core",
        hardware: "NVIDIA ConnectX-4 and newer",
        native: Since::Kernel(4, 9),
        zero_copy: Since::Kernel(5, 3),
        mtu_max: Some(3_498),
        caution: "the number of channels is locked while AF_XDP is in use; numbering of zero-copy queues differed in \
                  old kernels; ConnectX-6 sends frames of 128 to 256 bytes at half the rate of 64-byte ones",
        ..PLAIN
    },
    Driver {
        name: "igc",
        hardware: "Intel I225, I226",
        native: Since::Kernel(5, 13),
        zero_copy: Since::Kernel(5, 14),
        mtu_max: Some(1_500),
        caution: "four queues",
        ..PLAIN
    },
    Driver {
        name: "igb",
        hardware: "Intel I210, I350",
        native: Since::Kernel(5, 10),
        zero_copy: Since::Kernel(6, 14),
        ..PLAIN
    },
    Driver {
        name: "ena",
        hardware: "AWS",
        native: Since::Kernel(5, 6),
        mtu_max: Some(3_498),
        half_of_channels: true,
        caution: "zero-copy in the vendor's driver only, disputed and slower than copy in one report: stay with copy",
        ..PLAIN
    },
    Driver {
        name: "gve",
        hardware: "GCP",
        native: Since::Kernel(6, 4),
        zero_copy: Since::Kernel(6, 4),
        mtu_max: Some(2_032),
        half_of_channels: true,
        caution: "in GQI-QPL format \"zero-copy\" still copies in the driver",
        ..PLAIN
    },
    Driver {
        name: "virtio_net",
        hardware: "KVM and clouds",
        native: Since::Kernel(4, 10),
        zero_copy: Since::Kernel(6, 11),
        mtu_max: Some(3_506),
        half_of_channels: true,
        caution: "needs spare queue pairs for sending, and the host's offloads towards the guest off",
        ..PLAIN
    },
    Driver {
        name: "bnxt_en",
        hardware: "Broadcom NetXtreme-E",
        native: Since::Kernel(4, 11),
        caution: "never ask for zero-copy",
        ..PLAIN
    },
    Driver {
        name: "vmxnet3",
        hardware: "VMware",
        caution: "copy or generic mode only",
        ..PLAIN
    },
    Driver {
        name: "mana",
        hardware: "Azure",
        caution: "copy or generic mode only",
        ..PLAIN
    },
    Driver {
        name: "hv_netvsc",
        hardware: "Hyper-V",
        caution: "copy or generic mode only",
        ..PLAIN
    },
    Driver {
        name: "tun",
        hardware: "TUN and TAP",
        caution: "copy or generic mode only",
        ..PLAIN
    },
    Driver {
        name: "bonding",
        hardware: "bonds",
        native: Since::Kernel(5, 15),
        caution: "AF_XDP belongs on the members, not on the bond",
        ..PLAIN
    },
    Driver {
        name: "veth",
        hardware: "pairs between namespaces",
        caution: "run here, kernel 6.18; does not busy-poll; both ends need an XDP program on newer kernels",
        ..PLAIN
    },
];

/// The row of a driver.
#[must_use]
pub fn find(name: &str) -> Option<&'static Driver> {
    TABLE.iter().find(|driver| driver.name == name)
}

/// The driver and its verdict.
pub(super) fn check(name: Option<&str>, kernel: Option<(u16, u16)>, want: Want) -> Line {
    let what = "driver";
    let Some(name) = name else {
        return want.worse(what, "its name cannot be read");
    };
    let Some(driver) = find(name) else {
        let finding = format!("{name} is not in the table of drivers; AF_XDP may work, io_uring does");
        return want.worse(what, finding);
    };
    let kernel = kernel.unwrap_or((0, 0));
    let (native, zero_copy) = (driver.native.show(), driver.zero_copy.show());
    let mut finding = format!(
        "{name} ({}): native XDP {native}, zero-copy {zero_copy}",
        driver.hardware
    );
    if !driver.caution.is_empty() {
        finding += "; ";
        finding += driver.caution;
    }
    let too_old = !driver.native.holds(kernel) || driver.bad_below.is_some_and(|bad| kernel < bad);
    if !too_old {
        return Line::ok(what, finding);
    }
    let line = want.worse(what, format!("{finding}; this kernel is older"));
    match want {
        Want::No => line,
        Want::Maybe | Want::Yes => line
            .mend("set io.backend = \"uring\", or boot a newer kernel (apt-get install linux-image-amd64)"),
    }
}

/// The table as `hardware.md` has it.
#[must_use]
pub fn markdown() -> String {
    let mut text =
        "| driver | hardware | native XDP | zero-copy | MTU at most | cautions |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for driver in &TABLE {
        let mtu = driver.mtu_max.map_or_else(String::new, |mtu| mtu.to_string());
        let (native, zero_copy) = (driver.native.show(), driver.zero_copy.show());
        let mut cautions = driver.caution.to_owned();
        if driver.half_of_channels {
            cautions = format!("use at most half of the channels; {cautions}");
        }
        let row = format!(
            "| `{}` | {} | {native} | {zero_copy} | {mtu} | {cautions} |\n",
            driver.name, driver.hardware
        );
        text += &row;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn the_table_in_hardware_md_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../hardware.md");
        let text = std::fs::read_to_string(path).unwrap();
        assert!(
            text.contains(&markdown()),
            "put this table into hardware.md:\n{}",
            markdown()
        );
    }

    #[test]
    fn verdicts() {
        let of = |name, kernel, want| check(name, kernel, want).verdict;
        assert_eq!(of(Some("ice"), Some((6, 18)), Want::Yes), Verdict::Ok);
        assert_eq!(of(Some("ice"), Some((6, 8)), Want::Yes), Verdict::Warn);
        assert_eq!(of(Some("ice"), Some((6, 8)), Want::No), Verdict::Ok);
        assert_eq!(of(Some("igc"), Some((5, 10)), Want::Maybe), Verdict::Warn);
        assert_eq!(of(Some("e1000"), Some((6, 18)), Want::Maybe), Verdict::Warn);
        assert_eq!(of(None, Some((6, 18)), Want::Yes), Verdict::Warn);
        assert_eq!(of(Some("veth"), None, Want::Yes), Verdict::Ok);
    }

    #[test]
    fn names_are_unique() {
        for driver in &TABLE {
            assert_eq!(
                TABLE.iter().filter(|other| other.name == driver.name).count(),
                1,
                "{}",
                driver.name
            );
        }
    }
}
