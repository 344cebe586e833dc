//! The scout: the thread that asks the kernel so that no worker has to.
//!
//! It keeps the workers' copies of routes and neighbours fresh, has neighbours resolved and confirmed
//! (frames of ours do not tell the kernel that a neighbour is in use), binds sockets for peers that no
//! frame reaches, takes the interface into service again when it was removed and came back, and
//! compares what the program redirected with what arrived.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use mixer_engine::time::Timestamp;

use super::device::{Device, XdpFigures};
use super::errand::{Errand, News, ScoutEnd};
use super::routes::netlink::{Kernel, Watch};
use super::routes::{Hop, RouteTable, Way};
use crate::clock::Clock;
use crate::io::uring::{self, BindOptions};

/// The scout's thread, seen from outside. Dropping it ends the service of the interface.
#[derive(Debug)]
pub struct Scout {
    stop: Arc<AtomicBool>,
    figures: Figures,
    thread: Option<JoinHandle<Device>>,
}

/// What was counted, as of the last second; readable from any thread.
#[derive(Debug, Clone, Default)]
pub struct Figures(Arc<Mutex<XdpFigures>>);

impl Figures {
    /// The figures.
    #[must_use]
    pub fn read(&self) -> XdpFigures {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, figures: XdpFigures) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }
}

impl Scout {
    /// Sends the scout out for a device, with its ends of the workers' rings. When it returns every
    /// worker has a table in its ring.
    ///
    /// # Errors
    /// The kernel's tables cannot be read, or there is no thread.
    pub fn start(device: Device, ends: Vec<ScoutEnd>, clock: Clock) -> io::Result<Self> {
        let figures = Figures::default();
        let mut rounds = Rounds {
            kernel: Kernel::open()?,
            watch: Watch::open()?,
            device,
            ends,
            table: RouteTable::default(),
            wanted: BTreeMap::new(),
            stale: false,
            away: false,
            reopened: 0,
            // Two counts must be a second apart: what was redirected by the first has arrived by the second.
            due: clock.now().after(SECOND),
            figures: figures.clone(),
        };
        rounds.refresh()?;
        rounds.count();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("scout".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Acquire) {
                    rounds.go(clock.now());
                    std::thread::park_timeout(ROUND);
                }
                rounds.device
            })?;
        Ok(Self {
            stop,
            figures,
            thread: Some(thread),
        })
    }

    /// Ends the scout and gives back the interface, still in service; `None` when it had panicked.
    #[must_use]
    pub fn finish(mut self) -> Option<Device> {
        self.end()?.join().ok()
    }

    /// Tells the thread to end, also in the middle of its pause.
    fn end(&mut self) -> Option<JoinHandle<Device>> {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take()?;
        thread.thread().unpark();
        Some(thread)
    }

    /// What was counted.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.figures.clone()
    }
}

impl Drop for Scout {
    fn drop(&mut self) {
        if let Some(thread) = self.end()
            && thread.join().is_err()
        {
            tracing::error!("the scout had panicked");
        }
    }
}

/// What the scout does, round by round.
struct Rounds {
    kernel: Kernel,
    watch: Watch,
    device: Device,
    ends: Vec<ScoutEnd>,
    /// As the workers have it.
    table: RouteTable,
    /// Neighbours that flows send to, and when each is to be asked for again.
    wanted: BTreeMap<Hop, Timestamp>,
    /// The kernel's tables have changed since they were read.
    stale: bool,
    /// The interface is gone.
    away: bool,
    reopened: u64,
    /// When to count next.
    due: Timestamp,
    figures: Figures,
}

impl Rounds {
    fn go(&mut self, now: Timestamp) {
        self.stale |= self.watch.changed();
        for end in 0..self.ends.len() {
            self.run_errands(end, now);
        }
        self.resolve(now);
        if self.stale
            && let Err(error) = self.refresh()
        {
            tracing::warn!(%error, "routes and neighbours cannot be read");
        }
        if now >= self.due {
            self.due = now.after(SECOND);
            if self.away {
                // Nothing may tell of a driver that comes back half-way.
                self.stale = true;
            }
            self.count();
        }
    }

