//! The paths of the bridge and what each request on them is.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use super::{
    OWNER_HEADER,
    answer::{Asked, answer},
    body::{Body, Events, OnClose, Source},
    headers,
    message::{Kind, Malformed, Message},
    refusal::{Refusal, code, empty, json_response},
    router::Mode,
    shared::{Door, Shared},
    worker::{Refused, Worker},
};

/// Longest id or progress token of a client, in bytes as written: they are kept for as long as a request is open.
const MAX_ID: usize = 1_024;

type Answer = Result<Response<Body>, Refusal>;

/// Answers one request.
pub(super) async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let route = (parts.method.clone(), parts.uri.path());
    let answered = match route {
        (Method::POST, "/mcp") => boxed(post(&shared, &parts, body)).await,
        (Method::GET, "/mcp") => listen(&shared, &parts).await,
        (Method::DELETE, "/mcp") => delete(&shared, &parts),
        (_, "/mcp") => Err(Refusal::method("GET, POST, DELETE")),
        (Method::GET, "/sse") => open_sse(&shared, &parts).await,
        (_, "/sse") => Err(Refusal::method("GET")),
        (Method::POST, "/messages") => post_sse(&shared, &parts, body).await,
        (_, "/messages") => Err(Refusal::method("POST")),
        (_, "/healthz") => Ok(match shared.over() {
            None => empty(StatusCode::OK),
            Some(_) => empty(StatusCode::SERVICE_UNAVAILABLE),
        }),
        _ => Ok(empty(StatusCode::NOT_FOUND)),
    };
    answered.unwrap_or_else(|refusal| refusal.response())
}

/// Keeps the large future of a POST off its caller's stack.
fn boxed<'a, T>(
    future: impl Future<Output = T> + Send + 'a,
) -> std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>> {
    Box::pin(future)
}

async fn read(shared: &Shared, body: Incoming) -> Result<Bytes, Refusal> {
    let limited = Limited::new(body, shared.config.max_body);
    match limited.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            code::TOO_LARGE,
            format!("the body is longer than {} bytes", shared.config.max_body),
        )),
        Err(_broken) => Err(Refusal::bad(code::PARSE, "the body broke off")),
    }
}

fn malformed(error: Malformed) -> Refusal {
    let code = match error {
        Malformed::Json => code::PARSE,
        Malformed::Shape => code::INVALID_REQUEST,
    };
    Refusal::bad(code, error.to_string())
}

/// The messages of a body, and whether they are a batch.
fn messages(body: &[u8]) -> Result<(Vec<Message<'_>>, bool), Refusal> {
    let text = std::str::from_utf8(body).map_err(|_not_utf8| malformed(Malformed::Json))?;
    let (items, batch) = match Message::batch(text) {
        Some(items) => (items.map_err(malformed)?, true),
        None => (vec![Message::parse(text).map_err(malformed)?], false),
    };
    // Children are forgiven what clients are not: an undelivered answer helps nobody.
    if items.is_empty() || items.iter().any(|m| !m.declared) {
        return Err(malformed(Malformed::Shape));
    }
    let long = |raw: Option<&str>| raw.is_some_and(|r| r.len() > MAX_ID);
    if items.iter().any(|m| long(m.id()) || long(m.token())) {
        return Err(Refusal::bad(
            code::INVALID_REQUEST,
            format!("an id or progress token is longer than {MAX_ID} bytes"),
        ));
    }
    Ok((items, batch))
}

async fn post(shared: &Arc<Shared>, parts: &http::request::Parts, body: Incoming) -> Answer {
    headers::check_post(&parts.headers)?;
    headers::check_single(&parts.headers)?;
    let body = read(shared, body).await?;
    let (items, batch) = messages(&body)?;
    let single = items.first().filter(|_| !batch);
    if headers::is_modern(&parts.headers, single) {
        return match single {
            Some(message) => modern(shared, parts, message).await,
            None => Err(Refusal::bad(
                code::INVALID_REQUEST,
                "this revision knows no batches",
            )),
        };
    }
    if items
        .iter()
        .any(|m| m.method() == "initialize" && m.kind == Kind::Request)
    {
        return match items.as_slice() {
            [only] if !batch => initialize(shared, only).await,
            _ => Err(Refusal::bad(
                code::INVALID_REQUEST,
                "initialize must not be part of a batch",
            )),
        };
    }
    session_post(shared, parts, &items, batch).await
}

