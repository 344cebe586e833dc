//! Descriptors that outlive the program: kept open across `exec`, and taken over after it.
//!
//! Everything this process opens carries the close-on-exec flag; what does not was left open for it.
//! So a descriptor can be taken over once, and none that somebody here owns.

#![expect(
    unsafe_code,
    reason = "a number becomes an owned descriptor, a signal is ignored"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Lets a descriptor stay open when this process executes another program, and tells its number. It
/// must not be closed before.
///
/// # Errors
/// What the kernel says.
pub fn keep(descriptor: &impl AsFd) -> io::Result<RawFd> {
    fcntl_setfd(descriptor, FdFlags::empty())?;
    Ok(descriptor.as_fd().as_raw_fd())
}

/// Takes over a descriptor that the program before this one kept.
///
/// # Errors
/// There is no such descriptor, or it was not kept.
pub fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::other(format!(
            "descriptor {number} is a standard stream"
        )));
    }
    // SAFETY: the borrow ends with this block; a number that is not open is an error of fcntl.
    let flags = unsafe { fcntl_getfd(BorrowedFd::borrow_raw(number)) }?;
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(io::Error::other(format!(
            "descriptor {number} was not kept for this program"
        )));
    }
    // SAFETY: it is open, and without the flag it belongs to nobody here (see above).
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&owned, FdFlags::CLOEXEC)?;
    Ok(owned)
}

/// Something control prepared for a flow that can outlive the program.
pub trait KeepOpen {
    /// Lets it stay open when this process executes another program, and tells the number of its
    /// socket, if it has one.
    ///
    /// # Errors
    /// What the kernel says.
    fn keep_open(self) -> io::Result<Option<RawFd>>;
}

/// Ignores the signal that asks for an upgrade, until somebody listens for it again; the next program
/// inherits that. Without it a second signal during the first upgrade would kill.
pub fn ignore_upgrade_signal() {
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_kept_can_be_taken_over_and_only_once() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(adopt(file.as_raw_fd()).is_err(), "somebody owns it");
        assert!(adopt(1).is_err());
        assert!(adopt(1 << 20).is_err(), "not open");
        let number = keep(&file).unwrap();
        std::mem::forget(file);
        let taken = adopt(number).unwrap();
        assert!(adopt(number).is_err());
        drop(taken);
    }
}
