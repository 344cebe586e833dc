//! The operator's face over HTTP: status, conferences, commands, metrics, health, and one page.
//!
//! Invariants: it holds no state about conferences, it asks the core; a slow core makes it answer 503
//! or 504, never wait for ever; without a token it answers only requests that name loopback as their
//! host, so that no web page elsewhere can reach it by a name that resolves to 127.0.0.1, and changes
//! need a JSON body or a verb that browsers do not send across sites.

mod page;
pub mod views;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use signaling_core::effect::AdminReply;
use signaling_core::input::AdminRequest;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{Config, Token};
use crate::driver::{AdminAsk, Clock};
use crate::metrics::Metrics;
use views::{Conference, Problem, Status, Surroundings, Switch};

/// Longest time for the core's answer: a command waits for the mixer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Largest body of a command.
const BODY_MAX: usize = 4 * 1024;
/// Time for open requests at the end of the program.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// The operator's HTTP server.
#[derive(Debug, Clone)]
pub struct Admin {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    node: String,
    token: Option<Token>,
    asks: mpsc::Sender<AdminAsk>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// A refusal as a response.
#[derive(Debug)]
struct Refusal(StatusCode, &'static str, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, kind, detail) = self;
        let problem = Problem {
            kind: kind.to_owned(),
            status: status.as_u16(),
            detail,
        };
        let mut response = (status, Json(problem)).into_response();
        let content = header::HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, content);
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                header::HeaderValue::from_static("Bearer"),
            );
        }
        response
    }
}

impl Admin {
    /// A server that asks over `asks`.
    #[must_use]
    pub fn new(config: &Config, asks: mpsc::Sender<AdminAsk>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        let shared = Shared {
            node: config.node.name.clone(),
            token: config.http.token.clone(),
            asks,
            metrics,
            clock,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Serves until asked to stop.
    pub async fn serve(self, listener: TcpListener, mut stopped: watch::Receiver<bool>) {
        let mut closing = stopped.clone();
        let asked = async move {
            let _ = closing.wait_for(|stop| *stop).await;
        };
        let server = axum::serve(listener, self.router()).with_graceful_shutdown(asked);
        let late = async {
            let _ = stopped.wait_for(|stop| *stop).await;
            crate::driver::pause(CLOSE_MAX).await;
        };
        tokio::select! {
            _ = async { server.await } => {}
            () = late => {}
        }
    }

    fn router(&self) -> Router {
        let guarded = Router::new()
            .route("/", get(console))
            .route(
                "/style.css",
                get(|| async { ([(header::CONTENT_TYPE, "text/css")], page::STYLE) }),
            )
            .route("/metrics", get(metrics))
            .route("/api/v1/status", get(status))
            .route("/api/v1/conferences", get(conferences))
            .route("/api/v1/conferences/{conference}", get(show).delete(end))
            .route("/api/v1/conferences/{conference}/lock", post(lock))
            .route(
                "/api/v1/conferences/{conference}/participants/{participant}",
                delete(kick),
            )
            .route(
                "/api/v1/conferences/{conference}/participants/{participant}/mute",
                post(mute),
            )
            .fallback(|| async { Refusal(StatusCode::NOT_FOUND, "not_found", "no such path".to_owned()) })
            .method_not_allowed_fallback(|| async {
                Refusal(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "invalid",
                    "this path does not take that method".to_owned(),
                )
            })
            .layer(from_fn_with_state(Arc::clone(&self.shared), admit));
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .merge(guarded)
            .layer(DefaultBodyLimit::max(BODY_MAX))
            .with_state(Arc::clone(&self.shared))
    }
}

/// Lets in who has the token, or without one who asks for loopback by name.
async fn admit(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let refusal = match &shared.token {
        Some(token) => (!has_token(request.headers(), token)).then(|| {
            Refusal(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "send the token of [http] token_file as bearer".to_owned(),
            )
        }),
        None => (!names_loopback(request.headers())).then(|| {
            Refusal(
                StatusCode::FORBIDDEN,
                "forbidden",
                "without a token only requests to localhost are answered; set [http] token_file".to_owned(),
            )
        }),
    };
    let mut response = match refusal {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        header::HeaderValue::from_static(page::POLICY),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-store"),
    );
    response
}

fn has_token(headers: &HeaderMap, token: &Token) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let Some(given) = given else { return false };
    let wanted = token.expose().as_bytes();
    // The time this takes says nothing about where the first difference is.
    let differences = given.iter().zip(wanted).fold(0, |sum, (a, b)| sum | (a ^ b));
    given.len() == wanted.len() && differences == 0
}

fn names_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

impl Shared {
    async fn ask(&self, request: AdminRequest) -> Result<AdminReply, Refusal> {
        let (reply, answer) = oneshot::channel();
        let busy = || {
            Refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "starting or overloaded; try again".to_owned(),
            )
        };
        self.asks
            .try_send(AdminAsk { request, reply })
            .map_err(|_| busy())?;
        match tokio::time::timeout(ANSWER_MAX, answer).await {
            Ok(Ok(AdminReply::NotFound { detail })) => {
                Err(Refusal(StatusCode::NOT_FOUND, "not_found", detail))
            }
            Ok(Ok(AdminReply::Failed { detail })) => Err(Refusal(StatusCode::CONFLICT, "refused", detail)),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(busy()),
            Err(_) => Err(Refusal(
                StatusCode::GATEWAY_TIMEOUT,
                "timeout",
                "no answer in time; look whether it was done".to_owned(),
            )),
        }
    }

