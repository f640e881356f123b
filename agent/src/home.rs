//! The line to home: dialled, kept, dialled again.
//!
//! Invariants: orders are handed on at most once; a home with a lower epoch than one that has answered before is not
//! listened to; each step of a call is bounded in time; a lost connection is told to nobody, because it changes nothing
//! for the server. Decides nothing about whom to call when ([`super::patience`]) or what to say ([`super::known`]).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mcp_gateway_link::{
    HOME_NAME,
    agent::{
        FromAgent, Hello, Orders, ToAgent, Welcome, from_agent, hello::Proof,
        home_client::HomeClient, to_agent,
    },
    authority::client_tls,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::{
    contract::Contract,
    known::{Known, Told},
    patience::{Next, Outcome, Patience},
};

/// Version of the protocol we speak.
const PROTOCOL: u32 = 1;
/// How long a home's machine may keep silent before the next home is called: the leader's own address is named first,
/// and where its machine is gone nobody refuses.
const SILENCE: Duration = Duration::from_secs(1);
/// TCP and TLS.
const CONNECT: Duration = Duration::from_secs(2);
/// From hello to welcome: home may still wait for the answer of the call that created this pod.
const WELCOME: Duration = Duration::from_secs(20);
/// A connection that is silent is asked this often, and is lost if it does not answer within as much again.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// How long home may take to hang up after our last word.
const HANG_UP: Duration = Duration::from_secs(1);
/// Messages that may wait to be sent.
const OUTBOX: usize = 32;

/// What home wants.
#[derive(Debug)]
pub(crate) enum Wish {
    /// Serve this; the hello was sent so long after our start. Once.
    Orders(Box<Orders>, Duration),
    /// End within this time.
    Drain(Duration),
    /// Nobody wants this pod any more.
    Abandoned(&'static str),
}

/// The line.
pub(crate) struct Home {
    contract: Arc<Contract>,
    known: watch::Receiver<Known>,
    wishes: mpsc::Sender<Wish>,
    /// When this process began.
    began: Instant,
    /// When, after that, the newest hello was sent.
    hello_after: Duration,
    told: Told,
    epoch: u64,
    /// What an earlier welcome gave.
    secret: Option<Vec<u8>>,
    ordered: bool,
}

/// How a call ended.
enum Ended {
    /// All that there is to say was said.
    Done,
    Call(Outcome),
}

impl Home {
    pub(crate) fn new(
        contract: Arc<Contract>,
        known: watch::Receiver<Known>,
        wishes: mpsc::Sender<Wish>,
        began: Instant,
    ) -> Self {
        Self {
            contract,
            known,
            wishes,
            began,
            hello_after: Duration::ZERO,
            told: Told::default(),
            epoch: 0,
            secret: None,
            ordered: false,
        }
    }

    /// Keeps the line until everything is said or nobody wants to hear it.
    pub(crate) async fn keep(mut self) {
        let mut patience = Patience::new(self.contract.homes.clone());
        let mut next = patience.first();
        loop {
            match next {
                Next::Call(address, after) => {
                    sleep(after).await;
                    match self.call(address).await {
                        Ended::Done => return,
                        // Whoever does not know us need not hear how we ended.
                        Ended::Call(Outcome::NotFound | Outcome::Unauthenticated)
                            if self.told.all() =>
                        {
                            return;
                        }
                        Ended::Call(outcome) => next = patience.after(outcome, Instant::now()),
                    }
                }
                Next::GiveUp(why) => {
                    self.wish(Wish::Abandoned(why)).await;
                    return;
                }
            }
        }
    }

    async fn wish(&self, wish: Wish) {
        // Nobody listens any more: the process is about to end.
        let _ = self.wishes.send(wish).await;
    }

    async fn call(&mut self, address: SocketAddr) -> Ended {
        let (say, outbox) = mpsc::channel(OUTBOX);
        match self.greet(address, &say, outbox).await {
            Ok((welcome, heard)) => self.welcomed(welcome, heard, say).await,
            Err(status) => {
                let outcome = outcome_of(&status);
                tracing::info!(%address, code = ?status.code(), "home does not welcome us: {}", status.message());
                Ended::Call(outcome)
            }
        }
    }

