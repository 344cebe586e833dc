//! Linux capabilities: what AF_XDP needs, what is missing, and giving up all the rest.
//!
//! Capabilities belong to a thread, not to a process: a new thread gets a copy of its maker's. What is
//! given up here is given up by the calling thread and by the threads it starts **afterwards**. So
//! [`keep_only`] must run before any other thread exists, or that thread keeps what it has.

use std::fmt;

use caps::errors::CapsError;
use caps::{CapSet, CapsHashSet};

/// A capability this program has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Open an AF_XDP socket.
    NetRaw,
    /// Attach an XDP program, change a NIC's queues and rules.
    NetAdmin,
    /// Make BPF maps and load programs.
    Bpf,
    /// Real-time order for workers ([`crate::placement::prefer_realtime`]).
    SysNice,
    /// Memory beyond the locked-memory limit.
    IpcLock,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::NetRaw,
        Self::NetAdmin,
        Self::Bpf,
        Self::SysNice,
        Self::IpcLock,
    ];

    /// What AF_XDP cannot do without.
    pub const AF_XDP: [Self; 3] = [Self::NetRaw, Self::NetAdmin, Self::Bpf];

    /// As the kernel's headers and systemd write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NetRaw => "CAP_NET_RAW",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::Bpf => "CAP_BPF",
            Self::SysNice => "CAP_SYS_NICE",
            Self::IpcLock => "CAP_IPC_LOCK",
        }
    }

    /// Its bit in `/proc/PID/status` (`capability.h`).
    #[must_use]
    pub fn bit(self) -> u8 {
        self.of_crate().index()
    }

    fn of_crate(self) -> caps::Capability {
        match self {
            Self::NetRaw => caps::Capability::CAP_NET_RAW,
            Self::NetAdmin => caps::Capability::CAP_NET_ADMIN,
            Self::Bpf => caps::Capability::CAP_BPF,
            Self::SysNice => caps::Capability::CAP_SYS_NICE,
            Self::IpcLock => caps::Capability::CAP_IPC_LOCK,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why capabilities could not be read or given up.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// The kernel does not tell.
    #[error("capabilities cannot be read: {0}")]
    Read(CapsError),
    /// The kernel keeps them.
    #[error("capabilities cannot be given up: {0}")]
    Drop(CapsError),
}

/// Capabilities that are needed and not held. Displays as one line with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Missing(Vec<Capability>);

impl Missing {
    /// Those of `needed` that are not in `held`, in the order of `needed`; `None` when all are held.
    #[must_use]
    pub fn of(needed: &[Capability], held: &[Capability]) -> Option<Self> {
        let missing: Vec<Capability> = needed
            .iter()
            .copied()
            .filter(|capability| !held.contains(capability))
            .collect();
        (!missing.is_empty()).then_some(Self(missing))
    }

    /// Which.
    #[must_use]
    pub fn capabilities(&self) -> &[Capability] {
        &self.0
    }

    /// Line of a systemd unit that grants what is missing.
    #[must_use]
    pub fn unit_line(&self) -> String {
        format!("AmbientCapabilities={}", self.names(" "))
    }

    /// Command that grants what is missing to a program file.
    #[must_use]
    pub fn setcap(&self) -> String {
        let names = self.names(",").to_lowercase();
        format!("setcap {names}+ep $(command -v mixminus-mixer)")
    }

    fn names(&self, between: &str) -> String {
        let names: Vec<&str> = self.0.iter().map(|capability| capability.name()).collect();
        names.join(between)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "missing {}; grant with `{}` in the systemd unit, or `{}`",
            self.names(" "),
            self.unit_line(),
            self.setcap()
        )
    }
}

/// What the calling thread holds (its effective set), of those in [`Capability::ALL`].
///
/// # Errors
/// The kernel does not tell.
pub fn held() -> Result<Vec<Capability>, CapabilityError> {
    let effective = caps::read(None, CapSet::Effective).map_err(CapabilityError::Read)?;
    Ok(Capability::ALL
        .into_iter()
        .filter(|capability| effective.contains(&capability.of_crate()))
        .collect())
}

