//! The C header, the Rust twin and the committed object say the same. Needs neither root nor a C compiler.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use xdp_abi::{
    ADDRESSES_MAX, Address, Bucket, MAPS, MapKind, OBJECT, OBJECT_SHA256, PORTS_MAX, PROGRAM, QUEUES_MAX,
    SOURCES_MAX, Settings, Source, Verdict,
};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(name)
}

/// Code lines of maps.h, comments left out (there, a comment shares no line with code).
fn header() -> Vec<String> {
    let text = fs::read_to_string(folder("src").join("maps.h")).unwrap();
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim) {
        let comment = inside || line.starts_with("/*");
        inside = comment && !line.ends_with("*/");
        if !comment && !line.is_empty() {
            lines.push(line.to_owned());
        }
    }
    lines
}

/// The lines between `opening` and the line that begins with `}`.
fn block(lines: &[String], opening: &str) -> Vec<String> {
    let start = lines.iter().position(|line| line == opening).unwrap() + 1;
    let body = lines[start..].iter().take_while(|line| !line.starts_with('}'));
    body.cloned().collect()
}

fn size_of_type(lines: &[String], name: &str) -> u32 {
    match name {
        "__u8" => 1,
        "__u16" => 2,
        "__u32" => 4,
        "__u64" => 8,
        _ => fields(lines, name).iter().map(|(_, _, size)| size).sum(),
    }
}

/// Fields of a struct as name, offset and size; it must need no padding, which is part of the ABI.
fn fields(lines: &[String], opening: &str) -> Vec<(String, u32, u32)> {
    let mut offset = 0;
    let field = |line: String| {
        let (kind, name) = line.trim_end_matches(';').split_once(' ').unwrap();
        let element = size_of_type(lines, kind);
        let (name, count) = match name.split_once('[') {
            Some((name, count)) => (name, count.trim_end_matches(']').parse().unwrap()),
            None => (name, 1),
        };
        assert_eq!(offset % element, 0, "{opening}: {name} needs padding before it");
        let at = offset;
        offset += element * count;
        (name.to_owned(), at, element * count)
    };
    block(lines, &format!("{opening} {{"))
        .into_iter()
        .map(field)
        .collect()
}

