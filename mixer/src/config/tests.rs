use super::*;

const CORES: [usize; 2] = [0, 1];
const SAMPLE: &str = include_str!("../../mixer.sample.toml");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse("m.toml", text, &CORES)
}

/// Keys of every section, as `section.key`.
fn keys(text: &str) -> Vec<String> {
    let table: toml::Table = text.parse().unwrap();
    let mut keys = Vec::new();
    for (section, inner) in &table {
        for key in inner.as_table().unwrap().keys() {
            keys.push(format!("{section}.{key}"));
        }
    }
    keys.sort();
    keys
}

#[test]
fn sample_equals_the_defaults_and_lists_every_key() {
    let defaults = Config::defaults(&CORES);
    assert_eq!(parse(SAMPLE).unwrap(), defaults);
    assert_eq!(keys(SAMPLE), keys(&defaults.to_string()));
}

#[test]
fn an_empty_file_means_the_defaults() {
    assert_eq!(parse("").unwrap(), Config::defaults(&CORES));
}

#[test]
fn the_printed_configuration_reads_back_equal() {
    let config = parse(
        "[io]\nports='20000-20999'\naddress='::1'\n[workers]\ncores=[0,1]\nspin=true\n[log]\nformat='json'",
    )
    .unwrap();
    assert_eq!(parse(&config.to_string()).unwrap(), config);
}

#[test]
fn a_mark_moves_the_other_one_along() {
    for busy in 2..=100 {
        let admission = parse(&format!("[admission]\nbusy_percent = {busy}"))
            .unwrap()
            .admission;
        assert_eq!(admission.busy_percent, busy);
        assert!((1..busy).contains(&admission.reopen_percent), "{admission:?}");
    }
}

#[test]
fn default_core_follows_the_machine() {
    assert_eq!(Config::defaults(&[0, 1, 2]).workers.cores, [1]);
    assert_eq!(Config::defaults(&[0]).workers.cores, [0]);
    assert_eq!(Config::defaults(&[4, 5]).workers.cores, [4]);
}

/// A text, and what its error must say: place, problem, remedy.
const MISTAKES: [(&str, &str, &str, &str); 29] = [
    (
        "[replay]\nfolder = '/nonexistent/replays'",
        "m.toml:2",
        "replay.folder",
        "record nothing",
    ),
    (
        "[replay]\nmegabytes = 0",
        "m.toml:2",
        "replay.megabytes",
        "1 to 4096",
    ),
    ("[io]\nbackendd = 'auto'", "m.toml:2", "backendd", "spelling"),
    ("\n[what]\n", "m.toml:2", "what", "spelling"),
    (
        "[io]\n\nbackend = 'dpdk'",
        "m.toml:3",
        "dpdk",
        "correct the value",
    ),
    (
        "[io]\nbackend = 'xdp'",
        "m.toml:2",
        "needs io.interface",
        "set io.interface",
    ),
    (
        "[io]\nvlan = [4095]",
        "m.toml:2",
        "no stack of VLANs",
        "1 to 4094",
    ),
    (
        "[io]\nvlan = [1, 2, 3]",
        "m.toml:2",
        "no stack of VLANs",
        "at most two",
    ),
    (
        "[io]\nsource_budget = -1",
        "m.toml:2",
        "out of bounds",
        "choose a number",
    ),
    (
        "[io]\ninterface = 'eth0/../x'",
        "m.toml:2",
        "io.interface",
        "ip link",
    ),
    (
        "[io]\naddress = '0.0.0.0'",
        "m.toml:2",
        "cannot be told",
        "one IP address",
    ),
    (
        "[io]\naddress = 'localhost'",
        "m.toml:2",
        "no IP address",
        "one IP address",
    ),
    ("[io]\nports = '10000'", "m.toml:2", "io.ports", "FIRST-LAST"),
    ("[io]\nports = '2000-1000'", "m.toml:2", "io.ports", "FIRST-LAST"),
    ("[io]\nports = '80-1000'", "m.toml:2", "io.ports", "1024"),
    (
        "[workers]\ncores = []",
        "m.toml:2",
        "0 workers",
        "list every core",
    ),
    ("[workers]\ncores = [1, 1]", "m.toml:2", "two workers", "once"),
    ("[workers]\ncores = [7]", "m.toml:2", "core 7", "[0, 1]"),
    (
        "[control]\nlisten = '10.0.0.1:8090'",
        "m.toml:2",
        "not loopback",
        "control.token_file",
    ),
    (
        "[control]\nlisten = '8090'",
        "m.toml:2",
        "control.listen",
        "127.0.0.1:8090",
    ),
    (
        "[control]\ntoken_file = '/nonexistent/token'",
        "m.toml:2",
        "cannot be read",
        "create it",
    ),
    (
        "[control]\nconnections = 0",
        "m.toml:2",
        "connections = 0",
        "1 to 4096",
    ),
    (
        "[control]\nevents = 'many'",
        "m.toml:2",
        "invalid type",
        "correct the value",
    ),
    (
        "[limits]\nendpoints = 1000000",
        "m.toml:2",
        "endpoints = 1000000",
        "1 to 32256",
    ),
    (
        "[limits]\nmedia_timeout_ms = -5",
        "m.toml:2",
        "media_timeout_ms = -5",
        "100 to 3600000",
    ),
    (
        "[admission]\nbusy_percent = 101",
        "m.toml:2",
        "busy_percent = 101",
        "2 to 100",
    ),
    (
        "[admission]\nbusy_percent = 70\nreopen_percent = 70",
        "m.toml:3",
        "not below",
        "choose a lower one",
    ),
    (
        "[prompts]\nfolder = '/nonexistent'",
        "m.toml:2",
        "no folder",
        "built-in",
    ),
    ("[io]\nports = ", "m.toml:2", "", "correct"),
];

#[test]
fn errors_are_one_line_with_place_and_remedy() {
    for (text, place, problem, remedy) in MISTAKES {
        let error = parse(text).expect_err(text);
        let line = error.to_string();
        assert_eq!(error.place, place, "{text:?}: {line}");
        assert!(
            line.contains(problem) && line.contains(remedy),
            "{text:?}: {line}"
        );
        assert_eq!(line.lines().count(), 1, "{text:?}: {line}");
    }
}

#[test]
fn a_token_opens_other_addresses_and_stays_out_of_debug_output() {
    let folder = std::env::temp_dir().join(format!("mixminus-token-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("token");
    std::fs::write(&path, "0123456789abcdef\n").unwrap();
    let text = format!(
        "[control]\nlisten = '0.0.0.0:8090'\ntoken_file = '{}'",
        path.display()
    );
    let config = parse(&text).unwrap();
    assert!(!format!("{config:?}{config}").contains("0123456789abcdef"));
    let token = config.control.token.unwrap();
    assert!(token.matches(b"0123456789abcdef"));
    assert!(!token.matches(b"0123456789abcdeX") && !token.matches(b"0123456789abcde") && !token.matches(b""));
    std::fs::write(&path, "short").unwrap();
    assert!(parse(&text).unwrap_err().to_string().contains("no usable token"));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/nonexistent/mixer.toml"), &CORES).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("/nonexistent/mixer.toml: cannot be read")
    );
}
