//! The program `ethtool`: running it, and reading what it prints. Reading is pure.

use std::collections::BTreeMap;
use std::io;
use std::process::{Command, Stdio};

use super::plan::{Family, Rule};
use super::toeplitz::{Fields, Rss};

/// What a run of `ethtool` left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// Whether it exited with 0.
    pub ok: bool,
    /// Standard output.
    pub text: String,
    /// Standard error, one line.
    pub error: String,
}

/// Something that runs `ethtool`: the program, or a test.
pub trait Ethtool {
    /// Runs it with these arguments and waits.
    ///
    /// # Errors
    /// It cannot be run; `NotFound` when it is not installed.
    fn run(&self, arguments: &[&str]) -> io::Result<Output>;
}

impl<E: Ethtool + ?Sized> Ethtool for &E {
    fn run(&self, arguments: &[&str]) -> io::Result<Output> {
        (**self).run(arguments)
    }
}

/// The installed program.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Ethtool for System {
    fn run(&self, arguments: &[&str]) -> io::Result<Output> {
        // It usually lies where the PATH of a service or a login does not look.
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("ethtool")
            .args(arguments)
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        let error: Vec<&str> = error
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        Ok(Output {
            ok: output.status.success(),
            text: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: error.join("; "),
        })
    }
}

/// A feature (`ethtool -k`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Whether it is on.
    pub on: bool,
    /// Whether it cannot be changed.
    pub fixed: bool,
}

/// Features by name, of `ethtool -k`.
#[must_use]
pub fn features(text: &str) -> BTreeMap<String, Feature> {
    let feature = |line: &str| {
        let (name, state) = line.split_once(':')?;
        let on = match state.split_whitespace().next()? {
            "on" => true,
            "off" => false,
            _ => return None,
        };
        let fixed = state.contains("[fixed]");
        Some((name.trim().to_owned(), Feature { on, fixed }))
    };
    text.lines().filter_map(feature).collect()
}

/// The driver's name, of `ethtool -i`.
#[must_use]
pub fn driver(text: &str) -> Option<String> {
    let name = text.lines().find_map(|line| line.strip_prefix("driver:"))?.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Maximum and present value of each setting, of `ethtool -l` or `-g`; `n/a` is left out.
#[must_use]
pub fn settings(text: &str) -> BTreeMap<String, Setting> {
    let mut settings = BTreeMap::<String, Setting>::new();
    let mut present = false;
    for line in text.lines() {
        present |= line.starts_with("Current");
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let Ok(value) = value.trim().parse::<u32>() else {
            continue;
        };
        let setting = settings.entry(name.trim().to_owned()).or_default();
        if present {
            setting.now = value;
        } else {
            setting.max = value;
        }
    }
    settings
}

/// A number that can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Setting {
    /// Highest possible.
    pub max: u32,
    /// In effect.
    pub now: u32,
}

/// Hash key and indirection table, of `ethtool -x`. `None` when either is missing or the hash is
/// not Toeplitz. The hashed fields are not in it: [`hash_fields`].
#[must_use]
pub fn key_and_table(text: &str) -> Option<(Vec<u8>, Vec<u16>)> {
    let (mut key, mut table) = (Vec::new(), Vec::new());
    let mut in_key = false;
    for line in text.lines() {
        let line = line.trim();
        if in_key && line.contains(':') && !line.contains(' ') {
            let bytes: Result<Vec<u8>, _> =
                line.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
            key = bytes.ok()?;
        } else if let Some((bucket, queues)) = line.split_once(':')
            && bucket.trim().parse::<u32>().is_ok()
        {
            for queue in queues.split_whitespace() {
                table.push(queue.parse().ok()?);
            }
        }
        in_key = line.starts_with("RSS hash key");
    }
    let toeplitz = !text.contains("toeplitz: off");
    (toeplitz && !key.is_empty() && !table.is_empty()).then_some((key, table))
}

/// Letters of the hashed fields as `ethtool -N IF rx-flow-hash` takes them, of `-n IF rx-flow-hash`.
/// `None` when it did not say.
#[must_use]
pub fn hash_letters(text: &str) -> Option<String> {
    if !text.contains("flows use these fields") {
        return None;
    }
    const LINES: [(&str, char); 7] = [
        ("L2DA", 'm'),
        ("VLAN tag", 'v'),
        ("L3 proto", 't'),
        ("IP SA", 's'),
        ("IP DA", 'd'),
        ("L4 bytes 0 & 1", 'f'),
        ("L4 bytes 2 & 3", 'n'),
    ];
    let on = |name: &str| text.lines().any(|line| line.trim().starts_with(name));
    Some(
        LINES
            .iter()
            .filter(|(name, _)| on(name))
            .map(|(_, letter)| letter)
            .collect(),
    )
}

