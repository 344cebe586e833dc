//! The walls of the house, checked: at most ten rules, each with its reason in the message.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "tidy/scan.rs"]
mod scan;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// For this platform only: what other platforms need may not be on this machine.
fn metadata() -> Metadata {
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .unwrap();
    let options = ["--offline", "--locked", "--filter-platform", host].map(str::to_owned);
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(options)
        .exec()
        .unwrap()
}

/// All files under `below`, as paths from the root, build output and hidden folders left out.
fn files(below: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !matches!(name.as_str(), "target" | "var" | ".git" | "proptest-regressions") {
                    walk(&path, found);
                }
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(below), &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| path.strip_prefix(root()).unwrap().to_owned())
        .collect()
}

/// All Rust sources with their text.
fn sources() -> Vec<(PathBuf, String)> {
    let rust = files("")
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ext| ext == "rs"));
    rust.map(|path| (path.clone(), fs::read_to_string(root().join(&path)).unwrap()))
        .collect()
}

fn report(rule: &str, reason: &str, violations: &[String]) {
    assert!(
        violations.is_empty(),
        "{rule}: {reason}\n  {}",
        violations.join("\n  ")
    );
}

/// What may depend on what of ours (in any kind of dependency).
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("mixer-engine", &[]),
    ("mixer-control", &[]),
    ("signaling-core", &[]),
    ("mixer", &["mixer-engine", "mixer-control", "xdp-abi"]),
    ("signaling", &["signaling-core", "mixer-control"]),
    (
        "bench",
        &["mixer", "mixer-engine", "mixer-control", "signaling-core"],
    ),
    ("xdp-abi", &[]),
];

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    let ours: BTreeSet<&str> = metadata
        .workspace_packages()
        .iter()
        .map(|p| p.name.as_str())
        .collect();
    let allowed: BTreeMap<&str, &[&str]> = DIRECTIONS.iter().copied().collect();
    let mut violations = Vec::new();
    for package in metadata.workspace_packages() {
        let Some(allowed) = allowed.get(package.name.as_str()) else {
            violations.push(format!(
                "package {} is not in the list of directions",
                package.name
            ));
            continue;
        };
        for dependency in package
            .dependencies
            .iter()
            .filter(|d| ours.contains(d.name.as_str()))
        {
            if !allowed.contains(&dependency.name.as_str()) {
                violations.push(format!("{} -> {}", package.name, dependency.name));
            }
        }
    }
    let reason = "the mixer knows no SIP, signaling knows no RTP, and the cores can be tested alone";
    report("wrong direction", reason, &violations);
}

#[test]
fn sans_io_crates_reach_no_socket_and_no_runtime() {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().unwrap();
    let nodes: BTreeMap<&PackageId, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let name = |id: &PackageId| metadata[id].name.to_string();
    let mut violations = Vec::new();
    for package in metadata.workspace_packages() {
        if !matches!(
            package.name.as_str(),
            "mixer-engine" | "mixer-control" | "signaling-core" | "xdp-abi"
        ) {
            continue;
        }
        let (mut seen, mut open) = (BTreeSet::new(), vec![&package.id]);
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            if matches!(name(id).as_str(), "tokio" | "mio" | "socket2" | "io-uring") {
                violations.push(format!("{} reaches {}", package.name, name(id)));
            }
            let shipped = |kinds: &[cargo_metadata::DepKindInfo]| {
                kinds.iter().any(|kind| kind.kind != DependencyKind::Development)
            };
            open.extend(
                nodes[id]
                    .deps
                    .iter()
                    .filter(|dep| shipped(&dep.dep_kinds))
                    .map(|dep| &dep.pkg),
            );
        }
    }
    report(
        "I/O in a sans-IO crate",
        "time and packets are arguments there; a simulator drives them",
        &violations,
    );
}

#[test]
fn files_functions_and_folders_stay_readable() {
    let mut violations = Vec::new();
    let mut folders: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > 600 {
            violations.push(format!("{}: {lines} lines", path.display()));
        }
        for (name, line, lines) in scan::functions(&scan::mask(&text)) {
            if lines > 70 {
                violations.push(format!("{}:{line}: fn {name} has {lines} lines", path.display()));
            }
        }
        *folders.entry(path.parent().unwrap().to_owned()).or_default() += 1;
    }
    for (folder, count) in folders.iter().filter(|(_, count)| **count > 12) {
        violations.push(format!("{}: {count} source files", folder.display()));
    }
    let reason = "600 lines a file, 70 a function, 12 source files a folder are what one head holds";
    report("too big", reason, &violations);
}

