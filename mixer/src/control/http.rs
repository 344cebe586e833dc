//! The HTTP/1.1 listener: accepts, caps, times out. Routes are in [`super::routes`].

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};

/// Time for a request's header to be complete, from the end of the answer before it: also how
/// long an idle connection lives.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Header lines of a request at most.
const HEADERS_MAX: usize = 64;
/// Bytes buffered per connection at most; bounds the size of a header too.
const BUFFER: usize = 64 * 1024;

/// Cuts the connection a request came on.
#[derive(Debug, Clone)]
pub(super) struct Cut(pub(super) Arc<Notify>);

/// Serves until `stop` says so; then every connection is cut.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    connections: usize,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(connections));
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "control link cannot accept");
                // Out of descriptors: let others end before the next try.
                tokio::task::yield_now().await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::debug!("control.connections is reached; connection refused");
            continue;
        };
        let (router, mut stop) = (router.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection(stream, router) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, router: Router) {
    // Small answers must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let cut = Arc::new(Notify::new());
    let service = TowerToHyperService::new(router.layer(Extension(Cut(Arc::clone(&cut)))));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        // A client that has sent a whole command and left must not cancel it half-way: whether it
        // took effect would be a matter of luck. The command goes on, the answer is lost.
        .half_close(true)
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = served => {
            if let Err(error) = ended {
                tracing::debug!(%error, "control connection");
            }
        }
        () = cut.notified() => tracing::info!("a reader of events took nothing for too long and was cut"),
    }
}
