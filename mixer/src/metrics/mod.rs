//! Metrics: one table of names, histograms fit for Prometheus, the text page.

pub mod exporter;
pub mod histogram;
pub mod table;
