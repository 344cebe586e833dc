//! docs/control-link.md is made from the types; `UPDATE_DOCS=1 cargo test -p mixer-control` writes it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod examples;

use std::fmt::Write;
use std::path::Path;

use mixer_control::reply::ProblemKind;
use serde::Serialize;

fn json(page: &mut String, value: &impl Serialize) {
    writeln!(
        page,
        "```json\n{}\n```\n",
        serde_json::to_string_pretty(value).unwrap()
    )
    .unwrap();
}

fn lines<T: Serialize>(page: &mut String, values: &[T]) {
    page.push_str("```json\n");
    for value in values {
        writeln!(page, "{}", serde_json::to_string(value).unwrap()).unwrap();
    }
    page.push_str("```\n\n");
}

/// The table of paths in the crate's documentation, without rustdoc's links.
fn paths() -> String {
    let source = include_str!("../src/lib.rs");
    let rows = source.lines().filter_map(|line| line.strip_prefix("//! |"));
    rows.fold(String::new(), |mut table, row| {
        writeln!(table, "|{}", row.replace("[`", "`").replace("`]", "`")).unwrap();
        table
    })
}

fn page() -> String {
    let mut page = String::from(include_str!("docs/head.md"));
    page.push_str("## Paths\n\n");
    page.push_str(&paths());
    page.push_str(include_str!("docs/rules.md"));
    page.push_str("## Requests\n\n`PUT /v1/conferences/conf-7`\n\n");
    json(&mut page, &examples::create_conference());
    page.push_str("`PUT /v1/conferences/conf-7/endpoints/ep-1` (`media` may be left out: late offer)\n\n");
    json(&mut page, &examples::create_endpoint());
    page.push_str(include_str!("docs/media.md"));
    page.push_str("`PUT /v1/conferences/conf-7/endpoints/to-mixer-2`, a trunk\n\n");
    lines(&mut page, &[examples::create_trunk()]);
    page.push_str(include_str!("docs/trunk.md"));
    page.push_str("`PUT .../endpoints/ep-1/media`\n\n");
    lines(&mut page, &[examples::set_media()]);
    page.push_str("`POST .../endpoints/ep-1/commands`, one of\n\n");
    lines(&mut page, &examples::endpoint_commands());
    page.push_str("`POST /v1/conferences/conf-7/commands`, one of\n\n");
    lines(&mut page, &examples::conference_commands());
    page.push_str("## Answers\n\nEvery command but the creation of an endpoint:\n\n");
    json(&mut page, &examples::done());
    page.push_str("Creation of an endpoint:\n\n");
    json(&mut page, &examples::endpoint_created());
    page.push_str("A refusal (`application/problem+json`; `Retry-After` in the header too):\n\n");
    json(&mut page, &examples::problem());
    page.push_str("| type | status | repeat with the same id | meaning |\n|---|---|---|---|\n");
    for kind in ProblemKind::ALL {
        let repeat = if kind.is_retryable() {
            "yes"
        } else {
            "no, the answer is remembered"
        };
        let repeat = if kind == ProblemKind::Invalid {
            "no, correct it"
        } else {
            repeat
        };
        let meaning = meaning(kind);
        writeln!(
            page,
            "| `{}` | {} | {repeat} | {meaning} |",
            kind.name(),
            kind.status()
        )
        .unwrap();
    }
    page.push_str(include_str!("docs/events.md"));
    lines(&mut page, &examples::events());
    page.push_str(include_str!("docs/state.md"));
    json(&mut page, &examples::state());
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

/// The first paragraph of the kind's documentation.
fn meaning(kind: ProblemKind) -> String {
    let source = include_str!("../src/reply.rs");
    let variant = format!("    {kind:?},");
    let body = source.split("pub enum ProblemKind {").nth(1).unwrap();
    let before: Vec<&str> = body.lines().take_while(|line| *line != variant).collect();
    let comment: Vec<&str> = before
        .iter()
        .rev()
        .map_while(|line| line.trim().strip_prefix("/// "))
        .collect();
    let comment: Vec<&str> = comment.into_iter().rev().collect();
    assert!(!comment.is_empty(), "{kind:?} is not documented");
    comment.join(" ")
}

#[test]
fn control_link_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/control-link.md");
    let wanted = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/control-link.md is out of date: UPDATE_DOCS=1 cargo test -p mixer-control"
    );
}
