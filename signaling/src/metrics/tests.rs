use super::*;

fn moved(before: &str, after: &str, name: &str) -> bool {
    let of = |page: &str| -> Vec<String> {
        page.lines()
            .filter(|line| line.starts_with(name))
            .map(str::to_owned)
            .collect()
    };
    of(before) != of(after)
}

/// Metrics are shown by whoever writes them; this holds that every row has a writer that shows.
#[test]
fn every_metric_is_seen_to_move() {
    let metrics = Metrics::default();
    let before = metrics.render();
    for count in [
        Count::Request { method: "INVITE" },
        Count::Response {
            status: 200,
            delay_ns: 1_000,
            invite: true,
        },
        Count::Response {
            status: 503,
            delay_ns: 11_000_000_000,
            invite: false,
        },
        Count::Retransmission,
        Count::ParseError,
        Count::KeysInClear,
        Count::Joined,
        Count::Left { cause: "bye" },
        Count::Conferences(3),
        Count::Participants(4),
        Count::Transactions(5),
    ] {
        metrics.count(&count);
    }
    metrics.dropped(Dropped::UdpQueueFull);
    metrics.set_connections(2);
    metrics.set_mixer("http://m:1", true);
    metrics.mixer_request(MixerOutcome::Done, Duration::from_millis(3));
    metrics.mixer_retry();
    metrics.mixer_event();
    metrics.db_write(true);
    metrics.set_db_pending(9);
    let dropped = DroppedLines::default();
    metrics.watch_log(dropped.clone());
    dropped.count_one();
    let after = metrics.render();
    for definition in TABLE {
        let constant = definition.name == "mixminus_build_info";
        assert!(
            constant || moved(&before, &after, definition.name),
            "{} did not move",
            definition.name
        );
    }
    assert!(after.contains("mixminus_sip_request_delay_seconds_bucket{kind=\"other\",le=\"10\"} 0"));
    assert!(after.contains("mixminus_sip_request_delay_seconds_bucket{kind=\"other\",le=\"+Inf\"} 1"));
    assert!(after.contains("mixminus_sip_request_delay_seconds_sum{kind=\"invite\"} 0.000001"));
    assert!(after.contains("mixminus_mixer_request_seconds_bucket{le=\"0.005\"} 1"));
}

#[test]
fn the_page_has_no_name_the_table_lacks() {
    let metrics = Metrics::default();
    metrics.count(&Count::Left { cause: "bye" });
    for line in metrics.render().lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        assert!(
            TABLE.iter().any(|row| row.name == name || row.name == base),
            "{line}"
        );
    }
}

#[test]
fn the_document_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics-signaling.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, document()).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == document(),
        "run `UPDATE_DOCS=1 cargo test -p signaling the_document` and commit docs/metrics-signaling.md"
    );
}
