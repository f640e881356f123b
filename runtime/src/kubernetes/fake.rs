//! An API server for tests: a function from what is asked to what is answered.

use std::{convert::Infallible, future::pending, net::Ipv4Addr, sync::Arc};

use http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use mcp_gateway_link::{Authority, token::HomeKey};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Home, KubernetesConfig, World};
use crate::EventReceiver;

/// How it answers.
pub(crate) enum Answer {
    Says(u16, Value),
    /// Bytes that are no JSON.
    Text(Vec<u8>),
    /// It accepts the call and is never heard of again.
    Silent,
    /// The call's connection breaks.
    Broken,
}

/// What it was asked, one line for each: `GET /api/v1/…?…`.
pub(crate) type Asked = Arc<Mutex<Vec<String>>>;

/// A refusal or a failure.
pub(crate) fn status(code: u16, reason: &str, message: &str) -> Answer {
    Answer::Says(
        code,
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "code": code, "reason": reason, "message": message,
        }),
    )
}

/// A client of one that answers by the request's line and body.
pub(crate) fn api(
    answer: impl FnMut(&str, &Value) -> Answer + Send + 'static,
) -> (kube::Client, Asked) {
    let answer = Arc::new(Mutex::new(answer));
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    let serve = tower::service_fn(move |request: Request<Body>| {
        let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
        async move {
            let line = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect().await?.to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            log.lock().push(line.clone());
            let answer = (*answer.lock())(&line, &body);
            match answer {
                Answer::Says(code, said) => {
                    let said = Body::from(said.to_string().into_bytes());
                    Ok::<_, tower::BoxError>(Response::builder().status(code).body(said)?)
                }
                Answer::Text(said) => Ok(Response::new(Body::from(said))),
                Answer::Broken => Err("connection reset by peer".into()),
                Answer::Silent => match pending::<Infallible>().await {},
            }
        }
    });
    (kube::Client::new(serve, "mcp"), asked)
}

/// A home that nobody calls.
pub(crate) async fn home() -> Home {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a free port");
    Home {
        advertise: vec![listener.local_addr().expect("its address")],
        listener,
        authority: Arc::new(Authority::generate().expect("an authority")),
        key: HomeKey::random(),
    }
}

/// What the parts of a runtime share that has this API server.
pub(crate) async fn world(client: kube::Client) -> (Arc<World>, EventReceiver) {
    let clients = (client.clone(), client);
    let config = KubernetesConfig::new(clients, "mcp", "test", home().await);
    let (_listener, world, events) = World::new(config, false);
    (Arc::new(world), events)
}
