//! Offer/answer cases by rule number.
