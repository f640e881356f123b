//! A replica that leaves asks those who keep a connection to it to connect anew: by `Connection: close` on each answer
//! (RFC 9112 §9.6). A load balancer sends nobody new, but moves no connection that is open.
//!
//! Not on `/messages`: a 2024-11-05 stream lives in this replica, and what is posted to it must find it as long as it does.
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
    let kept = request.version() < Version::HTTP_2 && !request.uri().path().ends_with("/messages");
    let mut response = next.run(request).await;
    if kept && leaving.0.load(Ordering::Relaxed) {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::any};
    use tower::ServiceExt as _;

    use super::*;

    async fn closes(leaving: &Leaving, path: &str, version: Version) -> bool {
        let routes = Router::new().route("/{*any}", any(|| async {}));
        let request = Request::builder().uri(path).version(version);
        let request = request.body(Body::empty()).expect("a request");
        let answer = leaving.over(routes).oneshot(request).await;
        let answer = answer.expect("an answer");
        answer
            .headers()
            .get(CONNECTION)
            .is_some_and(|v| v == "close")
    }

    #[tokio::test]
    async fn only_who_leaves_closes_and_only_what_another_replica_can_serve_as_well() {
        let leaving = Leaving::default();
        assert!(!closes(&leaving, "/adapters/demo/mcp", Version::HTTP_11).await);
        leaving.begin();
        for (path, version, expected) in [
            ("/adapters/demo/mcp", Version::HTTP_11, true),
            ("/adapters/demo/mcp", Version::HTTP_10, true),
            ("/adapters/demo/mcp", Version::HTTP_2, false),
            ("/adapters/demo/messages", Version::HTTP_11, false),
        ] {
            let closes = closes(&leaving, path, version).await;
            assert_eq!(closes, expected, "{path} over {version:?}");
        }
    }
}
