//! The sidecar shell.