/// Which of those that AF_XDP needs the calling thread lacks.
///
/// # Errors
/// The kernel does not tell.
pub fn missing_for_af_xdp() -> Result<Option<Missing>, CapabilityError> {
    Ok(Missing::of(&Capability::AF_XDP, &held()?))
}

/// Gives up everything but `named`, and `CAP_SYS_NICE` and `CAP_IPC_LOCK`, as far as they are held:
/// out of the effective, permitted, inheritable and ambient sets, and out of the bounding set when
/// `CAP_SETPCAP` is held (only then the kernel allows it). Returns what is left in force, sorted.
///
/// Works on the calling thread and threads it starts later: call it **before threads are started**.
///
/// # Errors
/// The kernel does not tell or refuses; then some sets may be smaller already, none is larger.
pub fn keep_only(named: &[Capability]) -> Result<Vec<Capability>, CapabilityError> {
    let read = |set| caps::read(None, set).map_err(CapabilityError::Read);
    let (effective, permitted, inheritable) = (
        read(CapSet::Effective)?,
        read(CapSet::Permitted)?,
        read(CapSet::Inheritable)?,
    );
    let kept = kept(named);
    if effective.contains(&caps::Capability::CAP_SETPCAP) {
        for capability in of_the_kernel().into_iter().filter(|one| !kept.contains(one)) {
            if caps::has_cap(None, CapSet::Bounding, capability).map_err(CapabilityError::Read)? {
                caps::drop(None, CapSet::Bounding, capability).map_err(CapabilityError::Drop)?;
            }
        }
    }
    let lower = |set, from: &CapsHashSet| {
        let both: CapsHashSet = from.intersection(&kept).copied().collect();
        caps::set(None, set, &both).map_err(CapabilityError::Drop)
    };
    // Ambient follows inheritable; effective must never exceed permitted.
    lower(CapSet::Inheritable, &inheritable)?;
    lower(CapSet::Effective, &effective)?;
    lower(CapSet::Permitted, &permitted)?;
    held()
}

/// Every capability, in the kernel's order.
fn of_the_kernel() -> Vec<caps::Capability> {
    let mut all: Vec<caps::Capability> = caps::all().into_iter().collect();
    all.sort_unstable_by_key(caps::Capability::index);
    all
}

fn kept(named: &[Capability]) -> CapsHashSet {
    let always = [Capability::SysNice, Capability::IpcLock];
    named
        .iter()
        .chain(&always)
        .map(|capability| capability.of_crate())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_what_is_missing_is_named() {
        use Capability::{Bpf, NetAdmin, NetRaw, SysNice};
        assert_eq!(
            Missing::of(&Capability::AF_XDP, &[Bpf, SysNice, NetRaw, NetAdmin]),
            None
        );
        let missing = Missing::of(&Capability::AF_XDP, &[NetAdmin, SysNice]).unwrap();
        assert_eq!(missing.capabilities(), [NetRaw, Bpf]);
        assert_eq!(
            missing.to_string(),
            "missing CAP_NET_RAW CAP_BPF; grant with `AmbientCapabilities=CAP_NET_RAW CAP_BPF` in the systemd unit, \
             or `setcap cap_net_raw,cap_bpf+ep $(command -v mixminus-mixer)`"
        );
    }

    #[test]
    fn bits_are_the_kernels() {
        let bits = Capability::ALL.map(Capability::bit);
        assert_eq!(bits, [13, 12, 39, 23, 14]);
    }

    #[test]
    fn giving_up_concerns_the_calling_thread_and_later_ones() {
        let before = held().unwrap();
        let (child, grandchild) = std::thread::spawn(|| {
            let kept = keep_only(&[]).unwrap();
            let later = std::thread::spawn(|| held().unwrap()).join().unwrap();
            (kept, later)
        })
        .join()
        .unwrap();
        let allowed = [Capability::SysNice, Capability::IpcLock];
        let expected: Vec<Capability> = before
            .iter()
            .copied()
            .filter(|one| allowed.contains(one))
            .collect();
        assert_eq!(child, expected);
        assert_eq!(grandchild, expected);
        assert_eq!(held().unwrap(), before, "another thread keeps what it has");
    }
}
