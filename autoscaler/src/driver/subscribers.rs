//! The activators that listen, and what each has been told.
//!
//! Invariant: each is told a snapshot first and every change after it, in order; one that falls behind is told nothing
//! until it has read everything, and then a snapshot. Nobody is waited for. The stream of one that is told nothing any
//! more ends.

use std::{collections::BTreeMap, future::Future};

use mcp_gateway_api::{ids::ActivatorId, view::ViewEvent};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::AbortHandle,
};

use super::{message::Aside, scaler::InProcessScaler};

/// What the end of a subscription means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    /// The activator was in this process: it is gone.
    Near,
    /// It is in another one: it is silent.
    Far,
}

#[derive(Debug)]
struct Subscriber {
    subscription: u64,
    hearing: Hearing,
    view: mpsc::Sender<ViewEvent>,
    behind: bool,
    /// Both hold the stream open as long as they run.
    _watcher: Helper,
    /// Runs while it is behind.
    waits: Option<Helper>,
}

/// A task that ends with whoever it helps.
#[derive(Debug)]
struct Helper(AbortHandle);

impl Helper {
    fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work).abort_handle())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The activators that listen.
#[derive(Debug)]
pub(super) struct Subscribers {
    scaler: InProcessScaler,
    by_id: BTreeMap<ActivatorId, Subscriber>,
    last: u64,
}

impl Subscribers {
    pub(super) fn new(scaler: InProcessScaler) -> Self {
        Self {
            scaler,
            by_id: BTreeMap::new(),
            last: 0,
        }
    }

    /// Takes one in and tells it everything.
    pub(super) fn add(
        &mut self,
        activator: ActivatorId,
        far: bool,
        view: mpsc::Sender<ViewEvent>,
        all: ViewEvent,
    ) {
        self.last += 1;
        let subscription = self.last;
        let (scaler, watched) = (self.scaler.clone(), view.clone());
        let watcher = Helper::spawn(async move {
            watched.closed().await;
            scaler.say_aside(Aside::Unsubscribed {
                activator,
                subscription,
            });
        });
        let subscriber = Subscriber {
            subscription,
            hearing: if far { Hearing::Far } else { Hearing::Near },
            view,
            behind: false,
            _watcher: watcher,
            waits: None,
        };
        self.by_id.insert(activator, subscriber);
        self.tell(activator, all);
    }

    /// One has dropped its receiver; `None` if it has subscribed again since.
    pub(super) fn remove(&mut self, activator: ActivatorId, subscription: u64) -> Option<Hearing> {
        let current = self.by_id.get(&activator)?;
        if current.subscription != subscription {
            return None;
        }
        self.by_id.remove(&activator).map(|one| one.hearing)
    }

    /// One has said goodbye.
    pub(super) fn forget(&mut self, activator: ActivatorId) {
        self.by_id.remove(&activator);
    }

    /// Keeps those that are still heard: whoever is taken for gone hears it from its stream's end, and listens anew.
    pub(super) fn keep(&mut self, is_heard: impl Fn(ActivatorId) -> bool) {
        self.by_id.retain(|id, _| is_heard(*id));
    }

    /// One has read everything; `true` if it needs a snapshot.
    pub(super) fn caught_up(&mut self, activator: ActivatorId, subscription: u64) -> bool {
        match self.by_id.get_mut(&activator) {
            Some(one) if one.subscription == subscription => std::mem::take(&mut one.behind),
            Some(_) | None => false,
        }
    }

    /// Tells all.
    pub(super) fn tell_all(&mut self, event: &ViewEvent) {
        let ids: Vec<_> = self.by_id.keys().copied().collect();
        for id in ids {
            self.tell(id, event.clone());
        }
    }

    /// Tells one, unless it is behind.
    pub(super) fn tell(&mut self, activator: ActivatorId, event: ViewEvent) {
        let Some(one) = self.by_id.get_mut(&activator).filter(|one| !one.behind) else {
            return;
        };
        match one.view.try_send(event) {
            // A closed one is removed when its watcher says so.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => {
                one.behind = true;
                tracing::warn!("an activator has fallen behind and will be sent a snapshot");
                let (scaler, view) = (self.scaler.clone(), one.view.clone());
                let subscription = one.subscription;
                let waits = Helper::spawn(async move {
                    // All of the room is free exactly when all has been read.
                    if view.reserve_many(view.max_capacity()).await.is_ok() {
                        scaler.say_aside(Aside::CaughtUp {
                            activator,
                            subscription,
                        });
                    }
                });
                one.waits = Some(waits);
            }
        }
    }
}
