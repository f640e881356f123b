//! One cold start on each road, measured.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use kube::api::PostParams;
use tokio::time::{sleep, timeout};

use super::place::{Begin, PATIENCE, Place};
use super::road::Road;
use super::watch::Marks;
use super::{Stage, bare};
use crate::client::Client;
use crate::phases::{Part, Phase, server_timing, split};
use crate::section::PodStart;
use crate::target::Target;

/// Pause between two knocks at a pod's address.
const PROBE: Duration = Duration::from_millis(10);
/// Pause between two knocks at a Service.
const KNOCK: Duration = Duration::from_millis(20);
/// Pause between two looks into a log.
const LOOK: Duration = Duration::from_millis(50);
/// A packet that nobody answers is not waited for longer.
const CONNECT: Duration = Duration::from_millis(500);

/// Starts a pod on `road`, waits for its first answer, and until nothing is left.
///
/// # Errors
/// It gave no answer, or the cluster does not answer.
pub async fn start(stage: &Stage, road: Road) -> anyhow::Result<PodStart> {
    let started = match road {
        Road::Floor => floor(stage).await,
        Road::Status => status(stage).await,
        Road::Deployment | Road::DeploymentSync0 => deployment(stage, road).await,
        Road::Embedded
        | Road::Sidecar
        | Road::ImageVolume
        | Road::Init
        | Road::None
        | Road::EmbeddedStdio
        | Road::ImageVolumeStdio
        | Road::InitStdio => gateway(stage, road).await,
    };
    let started = started.with_context(|| road.label())?;
    stage.place.until_empty().await.context(road.label())?;
    Ok(started)
}

async fn floor(stage: &Stage) -> anyhow::Result<PodStart> {
    let place = &stage.place;
    let pod = bare::pod(&stage.options.image)?;
    let begin = Begin::now();
    let name = create(place, &pod).await?;
    let created = begin.at.elapsed();
    until_address(place, &name).await?;
    let accepts = place.stamp(&name, begin).await?;
    let marks = marks_of(place, &name);
    bare::end(place, &name).await?;
    let mut ends = vec![(Phase::Create, Some(created.as_secs_f64() * 1e3))];
    ends.extend(kubelet(&marks, begin));
    Ok(PodStart {
        road: Road::Floor,
        total_millis: accepts,
        accepts_millis: Some(accepts),
        parts: split(accepts, &ends, Phase::Ready),
    })
}

async fn status(stage: &Stage) -> anyhow::Result<PodStart> {
    let place = &stage.place;
    let pod = bare::pod(&stage.options.image)?;
    let begin = Begin::now();
    let name = create(place, &pod).await?;
    let created = begin.at.elapsed();
    let address = until_address(place, &name).await?;
    let target = direct(&format!("{address}:{}", bare::PORT))?;
    answer(&target, PROBE).await?;
    let total = begin.at.elapsed().as_secs_f64() * 1e3;
    let accepts = place.stamp(&name, begin).await?;
    let marks = marks_of(place, &name);
    bare::end(place, &name).await?;
    let mut ends = vec![(Phase::Create, Some(created.as_secs_f64() * 1e3))];
    ends.extend(kubelet(&marks, begin));
    ends.push((Phase::Ready, Some(accepts)));
    let noticed = marks.address.map(|(moment, _)| begin.until(moment));
    ends.push((Phase::Noticed, noticed));
    Ok(PodStart {
        road: Road::Status,
        total_millis: total,
        accepts_millis: Some(accepts),
        parts: split(total, &ends, Phase::Answer),
    })
}

async fn deployment(stage: &Stage, road: Road) -> anyhow::Result<PodStart> {
    let place = &stage.place;
    let scaled = stage.scaled.as_ref().context("there is no Deployment")?;
    let target = direct(&scaled.authority)?;
    let begin = Begin::now();
    scaled.scale(1).await?;
    answer(&target, KNOCK).await?;
    let total = begin.at.elapsed().as_secs_f64() * 1e3;
    let name = only_pod(place).await?;
    let accepts = place.stamp(&name, begin).await?;
    let marks = marks_of(place, &name);
    scaled.scale(0).await?;
    let mut ends = vec![(Phase::Create, marks.added.map(|at| begin.until(at)))];
    ends.extend(kubelet(&marks, begin));
    ends.push((Phase::Ready, Some(accepts)));
    ends.push((Phase::Noticed, marks.ready.map(|at| begin.until(at))));
    Ok(PodStart {
        road,
        total_millis: total,
        accepts_millis: Some(accepts),
        parts: split(total, &ends, Phase::Route),
    })
}

