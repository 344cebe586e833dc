//! The paths of the control link, from HTTP to [`Call`] and back.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::{Extension, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use mixer_control::reply::{Problem, ProblemKind};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::answers::{Answer, Reply};
use super::call::{Body, Call};
use super::events::EventLog;
use super::http::Cut;
use super::pump::Ask;
use crate::clock::Clock;
use crate::config::Token;

/// What the routes need.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) pump: mpsc::Sender<Ask>,
    pub(super) events: Arc<EventLog>,
    pub(super) token: Option<Arc<Token>>,
    pub(super) clock: Clock,
    /// Random id of this run.
    pub(super) instance: Arc<str>,
}

/// Bytes of a request's body at most.
const BODY_MAX: usize = 64 * 1024;
/// Time for a request's body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two signs of life on the event stream.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// All paths.
pub(super) fn router(link: Link) -> Router {
    Router::new()
        .route("/v1/state", get(state))
        .route("/v1/events", get(events))
        .route(
            "/v1/conferences/{conference}",
            put(create_conference).delete(delete_conference),
        )
        .route("/v1/conferences/{conference}/commands", post(conference_command))
        .route(
            "/v1/conferences/{conference}/endpoints/{endpoint}",
            put(create_endpoint).delete(delete_endpoint),
        )
        .route(
            "/v1/conferences/{conference}/endpoints/{endpoint}/media",
            put(set_media),
        )
        .route(
            "/v1/conferences/{conference}/endpoints/{endpoint}/commands",
            post(endpoint_command),
        )
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(link.clone(), authorise))
        .with_state(link)
}

/// A refusal on its way out.
struct Refused(Problem);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let text = serde_json::to_string(&problem).unwrap_or_default();
        let mut response = (status, text).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = problem.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn refused(kind: ProblemKind, detail: impl Into<String>) -> Refused {
    Refused(Problem::new(kind, detail))
}

async fn authorise(State(link): State<Link>, request: Request, next: Next) -> Response {
    let open = request.uri().path() == "/healthz";
    if let (Some(token), false) = (&link.token, open) {
        let offered = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if !offered.is_some_and(|offered| token.matches(offered)) {
            let mut problem = Problem::new(
                ProblemKind::Invalid,
                "send Authorization: Bearer with the token of control.token_file",
            );
            problem.status = StatusCode::UNAUTHORIZED.as_u16();
            let mut response = Refused(problem).into_response();
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return response;
        }
    }
    next.run(request).await
}

async fn no_such_path(request: Request) -> Refused {
    refused(
        ProblemKind::NotFound,
        format!("no such path: {}", request.uri().path()),
    )
}

async fn no_such_method(method: Method) -> Refused {
    let mut problem = Problem::new(ProblemKind::Invalid, format!("{method} is not possible here"));
    problem.status = StatusCode::METHOD_NOT_ALLOWED.as_u16();
    Refused(problem)
}

/// Reads a JSON body. The content type is insisted on because browsers do not send it to a foreign
/// site without asking first.
async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: HttpBody) -> Result<T, Refused> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    if !kind.starts_with(b"application/json") {
        return Err(refused(
            ProblemKind::Invalid,
            "Content-Type: must be application/json",
        ));
    }
    let bytes = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, BODY_MAX))
        .await
        .map_err(|_| refused(ProblemKind::Invalid, "body: did not arrive in time"))?
        .map_err(|_| {
            refused(
                ProblemKind::Invalid,
                format!("body: broken or longer than {BODY_MAX} bytes"),
            )
        })?;
    serde_json::from_slice(&bytes).map_err(|error| refused(ProblemKind::Invalid, format!("body: {error}")))
}

/// Reads `?command=ID`.
fn command_of(query: &Query<Vec<(String, String)>>) -> Result<String, Refused> {
    let mut found = query
        .iter()
        .filter(|(key, _)| key == "command")
        .map(|(_, value)| value.clone());
    match (found.next(), found.next()) {
        (Some(command), None) => Ok(command),
        _ => Err(refused(
            ProblemKind::Invalid,
            "command: put one ?command=ID into the address",
        )),
    }
}

/// Hands a call to the pump and waits for its answer. The command goes on when the client leaves.
async fn execute(link: &Link, conference: String, endpoint: String, body: Body) -> Response {
    let call = Box::new(Call {
        conference,
        endpoint,
        body,
    });
    let (reply, answer) = oneshot::channel();
    let asked_at = link.clock.now();
    if link
        .pump
        .send(Ask::Call {
            call,
            asked_at,
            reply,
        })
        .await
        .is_err()
    {
        return stopping();
    }
    match answer.await {
        Ok(answer) => respond(&answer),
        Err(_) => stopping(),
    }
}

fn stopping() -> Response {
    Refused(Problem::new(ProblemKind::Busy, "the mixer is stopping").retry_after(1)).into_response()
}

