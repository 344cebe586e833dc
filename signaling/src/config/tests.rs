use super::*;

fn error(text: &str) -> String {
    Config::parse("signaling.toml", text).expect_err(text).to_string()
}

#[test]
fn the_defaults_are_loopback_and_survive_a_round_trip() {
    let config = Config::defaults().unwrap();
    assert!(config.sip_is_loopback() && config.http.listen.ip().is_loopback());
    assert!(config.rooms.auto_create);
    let printed = config.effective();
    assert_eq!(Config::parse("effective", &printed).unwrap(), config, "{printed}");
}

#[test]
fn the_shipped_sample_is_the_defaults() {
    let sample = include_str!("../../signaling.sample.toml");
    assert_eq!(
        Config::parse("signaling.sample.toml", sample).unwrap(),
        Config::defaults().unwrap()
    );
}

#[test]
fn a_full_file_survives_a_round_trip() {
    let text = r#"
        [node]
        name = "east-1"
        [sip]
        listen = ["udp:10.0.0.1:5060", "tcp:[fd00::1]:5060"]
        domain = "conf.example.com"
        trusted = ["10.0.0.0/8", "fd00::/8", "192.0.2.7"]
        learn_source = ["10.9.0.0/16"]
        srtp = "off"
        srtp_require = ["10.0.1.0/24"]
        srtp_off = ["10.0.2.0/24", "fd00::/16"]
        calls_max = 500
        connections_max = 20
        [http]
        listen = "[::1]:9090"
        [[mixer]]
        url = "http://10.0.0.2:8090/"
        [[mixer]]
        url = "http://mixer-2:8090"
        [store]
        url = "sqlite:///var/lib/mixminus/state.db"
        [log]
        level = "debug"
        format = "json"
    "#;
    let config = Config::parse("signaling.toml", text).unwrap();
    assert!(!config.rooms.auto_create, "not on loopback: an explicit choice");
    assert_eq!(config.rooms.talkers, None, "everybody is mixed");
    assert_eq!(config.mixers[0].url, "http://10.0.0.2:8090");
    assert_eq!(
        config.store,
        StoreUrl::SqliteFile("/var/lib/mixminus/state.db".into())
    );
    assert_eq!(Config::parse("effective", &config.effective()).unwrap(), config);
}

/// A file's text, the place its message names, and the remedy it tells.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "\n[sip]\nlisten_on = 1\n",
        "signaling.toml:3: unknown key `listen_on`",
        "remove it",
    ),
    (
        "[sipp]\n",
        "signaling.toml:1: unknown key `sipp`",
        "expected one of",
    ),
    (
        "[sip]\nlisten = [\n\"udp:127.0.0.1:5060\",\n\"sctp:127.0.0.1:5060\"]\n",
        "signaling.toml:4:",
        "write \"udp:",
    ),
    (
        "[sip]\nlisten = [\"udp:localhost:5060\"]",
        "signaling.toml:2:",
        "not ADDRESS:PORT",
    ),
    (
        "[sip]\nlisten = []",
        "signaling.toml: [sip] listen is empty",
        "name at least one",
    ),
    (
        "[sip]\ncalls_max = 0",
        "signaling.toml:2: [sip] calls_max = 0",
        "use 1 to 200000",
    ),
    (
        "[rooms]\ntalkers = 33",
        "signaling.toml:2: [rooms] talkers = 33",
        "use 0 to 32",
    ),
    (
        "[sip]\ncalls_max = 99999999",
        "signaling.toml:2:",
        "use 1 to 200000",
    ),
    (
        "[sip]\nconnections_max = -1",
        "signaling.toml:2:",
        "use 1 to 50000",
    ),
    (
        "[sip]\ncalls_max = \"many\"",
        "signaling.toml:2:",
        "see signaling.sample.toml",
    ),
    (
        "[sip]\ntrusted = [\"10.0.0.0/33\"]",
        "signaling.toml:2:",
        "0 to 32",
    ),
    (
        "[sip]\nsrtp = \"maybe\"",
        "signaling.toml:2: [sip] srtp \"maybe\"",
        "use \"off\", \"offer\" or \"require\"",
    ),
    (
        "[sip]\nsrtp_off = [\"10.0.0.0/33\"]",
        "signaling.toml:2: [sip] srtp_off",
        "0 to 32",
    ),
    (
        "[sip]\ntrusted = [\"everybody\"]",
        "signaling.toml:2:",
        "write a network like",
    ),
    (
        "[sip]\nlearn_source = [\"::/129\"]",
        "signaling.toml:2:",
        "0 to 128",
    ),
    ("[sip]\ndomain = \"a b\"", "signaling.toml:2:", "write one like"),
    ("[node]\nname = \"a b\"", "signaling.toml:2:", "respell"),
    ("[http]\nlisten = \"8080\"", "signaling.toml:2:", "write it like"),
    (
        "[http]\nlisten = \"0.0.0.0:8080\"",
        "signaling.toml:2:",
        "set [http] token_file",
    ),
    (
        "[http]\ntoken_file = \"/does/not/exist\"",
        "signaling.toml:2:",
        "create it",
    ),
    (
        "[[mixer]]\nurl = \"https://m:1\"",
        "signaling.toml:2:",
        "like \"http://127.0.0.1:8090\"",
    ),
    ("[[mixer]]\nurl = \"http://m\"", "signaling.toml:2:", "HOST:PORT"),
    (
        "[[mixer]]\nurl = \"http://m:1/v1\"",
        "signaling.toml:2:",
        "HOST:PORT",
    ),
    ("[[mixer]]\n", "signaling.toml:1:", "url"),
    (
        "[[mixer]]\nurl = \"http://m:1\"\n[[mixer]]\nurl = \"http://m:1/\"",
        "signaling.toml:4:",
        "named twice",
    ),
    ("mixer = []", "signaling.toml: no mixer", "add [[mixer]]"),
    (
        "[store]\nurl = \"postgres://db/x\"",
        "signaling.toml:2:",
        "not yet in this version",
    ),
    (
        "[store]\nurl = \"mysql://db/x\"",
        "signaling.toml:2:",
        "use a file like",
    ),
    ("[store]\nurl = \"sqlite:\"", "signaling.toml:2:", "names no file"),
    (
        "[log]\nformat = \"xml\"",
        "signaling.toml:2:",
        "use \"text\" or \"json\"",
    ),
    ("[log]\nlevel = \"a=b=c\"", "signaling.toml:2:", "use error, warn"),
    (
        "[rooms]\nauto_create = \"yes\"",
        "signaling.toml:2:",
        "see signaling.sample.toml",
    ),
    ("[sip\n", "signaling.toml:1:", "see signaling.sample.toml"),
];

