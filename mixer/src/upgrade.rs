//! Another program in the place of this one, in the same process, while streams go on.
//!
//! The order of things, and what may fail when: [`Program::check`] asks the new program whether it
//! reads what we write and whether its configuration fits, while everything runs;
//! [`crate::server::Server::hand_over`] ends what is on its way, still able to refuse, and then stops;
//! [`Program::replace`] writes everything into a memory file and executes the new program, which finds
//! it by [`VARIABLE`] and goes on ([`inherited`]). Sockets stay open all the time, so what arrives
//! meanwhile waits in them. From the stop on a failure is the end of the process.

mod image;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::config::Config;
use crate::io::inherit;
use crate::placement;
pub use image::{ControlImage, Image, WorkerImage};

/// Number of the form of what is handed over: that of the engine's state, and of what is around it.
pub const STATE_FORMAT: u32 = mixer_engine::engine::state::STATE_FORMAT * 1_000 + image::FORMAT;

/// Names the descriptor of the memory file to the new program.
pub const VARIABLE: &str = "MIXMINUS_STATE_FD";

/// Time for a new program to say what it reads.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Why an upgrade did not take place.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// Everything runs as before.
    #[error("{0}")]
    Refused(&'static str),
    /// The new program does not fit; everything runs as before.
    #[error("{0}")]
    Unfit(String),
    /// Nothing runs any more.
    #[error("{0}")]
    Failed(String),
}

/// The program as it was started.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// This one. To be asked at the start: once the file is replaced, its name is not known any more.
    ///
    /// # Errors
    /// What the system says.
    pub fn this() -> io::Result<Self> {
        Ok(Self {
            path: std::env::current_exe()?,
            arguments: std::env::args_os().skip(1).collect(),
        })
    }

    /// Whether the file that is there now can go on for this program with its configuration as it is
    /// there now.
    ///
    /// # Errors
    /// [`HandOverError::Unfit`], in one line.
    pub async fn check(&self, running: &Config) -> Result<(), HandOverError> {
        let format = self.ask("--state-format").await?;
        if format.trim() != STATE_FORMAT.to_string() {
            return Err(self.unfit(format!(
                "reads state format {}, this program writes {STATE_FORMAT}; restart the mixer instead",
                format.trim()
            )));
        }
        let text = self.ask("--check").await?;
        let new = Config::parse("--check", &text, &placement::available_cores());
        let new = new.map_err(|error| self.unfit(error.to_string()))?;
        match changed(running, &new) {
            None => Ok(()),
            Some(key) => Err(self.unfit(format!("{key} was changed; restart the mixer for that"))),
        }
    }

    fn unfit(&self, why: impl std::fmt::Display) -> HandOverError {
        HandOverError::Unfit(format!("{}: {why}", self.path.display()))
    }

    /// What the program prints when run with one more argument.
    async fn ask(&self, flag: &str) -> Result<String, HandOverError> {
        let mut child = Command::new(&self.path)
            .args(&self.arguments)
            .arg(flag)
            .env_remove(VARIABLE)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| self.unfit(format!("cannot be run: {error}")))?;
        let Some(status) = wait(&mut child).await.map_err(|error| self.unfit(error))? else {
            // It may have ended just now.
            let _ = child.kill();
            let _ = child.wait();
            return Err(self.unfit(format!("did not answer {flag}")));
        };
        let read = |stream: Option<&mut dyn Read>| {
            let mut text = String::new();
            // Cut or unreadable text fails the comparison that follows.
            let _ = stream.map(|stream| stream.take(ANSWER_MAX).read_to_string(&mut text));
            text
        };
        let said = read(child.stdout.as_mut().map(|stream| stream as &mut dyn Read));
        if status.success() {
            return Ok(said);
        }
        let complaint = read(child.stderr.as_mut().map(|stream| stream as &mut dyn Read));
        let line = complaint.lines().next().unwrap_or_default();
        Err(self.unfit(format!("{flag} ended with {status}: {line}")))
    }

    /// Executes the file in the place of this program. Returns only when that failed.
    pub fn replace(&self, image: &Image) -> HandOverError {
        let failed = |error: &dyn std::fmt::Display| {
            HandOverError::Failed(format!("{}: {error}", self.path.display()))
        };
        let file = match store(image) {
            Ok(file) => file,
            Err(error) => return failed(&error),
        };
        let number = match inherit::keep(&file) {
            Ok(number) => number,
            Err(error) => return failed(&error),
        };
        inherit::ignore_upgrade_signal();
        let error = Command::new(&self.path)
            .args(&self.arguments)
            .env(VARIABLE, number.to_string())
            .exec();
        failed(&error)
    }
}