/// What letters of [`hash_letters`] mean; `None` when something else than addresses and ports is hashed.
#[must_use]
pub fn hash_fields(letters: &str) -> Option<Fields> {
    let has = |letter| letters.contains(letter);
    let known = letters.chars().all(|letter| "sdfn".contains(letter));
    (known && has('s') == has('d') && !letters.is_empty()).then(|| Fields {
        addresses: has('s'),
        source_port: has('f'),
        destination_port: has('n'),
    })
}

/// RSS of an interface, read by three runs. `None` when any of it cannot be had.
#[must_use]
pub fn rss(ethtool: &impl Ethtool, interface: &str) -> Option<Rss> {
    let read = |arguments: &[&str]| ethtool.run(arguments).ok().map(|output| output.text);
    let (key, table) = key_and_table(&read(&["-x", interface])?)?;
    let fields = |family: Family| {
        let text = read(&["-n", interface, "rx-flow-hash", family.name()])?;
        hash_fields(&hash_letters(&text)?)
    };
    Some(Rss {
        key,
        table,
        udp4: fields(Family::Udp4)?,
        udp6: fields(Family::Udp6)?,
    })
}

/// Arguments that add a rule.
#[must_use]
pub fn add_rule(interface: &str, rule: &Rule) -> Vec<String> {
    let mut arguments: Vec<String> = ["-N", interface, "flow-type", rule.family.name(), "dst-port"]
        .map(str::to_owned)
        .to_vec();
    arguments.push(rule.port.to_string());
    if rule.ignored != 0 {
        arguments.extend(["m".to_owned(), format!("{:#x}", rule.ignored)]);
    }
    arguments.extend(["action".to_owned(), rule.queue.to_string()]);
    arguments
}

/// The number of a rule that was added, of `ethtool -N`.
#[must_use]
pub fn added_rule(text: &str) -> Option<u32> {
    let at = text
        .lines()
        .find_map(|line| line.strip_prefix("Added rule with ID "))?;
    at.trim().parse().ok()
}

/// Rules of our kind with their numbers, of `ethtool -n`. A rule that also looks at anything but
/// the destination port is not of our kind and left out.
#[must_use]
pub fn listed_rules(text: &str) -> Vec<(u32, Rule)> {
    let filter = |part: &str| {
        let (number, lines) = part.split_once('\n')?;
        Some((number.trim().parse().ok()?, listed_rule(lines)?))
    };
    text.split("Filter: ").skip(1).filter_map(filter).collect()
}

fn listed_rule(lines: &str) -> Option<Rule> {
    let (mut family, mut ports, mut queue) = (None, None, None);
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        match name {
            "Rule Type" => {
                family = Some(match value {
                    "UDP over IPv4" => Family::Udp4,
                    "UDP over IPv6" => Family::Udp6,
                    _ => return None,
                })
            }
            "Dest port" => {
                let (port, ignored) = value.split_once(" mask: 0x")?;
                ports = Some((port.parse().ok()?, u16::from_str_radix(ignored, 16).ok()?));
            }
            "Action" => queue = Some(value.strip_prefix("Direct to queue ")?.parse().ok()?),
            _ => {
                let (_, ignored) = value.split_once(" mask: ")?;
                if !ignores_all(ignored) {
                    return None;
                }
            }
        }
    }
    let (port, ignored) = ports?;
    Some(Rule {
        family: family?,
        port,
        ignored,
        queue: queue?,
    })
}