fn constants(lines: &[String]) -> BTreeMap<String, u32> {
    let defines = lines.iter().filter_map(|line| line.strip_prefix("#define "));
    let pairs = defines.filter_map(|define| define.split_once(' '));
    pairs
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[test]
fn constants_are_equal() {
    let expected = [
        ("QUEUES_MAX", QUEUES_MAX),
        ("ADDRESSES_MAX", ADDRESSES_MAX),
        ("PORTS_MAX", PORTS_MAX),
        ("SOURCES_MAX", SOURCES_MAX),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(constants(&header()), BTreeMap::from(expected));
}

#[test]
fn verdicts_are_equal() {
    let mut ours: Vec<String> = Verdict::ALL
        .iter()
        .map(|verdict| format!("VERDICT_{},", verdict.name().to_uppercase()))
        .collect();
    ours.push("VERDICTS_MAX,".to_owned());
    assert_eq!(block(&header(), "enum verdict {"), ours);
    for (index, verdict) in (0..).zip(Verdict::ALL) {
        assert_eq!(verdict.index(), index, "{}", verdict.name());
        let debug = format!("{verdict:?}").to_lowercase();
        assert_eq!(verdict.name().replace('_', ""), debug);
        assert!(
            verdict
                .name()
                .starts_with(&format!("{:?}_", verdict.action()).to_lowercase())
        );
    }
}

/// Names, offsets and sizes of the fields of one of our types, and its size.
macro_rules! layout {
    ($type:ident: $($field:ident $kind:ty),+) => {
        (
            vec![$((stringify!($field).to_owned(), offset_of!($type, $field), size_of::<$kind>())),+],
            size_of::<$type>(),
        )
    };
}

#[test]
fn structs_are_equal() {
    let lines = header();
    let ours = [
        ("struct address", layout!(Address: bytes [u8; 16])),
        (
            "struct settings",
            layout!(Settings: budget_packets_per_second u32, budget_burst u32),
        ),
        (
            "struct source",
            layout!(Source: bytes [u8; 16], port u16, pad u16),
        ),
        ("struct bucket", layout!(Bucket: refilled_at_ns u64, tokens u64)),
    ];
    for (opening, (fields_here, size)) in &ours {
        let theirs: Vec<(String, usize, usize)> = fields(&lines, opening)
            .into_iter()
            .map(|(name, at, size)| (name, at.try_into().unwrap(), size.try_into().unwrap()))
            .collect();
        assert_eq!(&theirs, fields_here, "{opening}");
        assert_eq!(
            theirs.iter().map(|(_, _, size)| size).sum::<usize>(),
            *size,
            "{opening}"
        );
    }
    let declared = lines
        .iter()
        .filter(|line| line.starts_with("struct ") && line.len() > "struct {".len());
    assert_eq!(declared.count(), ours.len(), "a struct without a twin");
    assert_eq!(
        size_of::<Source>(),
        Source::new([0, 0, 0, 0].into(), 0).to_bytes().len()
    );
}

#[test]
fn map_definitions_are_equal() {
    let lines = header();
    let mut known = constants(&lines);
    known.insert("1".to_owned(), 1);
    known.insert(
        "VERDICTS_MAX".to_owned(),
        u32::try_from(Verdict::ALL.len()).unwrap(),
    );
    let mut theirs = Vec::new();
    for (at, _) in lines.iter().enumerate().filter(|(_, line)| *line == "struct {") {
        let value = |key: &str| {
            let of_key = |line: &String| {
                Some(
                    line.split_once(&format!("({key}, "))?
                        .1
                        .trim_end_matches(");")
                        .to_owned(),
                )
            };
            lines[at..].iter().find_map(of_key).unwrap()
        };
        let end = lines[at..]
            .iter()
            .find_map(|line| line.strip_prefix("} "))
            .unwrap();
        theirs.push((
            end.split_once(' ').unwrap().0.to_owned(),
            value("type"),
            size_of_type(&lines, &value("key")),
            size_of_type(&lines, &value("value")),
            known[&value("max_entries")],
        ));
    }
    let kind = |kind: MapKind| match kind {
        MapKind::Hash => "HASH",
        MapKind::Array => "ARRAY",
        MapKind::PerCpuArray => "PERCPU_ARRAY",
        MapKind::LruHash => "LRU_HASH",
        MapKind::XskMap => "XSKMAP",
    };
    let ours: Vec<_> = MAPS
        .iter()
        .map(|map| {
            let kind = format!("BPF_MAP_TYPE_{}", kind(map.kind));
            (
                map.name.to_owned(),
                kind,
                map.key_size,
                map.value_size,
                map.max_entries,
            )
        })
        .collect();
    assert_eq!(theirs, ours);
}

#[test]
fn the_committed_object_has_these_maps_and_this_program() {
    let object = aya_obj::Object::parse(OBJECT).unwrap();
    let theirs: BTreeMap<&str, _> = object
        .maps
        .iter()
        .map(|(name, map)| {
            let sizes = (map.key_size(), map.value_size(), map.max_entries());
            (name.as_str(), (map.map_type(), sizes))
        })
        .collect();
    let ours: BTreeMap<&str, _> = MAPS
        .iter()
        .map(|map| {
            let sizes = (map.key_size, map.value_size, map.max_entries);
            (map.name, (map.kind as u32, sizes))
        })
        .collect();
    assert_eq!(theirs, ours);
    assert_eq!(object.programs.keys().collect::<Vec<_>>(), [PROGRAM]);
}

#[test]
fn the_object_is_aligned_and_has_the_recorded_hash() {
    assert_eq!(OBJECT.as_ptr().addr() % 8, 0);
    assert_eq!(format!("{:x}", Sha256::digest(OBJECT)), OBJECT_SHA256);
}

/// Holds also where no clang is, or another: whoever edits the sources rebuilds the object.
#[test]
fn the_object_was_built_from_these_sources() {
    let mut listing = String::new();
    for name in ["maps.h", "parse.h", "xdp.c", "wire.c"] {
        let digest = Sha256::digest(fs::read(folder("src").join(name)).unwrap());
        listing.push_str(&format!("{digest:x}  {name}\n"));
    }
    let expected = format!("sources {:x}", Sha256::digest(listing));
    let recorded = fs::read_to_string(folder("object").join("built-with")).unwrap();
    assert!(
        recorded.lines().any(|line| line == expected),
        "sources newer than the object: run scripts/build-xdp"
    );
}
