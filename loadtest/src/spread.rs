//! A reverse proxy that sends each request to an upstream of its own choice, at random: how a load balancer without
//! affinity treats the replicas of a gateway.
//!
//! Invariants: a request is sent once, to one upstream, whatever becomes of it; nothing is buffered, in either
//! direction; `Host` passes as it came; each exchange has an upstream connection of its own, which ends with it, so that
//! a client's disconnect reaches the upstream and a stale kept connection can lose nothing.
//!
//! Never: a retry, an answer of its own but 502. It adds a key, so it listens on loopback only.

mod upstream;

use std::{
    convert::Infallible,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{net::TcpListener, sync::Semaphore};

use upstream::Held;
pub use upstream::Upstream;

/// Longest wait for a client to say what it wants on a connection, and for an upstream to accept.
const PATIENCE: Duration = Duration::from_secs(10);
/// What concerns one connection and not the exchange; what `Connection` names goes with it.
const HOP: [HeaderName; 7] = [
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What is spread, over what.
#[derive(Debug)]
pub struct Options {
    /// Where requests go, each as likely as the other.
    pub upstreams: Vec<Upstream>,
    /// The API key of requests that bring no `Authorization` of their own.
    pub key: Option<String>,
    /// Of the random choice; the same seed chooses the same for the same order of requests. Without one, another each time.
    pub seed: Option<u64>,
    /// Most clients' connections at once; more wait to be accepted.
    pub connections: usize,
}

/// The proxy. Clones are the same one.
#[derive(Clone)]
pub struct Spread(Arc<Shared>);

struct Shared {
    upstreams: Vec<(Upstream, AtomicU64)>,
    authorization: Option<HeaderValue>,
    choice: std::sync::Mutex<StdRng>,
    connections: Arc<Semaphore>,
}

impl fmt::Debug for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spread")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

type Answer = Response<Either<Held, Full<Bytes>>>;

impl Spread {
    /// A proxy that serves nobody yet.
    ///
    /// # Errors
    /// There is no upstream, no connection is allowed, or the key is none.
    pub fn new(options: Options) -> anyhow::Result<Self> {
        if options.upstreams.is_empty() || options.connections == 0 {
            bail!("nothing can be spread over no upstream or no connection");
        }
        let bearer = |key: String| {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_the_error_may_show_it| anyhow::anyhow!("the key is no header value"))?;
            value.set_sensitive(true);
            anyhow::Ok(value)
        };
        let choice = match options.seed {
            Some(seed) => StdRng::seed_from_u64(seed),
            None => StdRng::from_os_rng(),
        };
        let counted = |upstream| (upstream, AtomicU64::new(0));
        Ok(Self(Arc::new(Shared {
            upstreams: options.upstreams.into_iter().map(counted).collect(),
            authorization: options.key.map(bearer).transpose()?,
            choice: std::sync::Mutex::new(choice),
            connections: Arc::new(Semaphore::new(
                options.connections.min(Semaphore::MAX_PERMITS),
            )),
        })))
    }

    /// How many requests each upstream was given, in their order.
    #[must_use]
    pub fn counts(&self) -> Vec<u64> {
        let given = |(_, count): &(_, AtomicU64)| count.load(Ordering::Relaxed);
        self.0.upstreams.iter().map(given).collect()
    }

    /// Serves whoever connects, until dropped; exchanges that have begun go on.
    ///
    /// # Errors
    /// The listener is not on loopback: what is behind it is open to whoever reaches it.
    pub async fn serve(&self, listener: TcpListener) -> anyhow::Result<Infallible> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            bail!("{address} is no loopback address, and whoever reaches it uses the key");
        }
        loop {
            let permit = Arc::clone(&self.0.connections);
            let permit = permit.acquire_owned().await.context("never closed")?;
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, mostly: some are given back as exchanges end.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            // Without it small answers wait for the peer's delayed ACK.
            if stream.set_nodelay(true).is_err() {
                continue;
            }
            let own = self.clone();
            let service = service_fn(move |request| {
                let own = own.clone();
                async move { Ok::<_, Infallible>(own.answer(request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                // How it ended concerns its client alone.
                drop(connection.await);
                drop(permit);
            });
        }
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Answer {
        let (upstream, count) = &self.0.upstreams[self.choose()];
        count.fetch_add(1, Ordering::Relaxed);
        without_hops(request.headers_mut());
        if let Some(own) = &self.0.authorization
            && !request.headers().contains_key(AUTHORIZATION)
        {
            request.headers_mut().insert(AUTHORIZATION, own.clone());
        }
        match upstream.exchange(request, PATIENCE).await {
            Ok(mut answer) => {
                without_hops(answer.headers_mut());
                answer.map(Either::Left)
            }
            Err(error) => broken(upstream, &error),
        }
    }

    fn choose(&self) -> usize {
        let mut choice = self
            .0
            .choice
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        choice.random_range(0..self.0.upstreams.len())
    }
}

/// Says which upstream gave no answer, and why.
fn broken(upstream: &Upstream, error: &anyhow::Error) -> Answer {
    let text = format!("{upstream}: {error:#}\n");
    let mut answer = Response::new(Either::Right(Full::new(Bytes::from(text))));
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn without_hops(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spread(upstreams: usize, seed: u64) -> Spread {
        let upstream: Upstream = "http://127.0.0.1:1".parse().unwrap();
        Spread::new(Options {
            upstreams: vec![upstream; upstreams],
            key: None,
            seed: Some(seed),
            connections: 1,
        })
        .unwrap()
    }

    proptest! {
        #[test]
        fn the_same_seed_chooses_the_same_and_leaves_nobody_out(seed: u64, upstreams in 1_usize..5) {
            let (one, two) = (spread(upstreams, seed), spread(upstreams, seed));
            let chosen: Vec<usize> = (0..400).map(|_| one.choose()).collect();
            let again: Vec<usize> = (0..400).map(|_| two.choose()).collect();
            prop_assert_eq!(&chosen, &again);
            for upstream in 0..upstreams {
                let share = chosen.iter().filter(|one| **one == upstream).count();
                prop_assert!(share >= 400 / upstreams / 3, "{} of 400 for {}", share, upstream);
            }
        }
    }

    #[test]
    fn what_concerns_one_connection_goes_no_further() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, x-mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("host", "evil.example"),
            ("content-length", "3"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        without_hops(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host"]);
    }

    #[test]
    fn a_key_is_never_shown() {
        let options = |key: &str| Options {
            upstreams: vec!["http://127.0.0.1:1".parse().unwrap()],
            key: Some(key.to_owned()),
            seed: None,
            connections: 1,
        };
        let spread = Spread::new(options("mgk_secret")).unwrap();
        assert!(!format!("{spread:?}").contains("secret"));
        let error = Spread::new(options("sec\nret")).unwrap_err();
        assert!(!format!("{error:?}").contains("ret"), "{error:?}");
    }
}
