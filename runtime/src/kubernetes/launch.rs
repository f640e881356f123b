//! From an order to a pod that exists.
//!
//! Invariants: a name is taken from the table before the call and given back if nothing came of it; a pod of that name
//! that exists already is taken as ours only if it is for the same slot, made of the same and not ending (the answer of
//! an earlier try was lost); otherwise the next name is tried. What the API server refuses is told at once; while it is
//! away it is asked again, so that those who wait have the chance they paid for.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use mcp_gateway_api::failure::ExitReport;
use mcp_gateway_link::token::LaunchToken;
use tokio::time::{Instant, sleep, timeout};

use super::{
    World, end, forms, names,
    orders::orders,
    seen::Seen,
    sentences,
    template::{Place, Template, token_of},
};
use crate::{LaunchOrder, Launched};

mod sources;

/// How long an API server that is away is asked for one launch.
const PATIENCE: Duration = Duration::from_secs(50);
/// From one try to the next.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_AT_MOST: Duration = Duration::from_secs(2);
/// Names that are tried if each is somebody else's.
const NAMES: u64 = 8;

enum Tried {
    Made(Box<Pod>, LaunchToken),
    /// The name is another pod's.
    Taken,
}

/// Makes the pod.
pub(crate) async fn launch(world: &Arc<World>, order: LaunchOrder) -> Result<Launched, ExitReport> {
    let form = forms::choose(&order.backend.launch, world.abilities).map_err(unmakeable)?;
    let until = Instant::now() + PATIENCE;
    sources::check(world, &order, until).await?;
    let installation = world.settings.installation.as_str();
    let slot_hash = names::slot_hash(installation, &order.slot);
    let name = |number| names::pod_name(installation, &order.slot, 0, number);
    let owner = world.owners.read().get(&order.backend.name).cloned();
    let mut least = 1;
    for _ in 0..NAMES {
        let number = world.table.reserve(&slot_hash, least, name);
        let reserved = Reserved {
            world,
            name: Some(name(number)),
        };
        let place = Place {
            number,
            owner_uid: owner.as_deref(),
        };
        let template =
            Template::render(&order, form, &world.settings, place).map_err(unmakeable)?;
        let tried = create(world, &template, until).await;
        if let Ok(Tried::Made(pod, token)) = tried {
            let launched = world.take_in_new(&pod, &template, &order, token);
            reserved.used();
            return launched.ok_or_else(|| unmakeable("its pod has no UID".into()));
        }
        reserved.given_back();
        tried?;
        least = number + 1;
    }
    Err(unmakeable(format!(
        "{NAMES} names for its pod were all taken"
    )))
}

/// No pod can be made of the document as it is: which of its fields or variables is wrong is its author's business.
fn unmakeable(why: String) -> ExitReport {
    ExitReport {
        summary: why,
        private: true,
        ..ExitReport::default()
    }
}

/// A name that is given back unless it was used.
struct Reserved<'a> {
    world: &'a Arc<World>,
    name: Option<String>,
}

impl Reserved<'_> {
    fn used(mut self) {
        self.name = None;
    }

    /// Nothing came of it here. A pod of that name that was seen meanwhile is nobody's else: nobody would look after it.
    fn given_back(mut self) {
        if let Some(name) = self.name.take()
            && let Some(pod) = self.world.table.not_created(&name)
        {
            self.world.take_in_stray(&pod);
        }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            self.world.table.not_created(name);
        }
    }
}

