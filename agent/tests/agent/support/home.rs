//! A home on loopback: every call rings at the test, which answers it.

use std::net::{SocketAddr, TcpListener};

use mcp_gateway_link::{
    Authority, HOME_NAME,
    agent::{
        Drain, Exited, FromAgent, Hello, Orders, Ready, ToAgent, Warning, Welcome,
        from_agent::What, hello::Proof, home_server, to_agent,
    },
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{
    PATIENCE,
    pod::{LOCALHOST, free_port},
    until, within,
};

type Say = Result<ToAgent, Status>;
type Answer = Result<mpsc::Receiver<Say>, Status>;

/// Somebody calls and waits for an answer.
pub struct Ring {
    pub hello: Hello,
    heard: Streaming<FromAgent>,
    answer: oneshot::Sender<Answer>,
}

/// A call that was welcomed.
pub struct Line {
    heard: Streaming<FromAgent>,
    say: mpsc::Sender<Say>,
}

struct Rings(mpsc::Sender<Ring>);

#[async_trait::async_trait]
impl home_server::Home for Rings {
    type CallStream = ReceiverStream<Say>;

    async fn call(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::CallStream>, Status> {
        let mut heard = request.into_inner();
        let first = heard.message().await?.and_then(|message| message.what);
        let Some(What::Hello(hello)) = first else {
            panic!("the first word is no hello: {first:?}");
        };
        let (answer, answered) = oneshot::channel();
        let ring = Ring {
            hello,
            heard,
            answer,
        };
        self.0
            .send(ring)
            .await
            .map_err(|_gone| Status::unavailable("nobody in"))?;
        let say = answered
            .await
            .map_err(|_gone| Status::unavailable("not answered"))??;
        Ok(Response::new(ReceiverStream::new(say)))
    }
}

pub struct Home {
    pub address: SocketAddr,
    pub authority: Authority,
    rings: mpsc::Receiver<Ring>,
    /// A runtime of its own: with it the connections go too.
    house: Option<Runtime>,
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(house) = self.house.take() {
            house.shutdown_background();
        }
    }
}

impl Home {
    pub async fn new() -> Self {
        Self::of(Authority::generate().unwrap()).await
    }

    /// At an address that stays free when it has burned down.
    pub async fn of(authority: Authority) -> Self {
        Self::at((LOCALHOST, free_port()).into(), authority).await
    }

    pub async fn at(address: SocketAddr, authority: Authority) -> Self {
        // One that has burned down may not be out of the way yet.
        let listener = until("the address to be free", || TcpListener::bind(address).ok()).await;
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let tls = authority.issue(HOME_NAME).unwrap().server_tls();
        let (ring, rings) = mpsc::channel(64);
        let service = home_server::HomeServer::new(Rings(ring));
        let server = Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(service);
        let house = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        house.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            server
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            address,
            authority,
            rings,
            house: Some(house),
        }
    }

    /// Everything of it is gone when this returns, connections too; gives what is needed to be there again.
    pub fn burn_down(mut self) -> (SocketAddr, Authority) {
        if let Some(house) = self.house.take() {
            // On a thread of its own, since a test's own runtime must not wait like this.
            let gone = std::thread::spawn(move || house.shutdown_timeout(PATIENCE));
            gone.join().unwrap();
        }
        let pem = (
            self.authority.cert_pem().to_owned(),
            self.authority.key_pem(),
        );
        (self.address, Authority::from_pem(&pem.0, &pem.1).unwrap())
    }

    pub async fn ring(&mut self) -> Ring {
        within("a call", self.rings.recv()).await.unwrap()
    }

    /// Whether anybody has called and was not looked at.
    pub fn is_quiet(&self) -> bool {
        self.rings.is_empty()
    }

    /// Takes the first call of a pod and gives it its orders.
    pub async fn order(&mut self, orders: Orders) -> Line {
        self.ring().await.welcome(1, Some(orders)).await
    }
}

impl Ring {
    pub async fn welcome(self, epoch: u64, orders: Option<Orders>) -> Line {
        let (say, said) = mpsc::channel(8);
        self.answer.send(Ok(said)).unwrap();
        let welcome = Welcome {
            epoch,
            reconnect_secret: b"come again".to_vec(),
            orders,
        };
        let line = Line {
            heard: self.heard,
            say,
        };
        line.say(to_agent::What::Welcome(welcome)).await;
        line
    }

    pub fn refuse(self, status: Status) {
        let _gone_is_fine = self.answer.send(Err(status));
    }

    pub fn token(&self) -> Option<&[u8]> {
        match self.hello.proof.as_ref()? {
            Proof::LaunchToken(token) => Some(token),
            Proof::ReconnectSecret(_) => None,
        }
    }

    pub fn secret(&self) -> Option<&[u8]> {
        match self.hello.proof.as_ref()? {
            Proof::ReconnectSecret(secret) => Some(secret),
            Proof::LaunchToken(_) => None,
        }
    }
}

impl Line {
    async fn say(&self, what: to_agent::What) {
        self.say
            .send(Ok(ToAgent { what: Some(what) }))
            .await
            .unwrap();
    }

    pub async fn drain(&self, grace_ms: u64) {
        self.say(to_agent::What::Drain(Drain { grace_ms })).await;
    }

    /// The next word; `None` when the agent has hung up.
    pub async fn next(&mut self) -> Option<What> {
        let message = within("a word", self.heard.message()).await;
        message.ok().flatten().map(|message| message.what.unwrap())
    }

    pub async fn running(&mut self) {
        let what = self.next().await;
        assert!(matches!(what, Some(What::Running(_))), "{what:?}");
    }

    pub async fn ready(&mut self) -> Ready {
        match self.next().await {
            Some(What::Ready(ready)) => ready,
            other => panic!("{other:?}"),
        }
    }

    pub async fn warning(&mut self) -> String {
        match self.next().await {
            Some(What::Warning(Warning { text })) => text,
            other => panic!("{other:?}"),
        }
    }

    /// The next word but warnings must be the last one; the agent hangs up after it.
    pub async fn exited(mut self) -> Exited {
        let exited = loop {
            match self.next().await {
                Some(What::Exited(exited)) => break exited,
                Some(What::Warning(_)) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(self.next().await, None);
        exited
    }
}
