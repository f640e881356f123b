//! Acting: one task that asks the API server what the candidate wants asked, and publishes whether it leads.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout_at},
};

use super::candidate::{Action, Candidate, Heard, Lease, Term, Write};

/// Which lease, and who stands.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// The namespace of the gateway itself.
    pub namespace: String,
    /// The lease's name: one for each installation.
    pub name: String,
    /// This candidate: no other process, earlier or later ones of this pod included, may have the same. Others read it
    /// to find the leader ([`Election::holder`]), so it may hold an address.
    pub id: String,
    /// How the ids of earlier processes of this pod begin. Kubernetes starts a container again only when the process
    /// before has ended: what that one held need not expire.
    pub before: Option<String>,
    /// How long a leader may be silent: 15 s unless there is a reason.
    pub duration: Duration,
}

/// A candidature that runs. Dropping it ends it without giving the lease back.
#[derive(Debug)]
pub struct Election {
    term: watch::Receiver<Option<u64>>,
    holder: watch::Receiver<Option<Arc<str>>>,
    resign: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Drop for Election {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Election {
    /// The epoch while this process leads. It must act as a leader no longer than this says so, and each epoch comes
    /// once. A leader that is told another epoch begins anew.
    #[must_use]
    pub fn term(&self) -> watch::Receiver<Option<u64>> {
        self.term.clone()
    }

    /// The id of whoever holds the lease, as last read: where activators are to be sent.
    #[must_use]
    pub fn holder(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.holder.clone()
    }

    /// Leads no more, and gives the lease back, so that another takes over at once. To be called when what this process
    /// did as the leader has ended.
    pub async fn resign(mut self) {
        if let Some(resign) = self.resign.take() {
            // The task may have ended by itself; there is nothing to give back then.
            let _sent = resign.send(());
        }
        if let Err(why) = (&mut self.task).await {
            tracing::warn!(%why, "the lease was not given back");
        }
    }
}

/// Stands for election.
///
/// # Panics
/// Outside a Tokio runtime.
#[must_use]
pub fn elect(client: Client, config: LeaseConfig) -> Election {
    let (says_term, term) = watch::channel(None);
    let (says_holder, holder) = watch::channel(None);
    let (resign, resigned) = oneshot::channel();
    let first = first_epoch(SystemTime::now());
    let candidate = Candidate::new(&config.id, config.duration, first);
    let acting = Acting {
        leases: Api::namespaced(client, &config.namespace),
        candidate: candidate.after(config.before.as_deref().map(Into::into)),
        config,
        says_term,
        says_holder,
    };
    Election {
        term,
        holder,
        resign: Some(resign),
        task: tokio::spawn(acting.run(resigned)),
    }
}

/// The first term of a lease that does not exist: minutes since 2020. A lease that somebody deleted would otherwise begin
/// at one again, and every activator that has heard of a higher term would believe no leader any more.
fn first_epoch(now: SystemTime) -> u64 {
    const YEAR_2020: u64 = 1_577_836_800;
    let unix = now.duration_since(SystemTime::UNIX_EPOCH);
    unix.map_or(1, |unix| unix.as_secs().saturating_sub(YEAR_2020) / 60)
        .max(1)
}

struct Acting {
    leases: Api<Object>,
    candidate: Candidate,
    config: LeaseConfig,
    says_term: watch::Sender<Option<u64>>,
    says_holder: watch::Sender<Option<Arc<str>>>,
}

impl Acting {
    async fn run(mut self, mut resigned: oneshot::Receiver<()>) {
        let mut heard = Heard::Nothing;
        loop {
            let action = self.candidate.step(Instant::now(), heard);
            self.publish();
            heard = tokio::select! {
                // Dropping a write that is under way is as if its answer were lost.
                Ok(()) = &mut resigned => break,
                heard = self.act(action) => heard,
            };
        }
        self.candidate.resign();
        self.publish();
        self.give_back().await;
    }

    /// Tries to give the lease back, for as long as it would last anyway.
    async fn give_back(&mut self) {
        let deadline = Instant::now() + self.config.duration;
        let mut heard = Heard::Lost;
        while Instant::now() < deadline {
            match self.candidate.step(Instant::now(), heard) {
                Action::Sleep(_) => return,
                action @ (Action::Read | Action::Write(_)) => heard = self.act(action).await,
            }
        }
    }

    fn publish(&self) {
        let epoch = self.candidate.term(Instant::now()).map(|term| term.epoch);
        let changed = self.says_term.send_if_modified(|said| {
            let changed = *said != epoch;
            *said = epoch;
            changed
        });
        if changed {
            tracing::info!(epoch, candidate = self.config.id, "leadership has changed");
        }
        let holder = self.candidate.holder().cloned();
        self.says_holder.send_if_modified(|said| {
            let changed = *said != holder;
            *said = holder;
            changed
        });
    }

    async fn act(&mut self, action: Action) -> Heard {
        let now = Instant::now();
        // A leader whose term runs out while it waits must say so then, and not when an answer comes.
        let patience = now + self.config.duration / 5;
        let ends = self.candidate.term(now).map(|Term { until, .. }| until);
        let until = ends.map_or(patience, |ends| ends.min(patience));
        let answer = match action {
            Action::Sleep(wake) => {
                sleep_until(ends.map_or(wake, |ends| ends.min(wake))).await;
                return Heard::Nothing;
            }
            Action::Read => timeout_at(until, self.read()).await,
            Action::Write(write) => timeout_at(until, self.write(write)).await,
        };
        match answer {
            Ok(Ok(heard)) => heard,
            Ok(Err(why)) => {
                tracing::warn!(%why, "the lease could not be reached");
                // An API server that refuses at once is not asked in a tight loop.
                sleep_until(until.min(now + self.config.duration / 15)).await;
                Heard::Lost
            }
            Err(_elapsed) => {
                tracing::warn!("the API server does not answer about the lease");
                Heard::Lost
            }
        }
    }

    async fn read(&self) -> Result<Heard, kube::Error> {
        let object = self.leases.get_opt(&self.config.name).await?;
        Ok(Heard::Read(object.map(|object| self.seen(object))))
    }

    async fn write(&self, write: Write) -> Result<Heard, kube::Error> {
        let object = self.object(&write);
        let name = &self.config.name;
        let answer = match write.over {
            None => self.leases.create(&PostParams::default(), &object).await,
            Some(_) => {
                self.leases
                    .replace(name, &PostParams::default(), &object)
                    .await
            }
        };
        match answer {
            Ok(object) => Ok(Heard::Written(self.seen(object))),
            // Conflict, or it exists, or is gone: somebody was faster. A create that finds nothing has no namespace.
            Err(kube::Error::Api(status))
                if status.code == 409 || (status.code == 404 && write.over.is_some()) =>
            {
                Ok(Heard::Refused)
            }
            Err(why) => Err(why),
        }
    }

    fn seen(&self, object: Object) -> Lease {
        let spec = object.spec.unwrap_or_default();
        let seconds = spec
            .lease_duration_seconds
            .and_then(|s| u64::try_from(s).ok());
        Lease {
            version: object.metadata.resource_version.unwrap_or_default().into(),
            holder: spec
                .holder_identity
                .filter(|id| !id.is_empty())
                .map(Into::into),
            transitions: u64::try_from(spec.lease_transitions.unwrap_or(0)).unwrap_or(0),
            duration: seconds.map_or(self.config.duration, Duration::from_secs),
        }
    }

    fn object(&self, write: &Write) -> Object {
        let now = Timestamp::try_from(SystemTime::now()).ok().map(MicroTime);
        // Whole seconds, never fewer than meant: others wait that long.
        let seconds = self.config.duration.as_millis().div_ceil(1_000);
        Object {
            metadata: ObjectMeta {
                name: Some(self.config.name.clone()),
                namespace: Some(self.config.namespace.clone()),
                resource_version: write.over.as_deref().map(ToOwned::to_owned),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(write.holder.as_deref().unwrap_or_default().to_owned()),
                lease_duration_seconds: i32::try_from(seconds).ok(),
                lease_transitions: i32::try_from(write.transitions).ok(),
                acquire_time: now.clone().filter(|_| write.takes),
                renew_time: now,
                ..LeaseSpec::default()
            }),
        }
    }
}
