//! SIP: messages, transactions, dialogs.

pub(crate) mod checks;
pub(crate) mod dialog;
pub(crate) mod reply;
pub(crate) mod timers;
pub(crate) mod transactions;
pub(crate) mod wire;