#[test]
fn every_mistake_names_file_line_and_remedy() {
    for &(text, place, remedy) in MISTAKES {
        let message = error(text);
        assert!(message.contains(place), "{text:?}: {message}");
        assert!(message.contains(remedy), "{text:?}: {message}");
        assert!(!message.contains('\n'), "one line: {message:?}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let message = Config::load(Path::new("/does/not/exist.toml"))
        .expect_err("absent")
        .to_string();
    assert!(
        message.starts_with("/does/not/exist.toml: cannot be read") && message.contains("--config"),
        "{message}"
    );
}

#[test]
fn a_token_opens_a_non_loopback_listener_and_is_never_printed() {
    let dir = crate::test_dir::TestDir::new("config-token");
    let secret = "s3cret-of-enough-length";
    std::fs::write(dir.path().join("token"), format!("{secret}\n")).unwrap();
    let path = dir.path().join("signaling.toml");
    std::fs::write(
        &path,
        "[http]\nlisten = \"0.0.0.0:8080\"\ntoken_file = \"token\"\n",
    )
    .unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!(config.http.token.as_ref().map(Token::expose), Some(secret));
    assert!(!config.effective().contains(secret) && !format!("{config:?}").contains(secret));
    std::fs::write(dir.path().join("token"), "short").unwrap();
    let message = Config::load(&path).expect_err("too short").to_string();
    assert!(
        message.contains(":3: ") && message.contains("16 to 512"),
        "{message}"
    );
}

#[test]
fn networks_contain_what_they_should() {
    let config = Config::parse(
        "x",
        "[sip]\ntrusted = [\"10.1.0.0/16\", \"fd00::/8\", \"192.0.2.7\", \"0.0.0.0/0\"]",
    )
    .unwrap();
    let inside = |index: usize, address: &str| config.sip.trusted[index].contains(address.parse().unwrap());
    assert!(inside(0, "10.1.255.1") && inside(0, "::ffff:10.1.0.9") && !inside(0, "10.2.0.1"));
    assert!(inside(1, "fd12::1") && !inside(1, "fe80::1") && !inside(1, "10.1.0.1"));
    assert!(inside(2, "192.0.2.7") && !inside(2, "192.0.2.8"));
    assert!(inside(3, "8.8.8.8"));
    assert!(in_any_network(&config.sip.trusted, "1.2.3.4".parse().unwrap()));
}
