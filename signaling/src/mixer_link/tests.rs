//! Tests of the link against a fake mixer.
