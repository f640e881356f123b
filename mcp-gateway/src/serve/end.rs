//! The end: graceful within `--shutdown-timeout`, at once at the second signal.
//!
//! Held exchanges are refused, running ones may finish, open streams get their terminal event, instances are drained
//! and ended. Whatever still lives after the deadline is killed, so that nothing outlives the gateway.

use std::{sync::Arc, time::Duration};

use mcp_gateway_api::ids::InstanceId;
use mcp_gateway_runtime::{Farewell, Runtime};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::Gateway;
use crate::{parts, shutdown::Shutdown};

/// How long the last instances may take to die once they are killed.
const KILLED: Duration = Duration::from_secs(3);

impl Gateway {
    pub(super) async fn end(
        self,
        shutdown: &Shutdown,
        listeners: Vec<JoinHandle<()>>,
    ) -> anyhow::Result<()> {
        let within = self.settings.shutdown_timeout;
        tracing::info!(within = ?within, "shutting down: nothing new is taken (again to end at once)");
        self.tokens.closing.cancel();
        self.documents.stop();
        let (scaler, runtime) = (self.scaler.clone(), Arc::clone(&self.runtime));
        let mut instances = tokio::spawn(self.autoscaler.shutdown(within));
        let graceful = async {
            let exchanges = self.activator.shutdown(within);
            let (_, left) = tokio::join!(exchanges, &mut instances);
            matches!(left, Ok(Ok(())))
        };
        let all_ended = tokio::select! {
            ended = graceful => ended,
            () = sleep(within + KILLED) => false,
            () = shutdown.at_once.cancelled() => {
                tracing::warn!("ending at once");
                false
            }
        };
        if !all_ended {
            let killing = kill_all(&scaler, &*runtime);
            // Best effort: what even a kill does not end in time is reaped at the next start.
            let _ = timeout(KILLED, killing).await;
        }
        let ready_file = self.settings.ready_file.as_deref();
        parts::close(&self.tokens, listeners, parts::LAST_WORDS, ready_file).await;
        tracing::info!("ended");
        Ok(())
    }
}

/// Kills every instance the autoscaler knows of, and waits until it knows of none.
async fn kill_all(scaler: &mcp_gateway_autoscaler::InProcessScaler, runtime: &dyn Runtime) {
    loop {
        let status = scaler.summary().await;
        let slots = status.backends.iter().flat_map(|backend| &backend.slots);
        let ids = slots.filter_map(|slot| slot.instance.as_ref());
        let ids: Vec<InstanceId> = ids
            .filter_map(|instance| u128::from_str_radix(&instance.id, 16).ok())
            .map(InstanceId)
            .collect();
        if ids.is_empty() {
            return;
        }
        for id in ids {
            let grace = Duration::ZERO;
            runtime.terminate(id, Farewell { grace }).await;
        }
        sleep(Duration::from_millis(20)).await;
    }
}
