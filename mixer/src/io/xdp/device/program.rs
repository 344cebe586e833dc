//! The XDP program in the kernel: loading, attaching, and the maps that steer it.

use std::fmt;
use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, XskMap};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfError};
use serde::{Deserialize, Serialize};
use xdp_abi::{Address, Settings, Verdict};

/// Why the program could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Reading the object or making its maps.
    #[error("XDP program: {0}")]
    Object(#[from] Box<EbpfError>),
    /// A map.
    #[error("XDP map {name}: {source}")]
    Map {
        /// Which.
        name: &'static str,
        /// Why.
        source: Box<aya::maps::MapError>,
    },
    /// The kernel's verifier, or missing capabilities.
    #[error("XDP program: {}", first_line(.0))]
    Program(#[from] Box<aya::programs::ProgramError>),
    /// The system.
    #[error("XDP program: {0}")]
    System(#[from] io::Error),
    /// The object is not the one that belongs to this build.
    #[error("XDP program: the object has no {0}")]
    Missing(&'static str),
}

/// What the verifier says fills pages; its reason comes first.
fn first_line(error: &impl fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// In which place of the kernel the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttachMode {
    /// In the driver, before the kernel makes anything of a frame.
    Driver,
    /// In the network stack ("generic" XDP); works on every interface and costs more.
    Skb,
}

impl AttachMode {
    /// Metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Skb => "skb",
        }
    }

    fn flags(self) -> u32 {
        match self {
            Self::Skb => 1 << 1,
            Self::Driver => 1 << 2,
        }
    }
}

/// The program on an interface. It leaves with this value, or with the process however that ends:
/// a link is a descriptor.
#[derive(Debug)]
pub struct Attachment {
    link: OwnedFd,
}

/// The descriptors of a loaded program: what a process keeps to hand it on.
#[derive(Debug)]
pub struct ProgramFds {
    /// The program.
    pub program: OwnedFd,
    /// Its maps, in a fixed order.
    pub maps: [OwnedFd; MAPS.len()],
}

/// The maps that user space works with.
pub(super) const MAPS: [&str; 6] = [
    xdp_abi::XSKS,
    xdp_abi::ADDRESSES,
    xdp_abi::PORTS,
    xdp_abi::SETTINGS,
    xdp_abi::VERDICTS,
    xdp_abi::REDIRECTED,
];

/// The loaded program.
pub struct Program {
    program: OwnedFd,
    xsks: XskMap<MapData>,
    addresses: HashMap<MapData, [u8; 16], u8>,
    settings: Array<MapData, [u32; 2]>,
    verdicts: PerCpuArray<MapData, u64>,
    redirected: PerCpuArray<MapData, u64>,
    ports: Ports,
    /// The descriptors of the maps, in the order of [`MAPS`].
    map_fds: [OwnedFd; MAPS.len()],
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

/// Which local ports are live: shared by all who prepare ports.
#[derive(Clone)]
pub struct Ports(Arc<Mutex<Array<MapData, u32>>>);

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

/// A live port; dead once this is dropped.
#[derive(Debug)]
pub struct PortLease {
    ports: Ports,
    port: u16,
}

impl Ports {
    /// Makes `port` live for `worker`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn lease(&self, port: u16, worker: u16) -> io::Result<PortLease> {
        self.set(port, xdp_abi::port_value(worker))?;
        Ok(PortLease {
            ports: self.clone(),
            port,
        })
    }

    fn set(&self, port: u16, value: u32) -> io::Result<()> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.set(u32::from(port), value, 0).map_err(io::Error::other)
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        if let Err(error) = self.ports.set(self.port, 0) {
            tracing::warn!(port = self.port, %error, "a port stays live in the XDP program");
        }
    }
}

