//! A 2024-11-05 client: one stream that carries everything, and an endpoint for POSTs.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::wire::{self, Event, Events, Http, Outcome};

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// A client with its stream open.
pub(crate) struct SsePeer {
    line: Line,
    waiting: Waiting,
    next_id: AtomicU64,
    reader: JoinHandle<()>,
}

/// Where to post, and who answers.
#[derive(Clone)]
struct Line {
    http: Http,
    endpoint: String,
    name: String,
}

impl SsePeer {
    /// Opens the stream, learns the endpoint, shakes hands.
    pub(crate) async fn connect(url: &str, name: &str) -> Result<Self, String> {
        let http = wire::http();
        let ask = wire::request(Method::GET, url, &[("accept", "text/event-stream")], "");
        let answer = http
            .request(ask)
            .await
            .map_err(|error| format!("no answer to GET: {error:?}"))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("GET was answered {}", answer.status()));
        }
        let mut events = Events::new(answer.into_body());
        let first = events
            .next()
            .await?
            .ok_or("the stream ended before its endpoint")?;
        let line = Line {
            http,
            endpoint: endpoint(url, &first)?,
            name: name.to_owned(),
        };
        let waiting = Waiting::default();
        let reader = tokio::spawn(read(events, line.clone(), Arc::clone(&waiting)));
        let peer = Self {
            line,
            waiting,
            next_id: AtomicU64::new(1),
            reader,
        };
        let hello = json!({
            "protocolVersion": "2024-11-05",
            "capabilities": {"elicitation": {}, "sampling": {}},
            "clientInfo": {"name": "wire", "version": "1"},
        });
        peer.request("initialize", hello).await?;
        peer.line
            .post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            .await?;
        Ok(peer)
    }

    /// Calls a tool.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Result<Outcome, String> {
        let result = self
            .request("tools/call", json!({"name": tool, "arguments": arguments}))
            .await?;
        Ok(Outcome {
            result,
            ..Outcome::default()
        })
    }

    async fn request(&self, method: &str, params: Value) -> Result<Value, String> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        self.waiting.lock().insert(id, tell);
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.line.post(&message).await?;
        let lost = |_| {
            format!(
                "{method} {id} of {}: the stream ended without an answer",
                self.line.name
            )
        };
        let answer = told.await.map_err(lost)?;
        match answer.get("result") {
            Some(result) => Ok(result.clone()),
            None => Err(format!("{method} {id} of {}: {answer}", self.line.name)),
        }
    }
}

impl Drop for SsePeer {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Line {
    async fn post(&self, message: &Value) -> Result<(), String> {
        let reply = wire::post(&self.http, &self.endpoint, &[], message).await?;
        if reply.status.is_success() {
            return Ok(());
        }
        Err(format!(
            "{} of {} was answered {} {:?}",
            message["method"], self.name, reply.status, reply.body
        ))
    }
}

fn endpoint(url: &str, first: &Event) -> Result<String, String> {
    if first.name != "endpoint" || !first.data.starts_with('/') {
        return Err(format!(
            "the first event is no root-relative endpoint: {first:?}"
        ));
    }
    let host = url.split('/').nth(2).unwrap_or_default();
    Ok(format!("http://{host}{}", first.data))
}

/// Gives each answer to whom it belongs; ends with the stream, and then nobody waits any longer.
async fn read(mut events: Events, line: Line, waiting: Waiting) {
    while let Ok(Some(event)) = events.next().await {
        let message: Value = serde_json::from_str(&event.data).unwrap_or_default();
        if message["method"].is_string() {
            if message.get("id").is_some() {
                let result = json!({"action": "accept", "content": {"name": line.name}});
                let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
                // A lost answer shows as a call that is never answered.
                drop(line.post(&answer).await);
            }
        } else if let Some(tell) = message["id"]
            .as_u64()
            .and_then(|id| waiting.lock().remove(&id))
        {
            drop(tell.send(message));
        } else {
            eprintln!("{}: an answer nobody asked for: {message}", line.name);
        }
    }
    waiting.lock().clear();
}