    async fn greet(
        &mut self,
        address: SocketAddr,
        say: &mpsc::Sender<FromAgent>,
        outbox: mpsc::Receiver<FromAgent>,
    ) -> Result<(Welcome, Streaming<ToAgent>), Status> {
        let channel = dial(address, &self.contract.ca_pem).await?;
        let hello = self.hello();
        let what = Some(from_agent::What::Hello(hello));
        // The channel is new and has room.
        let _ = say.try_send(FromAgent { what });
        let late = |_elapsed| Status::deadline_exceeded("no welcome came");
        let mut client = HomeClient::new(channel);
        let greeted = async {
            let mut heard = client.call(ReceiverStream::new(outbox)).await?.into_inner();
            let first = heard.message().await?;
            match first.and_then(|message| message.what) {
                Some(to_agent::What::Welcome(welcome)) => Ok((welcome, heard)),
                Some(to_agent::What::Drain(_)) | None => {
                    Err(Status::internal("its first word is no welcome"))
                }
            }
        };
        let (welcome, heard) = timeout(WELCOME, greeted).await.map_err(late)??;
        if welcome.epoch < self.epoch {
            return Err(Status::unavailable("a leader of the past"));
        }
        Ok((welcome, heard))
    }

    fn hello(&mut self) -> Hello {
        self.hello_after = self.began.elapsed();
        let proof = match &self.secret {
            Some(secret) => Proof::ReconnectSecret(secret.clone()),
            None => Proof::LaunchToken(self.contract.token.clone()),
        };
        let mut hello = Hello {
            protocol: PROTOCOL,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            pod_name: self.contract.pod.clone(),
            pod_uid: self.contract.uid.clone(),
            ip: self.contract.ip.to_string(),
            state: None,
            proof: Some(proof),
        };
        self.told.greet(&self.known.borrow_and_update(), &mut hello);
        hello
    }

    async fn welcomed(
        &mut self,
        welcome: Welcome,
        mut heard: Streaming<ToAgent>,
        say: mpsc::Sender<FromAgent>,
    ) -> Ended {
        let since = Instant::now();
        self.epoch = welcome.epoch;
        if !welcome.reconnect_secret.is_empty() {
            self.secret = Some(welcome.reconnect_secret);
        }
        if let Some(orders) = welcome.orders.filter(|_| !self.ordered) {
            self.ordered = true;
            self.wish(Wish::Orders(Box::new(orders), self.hello_after))
                .await;
        }
        loop {
            let news = self.told.news(&self.known.borrow_and_update());
            for message in news {
                if say.send(message).await.is_err() {
                    return Ended::Call(Outcome::Welcomed(since.elapsed()));
                }
            }
            if self.told.all() {
                return last_word(heard, say).await;
            }
            tokio::select! {
                changed = self.known.changed() => if changed.is_err() {
                    return Ended::Done;
                },
                message = heard.message() => match message {
                    Ok(Some(message)) => self.obey(message).await,
                    Ok(None) | Err(_) => {
                        tracing::info!("the line to home is lost; the server goes on");
                        return Ended::Call(Outcome::Welcomed(since.elapsed()));
                    }
                },
            }
        }
    }

    async fn obey(&self, message: ToAgent) {
        match message.what {
            Some(to_agent::What::Drain(drain)) => {
                self.wish(Wish::Drain(Duration::from_millis(drain.grace_ms)))
                    .await;
            }
            // A second welcome says nothing new, and what we do not know is for newer agents.
            Some(to_agent::What::Welcome(_)) | None => {}
        }
    }
}

/// Hangs up and waits until home has heard it all.
async fn last_word(mut heard: Streaming<ToAgent>, say: mpsc::Sender<FromAgent>) -> Ended {
    drop(say);
    let until_hung_up = async { while let Ok(Some(_late)) = heard.message().await {} };
    // A home that does not hang up has been sent everything all the same.
    let _ = timeout(HANG_UP, until_hung_up).await;
    Ended::Done
}

async fn dial(address: SocketAddr, ca_pem: &str) -> Result<Channel, Status> {
    let unusable = |error: tonic::transport::Error| Status::unavailable(said(&error));
    let endpoint = Endpoint::from_shared(format!("https://{address}"))
        .and_then(|endpoint| endpoint.tls_config(client_tls(ca_pem, HOME_NAME)))
        .map_err(unusable)?
        .connect_timeout(SILENCE)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(ASK_EVERY)
        .keep_alive_timeout(ASK_EVERY)
        .keep_alive_while_idle(true);
    let late = |_elapsed| Status::unavailable("no connection in time");
    timeout(CONNECT, endpoint.connect())
        .await
        .map_err(late)?
        .map_err(unusable)
}

/// An error with its causes: the transport's own text is only "transport error".
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn outcome_of(status: &Status) -> Outcome {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other status may pass"
    )]
    match status.code() {
        Code::Unauthenticated => Outcome::Unauthenticated,
        Code::NotFound => Outcome::NotFound,
        _ => Outcome::Unavailable,
    }
}