async fn create(world: &World, template: &Template, until: Instant) -> Result<Tried, ExitReport> {
    let token = world.key.launch_token(&template.name);
    let encoded = URL_SAFE_NO_PAD.encode(token.as_bytes());
    let pod = template.pod(&encoded).map_err(unmakeable)?;
    let params = PostParams::default();
    let mut patience = Patience::new(until);
    let mut lost = false;
    loop {
        let mut failed = match asked(world.pods.create(&params, &pod)).await {
            Ok(made) => return Ok(Tried::Made(Box::new(made), token)),
            Err(failed) => failed,
        };
        let refused = failed.as_ref().is_some_and(is_final);
        lost |= !refused && may_be_done(failed.as_ref());
        let over = patience.is_over();
        let mut last = refused || over;
        // What is refused may be there all the same: an earlier try made it, and it is what uses the quota up.
        if is_taken(failed.as_ref()) || (lost && last) {
            match asked(existing(world, template)).await {
                Ok(Some(tried)) => return Ok(tried),
                Ok(None) => {}
                Err(unseen) => {
                    last = over;
                    failed = if refused { failed } else { unseen };
                }
            }
        }
        if last {
            return Err(given_up(world, failed, "create pods"));
        }
        tracing::warn!(
            pod = template.name,
            error = failed.map(tracing::field::display),
            "a pod could not be created; trying again"
        );
        patience.wait().await;
    }
}

/// How long and how fast the same is asked.
struct Patience {
    until: Instant,
    pause: Duration,
}

impl Patience {
    fn new(until: Instant) -> Self {
        Self {
            until,
            pause: AGAIN,
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    async fn wait(&mut self) {
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(AGAIN_AT_MOST);
    }
}

fn given_up(world: &World, failed: Option<kube::Error>, doing: &str) -> ExitReport {
    failed.map_or_else(
        || sentences::report("the Kubernetes API server did not answer", ""),
        |error| sentences::refused(&error, doing, &world.settings.namespace),
    )
}

/// One call; an error of `None` is no answer in time.
async fn asked<T>(
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Option<kube::Error>> {
    match timeout(end::CALL, call).await {
        Ok(answered) => answered.map_err(Some),
        Err(_) => Err(None),
    }
}

/// Whether the name is a pod's already.
fn is_taken(failed: Option<&kube::Error>) -> bool {
    matches!(failed, Some(kube::Error::Api(status))
        if status.code == 409 && status.reason == "AlreadyExists")
}

/// Whether the API server may have done it though it did not say so: only a refusal is an answer.
fn may_be_done(failed: Option<&kube::Error>) -> bool {
    !matches!(failed, Some(kube::Error::Api(status)) if status.code < 500)
}

/// Whether asking again would be of no use: the API server has looked at it and said no.
fn is_final(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    match status.code {
        429 | 500 | 502..=504 => status.message.contains("webhook"),
        // The namespace's default service account is made a moment after the namespace.
        403 => !status.message.contains("error looking up service account"),
        409 => false,
        _ => true,
    }
}

/// The pod that has the name already.
async fn existing(world: &World, template: &Template) -> Result<Option<Tried>, kube::Error> {
    let Some(pod) = world.pods.get_opt(&template.name).await? else {
        return Ok(None);
    };
    let Some(seen) = Seen::of(&pod) else {
        return Ok(Some(Tried::Taken));
    };
    let usable = template.is_of(&pod) && !seen.deleting && !seen.over && seen.marked_by.is_none();
    let token = token_of(&pod)
        .and_then(|token| URL_SAFE_NO_PAD.decode(token).ok())
        .and_then(|token| LaunchToken::from_bytes(&token))
        // Without an agent there is none.
        .unwrap_or_else(|| world.key.launch_token(&template.name));
    Ok(Some(if usable && world.table.get(seen.id).is_none() {
        Tried::Made(Box::new(pod), token)
    } else {
        Tried::Taken
    }))
}

/// What a new pod's agent is to be told.
pub(crate) fn orders_of(
    world: &World,
    order: &LaunchOrder,
    template: &Template,
    secret: Option<&str>,
) -> mcp_gateway_link::agent::Orders {
    let backend = &order.backend;
    orders(
        &backend.launch,
        backend.policy.start_timeout,
        &template.facts,
        secret,
        world.settings.max_body,
    )
}

#[cfg(test)]
mod tests;