async fn gateway(stage: &Stage, road: Road) -> anyhow::Result<PodStart> {
    let place = &stage.place;
    let gateway = stage.gateway.as_ref().context("there is no gateway")?;
    let target = gateway.target(road)?;
    let begin = Begin::now();
    let mut client = Client::connect(&target).await?;
    let opened = timeout(PATIENCE, client.open()).await?;
    let total = begin.at.elapsed().as_secs_f64() * 1e3;
    let headers = opened.with_context(|| gateway.log())?;
    let timing = headers
        .get("server-timing")
        .and_then(|value| value.to_str().ok())
        .context("the answer has no Server-Timing: did no start precede it?")?;
    let name = only_pod(place).await?;
    // Behind the bridge nobody accepts anything, and its children's words stay there.
    let accepts_millis = if road.form().is_some_and(|form| form.transport == "stdio") {
        None
    } else {
        stamp_of_used(place, &name, begin, &mut client).await?
    };
    let marks = marks_of(place, &name);
    client.delete().await?;
    Ok(PodStart {
        road,
        total_millis: total,
        accepts_millis,
        parts: through(road, timing, &marks, (begin, total)),
    })
}

/// The stamp of a pod that goes when nobody uses it; none if it went all the same.
async fn stamp_of_used(
    place: &Place,
    pod: &str,
    begin: Begin,
    client: &mut Client,
) -> anyhow::Result<Option<f64>> {
    let ping = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    let here = || place.watch.pods().get(pod).is_some_and(Marks::is_here);
    while here() {
        if let Some(stamp) = place.stamp_now(pod, begin).await {
            return Ok(Some(stamp));
        }
        client.call(ping.clone()).await?;
        sleep(LOOK).await;
    }
    Ok(None)
}

/// The phases of a start through the gateway: its own, and within them the kubelet's.
fn through(road: Road, timing: &str, marks: &Marks, (begin, total): (Begin, f64)) -> Vec<Part> {
    let of = |name| server_timing(timing, name).unwrap_or_default();
    let (claim, create, start, serve) = (of("claim"), of("create"), of("start"), of("serve"));
    let hold = (of("hold") - claim - create - start - serve).max(0.0);
    let claimed = hold + claim;
    let created = claimed + create;
    let mut ends = vec![
        (Phase::Hold, Some(hold)),
        (Phase::Claim, Some(claimed)),
        (Phase::Create, Some(created)),
    ];
    ends.extend(kubelet(marks, begin));
    let runs = created + start;
    if road == Road::None {
        // The server is long ready when its pod's status comes.
        ends.push((Phase::Noticed, Some(runs + serve)));
    } else {
        ends.extend([
            (Phase::Hello, Some(runs)),
            (Phase::Ready, Some(runs + serve)),
        ]);
    }
    split(total, &ends, Phase::Answer)
}

/// What the scheduler and the kubelet did.
fn kubelet(marks: &Marks, begin: Begin) -> [(Phase, Option<f64>); 4] {
    let at = |moment: Option<_>| moment.map(|moment| begin.until(moment));
    let sandbox = marks.pulled.values().min().copied();
    let init = marks.pulled.get(super::place::SERVER).copied();
    let container = marks.started.values().max().copied();
    [
        (Phase::Schedule, at(marks.scheduled)),
        (Phase::Sandbox, at(sandbox)),
        (Phase::Init, at(init.filter(|_| marks.init))),
        (Phase::Container, at(container)),
    ]
}

async fn create(place: &Place, pod: &k8s_openapi::api::core::v1::Pod) -> anyhow::Result<String> {
    let made = place.pods.create(&PostParams::default(), pod).await?;
    made.metadata.name.context("a pod without a name")
}

async fn until_address(place: &Place, name: &str) -> anyhow::Result<std::net::IpAddr> {
    place
        .watch
        .until("the pod's address", PATIENCE, |pods| {
            pods.get(name)?.address.map(|(_, address)| address)
        })
        .await
}

/// The pod that was started by somebody else.
async fn only_pod(place: &Place) -> anyhow::Result<String> {
    place
        .watch
        .until("a pod", PATIENCE, |pods| {
            let mut here = pods.iter().filter(|(_, marks)| marks.is_here());
            here.next().map(|(name, _)| name.clone())
        })
        .await
}

fn marks_of(place: &Place, name: &str) -> Marks {
    place.watch.pods().remove(name).unwrap_or_default()
}

fn direct(authority: &str) -> anyhow::Result<Target> {
    format!("direct=http://{authority}/mcp").parse()
}

/// Knocks until a session is opened. An address that leads nowhere yet may still be
/// answered: while kube-proxy exchanges its rules, a packet to a Service can leave
/// the machine and meet whoever answers there.
async fn answer(target: &Target, pause: Duration) -> anyhow::Result<()> {
    let answered = timeout(PATIENCE, async {
        loop {
            if let Ok(Ok(mut client)) = timeout(CONNECT, Client::connect(target)).await
                && client.initialize().await.is_ok()
            {
                return;
            }
            sleep(pause).await;
        }
    });
    answered.await.context("no answer")
}
