//! One connection, from its first byte to its end.
//!
//! Invariants: it ends when its peer does, when it is quiet for too long ([`super::vigil`]), or when the listener ends and its
//! last request is answered. Whoever drops it cuts it.

use std::{
    pin::{Pin, pin},
    sync::Arc,
};

use axum::Router;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    Patience,
    traffic::{Routes, Streams, Traffic},
    vigil::{LOOKS, Verdict, Vigil},
};

/// The largest head of a request, in bytes: room for the longest session id and for tokens that name a hundred groups.
const MAX_HEAD: usize = 64 << 10;
/// HTTP/2 streams at once on a connection: the least that RFC 9113 recommends. A client has a call or two under way and a
/// stream for each session; a proxy that has more opens another connection, and those are counted.
const MAX_STREAMS: u32 = 100;

/// A connection that was accepted. What hyper keeps of it is some kilobytes, and would be copied into each future around it.
pub(super) struct Connection {
    served: Pin<Box<auto::Connection<'static, TokioIo<TcpStream>, Routes, Streams>>>,
    traffic: Arc<Traffic>,
    patience: Patience,
}

impl Connection {
    /// Nothing is read before it is driven.
    pub(super) fn new(
        stream: TcpStream,
        service: TowerToHyperService<Router>,
        patience: Patience,
    ) -> Self {
        let traffic = Arc::new(Traffic::default());
        let routes = Routes {
            service,
            traffic: Arc::clone(&traffic),
        };
        let served = builder(patience, Streams(Arc::clone(&traffic)))
            .serve_connection(TokioIo::new(stream), routes)
            .into_owned();
        Self {
            served: Box::pin(served),
            traffic,
            patience,
        }
    }

    /// Drives it to its end; once `ending` changes, that is when its last request is answered.
    pub(super) async fn drive(self, mut ending: watch::Receiver<()>) {
        let Self {
            mut served,
            traffic,
            patience,
        } = self;
        let mut told = pin!(ending.changed());
        let (mut ends, mut watched) = (false, true);
        let mut vigil = Vigil::default();
        let mut next = pin!(sleep(patience.quiet / LOOKS));
        loop {
            tokio::select! {
                biased;
                // An error: the listener is gone altogether.
                _ = &mut told, if !ends => {
                    ends = true;
                    served.as_mut().graceful_shutdown();
                }
                () = &mut next, if watched => {
                    let pause = match vigil.look(traffic.seen()) {
                        Verdict::Wait => patience.quiet / LOOKS,
                        Verdict::Dismiss => {
                            served.as_mut().graceful_shutdown();
                            patience.linger
                        }
                        Verdict::Retire => {
                            served.as_mut().graceful_shutdown();
                            patience.rest
                        }
                        Verdict::Cut => return,
                        Verdict::Leave => {
                            watched = false;
                            continue;
                        }
                    };
                    next.as_mut().reset(Instant::now() + pause);
                }
                // If it broke, that is the client's affair, and every exchange has told its own story.
                _ = &mut served => return,
            }
        }
    }
}

/// What is made of a connection's bytes, and the bounds that hyper keeps.
fn builder(patience: Patience, streams: Streams) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD as u32)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(patience.ping)
        .keep_alive_timeout(patience.pong);
    builder
}
