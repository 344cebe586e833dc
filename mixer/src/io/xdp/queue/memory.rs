//! A piece of mapped memory: shared with the kernel, or only with another mapping of the same pages.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

/// Mapped memory; unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    address: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to whoever holds this value; nothing about it is bound to a thread.
unsafe impl Send for Mapping {}
// SAFETY: through a shared reference only the address and the length can be read.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of `fd` from `offset` on, shared, every page at once.
    pub(super) fn of(fd: RawFd, length: usize, offset: i64) -> io::Result<Self> {
        Self::map(length, libc::MAP_SHARED | libc::MAP_POPULATE, fd, offset)
    }

    /// Maps `length` bytes of `fd`, shared, page by page as they are used: the pages are there already,
    /// and whoever waits for this is heard by nobody meanwhile.
    pub(super) fn of_present(fd: RawFd, length: usize) -> io::Result<Self> {
        Self::map(length, libc::MAP_SHARED, fd, 0)
    }

    /// Maps `length` bytes of fresh memory that nobody else sees.
    pub(super) fn fresh(length: usize) -> io::Result<Self> {
        Self::map(length, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    fn map(length: usize, flags: libc::c_int, fd: RawFd, offset: i64) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: no address is asked for, so no existing mapping is touched.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, fd, offset) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { address, length })
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// The address of the byte at `offset`, if `size` bytes from there on lie inside.
    pub(super) fn at(&self, offset: usize, size: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(size)?;
        // SAFETY: the offset lies inside of the mapping.
        (end <= self.length).then(|| unsafe { self.address.add(offset) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrows from it any more.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.length) };
    }
}

/// Memory with a descriptor, which can be mapped again by the program that takes this one's place: of huge pages where
/// the machine has enough of them to spare. Every frame lies in a page of its own otherwise, and finding the pages takes
/// longer than reading the frames (`docs/decisions/0016-memory-that-is-waited-for.md`).
pub(super) fn memory_file(length: usize) -> io::Result<(OwnedFd, Mapping)> {
    if length.is_multiple_of(HUGE_PAGE)
        && let Ok(memory) = memory_of(length, libc::MFD_HUGETLB | libc::MFD_HUGE_2MB)
    {
        return Ok(memory);
    }
    memory_of(length, 0)
}

fn memory_of(length: usize, pages: libc::c_uint) -> io::Result<(OwnedFd, Mapping)> {
    // SAFETY: the name is a C string; the descriptor that comes back is ours alone.
    let fd = unsafe {
        let fd = libc::memfd_create(c"mixminus-umem".as_ptr(), libc::MFD_CLOEXEC | pages);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let end = i64::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: takes no pointer.
    if unsafe { libc::ftruncate(fd.as_raw_fd(), end) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mapping = Mapping::of(fd.as_raw_fd(), length, 0)?;
    Ok((fd, mapping))
}

const HUGE_PAGE: usize = 2 << 20;
