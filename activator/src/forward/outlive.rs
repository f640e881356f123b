//! What goes on when its client has left.
//!
//! A handler's future is dropped when its connection closes. [`Outliving`] then moves the rest of the work into a task,
//! so that the server's answer is still read and accounted for; while the client stays, no task and no channel is paid
//! for. Bounded: beyond [`MOST`] abandoned exchanges the work is dropped with its client, and counted; but what the whole
//! session waits for ([`Outliving::in_any_case`]) is finished whoever left.

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
    let before = gateway.abandoned.0.fetch_add(1, Ordering::Relaxed);
    if before < MOST && tokio::runtime::Handle::try_current().is_ok() {
        let owner = gateway.clone();
        spawn(gateway, async move {
            work.await;
            owner.abandoned.0.fetch_sub(1, Ordering::Relaxed);
        });
        return;
    }
    gateway.abandoned.0.fetch_sub(1, Ordering::Relaxed);
    crate::metrics::abandoned();
    tracing::warn!("an exchange whose client left was dropped: too many go on without theirs");
}

fn spawn(gateway: &Gateway, work: impl Future<Output = ()> + Send + 'static) {
    let cut = gateway.cut.clone();
    gateway.tasks.spawn(async move {
        tokio::select! {
            () = work => {}
            () = cut.cancelled() => {}
        }
    });
}

/// A future that is finished in any case.
pub(crate) struct Outliving<'a, T: Send + 'static> {
    gateway: &'a Gateway,
    bounded: bool,
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
}

impl<'a, T: Send + 'static> Outliving<'a, T> {
    /// Finished if not too much goes on without its client.
    pub(crate) fn new(gateway: &'a Gateway, work: Pin<Box<dyn Future<Output = T> + Send>>) -> Self {
        Self {
            gateway,
            bounded: true,
            work: Some(work),
        }
    }

    /// Finished however much goes on: for work of which a session has no more than one at a time, and that its other
    /// exchanges wait for.
    pub(crate) fn in_any_case(
        gateway: &'a Gateway,
        work: Pin<Box<dyn Future<Output = T> + Send>>,
    ) -> Self {
        let mut outliving = Self::new(gateway, work);
        outliving.bounded = false;
        outliving
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
            let work = async move { drop(work.await) };
            if self.bounded {
                run(self.gateway, work);
            } else if tokio::runtime::Handle::try_current().is_ok() {
                spawn(self.gateway, work);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::exchange::news::tests::lonely_gateway;

    #[tokio::test(start_paused = true)]
    async fn of_what_goes_on_without_its_client_there_is_a_bound_but_what_others_wait_for_is_finished()
     {
        let gateway = lonely_gateway();
        let (go, done) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let work = || {
            let (go, done) = (Arc::clone(&go), Arc::clone(&done));
            Box::pin(async move {
                go.acquire().await.expect("never closed").forget();
                done.add_permits(1);
            })
        };
        for _ in 0..MOST + 5 {
            drop(Outliving::new(&gateway, work()));
        }
        drop(Outliving::in_any_case(&gateway, work()));
        assert_eq!(gateway.tasks.len(), MOST + 1, "five were dropped");
        go.add_permits(MOST + 6);
        gateway.tasks.close();
        gateway.tasks.wait().await;
        assert_eq!(done.available_permits(), MOST + 1);
        // And there is room again.
        drop(Outliving::new(&gateway, work()));
        gateway.tasks.wait().await;
        assert_eq!(done.available_permits(), MOST + 2);
    }
}
