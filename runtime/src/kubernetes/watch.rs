//! The one watch of the installation's pods, on a connection of its own.
//!
//! kube's watcher lists, watches with bookmarks and lists again when its place in the history is lost (410); here its
//! events become news for each pod. Invariant: a pod is taken as gone only if the watch says so, or if a list that was
//! begun after the pod was known does not have it.

use std::{collections::HashSet, pin::pin, sync::Arc, time::Duration};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    runtime::watcher::{self, Event, watcher},
};
use mcp_gateway_api::ids::InstanceId;
use tokio::time::sleep;

use super::{World, names, seen::Seen, table::Verdict};

/// From one try to the next while the API server is away, at first and at most.
const AGAIN: Duration = Duration::from_millis(50);
const AGAIN_AT_MOST: Duration = Duration::from_secs(2);

/// What the current list has shown.
struct Listing {
    /// Known before it was begun.
    before: HashSet<InstanceId>,
    present: HashSet<InstanceId>,
}

/// Watches for ever.
pub(crate) async fn run(world: Arc<World>, pods: Api<Pod>) {
    let config = watcher::Config::default().labels(&names::selector(&world.settings.installation));
    let mut events = pin!(watcher(pods, config));
    let mut listing = None;
    let mut pause = AGAIN;
    let mut away = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if away && shows_that_it_works(&event) {
                    tracing::info!("the pods are watched again");
                    (pause, away) = (AGAIN, false);
                }
                handle(&world, &mut listing, event);
            }
            Err(error) => {
                if !away {
                    tracing::warn!(%error, "the pods cannot be watched; trying again");
                }
                away = true;
                sleep(pause).await;
                pause = (pause * 2).min(AGAIN_AT_MOST);
            }
        }
    }
}

/// Whether an event came from the API server: a list is announced before it is asked for.
fn shows_that_it_works(event: &Event<Pod>) -> bool {
    match event {
        Event::Init => false,
        Event::InitApply(_) | Event::InitDone | Event::Apply(_) | Event::Delete(_) => true,
    }
}

fn handle(world: &Arc<World>, listing: &mut Option<Listing>, event: Event<Pod>) {
    match event {
        Event::Init => {
            *listing = Some(Listing {
                before: world.table.ids(),
                present: HashSet::new(),
            });
        }
        Event::InitApply(pod) | Event::Apply(pod) => {
            let Some(seen) = Seen::of(&pod) else {
                return;
            };
            if let Some(listing) = listing {
                listing.present.insert(seen.id);
            }
            match world.table.seen(seen, &pod) {
                Verdict::Known => {}
                Verdict::Stray => world.take_in_stray(&pod),
            }
        }
        Event::InitDone => {
            if let Some(listing) = listing.take() {
                for gone in listing.before.difference(&listing.present) {
                    world.table.gone(*gone, None);
                }
            }
        }
        Event::Delete(pod) => {
            if let Some(seen) = Seen::of(&pod) {
                world.table.gone(seen.id, Some(seen));
            }
        }
    }
}

#[cfg(test)]
mod tests;
