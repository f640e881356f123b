//! The life of one bridge, and the children it wants: those that speak MCP on stdin and stdout.
//!
//! A bridge is ready as soon as its first child runs: whether that child serves is known only once somebody has asked it
//! something. `Running`, `Ready`, then `Exited` come from one task, in this order.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use mcp_gateway_api::{
    backend::LaunchSpec,
    failure::ExitReport,
    ids::InstanceId,
    view::{Endpoint, Reach},
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    child::{self, Surroundings},
    plan::{self, Base, not_started},
};
use crate::{
    RuntimeEvent,
    bridge::{Bridge, BridgeEvent},
    child::{SpawnChild, StdioChild},
};

/// What is left of a bridge that is over has this long to leave.
const LEFTOVER_GRACE: Duration = Duration::from_millis(500);

/// One bridge that was started.
pub(crate) struct BridgedServer {
    pub(crate) id: InstanceId,
    pub(crate) bridge: Arc<Bridge>,
    pub(crate) heard: mpsc::Receiver<BridgeEvent>,
    /// When it is to be dead; `None` until somebody wants it to end.
    pub(crate) end: watch::Receiver<Option<Instant>>,
    pub(crate) events: mpsc::Sender<RuntimeEvent>,
}

impl BridgedServer {
    /// Sees it through to its end; gives what is to be said of it.
    pub(crate) async fn live(mut self) -> ExitReport {
        self.say(RuntimeEvent::Running(self.id)).await;
        self.say(RuntimeEvent::Ready(self.id, endpoint())).await;
        loop {
            tokio::select! {
                event = self.heard.recv() => match event {
                    Some(BridgeEvent::ChildLost { exit, sessions_left }) => {
                        tracing::info!(
                            instance = ?self.id, how = exit.summary, sessions_left,
                            "a child of a bridge was lost; others go on"
                        );
                    }
                    Some(BridgeEvent::Failed(report)) => {
                        self.bridge.stop(LEFTOVER_GRACE).await;
                        return report;
                    }
                    None => return self.bridge.stop(LEFTOVER_GRACE).await,
                },
                deadline = told(&mut self.end) => {
                    return self.bridge.stop(deadline.saturating_duration_since(Instant::now())).await;
                }
            }
        }
    }

    async fn say(&self, event: RuntimeEvent) {
        // Nobody listens any more: the gateway is going down and ends its instances otherwise.
        let _ = self.events.send(event).await;
    }
}

/// Waits until it is to end. If nobody is left who could say so, that is now.
async fn told(end: &mut watch::Receiver<Option<Instant>>) -> Instant {
    let told = end.wait_for(Option::is_some).await;
    told.ok()
        .and_then(|told| *told)
        .unwrap_or_else(|| Instant::now() + LEFTOVER_GRACE)
}

/// Bridges all look the same from outside.
fn endpoint() -> Endpoint {
    Endpoint {
        secret: None,
        reach: Reach::InProcess,
        host: "localhost".into(),
        path: "/mcp".into(),
    }
}

/// Spawns children of one backend for one instance. Their variables are read anew each time.
pub(crate) struct ProcessSpawner {
    pub(crate) launch: Arc<LaunchSpec>,
    pub(crate) base: Base,
    pub(crate) surroundings: Surroundings,
}

#[async_trait]
impl SpawnChild for ProcessSpawner {
    async fn spawn(&self) -> Result<StdioChild, ExitReport> {
        let launch = Arc::clone(&self.launch);
        let base = self.base.clone();
        let surroundings = self.surroundings.clone();
        let work = move || {
            let plan = plan::plan(&launch, None, &base)?;
            child::spawn(plan, true, surroundings)
        };
        // If this future is dropped meanwhile, so are the handles, and the child's keeper ends it.
        let (process, pipes) = super::blocking(work).await?;
        let pipes = pipes.ok_or_else(|| not_started("its pipes could not be opened"))?;
        Ok(StdioChild {
            stdin: Box::new(pipes.stdin),
            stdout: Box::new(pipes.stdout),
            control: process,
        })
    }
}
