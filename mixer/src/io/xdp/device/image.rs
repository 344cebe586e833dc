//! An interface on its way from program to program.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};

use super::program::{AttachMode, Attachment, MAPS, Program, ProgramFds};
use super::{Device, DeviceConfig, DeviceError, Slot, WorkerQueues};
use crate::io::inherit;
use crate::io::xdp::queue::socket::{CopyMode, XskSocket};
use crate::io::xdp::queue::{QueueSizes, XskQueue};

/// An interface in service on its way to the program that takes this one's place. Its descriptors stay
/// open; until the next program runs, frames wait in the rings.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeviceImage {
    /// Of the XDP program; with another one the next program starts anew.
    object: String,
    index: u32,
    mtu: u32,
    copy: CopyMode,
    lost: u64,
    program: Option<ProgramImage>,
    slots: Vec<SlotImage>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ProgramImage {
    program: RawFd,
    maps: [RawFd; MAPS.len()],
    link: RawFd,
    mode: AttachMode,
}

#[derive(Debug, Serialize, Deserialize)]
struct SlotImage {
    queue: u32,
    sizes: QueueSizes,
    socket: RawFd,
    memory: RawFd,
    /// Transmit chunks in nobody's hands.
    free: Vec<u32>,
    /// Frames received.
    arrived: u64,
    base: u64,
    redirected: u64,
}

impl Device {
    /// Lets everything stay open for the next program. The workers have ended.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn keep_open(self) -> io::Result<DeviceImage> {
        let program = match (&self.program, &self.attachment) {
            (Some(program), Some((link, mode))) => {
                let fds = program.fds()?;
                let mut maps = [0; MAPS.len()];
                for (number, fd) in maps.iter_mut().zip(&fds.maps) {
                    *number = inherit::keep(fd)?;
                }
                let image = ProgramImage {
                    program: inherit::keep(&fds.program)?,
                    maps,
                    link: inherit::keep(link)?,
                    mode: *mode,
                };
                std::mem::forget(fds);
                Some(image)
            }
            (Some(_), None) | (None, _) => None,
        };
        let mut slots = Vec::new();
        for slot in &self.slots {
            let free = slot.shared.rest.lock().unwrap_or_else(PoisonError::into_inner);
            slots.push(SlotImage {
                queue: slot.queue,
                sizes: slot.sizes,
                socket: inherit::keep(&*slot.socket)?,
                memory: inherit::keep(&slot.memory)?,
                free: free.clone(),
                arrived: slot.shared.arrived.load(Ordering::Relaxed),
                base: slot.base,
                redirected: slot.redirected,
            });
        }
        let image = DeviceImage {
            object: xdp_abi::OBJECT_SHA256.to_owned(),
            index: self.index,
            mtu: self.mtu,
            copy: self.copy,
            lost: self.lost,
            program,
            slots,
        };
        // What was kept must be open when the next program begins.
        std::mem::forget(self);
        Ok(image)
    }

    /// Takes over an interface from the program before this one. When that cannot be (another XDP
    /// program belongs to this build, the interface has changed) it is taken into service anew: frames
    /// in the rings are lost then.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn inherit(config: DeviceConfig, image: DeviceImage) -> Result<(Self, WorkerQueues), DeviceError> {
        let same_program =
            image.object == xdp_abi::OBJECT_SHA256 && image.program.is_some() == config.receive;
        match Self::adopt(config.clone(), image) {
            Ok(adopted) if same_program => Ok(adopted),
            Ok(adopted) => {
                tracing::info!("another XDP program belongs to this build: the interface is opened anew");
                drop(adopted);
                Self::open(config)
            }
            Err(error) => {
                tracing::warn!(%error, "the interface is opened anew");
                Self::open(config)
            }
        }
    }

    fn adopt(config: DeviceConfig, image: DeviceImage) -> io::Result<(Self, WorkerQueues)> {
        let mut device = Self {
            index: image.index,
            mtu: image.mtu,
            program: None,
            attachment: None,
            copy: image.copy,
            slots: Vec::new(),
            lost: image.lost,
            config,
        };
        if let Some(program) = image.program {
            let mut maps = Vec::new();
            for number in program.maps {
                maps.push(inherit::adopt(number)?);
            }
            let fds = ProgramFds {
                program: inherit::adopt(program.program)?,
                maps: maps.try_into().map_err(|_| io::ErrorKind::InvalidData)?,
            };
            device.attachment = Some((Attachment::inherited(inherit::adopt(program.link)?), program.mode));
            device.program = Some(Program::inherited(fds).map_err(io::Error::other)?);
        }
        let mut queues: WorkerQueues = (0..device.config.workers).map(|_| Vec::new()).collect();
        for slot in image.slots {
            let socket = Arc::new(XskSocket::inherited(inherit::adopt(slot.socket)?));
            let memory = inherit::adopt(slot.memory)?;
            let opened = XskQueue::inherit(socket, memory, slot.sizes, slot.free, slot.arrived, image.copy)?;
            device.slots.push(Slot {
                queue: slot.queue,
                sizes: slot.sizes,
                socket: opened.socket,
                memory: opened.memory,
                shared: opened.shared,
                base: slot.base,
                redirected: slot.redirected,
            });
            if let Some(queues) = queues.get_mut(slot.queue as usize % device.config.workers) {
                queues.push(opened.queue);
            }
        }
        Ok((device, queues))
    }
}
