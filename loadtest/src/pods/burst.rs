//! Many cold starts at once: sessions through the gateway against bare pods.
//!
//! Both begin with the first request and end with the last: of the bare pods the
//! last moment at which a server accepted, by its own stamp; of the sessions the
//! last complete answer. In turn, and what goes first alternates. Each burst waits
//! until the node has cleaned up after the one before: a kubelet removes the
//! sandboxes of pods that are gone once a minute, which for 50 of them keeps it and
//! containerd busy for seconds, and would be paid for by whoever comes next.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::try_join_all;
use kube::api::PostParams;
use tokio::time::{sleep, timeout};

use super::place::{Begin, PATIENCE};
use super::road::Road;
use super::{Options, Stage, bare};
use crate::client::Client;
use crate::section::BurstRound;

/// What is to be started.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    /// Through the gateway.
    pub road: Road,
    /// How many at once.
    pub pods: usize,
    /// How often.
    pub rounds: usize,
    /// How long the node is left alone before each burst.
    pub settle: Duration,
}

/// Runs the rounds; `keep` is given each.
///
/// # Errors
/// A start failed. The rounds before it were kept.
pub async fn run(
    options: Options,
    burst: Burst,
    mut keep: impl FnMut(BurstRound) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let stage = Stage::set(options).await?;
    let outcome = async {
        // So that no round pays for caches and connections that are new.
        sessions(&stage, burst.road, 1).await?;
        for number in 0..burst.rounds {
            let round = round(&stage, burst, number % 2 == 0).await?;
            progress(burst, number, &round);
            keep(round)?;
        }
        Ok(())
    }
    .await;
    let struck = stage.strike().await;
    outcome.and(struck)
}

#[expect(clippy::print_stderr, reason = "progress of a command-line tool")]
fn progress(burst: Burst, number: usize, round: &BurstRound) {
    eprintln!(
        "{}/{}  {} at once: bare {:.0} ms, {} {:.0} ms",
        number + 1,
        burst.rounds,
        burst.pods,
        round.bare_millis,
        burst.road.label(),
        round.gateway_millis
    );
}

/// One round of `pods` starts each way.
///
/// # Errors
/// A start failed, or the cluster does not answer.
pub async fn round(stage: &Stage, burst: Burst, bare_first: bool) -> anyhow::Result<BurstRound> {
    let bare = async {
        sleep(burst.settle).await;
        plain(stage, burst.pods).await
    };
    let gateway = async {
        sleep(burst.settle).await;
        sessions(stage, burst.road, burst.pods).await
    };
    let (bare_millis, gateway_millis) = if bare_first {
        (bare.await?, gateway.await?)
    } else {
        let gateway = gateway.await?;
        (bare.await?, gateway)
    };
    Ok(BurstRound {
        bare_millis,
        gateway_millis,
    })
}

async fn plain(stage: &Stage, count: usize) -> anyhow::Result<f64> {
    stage.pause().await;
    let place = &stage.place;
    let pods = (0..count)
        .map(|_| bare::pod(&stage.options.image))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let params = PostParams::default();
    let begin = Begin::now();
    let made = try_join_all(pods.iter().map(|pod| place.pods.create(&params, pod))).await?;
    let names: Vec<String> = made
        .into_iter()
        .filter_map(|pod| pod.metadata.name)
        .collect();
    // Logs are asked for when all run, so that asking disturbs no start.
    place
        .watch
        .until("all pods' addresses", PATIENCE, |pods| {
            let all = names
                .iter()
                .all(|name| pods.get(name).is_some_and(|marks| marks.address.is_some()));
            all.then_some(())
        })
        .await?;
    let mut last = 0.0_f64;
    for name in &names {
        last = last.max(place.stamp(name, begin).await?);
    }
    try_join_all(names.iter().map(|name| bare::end(place, name))).await?;
    place.until_empty().await?;
    Ok(last)
}

async fn sessions(stage: &Stage, road: Road, count: usize) -> anyhow::Result<f64> {
    stage.pause().await;
    let gateway = stage.gateway.as_ref().context("there is no gateway")?;
    let target = gateway.target(road)?;
    let begin = Begin::now();
    let opened = try_join_all((0..count).map(|_| async {
        let mut client = Client::connect(&target).await?;
        timeout(PATIENCE, client.initialize()).await??;
        anyhow::Ok(client)
    }));
    let clients = opened.await.with_context(|| gateway.log())?;
    let last = begin.at.elapsed().as_secs_f64() * 1e3;
    for mut client in clients {
        client.delete().await?;
    }
    stage.place.until_empty().await?;
    Ok(last)
}
