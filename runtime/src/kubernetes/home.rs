//! Where agents call home: who is calling is proved first, then orders out, news in.
//!
//! Invariants: a launch token opens one call and never another; orders are given once; whoever does not prove to be a
//! pod of ours learns nothing, is logged and counted; nothing that a caller sends is kept unbounded. A call that ends
//! means nothing: the agent may call again, and the pod's status decides.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mcp_gateway_api::failure::ExitReport;
use mcp_gateway_link::agent::{self, FromAgent, ToAgent, from_agent, home_server, to_agent};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, ServerTlsConfig, server::TcpIncoming},
};

use proof::{Caller, wants_orders};

use super::{
    World, actor,
    pods::Input,
    refusals::Refusal,
    seen::{instance_of, one_line},
    table::Drain,
};

mod proof;

/// How long a caller may take to say who it is.
const HELLO: Duration = Duration::from_secs(10);
/// Calls that may wait for their hello at once.
const STRANGERS: usize = 1_024;
/// Bytes of one message.
const MESSAGE: usize = 128 << 10;
/// Keeps connections through middleboxes alive, and finds dead ones.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Of what agents say.
const LINES: usize = 40;
const SUMMARY: usize = 300;
/// The version of the protocol that agents speak.
const PROTOCOL: u32 = 1;

/// The service.
pub(crate) struct Service {
    world: Arc<World>,
    strangers: Semaphore,
}

/// Serves for ever.
///
/// # Errors
/// The certificate cannot be used, or the listener broke.
pub(crate) async fn serve(
    world: Arc<World>,
    listener: TcpListener,
    tls: ServerTlsConfig,
) -> Result<(), tonic::transport::Error> {
    let service = Service {
        world,
        strangers: Semaphore::new(STRANGERS),
    };
    let service = home_server::HomeServer::new(service).max_decoding_message_size(MESSAGE);
    Server::builder()
        .tls_config(tls)?
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        // One call each is all that agents make.
        .max_concurrent_streams(Some(4))
        .add_service(service)
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await
}

#[tonic::async_trait]
impl home_server::Home for Service {
    type CallStream = ReceiverStream<Result<ToAgent, Status>>;