impl Program {
    /// Loads the program of this build. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load() -> Result<Self, LoadError> {
        let mut object = Ebpf::load(xdp_abi::OBJECT).map_err(Box::new)?;
        let program: &mut Xdp = object
            .program_mut(xdp_abi::PROGRAM)
            .ok_or(LoadError::Missing("program"))?
            .try_into()
            .map_err(Box::new)?;
        program.load().map_err(Box::new)?;
        let program = program.fd().map_err(Box::new)?.as_fd().try_clone_to_owned()?;
        let mut maps = Vec::new();
        for name in MAPS {
            maps.push(object.take_map(name).ok_or(LoadError::Missing(name))?);
        }
        Self::of(program, maps)
    }

    /// Takes over what a former program of this process had loaded.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn inherited(fds: ProgramFds) -> Result<Self, LoadError> {
        let mut maps = Vec::new();
        for (fd, name) in fds.maps.into_iter().zip(MAPS) {
            let data = MapData::from_fd(fd).map_err(map_error(name))?;
            maps.push(match name {
                xdp_abi::XSKS => Map::XskMap(data),
                xdp_abi::ADDRESSES => Map::HashMap(data),
                xdp_abi::VERDICTS | xdp_abi::REDIRECTED => Map::PerCpuArray(data),
                _ => Map::Array(data),
            });
        }
        Self::of(fds.program, maps)
    }

    fn of(program: OwnedFd, maps: Vec<Map>) -> Result<Self, LoadError> {
        let fds = maps.iter().map(map_fd).collect::<Result<Vec<_>, _>>()?;
        let map_fds = fds.try_into().map_err(|_| LoadError::Missing("map"))?;
        let mut maps = maps.into_iter();
        let mut next = || maps.next().ok_or(LoadError::Missing("map"));
        let [xsks, addresses, ports, settings, verdicts, redirected] = MAPS;
        let xsks = XskMap::try_from(next()?).map_err(map_error(xsks))?;
        let addresses = HashMap::try_from(next()?).map_err(map_error(addresses))?;
        let ports = Array::try_from(next()?).map_err(map_error(ports))?;
        Ok(Self {
            program,
            xsks,
            addresses,
            settings: Array::try_from(next()?).map_err(map_error(settings))?,
            verdicts: PerCpuArray::try_from(next()?).map_err(map_error(verdicts))?,
            redirected: PerCpuArray::try_from(next()?).map_err(map_error(redirected))?,
            ports: Ports(Arc::new(Mutex::new(ports))),
            map_fds,
        })
    }

    /// Attaches it to an interface by a link that is a descriptor; never by anything that outlives
    /// the process.
    ///
    /// # Errors
    /// `EOPNOTSUPP` without driver support, `EBUSY` when another program is there, `EINVAL` for an
    /// MTU or an offload that does not go with XDP, or a kernel before 5.9.
    pub fn attach(&self, interface: u32, mode: AttachMode) -> io::Result<Attachment> {
        /// The part of `union bpf_attr` that `BPF_LINK_CREATE` reads, and zeroes.
        #[repr(C)]
        struct LinkCreate {
            program: u32,
            interface: u32,
            attach_type: u32,
            flags: u32,
            rest: [u64; 6],
        }
        let request = LinkCreate {
            program: self.program.as_raw_fd().cast_unsigned(),
            interface,
            attach_type: BPF_XDP,
            flags: mode.flags(),
            rest: [0; 6],
        };
        // SAFETY: pointer and size are of a live request; the descriptor that comes back is ours.
        let link = unsafe {
            let fd = libc::syscall(
                libc::SYS_bpf,
                BPF_LINK_CREATE,
                &raw const request,
                size_of::<LinkCreate>(),
            );
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?)
        };
        Ok(Attachment { link })
    }

    /// Which ports are live.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Gives a queue its socket. The socket must be bound to that very queue.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.xsks
            .set(queue, socket.as_raw_fd(), 0)
            .map_err(io::Error::other)
    }

    /// Adds an address that is ours.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_address(&mut self, address: IpAddr) -> io::Result<()> {
        let key = Address::from(address).to_bytes();
        self.addresses.insert(key, 1, 0).map_err(io::Error::other)
    }

    /// Changes what the program may be told while it runs.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_settings(&mut self, settings: Settings) -> io::Result<()> {
        self.settings
            .set(0, settings.to_words(), 0)
            .map_err(io::Error::other)
    }

    /// Packets by verdict, over all CPUs.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn verdicts(&self) -> io::Result<[u64; Verdict::ALL.len()]> {
        let mut counts = [0; Verdict::ALL.len()];
        for (index, count) in (0u32..).zip(&mut counts) {
            *count = sum(&self.verdicts, index)?;
        }
        Ok(counts)
    }

    /// Packets redirected to the socket of one queue, over all CPUs.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn redirected(&self, queue: u32) -> io::Result<u64> {
        sum(&self.redirected, queue)
    }

    /// Copies of the descriptors behind all this.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn fds(&self) -> io::Result<ProgramFds> {
        let copies = self.map_fds.iter().map(OwnedFd::try_clone);
        let maps = copies.collect::<io::Result<Vec<_>>>()?;
        Ok(ProgramFds {
            program: self.program.try_clone()?,
            maps: maps.try_into().map_err(|_| io::ErrorKind::InvalidData)?,
        })
    }
}

impl Attachment {
    /// Takes over what a former program of this process had attached.
    #[must_use]
    pub fn inherited(link: OwnedFd) -> Self {
        Self { link }
    }
}

impl AsFd for Attachment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

fn map_error(name: &'static str) -> impl FnOnce(aya::maps::MapError) -> LoadError {
    move |source| LoadError::Map {
        name,
        source: Box::new(source),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the object has maps of these kinds only"
)]
fn map_fd(map: &Map) -> Result<OwnedFd, LoadError> {
    let data = match map {
        Map::Array(data) | Map::HashMap(data) | Map::PerCpuArray(data) | Map::XskMap(data) => data,
        _ => return Err(LoadError::Missing("map of its kind")),
    };
    Ok(data.fd().as_fd().try_clone_to_owned()?)
}

fn sum(map: &PerCpuArray<MapData, u64>, index: u32) -> io::Result<u64> {
    let values = map.get(&index, 0).map_err(io::Error::other)?;
    Ok(values.iter().sum())
}

/// `BPF_LINK_CREATE` of `bpf(2)`.
const BPF_LINK_CREATE: libc::c_int = 28;
/// `BPF_XDP`.
const BPF_XDP: u32 = 37;
