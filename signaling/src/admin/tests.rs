use signaling_core::effect::{ConferenceView, ParticipantView, StatusView};
use signaling_core::time::WallTime;

use super::*;

const TOKEN: &str = "a-token-of-enough-length";

fn conference() -> ConferenceView {
    ConferenceView {
        conference: "room".to_owned(),
        state: "active",
        locked: false,
        mixer: "http://127.0.0.1:8090".to_owned(),
        activated: WallTime(0),
        participants: vec![ParticipantView {
            participant: "p1".to_owned(),
            uri: "sip:a@b".to_owned(),
            display_name: "<b>A</b>".to_owned(),
            status: "connected",
            muted: false,
            talking: true,
            codec: "PCMU",
            joined: WallTime(1),
            call_id: "c".to_owned(),
        }],
    }
}

fn answer(request: &AdminRequest) -> AdminReply {
    match request {
        AdminRequest::Status => AdminReply::Status(StatusView {
            conferences: 1,
            ..StatusView::default()
        }),
        AdminRequest::Conferences => AdminReply::Conferences(vec![conference()]),
        AdminRequest::Show { conference: id } if id == "room" => AdminReply::Conference(conference()),
        AdminRequest::Show { conference } => AdminReply::NotFound {
            detail: format!("no conference {conference}"),
        },
        AdminRequest::Lock { .. } => AdminReply::Failed {
            detail: "the mixer is away".to_owned(),
        },
        AdminRequest::Mute { .. } | AdminRequest::Kick { .. } | AdminRequest::End { .. } => AdminReply::Done,
    }
}

/// A server over a core that answers from a table and tells what it was asked.
async fn serve(token: Option<&str>) -> (String, mpsc::Receiver<AdminRequest>, Arc<Metrics>) {
    let mut config = Config::defaults().unwrap();
    if let Some(token) = token {
        let dir = crate::test_dir::TestDir::new("admin");
        std::fs::write(dir.path().join("token"), token).unwrap();
        let path = dir.path().join("signaling.toml");
        std::fs::write(&path, "[http]\ntoken_file = \"token\"").unwrap();
        config = Config::load(&path).unwrap();
    }
    let (asks, mut questions) = mpsc::channel::<AdminAsk>(8);
    let (seen, asked) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Some(ask) = questions.recv().await {
            let _ = ask.reply.send(answer(&ask.request));
            let _ = seen.try_send(ask.request);
        }
    });
    let metrics = Arc::new(Metrics::default());
    let admin = Admin::new(&config, asks, Arc::clone(&metrics), Clock::start());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        admin.serve(listener, stopped).await;
        drop(stop);
    });
    (base, asked, metrics)
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Each verb's request, the status it is answered with, and what the core is asked.
fn verbs(api: &str) -> Vec<(reqwest::RequestBuilder, u16, AdminRequest)> {
    let conference = || "a/b".to_owned();
    let conference_path = format!("{api}/conferences/a%2Fb");
    let participant_path = format!("{conference_path}/participants/p%201");
    let show = |id: &str| AdminRequest::Show {
        conference: id.to_owned(),
    };
    let mute = AdminRequest::Mute {
        conference: conference(),
        participant: "p 1".to_owned(),
        on: true,
    };
    let kick = AdminRequest::Kick {
        conference: conference(),
        participant: "p 1".to_owned(),
    };
    let lock = AdminRequest::Lock {
        conference: conference(),
        on: false,
    };
    let end = AdminRequest::End {
        conference: conference(),
    };
    let get = |path: &str| http().get(format!("{api}{path}"));
    let switch = |path: String, on: bool| http().post(path).json(&Switch { on });
    vec![
        (get("/status"), 200, AdminRequest::Status),
        (get("/conferences"), 200, AdminRequest::Conferences),
        (get("/conferences/room"), 200, show("room")),
        (get("/conferences/none"), 404, show("none")),
        (switch(format!("{participant_path}/mute"), true), 204, mute),
        (http().delete(&participant_path), 204, kick),
        (switch(format!("{conference_path}/lock"), false), 409, lock),
        (http().delete(&conference_path), 204, end),
    ]
}

#[tokio::test]
async fn every_verb_reaches_the_core() {
    let (base, mut asked, _) = serve(None).await;
    let api = format!("{base}/api/v1");
    for (request, status, expected) in verbs(&api) {
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{expected:?}");
        if status >= 400 {
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            let problem: Problem = response.json().await.unwrap();
            assert!(
                problem.status == status && !problem.detail.is_empty(),
                "{problem:?}"
            );
        }
        assert_eq!(asked.recv().await.unwrap(), expected);
    }
    let shown: Conference = http()
        .get(format!("{api}/conferences/room"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(shown.participants[0].joined, "1970-01-01T00:00:00.001Z");
}

#[tokio::test]
async fn bad_requests_get_problems_and_ask_nothing() {
    let (base, mut asked, _) = serve(None).await;
    let lock = format!("{base}/api/v1/conferences/room/lock");
    let table = [
        (http().get(format!("{base}/nowhere")), 404),
        (http().get(&lock), 405),
        (http().post(&lock), 415),
        (http().post(&lock).body("{\"on\":true}"), 415),
        (
            http()
                .post(&lock)
                .header("content-type", "application/json")
                .body("{"),
            400,
        ),
        (
            http()
                .post(&lock)
                .header("content-type", "application/json")
                .body("{\"on\":1}"),
            422,
        ),
        (
            http()
                .post(&lock)
                .header("content-type", "application/json")
                .body("{\"on\":true,\"x\":1}"),
            422,
        ),
        (
            http()
                .post(&lock)
                .header("content-type", "application/json")
                .body(" ".repeat(BODY_MAX + 1)),
            413,
        ),
        (
            http()
                .get(format!("{base}/api/v1/status"))
                .header("host", "evil.example"),
            403,
        ),
    ];
    for (request, status) in table {
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json",
            "{status}"
        );
    }
    assert!(asked.try_recv().is_err());
}

#[tokio::test]
async fn the_page_is_closed_to_scripts() {
    let (base, _, _) = serve(None).await;
    let response = http().get(&base).send().await.unwrap();
    assert!(
        response.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .contains("default-src 'none'")
    );
    let page = response.text().await.unwrap();
    assert!(
        page.contains("&lt;b&gt;A&lt;/b&gt;") && !page.contains("<b>"),
        "{page}"
    );
}

#[tokio::test]
async fn health_tells_the_truth_and_needs_no_token() {
    let (base, _, metrics) = serve(Some(TOKEN)).await;
    let get = |path: &str| http().get(format!("{base}{path}"));
    assert_eq!(get("/healthz").send().await.unwrap().status(), 200);
    assert_eq!(get("/readyz").send().await.unwrap().status(), 503);
    metrics.set_mixer("http://m:1", true);
    assert_eq!(get("/readyz").send().await.unwrap().status(), 200);
    for path in ["/metrics", "/", "/api/v1/status"] {
        assert_eq!(get(path).send().await.unwrap().status(), 401, "{path}");
        assert_eq!(
            get(path)
                .bearer_auth("a-token-of-enough-lengtX")
                .send()
                .await
                .unwrap()
                .status(),
            401
        );
        assert_eq!(
            get(path).bearer_auth(TOKEN).send().await.unwrap().status(),
            200,
            "{path}"
        );
    }
    let page = get("/metrics")
        .bearer_auth(TOKEN)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        page.contains("mixminus_mixer_up{mixer=\"http://m:1\"} 1"),
        "{page}"
    );
}
