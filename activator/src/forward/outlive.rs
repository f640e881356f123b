//! What goes on when its client has left.
//!
//! A handler's future is dropped when its connection closes. [`Outliving`] then moves the rest of the work into a task,
//! so that the server's answer is still read and accounted for; while the client stays, no task and no channel is paid
//! for. Bounded: beyond [`MOST`] abandoned exchanges the work is dropped with its client.

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
};

use crate::gateway::Gateway;

/// Most exchanges that go on without their clients.
const MOST: usize = 1_024;

/// How many go on now.
#[derive(Debug, Default)]
pub(crate) struct Abandoned(AtomicUsize);

/// Runs work in a task of its own, if there is room for it.
pub(crate) fn run(gateway: &Gateway, work: impl Future<Output = ()> + Send + 'static) {
    let owner = gateway.clone();
    if gateway.abandoned.0.fetch_add(1, Ordering::Relaxed) >= MOST
        || tokio::runtime::Handle::try_current().is_err()
    {
        gateway.abandoned.0.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!("an exchange whose client left was dropped: too many go on without theirs");
        return;
    }
    gateway.tasks.spawn(async move {
        tokio::select! {
            () = work => {}
            () = owner.cut.cancelled() => {}
        }
        owner.abandoned.0.fetch_sub(1, Ordering::Relaxed);
    });
}

/// A future that is finished in any case.
pub(crate) struct Outliving<'a, T: Send + 'static> {
    gateway: &'a Gateway,
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
}

impl<'a, T: Send + 'static> Outliving<'a, T> {
    pub(crate) fn new(gateway: &'a Gateway, work: Pin<Box<dyn Future<Output = T> + Send>>) -> Self {
        Self {
            gateway,
            work: Some(work),
        }
    }
}

impl<T: Send + 'static> Future for Outliving<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(work) = self.work.as_mut() else {
            // Only a finished future is without work, and none is polled after its end.
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(cx);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Outliving<'_, T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            // The answer that comes out is dropped; its body then reads itself to the end.
            run(self.gateway, async move { drop(work.await) });
        }
    }
}