async fn modern(
    shared: &Arc<Shared>,
    parts: &http::request::Parts,
    message: &Message<'_>,
) -> Answer {
    match message.kind {
        Kind::Request => {}
        // The revision defines none that a client could post; one that names a request by id could name a stranger's.
        Kind::Notification => return Ok(empty(StatusCode::ACCEPTED)),
        Kind::Response { .. } => {
            return Err(Refusal::bad(
                code::INVALID_REQUEST,
                "clients post no responses in this revision",
            ));
        }
    }
    headers::check_modern(&parts.headers, message)?;
    let owner = headers::text(&parts.headers, OWNER_HEADER).unwrap_or_default();
    let asked = || Asked {
        ids: vec![message.id().map(str::to_owned)],
        batch: false,
        modern: true,
    };
    let mut retried = false;
    loop {
        let worker = shared.modern(owner, message).await;
        let worker = worker.map_err(|refusal| refusal.to(message.id()))?;
        match worker.post(std::slice::from_ref(message)).await {
            Ok(Some(waiting)) => {
                return Ok(answer(waiting, asked(), shared.config.keep_alive).await);
            }
            Ok(None) => return Ok(empty(StatusCode::ACCEPTED)),
            // It had just made room for another owner's; nothing was sent to it.
            Err(Refused::Lost) if worker.stopping().is_cancelled() && !retried => retried = true,
            Err(refused) => return Err(not_posted(&worker, refused).await.to(message.id())),
        }
    }
}

async fn not_posted(worker: &Worker, refused: Refused) -> Refusal {
    match refused {
        Refused::Full => {
            Refusal::unavailable(code::OVERLOADED, "the server has too many open requests")
        }
        Refused::Lost => Refusal::lost(&*worker.ended().await),
    }
}

/// Ends a session unless its handshake succeeded.
struct Provisional<'a> {
    shared: &'a Shared,
    id: Option<String>,
}

impl Drop for Provisional<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.shared.end_session(&id);
        }
    }
}

async fn initialize(shared: &Arc<Shared>, message: &Message<'_>) -> Answer {
    let id = message.id().unwrap_or("null").to_owned();
    // A legacy client makes nothing of an error that comes with 400: it looks for a 2024-11-05 server instead, or says
    // no more than "400". With 200 its user reads which versions are served.
    let refused = |error: &str| {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#);
        Ok(json_response(StatusCode::OK, text))
    };
    if let Some(error) = shared.eras(|e| e.initialize_refused().map(str::to_owned)) {
        return refused(&error);
    }
    let worker = shared.take().await.map_err(|r| r.to(Some(&id)))?;
    worker.set_mode(Mode::Legacy);
    let session = shared.open_session(Door::Streamable, &worker);
    let mut provisional = Provisional {
        shared,
        id: Some(session.clone()),
    };
    let lost = |report: &_| Refusal::lost(report).to(Some(&id));
    let mut waiting = match worker.post(std::slice::from_ref(message)).await {
        Ok(Some(waiting)) => waiting,
        Ok(None) | Err(_) => return Err(lost(&*worker.ended().await)),
    };
    let Some(piece) = waiting.rx.recv().await else {
        return Err(lost(&*worker.ended().await));
    };
    let answered = Message::parse(&piece.text).ok();
    let answered = answered.as_ref();
    if let Some(result) = answered.and_then(Message::result) {
        shared.eras(|e| e.initialized(result));
        provisional.id = None;
        let mut response = json_response(StatusCode::OK, piece.text.clone());
        if let Ok(value) = HeaderValue::from_str(&session) {
            response.headers_mut().insert(headers::SESSION, value);
        }
        return Ok(response);
    }
    let error = answered.and_then(Message::error).unwrap_or("null");
    refused(&shared.eras(|e| e.initialize_failed(error)))
}

fn session_of(shared: &Shared, parts: &http::request::Parts) -> Result<Arc<Worker>, Refusal> {
    let Some(id) = headers::text(&parts.headers, headers::SESSION) else {
        return Err(Refusal::bad(
            code::INVALID_REQUEST,
            "the header Mcp-Session-Id is missing; a session opens with initialize",
        ));
    };
    shared.session(Door::Streamable, id)
}