fn respond(answer: &Answer) -> Response {
    match answer {
        Ok(Reply::Done(done)) => json_response(done),
        Ok(Reply::Endpoint(created)) => json_response(created),
        Err(problem) => Refused(problem.clone()).into_response(),
    }
}

fn json_response(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(error) => refused(ProblemKind::Internal, error.to_string()).into_response(),
    }
}

type Endpoint = Path<(String, String)>;
type Pairs = Query<Vec<(String, String)>>;

async fn create_conference(
    State(link): State<Link>,
    Path(conference): Path<String>,
    headers: HeaderMap,
    body: HttpBody,
) -> Result<Response, Refused> {
    let body = Body::CreateConference(json(&headers, body).await?);
    Ok(execute(&link, conference, String::new(), body).await)
}

async fn delete_conference(
    State(link): State<Link>,
    Path(conference): Path<String>,
    query: Pairs,
) -> Result<Response, Refused> {
    let body = Body::DeleteConference(command_of(&query)?);
    Ok(execute(&link, conference, String::new(), body).await)
}

async fn conference_command(
    State(link): State<Link>,
    Path(conference): Path<String>,
    headers: HeaderMap,
    body: HttpBody,
) -> Result<Response, Refused> {
    let body = Body::ConferenceCommand(json(&headers, body).await?);
    Ok(execute(&link, conference, String::new(), body).await)
}

async fn create_endpoint(
    State(link): State<Link>,
    Path((conference, endpoint)): Endpoint,
    headers: HeaderMap,
    body: HttpBody,
) -> Result<Response, Refused> {
    let body = Body::CreateEndpoint(json(&headers, body).await?);
    Ok(execute(&link, conference, endpoint, body).await)
}

async fn set_media(
    State(link): State<Link>,
    Path((conference, endpoint)): Endpoint,
    headers: HeaderMap,
    body: HttpBody,
) -> Result<Response, Refused> {
    let body = Body::SetMedia(json(&headers, body).await?);
    Ok(execute(&link, conference, endpoint, body).await)
}

async fn endpoint_command(
    State(link): State<Link>,
    Path((conference, endpoint)): Endpoint,
    headers: HeaderMap,
    body: HttpBody,
) -> Result<Response, Refused> {
    let body = Body::EndpointCommand(json(&headers, body).await?);
    Ok(execute(&link, conference, endpoint, body).await)
}

async fn delete_endpoint(
    State(link): State<Link>,
    Path((conference, endpoint)): Endpoint,
    query: Pairs,
) -> Result<Response, Refused> {
    let body = Body::DeleteEndpoint(command_of(&query)?);
    Ok(execute(&link, conference, endpoint, body).await)
}

async fn state(State(link): State<Link>) -> Response {
    let (reply, answer) = oneshot::channel();
    let asked_at = link.clock.now();
    if link.pump.send(Ask::State { asked_at, reply }).await.is_err() {
        return stopping();
    }
    match answer.await {
        Ok(state) => json_response(&state),
        Err(_) => stopping(),
    }
}

async fn metrics(State(link): State<Link>) -> Response {
    let (reply, answer) = oneshot::channel();
    if link.pump.send(Ask::Metrics { reply }).await.is_err() {
        return stopping();
    }
    match answer.await {
        Ok(page) => (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
            page,
        )
            .into_response(),
        Err(_) => stopping(),
    }
}

async fn healthz(State(link): State<Link>) -> Response {
    let (reply, answer) = oneshot::channel();
    let healthy = link.pump.send(Ask::Health { reply }).await.is_ok() && answer.await.unwrap_or(false);
    if healthy {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "a worker has died; restart the mixer\n",
        )
            .into_response()
    }
}

async fn events(
    State(link): State<Link>,
    Extension(Cut(cut)): Extension<Cut>,
    headers: HeaderMap,
    query: Pairs,
) -> Result<Response, Refused> {
    // A browser repeats the address it began with and tells its place in the header.
    let place = match headers.get("last-event-id") {
        Some(value) => Some(String::from_utf8_lossy(value.as_bytes()).into_owned()),
        None => query
            .iter()
            .find(|(key, _)| key == "after")
            .map(|(_, value)| value.clone()),
    };
    let after = place
        .map(|text| text.trim().parse::<u64>())
        .transpose()
        .map_err(|_| refused(ProblemKind::Invalid, "after: must be the number of an event"))?;
    let reader = link.events.read(after, link.clock.now(), cut);
    let stream = futures_util::stream::unfold(reader, |mut reader| async move {
        let (seq, text) = reader.next().await?;
        let event = SseEvent::default().id(seq.to_string()).data(&*text);
        Some((Ok::<_, Infallible>(event), reader))
    });
    let mut response = Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response();
    if let Ok(value) = HeaderValue::from_str(&link.instance) {
        response.headers_mut().insert("mixer-instance", value);
    }
    Ok(response)
}
