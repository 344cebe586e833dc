//! Load tester library.
