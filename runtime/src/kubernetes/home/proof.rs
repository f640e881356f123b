//! Who is calling home: a pod of ours that proves it by its token, its secret and its address, or nobody.
//!
//! Invariants: a launch token is spent by one call, after everything else was found in order; whoever shows one that is
//! spent, or was made for another pod, is refused. What is refused changes nothing, but that a pod is ended whose orders
//! are lost.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mcp_gateway_link::{
    agent::{self, hello::Proof},
    token::LaunchToken,
};
use tokio::time::timeout;

use super::super::{
    World,
    pods::Input,
    refusals::Refusal,
    seen::instance_of,
    sentences,
    table::{Entry, Watched},
};

/// How long one waits for the answer of the create call that made the caller.
const CREATED: Duration = Duration::from_secs(10);
/// How long a pod's address may be unknown to its status, where the connection alone does not prove it.
const ADDRESS: Duration = Duration::from_secs(5);
/// Why a pod ends to which nobody can say any more what it is to run.
pub(super) const ORPHAN: &str = "the leader that made its pod was lost before the pod called home";

/// A caller that has proved which pod it is.
pub(super) struct Caller {
    pub(super) entry: Arc<Entry>,
    pub(super) ip: IpAddr,
    pub(super) first: bool,
    /// Later leaders cannot know yet that its token is spent.
    pub(super) unnoted: bool,
}

/// Who is calling.
///
/// # Errors
/// It has not proved to be a pod of ours that may call now.
pub(super) async fn caller(
    world: &World,
    hello: &agent::Hello,
    remote: Option<SocketAddr>,
) -> Result<Caller, Refusal> {
    let (name, uid) = (hello.pod_name.as_str(), hello.pod_uid.as_str());
    let token = token(world, hello)?;
    let entry = find(world, name, uid).await?;
    let ip = address(hello, &entry, remote).await?;
    if entry.told.borrow().is_some() {
        return Err(Refusal::Unknown);
    }
    let (first, unnoted) = match token {
        Some(token) => {
            spend(&entry, &token, wants_orders(hello))?;
            (true, true)
        }
        // Who has the secret has called before, perhaps a leader that could not note it any more.
        None => (false, entry.token.lock().take().is_some()),
    };
    Ok(Caller {
        entry,
        ip,
        first,
        unnoted,
    })
}

/// The launch token that it shows; none if it shows the secret that it was given for one.
fn token(world: &World, hello: &agent::Hello) -> Result<Option<LaunchToken>, Refusal> {
    let (key, name) = (&world.key, hello.pod_name.as_str());
    match &hello.proof {
        Some(Proof::LaunchToken(bytes)) => {
            let token = LaunchToken::from_bytes(bytes).ok_or(Refusal::Token)?;
            let ours = key.made_token(name, &token);
            ours.then_some(Some(token)).ok_or(Refusal::Token)
        }
        Some(Proof::ReconnectSecret(secret)) => {
            let good = key.is_reconnect_secret(name, &hello.pod_uid, secret);
            good.then_some(None).ok_or(Refusal::Token)
        }
        None => Err(Refusal::Token),
    }
}

/// Spends the pod's token, if it is this one and may be.
fn spend(entry: &Entry, token: &LaunchToken, wants_orders: bool) -> Result<(), Refusal> {
    let noted = matches!(&*entry.watched.borrow(), Watched::Here(seen) if seen.spent);
    let mut expected = entry.token.lock();
    if noted {
        *expected = None;
    }
    match expected.as_ref() {
        None => Err(Refusal::Spent),
        Some(expected) if !expected.is(token) => Err(Refusal::Token),
        // Not spent: a second call of the same agent is no theft.
        Some(_) if wants_orders && entry.orders.lock().is_none() => Err(orphan(entry)),
        // Whoever was given orders was given the secret with them, and would have shown that.
        Some(_) if entry.orders.lock().is_none() => Err(Refusal::Spent),
        Some(_) => {
            *expected = None;
            Ok(())
        }
    }
}

async fn find(world: &World, name: &str, uid: &str) -> Result<Arc<Entry>, Refusal> {
    let id = instance_of(uid).ok_or(Refusal::Foreign)?;
    let table = &world.table;
    if table.get(id).is_none() {
        // Perhaps the answer of its create call is still on its way.
        let _ = timeout(CREATED, table.settled(name)).await;
    }
    let entry = table.get(id).ok_or(Refusal::Unknown)?;
    (entry.name == name)
        .then_some(entry)
        .ok_or(Refusal::Foreign)
}

/// Whether the agent has nothing to do yet.
pub(super) fn wants_orders(hello: &agent::Hello) -> bool {
    hello.state.is_none()
}

/// A pod whose orders went with the leader that made it. Whoever waits for it need not wait until its agent gives up.
fn orphan(entry: &Entry) -> Refusal {
    let report = sentences::report(ORPHAN, "");
    // Where its task has more to read than it can, the agent's own patience ends it.
    let _ = entry.inbox.try_send(Input::AgentExited(report));
    Refusal::Unknown
}

/// The address that the pod may be reached at. The connection proves it, unless something on the way translates
/// addresses: then the pod's status must say the same.
async fn address(
    hello: &agent::Hello,
    entry: &Entry,
    remote: Option<SocketAddr>,
) -> Result<IpAddr, Refusal> {
    let claimed: IpAddr = hello.ip.parse().or(Err(Refusal::Address))?;
    let claimed = claimed.to_canonical();
    if remote.is_some_and(|remote| remote.ip().to_canonical() == claimed) {
        return Ok(claimed);
    }
    let mut watched = entry.watched.subscribe();
    let known = watched.wait_for(|watched| match watched {
        Watched::Here(seen) => seen.ip.is_some(),
        Watched::Gone(_) => true,
    });
    match timeout(ADDRESS, known).await {
        Ok(Ok(watched)) => match &*watched {
            Watched::Here(seen) if seen.ip.map(|ip| ip.to_canonical()) == Some(claimed) => {
                Ok(claimed)
            }
            Watched::Here(_) => Err(Refusal::Address),
            Watched::Gone(_) => Err(Refusal::Unknown),
        },
        Ok(Err(_)) | Err(_) => Err(Refusal::Address),
    }
}