    fn count(&mut self) {
        let mut figures = self.device.figures();
        figures.reopened = self.reopened;
        if self.away {
            figures.mode = None;
        }
        let before = self.figures.read().redirects_lost;
        if figures.redirects_lost > before {
            tracing::warn!(
                lost = figures.redirects_lost - before,
                interface = self.device.name(),
                "frames were redirected to a socket that did not get them: queue and socket do not match"
            );
        }
        self.figures.write(figures);
    }

    fn run_errands(&mut self, end: usize, now: Timestamp) {
        let Some(end) = self.ends.get_mut(end) else { return };
        while let Some(errand) = end.next_errand() {
            match errand {
                Errand::Find(hop) => {
                    if self.wanted.len() < HOPS_MAX {
                        self.wanted.entry(hop).or_insert(now);
                    }
                }
                Errand::Bind { flow, local } => {
                    let news = match uring::bind(local, &BindOptions::default()) {
                        Ok(socket) => News::Socket { flow, local, socket },
                        Err(error) => {
                            tracing::warn!(%local, %error, "socket for a peer that AF_XDP does not reach");
                            News::NoSocket { flow, local }
                        }
                    };
                    // A full ring: the flow stays without a socket until its remote is set anew.
                    end.tell(news);
                }
                Errand::Drop(worn) => drop(worn),
            }
        }
    }

    /// Has neighbours resolved that are unknown, and confirmed from time to time.
    fn resolve(&mut self, now: Timestamp) {
        for (hop, due) in &mut self.wanted {
            if *due > now {
                continue;
            }
            let known = !matches!(self.table.way(hop.address), Way::Wanted(..));
            *due = now.after(if known { CONFIRM } else { SECOND });
            if let Err(error) = self.kernel.resolve(*hop) {
                tracing::debug!(address = %hop.address, %error, "neighbour");
            }
        }
    }

    /// Reads the kernel's tables, and tells the workers when they have changed.
    fn refresh(&mut self) -> io::Result<()> {
        self.stale = false;
        self.follow_interface()?;
        let table = self.kernel.table(self.device.index(), self.device.tags())?;
        if table == self.table {
            return Ok(());
        }
        for end in &mut self.ends {
            if !end.tell(News::Table(Box::new(table.clone()))) {
                // Told again next time.
                self.stale = true;
                return Ok(());
            }
        }
        self.table = table;
        Ok(())
    }

    /// Takes the interface into service again after it was removed and came back.
    fn follow_interface(&mut self) -> io::Result<()> {
        let found = self.kernel.interface(self.device.name())?;
        let Some(found) = found else {
            if !self.away {
                tracing::error!(interface = self.device.name(), "the interface is gone");
                self.away = true;
                self.device.leave();
            }
            return Ok(());
        };
        if found.index == self.device.index() && !self.away {
            return Ok(());
        }
        match self.device.enter(&mut self.kernel) {
            Ok(queues) => {
                for (end, queues) in self.ends.iter_mut().zip(queues) {
                    for (place, queue) in queues.into_iter().enumerate() {
                        if !end.tell(News::Queue {
                            place,
                            queue: Box::new(queue),
                        }) {
                            self.away = true;
                            return Ok(());
                        }
                    }
                }
                self.reopened += 1;
                self.away = false;
                tracing::info!(interface = self.device.name(), mode = %self.device.mode(), "the interface is back in service");
            }
            Err(error) => {
                if !self.away {
                    tracing::error!(%error, "the interface is back but cannot be used");
                }
                self.away = true;
            }
        }
        Ok(())
    }
}

/// Time between two rounds: what an errand may take.
const ROUND: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(1);
/// A neighbour in use is confirmed so often.
const CONFIRM: Duration = Duration::from_secs(30);
const HOPS_MAX: usize = 4_096;