    async fn call(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::CallStream>, Status> {
        let remote = request.remote_addr();
        let mut from = request.into_inner();
        let hello = self
            .hello(&mut from)
            .await
            .map_err(|why| self.refuse(why, remote, None))?;
        let caller = match proof::caller(&self.world, &hello, remote).await {
            Ok(caller) => caller,
            Err(why) => return Err(self.refuse(why, remote, Some(&hello))),
        };
        let (to, stream) = mpsc::channel(4);
        let welcome = self.welcome(&caller, wants_orders(&hello));
        // There is room: nothing was sent before.
        let _ = to.try_send(Ok(ToAgent {
            what: Some(to_agent::What::Welcome(welcome)),
        }));
        if caller.unnoted {
            let (world, entry) = (Arc::clone(&self.world), Arc::clone(&caller.entry));
            tokio::spawn(async move { world.keep_spent(&entry).await });
        }
        let drain = caller.entry.agent.subscribe();
        let stop = self.world.stop.clone();
        tokio::spawn(async move {
            // A leader that has stood down hangs up, so that its agents look for the next.
            tokio::select! {
                () = converse(caller, hello.state, from, to, drain) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Service {
    fn refuse(
        &self,
        why: Refusal,
        remote: Option<SocketAddr>,
        hello: Option<&agent::Hello>,
    ) -> Status {
        self.world.refusals.count(why);
        if let Some(text) = why.warning()
            && let Some(id) = hello.and_then(|hello| instance_of(&hello.pod_uid))
            && let Some(entry) = self.world.table.get(id)
        {
            // Where its task has more to read than it can, it has warnings enough.
            let _ = entry.inbox.try_send(Input::Warns(text.to_owned()));
        }
        let name = hello.map_or_else(String::new, |hello| one_line(&hello.pod_name, 63));
        let remote = remote.map_or_else(String::new, |address| address.to_string());
        tracing::warn!(
            pod = name,
            remote,
            why = why.label(),
            "an agent's call was refused"
        );
        why.status()
    }

    async fn hello(&self, from: &mut Streaming<FromAgent>) -> Result<agent::Hello, Refusal> {
        let _room = self.strangers.try_acquire().or(Err(Refusal::Crowded))?;
        let first = timeout(HELLO, from.message()).await;
        match first.or(Err(Refusal::Silent))? {
            Ok(Some(FromAgent {
                what: Some(from_agent::What::Hello(hello)),
            })) if hello.protocol >= PROTOCOL => Ok(hello),
            Ok(_) | Err(_) => Err(Refusal::Protocol),
        }
    }

    fn welcome(&self, caller: &Caller, wants_orders: bool) -> agent::Welcome {
        let entry = &caller.entry;
        let orders = if caller.first && wants_orders {
            entry.orders.lock().take().map(|orders| *orders)
        } else {
            None
        };
        agent::Welcome {
            epoch: self.world.epoch,
            reconnect_secret: self
                .world
                .key
                .reconnect_secret(&entry.name, &entry.uid)
                .to_vec(),
            orders,
        }
    }
}

/// One call, from the welcome to its end.
async fn converse(
    caller: Caller,
    state: Option<agent::State>,
    mut from: Streaming<FromAgent>,
    to: mpsc::Sender<Result<ToAgent, Status>>,
    mut drain: watch::Receiver<Option<Drain>>,
) {
    let entry = &caller.entry;
    tracing::debug!(
        pod = entry.name,
        first = caller.first,
        "an agent has called home"
    );
    let mut news = vec![Input::Hello];
    news.extend(state.into_iter().flat_map(|state| of_state(&caller, state)));
    loop {
        for input in news.drain(..) {
            if entry.inbox.send(input).await.is_err() {
                return;
            }
        }
        tokio::select! {
            message = from.message() => match message {
                Ok(Some(message)) => news.extend(of_message(&caller, message)),
                Ok(None) => break,
                Err(status) => {
                    tracing::debug!(pod = entry.name, %status, "an agent's connection was lost");
                    break;
                }
            },
            () = entry.inbox.closed() => return,
            Ok(()) = drain.changed() => {
                let asked = *drain.borrow_and_update();
                if let Some(Drain(grace)) = asked {
                    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
                    let drain = to_agent::What::Drain(agent::Drain { grace_ms });
                    // An agent that is gone needs no drain.
                    let _ = to.send(Ok(ToAgent { what: Some(drain) })).await;
                }
            }
        }
    }
}

fn of_state(caller: &Caller, state: agent::State) -> Vec<Input> {
    let running = state.running.then_some(Input::AgentRuns);
    let ready = state.ready.and_then(|ready| serves(caller, &ready));
    let exited = state
        .exited
        .map(|exited| Input::AgentExited(report(exited)));
    [running, ready, exited].into_iter().flatten().collect()
}

fn of_message(caller: &Caller, message: FromAgent) -> Option<Input> {
    match message.what? {
        from_agent::What::Hello(_) => None,
        from_agent::What::Running(agent::Running {}) => Some(Input::AgentRuns),
        from_agent::What::Ready(ready) => serves(caller, &ready),
        from_agent::What::Exited(exited) => Some(Input::AgentExited(report(exited))),
        from_agent::What::Warning(warning) => Some(Input::Warns(one_line(&warning.text, SUMMARY))),
    }
}

fn serves(caller: &Caller, ready: &agent::Ready) -> Option<Input> {
    let port = u16::try_from(ready.port).ok().filter(|port| *port != 0)?;
    let entry = &caller.entry;
    tracing::debug!(
        pod = entry.name,
        hello_us = ready.hello_us,
        spawn_us = ready.spawn_us,
        serve_us = ready.serve_us,
        "its server accepts requests"
    );
    Some(Input::Serves(actor::endpoint(
        &entry.facts,
        &entry.secret,
        SocketAddr::new(caller.ip, port),
    )))
}

fn report(exited: agent::Exited) -> ExitReport {
    let lines = exited.stderr_tail;
    let skip = lines.len().saturating_sub(LINES);
    ExitReport {
        code: exited.code,
        signal: exited.signal,
        stderr_tail: lines
            .iter()
            .skip(skip)
            .map(|line| one_line(line, actor::LOG_WIDTH))
            .collect(),
        summary: one_line(&exited.summary, SUMMARY),
        private: exited
            .private
            .unwrap_or(exited.code.is_none() && exited.signal.is_none()),
    }
}

#[cfg(test)]
mod tests;
