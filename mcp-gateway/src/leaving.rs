//! A replica that leaves asks those who keep a connection to it to connect anew: by `Connection: close` on each answer
//! (RFC 9112 §9.6). A load balancer sends nobody new, but moves no connection that is open.
//!
//! HTTP/2 needs nothing here: its GOAWAY, sent when the listener stops, loses no request.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use http::{HeaderValue, Version, header::CONNECTION};

/// Whether this replica leaves. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leaving(Arc<AtomicBool>);

impl Leaving {
    /// From here on every answer over HTTP/1 is the last of its connection.
    pub(crate) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The same routes, whose answers say so.
    pub(crate) fn over(&self, routes: Router) -> Router {
        routes.layer(middleware::from_fn_with_state(self.clone(), answer))
    }
}

async fn answer(State(leaving): State<Leaving>, request: Request, next: Next) -> Response {
    let kept = request.version() < Version::HTTP_2;
    let mut response = next.run(request).await;
    if kept && leaving.0.load(Ordering::Relaxed) {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}
