use std::net::{IpAddr, SocketAddr};

use serde_reflection::{Samples, Tracer, TracerConfig};

use super::*;
use crate::jitter::Phase;
use crate::media::{Codec, SourceRule};
use crate::prompt::playlist::Source;
use crate::srtp::Suite;

/// The form of the state as far as types tell: every struct, field and variant with its type.
fn shape() -> String {
    let (mut tracer, samples) = (Tracer::new(TracerConfig::default()), Samples::new());
    tracer.trace_type::<IpAddr>(&samples).unwrap();
    tracer.trace_type::<SocketAddr>(&samples).unwrap();
    tracer.trace_type::<Codec>(&samples).unwrap();
    tracer.trace_type::<SourceRule>(&samples).unwrap();
    tracer.trace_type::<Suite>(&samples).unwrap();
    tracer.trace_type::<Phase>(&samples).unwrap();
    tracer.trace_type::<Source>(&samples).unwrap();
    tracer.trace_type::<EventKind>(&samples).unwrap();
    tracer.trace_type::<Read>(&samples).unwrap();
    let registry = tracer.registry().unwrap();
    let types = registry.iter().map(|(name, form)| format!("{name}: {form:?}\n"));
    format!("STATE_FORMAT {STATE_FORMAT}\n{}", types.collect::<String>())
}

/// What an older program wrote must not be read as something else. Run with `WRITE_STATE_SHAPE` set
/// to write the file anew, after raising the number.
#[test]
fn the_form_of_the_state_has_this_number() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/engine/state/shape.txt");
    let known = std::fs::read_to_string(file).unwrap_or_default();
    let now = shape();
    if known == now {
        return;
    }
    let number = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    assert!(
        known.is_empty() || number(&known) != number(&now),
        "the state's form changed and STATE_FORMAT did not: raise it. Known:\n{known}\nNow:\n{now}"
    );
    assert!(
        std::env::var_os("WRITE_STATE_SHAPE").is_some(),
        "a new STATE_FORMAT: run this test once with WRITE_STATE_SHAPE=1 and commit {file}"
    );
    std::fs::write(file, now).unwrap();
}

#[test]
fn what_is_not_a_state_is_an_error() {
    let limits = EngineLimits {
        conferences: 2,
        endpoints: 2,
        port_first: 10_000,
        port_last: 10_009,
        events: 4,
        media_timeout_ms: 60_000,
    };
    let import = |bytes: &[u8]| Engine::import_state(limits, bytes, |_| None).map(drop);
    let good = Engine::new(limits).export_state(|_| None).unwrap();
    assert_eq!(import(&good), Ok(()));
    assert!(matches!(import(b""), Err(StateError::Unreadable(_))));
    for cut in 0..good.len() {
        assert!(
            matches!(import(&good[..cut]), Err(StateError::Unreadable(_))),
            "cut at {cut}"
        );
    }
    let place = good.windows(6).position(|part| part == b"format").unwrap() + 6;
    let mut other = good;
    other[place] = 77;
    assert_eq!(import(&other), Err(StateError::Format { found: 77 }));
}
