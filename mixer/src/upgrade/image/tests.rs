use mixer_control::reply::ProblemKind;
use mixer_control::srtp::SrtpSuite;
use serde_reflection::{Samples, Tracer, TracerConfig};

use super::*;
use crate::control::answers::AnswerRecord;
use crate::io::xdp::{AttachMode, CopyMode};

/// What is handed over as far as types tell: every struct, field and variant with its type. The
/// engine's state and control's part are bytes in it; the latter is traced beside it.
fn shape() -> String {
    let (mut tracer, samples) = (Tracer::new(TracerConfig::default()), Samples::new());
    tracer.trace_type::<SocketAddr>(&samples).unwrap();
    tracer.trace_type::<ProblemKind>(&samples).unwrap();
    tracer.trace_type::<SrtpSuite>(&samples).unwrap();
    tracer.trace_type::<AnswerRecord>(&samples).unwrap();
    tracer.trace_type::<AttachMode>(&samples).unwrap();
    tracer.trace_type::<CopyMode>(&samples).unwrap();
    tracer.trace_type::<ControlImage>(&samples).unwrap();
    tracer.trace_type::<Image>(&samples).unwrap();
    let registry = tracer.registry().unwrap();
    let types = registry.iter().map(|(name, form)| format!("{name}: {form:?}\n"));
    format!("FORMAT {FORMAT}\n{}", types.collect::<String>())
}

/// What an older program wrote must not be read as something else. Run with `WRITE_STATE_SHAPE` set
/// to write the file anew, after raising the number.
#[test]
fn the_form_of_what_is_handed_over_has_this_number() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/upgrade/image/shape.txt");
    let known = std::fs::read_to_string(file).unwrap_or_default();
    let now = shape();
    if known == now {
        return;
    }
    let number = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    assert!(
        known.is_empty() || number(&known) != number(&now),
        "what is handed over changed and FORMAT did not: raise it. Known:\n{known}\nNow:\n{now}"
    );
    assert!(
        std::env::var_os("WRITE_STATE_SHAPE").is_some(),
        "a new FORMAT: run this test once with WRITE_STATE_SHAPE=1 and commit {file}"
    );
    std::fs::write(file, now).unwrap();
}
