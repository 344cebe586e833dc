//! Results with the date, the machine and the revision they belong to, and their files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use super::{Results, plot};

/// Results of one machine on one day.
#[derive(Debug, Serialize)]
pub struct Record<'a> {
    /// UTC.
    pub date: String,
    /// Model of the processor.
    pub cpu: String,
    /// Processors that the system has.
    pub cpus: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// Git revision of the working directory; "-dirty" when files differ from it.
    pub revision: String,
    /// What was measured.
    #[serde(flatten)]
    pub results: &'a Results,
}

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct RecordError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub error: std::io::Error,
}

impl<'a> Record<'a> {
    /// Looks at the machine. What it does not tell is "unknown".
    #[must_use]
    pub fn new(results: &'a Results) -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let of_processors = |name: &str| {
            let lines = processors.lines().filter_map(|line| line.split_once(':'));
            let values = lines.filter(|(key, _)| key.trim() == name);
            values
                .map(|(_, value)| value.trim().to_owned())
                .collect::<Vec<_>>()
        };
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        Self {
            date: said_by("date", &["-u", "+%Y-%m-%d"]),
            cpu: known(of_processors("model name").into_iter().next()),
            cpus: of_processors("processor").len(),
            kernel: known(kernel),
            revision: said_by("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
            results,
        }
    }

    /// Writes `engine.json` and `engine.svg` into a folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), RecordError> {
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(|error| RecordError { path, error })
        };
        fs::create_dir_all(folder).map_err(|error| RecordError {
            path: folder.to_owned(),
            error,
        })?;
        let json = serde_json::to_string_pretty(self).unwrap_or_default();
        write("engine.json", json + "\n")?;
        write("engine.svg", plot::draw(self))
    }
}

/// First line that a program prints.
fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok();
    let output = output.filter(|output| output.status.success());
    let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
    known(text.and_then(|text| text.lines().next().map(str::to_owned)))
}

fn known(text: Option<String>) -> String {
    let text = text.map(|text| text.trim().to_owned());
    text.filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}