/// Has the system find as much memory as this program holds, and gives it back. The next program gets that again at
/// once; memory that lay unused for long takes several times as long to get, on a virtual machine above all, and
/// while the next program gets its own nobody hears anything.
pub fn bring_memory_near() {
    let held = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = held.and_then(|text| text.split(' ').nth(1)?.parse::<usize>().ok());
    // Without an answer the standstill is longer, nothing else.
    let bytes = pages.unwrap_or(0).saturating_mul(PAGE).min(NEAR_MAX);
    let mut memory = vec![0_u8; bytes];
    for page in memory.chunks_mut(PAGE) {
        page.fill(1);
    }
    std::hint::black_box(memory);
}

/// The exit status; `None` when the time is over.
async fn wait(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let mut look = tokio::time::interval(Duration::from_millis(2));
    let looks = ANSWER_TIME.as_millis() / look.period().as_millis().max(1);
    for _ in 0..looks {
        look.tick().await;
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
    }
    Ok(None)
}

/// The key whose change forbids an upgrade: what sockets are bound to, and what sizes are for.
fn changed(running: &Config, new: &Config) -> Option<&'static str> {
    let keys = [
        ("io.backend", running.io.backend == new.io.backend),
        ("io.interface", running.io.interface == new.io.interface),
        ("io.address", running.io.address == new.io.address),
        ("io.ports", running.io.ports == new.io.ports),
        (
            "the number of workers.cores",
            running.workers.cores.len() == new.workers.cores.len(),
        ),
        ("control.listen", running.control.listen == new.control.listen),
        (
            "limits.conferences",
            running.limits.conferences <= new.limits.conferences,
        ),
        (
            "limits.endpoints",
            running.limits.endpoints <= new.limits.endpoints,
        ),
    ];
    keys.into_iter().find(|(_, same)| !same).map(|(key, _)| key)
}

fn store(image: &Image) -> io::Result<File> {
    let bytes = rmp_serde::to_vec_named(image).map_err(io::Error::other)?;
    let mut file = File::from(memfd_create("mixminus-state", MemfdFlags::CLOEXEC)?);
    file.write_all(&bytes)?;
    io::Seek::rewind(&mut file)?;
    Ok(file)
}

/// What the program before this one left, if there was one.
///
/// # Errors
/// It cannot be read.
pub fn inherited() -> io::Result<Option<Image>> {
    let Some(number) = std::env::var_os(VARIABLE) else {
        return Ok(None);
    };
    let image = read(&number);
    let unusable = |error| io::Error::other(format!("what was handed over cannot be used: {error}"));
    image.map(Some).map_err(unusable)
}

fn read(number: &OsStr) -> io::Result<Image> {
    let number = number.to_str().and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| io::Error::other(format!("{VARIABLE} is no descriptor")))?;
    let mut bytes = Vec::new();
    File::from(inherit::adopt(number)?).read_to_end(&mut bytes)?;
    let image: Image = rmp_serde::from_slice(&bytes).map_err(io::Error::other)?;
    if image.format != STATE_FORMAT {
        let found = image.format;
        return Err(io::Error::other(format!(
            "state format {found} instead of {STATE_FORMAT}"
        )));
    }
    Ok(image)
}

const ANSWER_MAX: u64 = 64 * 1_024;
/// Bytes of a page, on the machines we know; a larger one is touched more than once.
const PAGE: usize = 4_096;
/// Bytes that are brought near at most: beyond some ten workers it would be a burden itself.
const NEAR_MAX: usize = 512 << 20;