async fn session_post(
    shared: &Arc<Shared>,
    parts: &http::request::Parts,
    items: &[Message<'_>],
    batch: bool,
) -> Answer {
    let requests = || items.iter().filter(|m| m.kind == Kind::Request);
    let first = requests().next().and_then(Message::id);
    let worker = session_of(shared, parts).map_err(|r| r.to(first))?;
    match worker.post(items).await {
        Ok(None) => Ok(empty(StatusCode::ACCEPTED)),
        Ok(Some(waiting)) => {
            let asked = Asked {
                ids: requests().map(|m| m.id().map(str::to_owned)).collect(),
                batch,
                modern: false,
            };
            Ok(answer(waiting, asked, shared.config.keep_alive).await)
        }
        // Nothing reached the child: to the client it is as if it had come a moment later.
        Err(Refused::Lost) => Err(Refusal::no_session(true).to(first)),
        Err(refused @ Refused::Full) => Err(not_posted(&worker, refused).await.to(first)),
    }
}

/// Whether GET and DELETE have no meaning here: the client or the server is modern.
fn modern_only(shared: &Shared, parts: &http::request::Parts) -> bool {
    headers::is_modern(&parts.headers, None) || shared.eras(|e| e.initialize_refused().is_some())
}

async fn listen(shared: &Arc<Shared>, parts: &http::request::Parts) -> Answer {
    headers::check_single(&parts.headers)?;
    if modern_only(shared, parts) {
        return Err(Refusal::method("POST"));
    }
    check_events(parts)?;
    let worker = session_of(shared, parts)?;
    let Some(listening) = worker.listen().await else {
        return Err(if worker.death().is_some() {
            Refusal::no_session(true)
        } else {
            Refusal::new(
                StatusCode::CONFLICT,
                code::INVALID_REQUEST,
                "the session has a GET stream already",
            )
        });
    };
    let source = Source::Passive(listening, None);
    Ok(Events::new(source, None, shared.config.keep_alive).response())
}

fn check_events(parts: &http::request::Parts) -> Result<(), Refusal> {
    if headers::accepts(&parts.headers, "text", "event-stream") {
        Ok(())
    } else {
        Err(Refusal::new(
            StatusCode::NOT_ACCEPTABLE,
            code::MEDIA_TYPE,
            "Accept must list text/event-stream",
        ))
    }
}

fn delete(shared: &Shared, parts: &http::request::Parts) -> Answer {
    headers::check_single(&parts.headers)?;
    if modern_only(shared, parts) {
        return Err(Refusal::method("POST"));
    }
    session_of(shared, parts)?;
    if let Some(id) = headers::text(&parts.headers, headers::SESSION) {
        shared.end_session(id);
    }
    Ok(empty(StatusCode::NO_CONTENT))
}

/// 2024-11-05: the stream is the session, and both end together.
async fn open_sse(shared: &Arc<Shared>, parts: &http::request::Parts) -> Answer {
    check_events(parts)?;
    let worker = shared.take().await?;
    worker.set_mode(Mode::OneStream);
    let id = shared.open_session(Door::Sse, &worker);
    let (closing, ended) = (Arc::clone(shared), id.clone());
    let on_close = OnClose(Some(Box::new(move || closing.end_session(&ended))));
    let Some(listening) = worker.listen().await else {
        return Err(Refusal::lost(&*worker.ended().await));
    };
    let endpoint = format!("event: endpoint\ndata: /messages?session_id={id}\n\n");
    let source = Source::Passive(listening, Some(on_close));
    let events = Events::new(source, Some(endpoint.into()), shared.config.keep_alive);
    Ok(events.response())
}

async fn post_sse(shared: &Arc<Shared>, parts: &http::request::Parts, body: Incoming) -> Answer {
    let query = parts.uri.query().unwrap_or_default();
    let id = query.split('&').find_map(|p| p.strip_prefix("session_id="));
    let worker = shared.session(Door::Sse, id.unwrap_or_default())?;
    let body = read(shared, body).await?;
    let (mut items, _) = messages(&body)?;
    // A modern probe would open a dual-era child in the wrong era; this transport is legacy throughout.
    let probes = items.extract_if(.., |m| {
        m.kind == Kind::Request && m.version().is_some() && m.method() != "initialize"
    });
    for probe in probes {
        let refusal = shared.eras(|e| e.legacy_only(probe.version()));
        worker.say(refusal.to(probe.id()).text()).await;
    }
    match worker.post(&items).await {
        Ok(_) => Ok(empty(StatusCode::ACCEPTED)),
        Err(Refused::Lost) => Err(Refusal::no_session(true)),
        Err(refused @ Refused::Full) => Err(not_posted(&worker, refused).await),
    }
}