    async fn command(&self, request: AdminRequest) -> Result<StatusCode, Refusal> {
        self.ask(request).await.map(|_| StatusCode::NO_CONTENT)
    }

    async fn list(&self) -> Result<Vec<Conference>, Refusal> {
        let reply = self.ask(AdminRequest::Conferences).await?;
        let AdminReply::Conferences(views) = reply else {
            return Err(unexpected(&reply));
        };
        Ok(views.into_iter().map(Conference::from).collect())
    }
}

fn unexpected(reply: &AdminReply) -> Refusal {
    tracing::warn!(?reply, "an answer of the wrong kind");
    Refusal(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "an answer of the wrong kind".to_owned(),
    )
}

fn switch(body: Result<Json<Switch>, JsonRejection>) -> Result<bool, Refusal> {
    match body {
        Ok(Json(switch)) => Ok(switch.on),
        Err(error) => {
            let detail = format!(
                "{}; send {{\"on\": true}} or {{\"on\": false}} as application/json",
                error.body_text()
            );
            Err(Refusal(error.status(), "invalid", detail))
        }
    }
}

type Shareds = State<Arc<Shared>>;

async fn status(State(shared): Shareds) -> Result<Json<Status>, Refusal> {
    let reply = shared.ask(AdminRequest::Status).await?;
    let AdminReply::Status(view) = reply else {
        return Err(unexpected(&reply));
    };
    let around = Surroundings {
        node: shared.node.clone(),
        uptime_s: shared.clock.now().0 / 1_000_000_000,
        database_up: shared.metrics.db_is_up(),
    };
    Ok(Json(Status::new(view, around)))
}

async fn conferences(State(shared): Shareds) -> Result<Json<Vec<Conference>>, Refusal> {
    shared.list().await.map(Json)
}

async fn show(State(shared): Shareds, Path(conference): Path<String>) -> Result<Json<Conference>, Refusal> {
    let reply = shared.ask(AdminRequest::Show { conference }).await?;
    let AdminReply::Conference(view) = reply else {
        return Err(unexpected(&reply));
    };
    Ok(Json(view.into()))
}

async fn end(State(shared): Shareds, Path(conference): Path<String>) -> Result<StatusCode, Refusal> {
    shared.command(AdminRequest::End { conference }).await
}

async fn lock(
    State(shared): Shareds,
    Path(conference): Path<String>,
    body: Result<Json<Switch>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    shared
        .command(AdminRequest::Lock {
            conference,
            on: switch(body)?,
        })
        .await
}

async fn kick(
    State(shared): Shareds,
    Path((conference, participant)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    shared
        .command(AdminRequest::Kick {
            conference,
            participant,
        })
        .await
}

async fn mute(
    State(shared): Shareds,
    Path((conference, participant)): Path<(String, String)>,
    body: Result<Json<Switch>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    shared
        .command(AdminRequest::Mute {
            conference,
            participant,
            on: switch(body)?,
        })
        .await
}

async fn metrics(State(shared): Shareds) -> Response {
    let content = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content, shared.metrics.render()).into_response()
}

async fn console(State(shared): Shareds) -> Result<Response, Refusal> {
    let conferences = shared.list().await?;
    let content = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    Ok((content, page::render(&shared.node, &conferences)).into_response())
}

/// Ready when calls can be taken: a mixer answers. A database that takes no writes is told, but calls
/// go on without it.
async fn ready(State(shared): Shareds) -> Response {
    let mixers = shared.metrics.mixers();
    if mixers.iter().any(|(_, up)| *up) {
        let note = if shared.metrics.db_is_up() {
            "ready\n"
        } else {
            "ready; the database takes no writes\n"
        };
        return (StatusCode::OK, note).into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "no mixer answers\n").into_response()
}

#[cfg(test)]
mod tests;