#[test]
fn no_module_is_a_drawer() {
    let drawer = |name: &str| matches!(name, "utils" | "util" | "common" | "helpers" | "helper" | "misc");
    let violations: Vec<String> = sources()
        .iter()
        .filter(|(path, _)| {
            path.with_extension("")
                .iter()
                .any(|part| drawer(&part.to_string_lossy()))
        })
        .map(|(path, _)| path.display().to_string())
        .collect();
    report(
        "module without a subject",
        "a name says what belongs in a module and what does not",
        &violations,
    );
}

#[test]
fn unsafe_lives_in_packet_io_only() {
    let mut violations = Vec::new();
    for base in ["mixer/engine", "mixer/control", "signaling/core", "xdp-prog/abi"] {
        let text = fs::read_to_string(root().join(base).join("src/lib.rs")).unwrap();
        if !text.contains("#![forbid(unsafe_code)]") {
            violations.push(format!("{base}: no #![forbid(unsafe_code)]"));
        }
    }
    for (path, text) in sources() {
        let masked: Vec<char> = scan::mask(&text).chars().collect();
        let packet_io = path.starts_with("mixer/src/io");
        // An allocator that watches a test can only be written with unsafe.
        let watched = path.iter().any(|part| part == "tests") && text.contains("GlobalAlloc");
        let explained = text.contains("SAFETY");
        if !scan::words(&masked, "unsafe").is_empty() && !((packet_io || watched) && explained) {
            violations.push(path.display().to_string());
        }
    }
    report(
        "unsafe",
        "memory errors have one place where they can be, with SAFETY comments",
        &violations,
    );
}

#[test]
fn nothing_is_left_for_later() {
    let mut violations = Vec::new();
    for (path, text) in sources() {
        for (number, line) in scan::mask(&text).lines().enumerate() {
            if ["todo!", "unimplemented!", "#[ignore"]
                .iter()
                .any(|mark| line.contains(mark))
            {
                violations.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    report(
        "unfinished",
        "what is in the tree works; what does not is in an issue",
        &violations,
    );
}

#[test]
fn the_engine_has_no_dynamic_dispatch_and_no_shared_ownership() {
    let mut violations = Vec::new();
    for (path, text) in sources() {
        if path.starts_with("mixer/engine/src") {
            let masked: Vec<char> = scan::mask(&text).chars().collect();
            let count = scan::words(&masked, "dyn").len() + scan::words(&masked, "Arc").len();
            if count > 0 {
                violations.push(format!("{}: {count}", path.display()));
            }
        }
    }
    report(
        "dyn or Arc",
        "one worker owns its engine; nothing is decided per packet by a table",
        &violations,
    );
}

#[test]
fn no_file_names_somebodys_machine() {
    let paths: Vec<String> = ["root", "work", "home"]
        .iter()
        .map(|folder| format!("/{folder}/"))
        .collect();
    let mut violations = Vec::new();
    for path in files("") {
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            if paths.iter().any(|folder| names_folder(line, folder)) {
                violations.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    report("machine path", "a clone works anywhere", &violations);
}

/// An absolute path: not the middle of a longer one or of a URL.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-/}~:".contains(c))
    })
}

#[test]
fn the_top_level_is_what_the_map_shows() {
    let expected = [
        ".ci",
        ".git",
        ".gitattributes",
        ".gitignore",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Cargo.lock",
        "Cargo.toml",
        "GLOSSARY.md",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "SECURITY.md",
        "SPECIFICATION.md",
        "bench",
        "clippy.toml",
        "deny.toml",
        "docs",
        "hardware.md",
        "mixer",
        "rust-toolchain.toml",
        "rustfmt.toml",
        "scripts",
        "signaling",
        "target",
        "var",
        "xdp-prog",
    ];
    let violations: Vec<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !expected.contains(&name.as_str()) && !name.ends_with(".log"))
        .collect();
    report(
        "stray file at the top",
        "newcomers read the top level as a map",
        &violations,
    );
}

#[test]
fn every_promise_names_what_holds_it() {
    let text = fs::read_to_string(root().join("SPECIFICATION.md")).expect("SPECIFICATION.md");
    let sources = sources();
    let (mut violations, mut promises) = (Vec::new(), 0);
    let mut column: Option<usize> = None;
    for (number, line) in text.lines().enumerate() {
        if !line.trim_start().starts_with('|') {
            column = None;
            continue;
        }
        let cells: Vec<&str> = cells(line);
        if let Some(held_by) = cells.iter().position(|cell| cell.eq_ignore_ascii_case("held by")) {
            column = Some(held_by);
        } else if let Some(held_by) = column
            && !cells.iter().all(|cell| cell.chars().all(|c| "-: ".contains(c)))
        {
            promises += 1;
            let holder = cells.get(held_by).copied().unwrap_or_default();
            violations.extend(unheld(holder, &sources).map(|why| format!("line {}: {why}", number + 1)));
        }
    }
    assert!(
        promises > 0,
        "SPECIFICATION.md has no table with a column `held by`"
    );
    report(
        "promise without a test",
        "a number nobody measures is a wish",
        &violations,
    );
}

/// Cells of a table row; `\|` does not separate.
fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    let mut cells = Vec::new();
    let mut start = 0;
    for (at, _) in inner.match_indices('|') {
        if !inner[..at].ends_with('\\') {
            cells.push(inner[start..at].trim());
            start = at + 1;
        }
    }
    cells.push(inner[start..].trim());
    cells
}

