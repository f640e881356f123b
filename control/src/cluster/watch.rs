//! Follows one kind on the API server, over one connection, for as long as the gateway runs.
//!
//! After any failure everything is listed afresh: that is what tells an API server that is back from one that is merely
//! silent. A failure is news only when the listing fails too, because watches end for many good reasons.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use kube::{
    Api, Client,
    core::DynamicObject,
    runtime::watcher::{self, Event},
};
use tokio::sync::mpsc;

use super::objects::{Kind, News, Trouble};

/// The first wait after a failure; it doubles up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_millis(250);
/// The longest wait between two tries.
const LONGEST: Duration = Duration::from_secs(5);

/// Runs until the receiver is gone.
pub async fn follow(
    client: Client,
    namespace: String,
    kind: Kind,
    tell: mpsc::Sender<(Kind, News)>,
) {
    let api = Api::<DynamicObject>::namespaced_with(client, &namespace, &kind.resource());
    let mut wait = SHORTEST;
    loop {
        let mut listed = false;
        let Err(ended) = watch_once(&api, kind, &tell, &mut listed).await else {
            return;
        };
        if listed {
            wait = SHORTEST;
        }
        let trouble = trouble(&ended);
        tracing::debug!(kind = kind.as_str(), error = %ended, "the watch ended");
        if let Some((trouble, said)) = trouble
            && tell
                .send((kind, News::Trouble(trouble, said)))
                .await
                .is_err()
        {
            return;
        }
        // Spread, so that many gateways do not come back at the same moment.
        let spread = f64::from(fastrand()) / f64::from(u32::MAX);
        tokio::time::sleep(wait.mul_f64(0.75 + spread / 2.0)).await;
        wait = (wait * 2).min(LONGEST);
    }
}

/// A number that differs between processes and moments; nothing depends on how.
fn fastrand() -> u32 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let hash = RandomState::new().build_hasher().finish();
    u32::try_from(hash >> 32).unwrap_or_default()
}

/// Tells what there is and what changes. Ends well only when nobody listens any more.
async fn watch_once(
    api: &Api<DynamicObject>,
    kind: Kind,
    tell: &mpsc::Sender<(Kind, News)>,
    listed: &mut bool,
) -> Result<(), watcher::Error> {
    let mut all = Vec::new();
    let mut events = watcher::watcher(api.clone(), watcher::Config::default()).boxed();
    while let Some(event) = events.try_next().await? {
        let news = match event {
            Event::Init => {
                all.clear();
                continue;
            }
            Event::InitApply(object) => {
                all.push(object);
                continue;
            }
            Event::InitDone => {
                *listed = true;
                News::All(std::mem::take(&mut all))
            }
            Event::Apply(object) => News::One(Box::new(object)),
            Event::Delete(object) => News::Gone(object.metadata.name.unwrap_or_default()),
        };
        if tell.send((kind, news)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// What a failure means, and what was said of it; nothing for a watch that merely ended.
fn trouble(error: &watcher::Error) -> Option<(Trouble, String)> {
    let watcher::Error::InitialListFailed(error) = error else {
        return None;
    };
    let status = if let kube::Error::Api(status) = error {
        Some(status)
    } else {
        None
    };
    let code = status.map_or(0, |status| status.code);
    let kind = match code {
        404 => Trouble::Absent,
        401 | 403 => Trouble::Forbidden,
        _ => Trouble::Away,
    };
    let said = status.map_or_else(|| chain(error), |status| status.message.clone());
    Some((kind, said.chars().take(300).collect()))
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text.chars().take(300).collect()
}
