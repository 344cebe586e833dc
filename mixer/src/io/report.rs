//! Which packet I/O runs, and what it counts besides its workers: for metrics.

use super::xdp::device::XdpFigures;
use super::xdp::scout::Figures;

/// See the module's documentation. The default is io_uring.
#[derive(Debug, Clone)]
pub struct IoReport {
    backend: &'static str,
    xdp: Option<Figures>,
}

impl Default for IoReport {
    fn default() -> Self {
        Self {
            backend: "uring",
            xdp: None,
        }
    }
}

impl IoReport {
    /// AF_XDP, under the name of its backend.
    #[must_use]
    pub fn xdp_as(backend: &'static str, figures: Figures) -> Self {
        Self {
            backend,
            xdp: Some(figures),
        }
    }

    /// Metric label.
    #[must_use]
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// What AF_XDP counts; absent on io_uring.
    #[must_use]
    pub fn xdp(&self) -> Option<XdpFigures> {
        self.xdp.as_ref().map(Figures::read)
    }
}