/// Why a `held by` cell holds nothing: it must say "test pending", or name tests or commands that exist.
fn unheld(holder: &str, sources: &[(PathBuf, String)]) -> Option<String> {
    if holder.contains("test pending") {
        return None;
    }
    let names: Vec<&str> = holder.split('`').skip(1).step_by(2).collect();
    if names.is_empty() {
        return Some(format!(
            "`{holder}` names neither a test nor a command nor \"test pending\""
        ));
    }
    names.into_iter().find_map(|name| match name.rsplit_once("::") {
        Some((path, test)) if !name.contains(' ') => {
            let stem = path.rsplit("::").next().unwrap_or(path);
            (!has_test(sources, stem, test)).then(|| format!("no `fn {test}` in a file {stem}.rs"))
        }
        _ => missing_command(name),
    })
}

fn has_test(sources: &[(PathBuf, String)], stem: &str, test: &str) -> bool {
    let declared = format!("fn {test}(");
    sources.iter().any(|(path, text)| {
        let own = path.file_stem().is_some_and(|name| name == stem);
        let beside = path
            .parent()
            .and_then(Path::file_name)
            .is_some_and(|name| name == stem);
        (own || beside) && scan::mask(text).contains(&declared)
    })
}

/// A command must begin with something that exists: a script here, one of our programs, or a tool
/// the gate installs.
fn missing_command(command: &str) -> Option<String> {
    let program = command
        .trim_start_matches("command ")
        .split_whitespace()
        .next()
        .unwrap_or_default();
    let program = program.trim_start_matches("./");
    let known = program.starts_with("mixminus") || matches!(program, "cargo" | "sipp" | "promtool");
    let here = program.contains('/') && root().join(program).is_file();
    (!known && !here).then(|| format!("`{program}` is no command of ours"))
}

#[test]
fn the_checks_themselves_can_fail() {
    let sources = vec![(
        PathBuf::from("a/b/tests.rs"),
        "fn held() {} // fn not_held()".to_owned(),
    )];
    assert_eq!(unheld("`b::held`", &sources), None);
    assert_eq!(unheld("`tests::held`, `scripts/test`", &sources), None);
    assert_eq!(unheld("test pending", &sources), None);
    assert!(unheld("`b::not_held`", &sources).is_some());
    assert!(unheld("`c::held`", &sources).is_some());
    assert!(unheld("`scripts/nothing`", &sources).is_some());
    assert!(unheld("somebody", &sources).is_some());
    assert_eq!(cells("| a | b \\| c | d |"), ["a", "b \\| c", "d"]);
    let work = format!("/{}/", "work");
    assert!(names_folder(&format!("see {work}x"), &work));
    assert!(!names_folder(&format!("https://example.org{work}x"), &work));
}