/// A mask of a field that does not matter, in any of the forms in which ethtool prints them.
fn ignores_all(mask: &str) -> bool {
    mask == "255.255.255.255"
        || mask == "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        || mask == "FF:FF:FF:FF:FF:FF"
        || mask
            .strip_prefix("0x")
            .is_some_and(|digits| digits.chars().all(|digit| digit == 'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "8 RX rings available\nTotal 3 rules\n\n\
        Filter: 1022\n\tRule Type: UDP over IPv6\n\
        \tSrc IP addr: :: mask: ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\n\
        \tDest IP addr: :: mask: ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\n\
        \tTraffic Class: 0x0 mask: 0xff\n\tSrc port: 0 mask: 0xffff\n\tDest port: 10240 mask: 0x7ff\n\
        \tAction: Direct to queue 3\n\n\
        Filter: 1023\n\tRule Type: UDP over IPv4\n\
        \tSrc IP addr: 198.51.100.7 mask: 0.0.0.0\n\tDest IP addr: 0.0.0.0 mask: 255.255.255.255\n\
        \tTOS: 0x0 mask: 0xff\n\tSrc port: 0 mask: 0xffff\n\tDest port: 10240 mask: 0x7ff\n\
        \tAction: Direct to queue 3\n\n\
        Filter: 7\n\tRule Type: UDP over IPv4\n\
        \tSrc IP addr: 0.0.0.0 mask: 255.255.255.255\n\tDest IP addr: 0.0.0.0 mask: 255.255.255.255\n\
        \tTOS: 0x0 mask: 0xff\n\tSrc port: 0 mask: 0xffff\n\tDest port: 5060 mask: 0x0\n\
        \tAction: Drop\n\n";

    #[test]
    fn only_rules_of_our_kind_are_read() {
        let rule = Rule {
            family: Family::Udp6,
            port: 10_240,
            ignored: 0x7ff,
            queue: 3,
        };
        assert_eq!(listed_rules(RULES), [(1022, rule)]);
        assert_eq!(
            add_rule("ens1", &rule).join(" "),
            "-N ens1 flow-type udp6 dst-port 10240 m 0x7ff action 3"
        );
        let single = Rule { ignored: 0, ..rule };
        assert_eq!(
            add_rule("ens1", &single).join(" "),
            "-N ens1 flow-type udp6 dst-port 10240 action 3"
        );
        assert_eq!(added_rule("Added rule with ID 1022\n"), Some(1022));
        assert_eq!(
            added_rule("rmgr: Cannot insert RX class rule: Operation not supported\n"),
            None
        );
    }

    #[test]
    fn features_and_settings() {
        let found = features(
            "Features for eth0:\nntuple-filters: off [fixed]\nlarge-receive-offload: on\n\ttx-checksum-ipv4: off\n",
        );
        assert_eq!(
            found["ntuple-filters"],
            Feature {
                on: false,
                fixed: true
            }
        );
        assert_eq!(
            found["large-receive-offload"],
            Feature {
                on: true,
                fixed: false
            }
        );
        let found = settings(
            "Channel parameters for eth0:\nPre-set maximums:\nRX:\t\tn/a\nCombined:\t63\n\
             Current hardware settings:\nRX:\t\tn/a\nCombined:\t8\n",
        );
        assert_eq!(found["Combined"], Setting { max: 63, now: 8 });
        assert!(!found.contains_key("RX"));
        assert_eq!(
            driver("driver: mlx5_core\nversion: 6.8\n").as_deref(),
            Some("mlx5_core")
        );
        assert_eq!(driver("no such thing"), None);
    }

    #[test]
    fn key_and_indirection_table() {
        let text = "RX flow hash indirection table for ens1 with 4 RX ring(s):\n    0:      0     1     2     3\n    \
                    4:      0     1     2     3\nRSS hash key:\n6d:5a:56:da\nRSS hash function:\n    toeplitz: on\n    xor: off\n";
        let (key, table) = key_and_table(text).unwrap();
        assert_eq!(key, [0x6d, 0x5a, 0x56, 0xda]);
        assert_eq!(table, [0, 1, 2, 3, 0, 1, 2, 3]);
        assert_eq!(
            key_and_table(&text.replace("toeplitz: on", "toeplitz: off")),
            None
        );
        // A virtio device of a cloud: neither table nor key.
        let without = "RX flow hash indirection table for eth0 with 1 RX ring(s):\nOperation not supported\n\
                       RSS hash key:\nOperation not supported\nRSS hash function:\n    toeplitz: on\n";
        assert_eq!(key_and_table(without), None);
    }

    #[test]
    fn hashed_fields() {
        let text = "UDP over IPV4 flows use these fields for computing Hash flow key:\nIP SA\nIP DA\n\
                    L4 bytes 0 & 1 [TCP/UDP src port]\nL4 bytes 2 & 3 [TCP/UDP dst port]\n\n";
        assert_eq!(hash_letters(text).as_deref(), Some("sdfn"));
        assert_eq!(hash_fields("sdfn"), Some(Fields::FOUR_TUPLE));
        assert_eq!(hash_fields("sd"), Some(Fields::ADDRESSES));
        assert_eq!(hash_fields("n"), Some(Fields::LOCAL_PORT));
        assert_eq!(hash_fields("vsd"), None);
        assert_eq!(hash_fields(""), None);
        assert_eq!(
            hash_letters("Cannot get RX network flow hashing options: Operation not supported"),
            None
        );
    }
}
