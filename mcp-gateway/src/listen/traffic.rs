//! What passes on one connection: whether a request has come, and how many HTTP/2 streams there were and are.
//!
//! Invariants: a stream that was counted as open is counted off however it ends. Costs a request one atomic store, and a
//! stream three additions: never a lock, a clock or memory.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use axum::{Router, extract::Request};
use futures_util::FutureExt;
use hyper::{body::Incoming, rt::Executor, service::Service};
use hyper_util::service::TowerToHyperService;

use super::vigil::Seen;

/// The counts. They order nothing else, and all but the end of a stream are written by the task that reads them.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    asked: AtomicBool,
    opened: AtomicUsize,
    open: AtomicUsize,
}

impl Traffic {
    /// How it looks now.
    pub(super) fn seen(&self) -> Seen {
        Seen {
            asked: self.asked.load(Relaxed),
            opened: self.opened.load(Relaxed),
            open: self.open.load(Relaxed),
        }
    }
}

/// The routes, for one connection: notes that a request has come.
#[derive(Debug, Clone)]
pub(super) struct Routes {
    pub(super) service: TowerToHyperService<Router>,
    pub(super) traffic: Arc<Traffic>,
}

impl Service<Request<Incoming>> for Routes {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.traffic.asked.store(true, Relaxed);
        self.service.call(request)
    }
}

/// Runs the HTTP/2 streams of one connection, each until its answer has been handed over. HTTP/1 runs nothing here.
#[derive(Debug, Clone)]
pub(super) struct Streams(pub(super) Arc<Traffic>);

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let open = Open::new(&self.0);
        tokio::spawn(stream.map(move |()| drop(open)));
    }
}

/// One open stream.
struct Open(Arc<Traffic>);

impl Open {
    fn new(traffic: &Arc<Traffic>) -> Self {
        traffic.opened.fetch_add(1, Relaxed);
        traffic.open.fetch_add(1, Relaxed);
        Self(Arc::clone(traffic))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}
