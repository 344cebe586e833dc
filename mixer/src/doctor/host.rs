//! Reading a machine: files under a root folder, tools through a trait.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use super::netdev::{self, XdpFeatures};
use crate::steering::ethtool::{self, Ethtool, Output};

/// What the checks ask of programs and the kernel beside files.
pub trait Tools: Ethtool {
    /// What XDP modes an interface supports.
    ///
    /// # Errors
    /// The kernel is older than 6.3 or knows no such interface.
    fn xdp_features(&self, interface_index: u32) -> io::Result<XdpFeatures>;
}

/// This machine's.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Ethtool for System {
    fn run(&self, arguments: &[&str]) -> io::Result<Output> {
        ethtool::System.run(arguments)
    }
}

impl Tools for System {
    fn xdp_features(&self, interface_index: u32) -> io::Result<XdpFeatures> {
        netdev::xdp_features(interface_index)
    }
}

/// A machine to be examined.
#[derive(Debug)]
pub struct Host<T: Tools> {
    root: PathBuf,
    /// Its tools.
    pub tools: T,
}

impl<T: Tools> Host<T> {
    /// A machine whose `/proc` and `/sys` lie below `root`.
    pub fn new(root: impl Into<PathBuf>, tools: T) -> Self {
        Self {
            root: root.into(),
            tools,
        }
    }

    /// The text of a file without white space around it; `None` when it cannot be read.
    pub fn read(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// Names in a folder, sorted; empty when there is none.
    pub fn list(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join(path)).into_iter().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        names.sort();
        names
    }

    /// Whether there is such a file or folder.
    pub fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// The last part of what a link points to.
    pub fn link_name(&self, path: &str) -> Option<String> {
        let target = std::fs::read_link(self.root.join(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }
}

/// Numbers of a list as the kernel writes it (`0-3,8`); empty for `(null)` or nothing.
#[must_use]
pub fn number_list(text: &str) -> BTreeSet<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse::<usize>().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Numbers as people write them: `0-3,8`.
pub fn show_list<'a>(numbers: impl IntoIterator<Item = &'a usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let shown: Vec<String> = ranges
        .iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    shown.join(",")
}
