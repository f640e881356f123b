//! Writes statuses, finalizers and events: once a second for each object at most, only what differs, only while leading.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, stream};
use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::DynamicObject,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use mcp_gateway_api::crds::{FINALIZER, GROUP, VERSION};
use serde_json::{Map, Value, json};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{objects::Kind, status::Wanted};

/// Who the API server is told writes.
const MANAGER: &str = "mcp-gateway";
/// The least time between two writes to one object.
pub const PACE: Duration = Duration::from_secs(1);
/// How often what is left to do is looked for.
const TICK: Duration = Duration::from_millis(200);
/// After this a status that was written but is not there is written again.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// The longest wait after failures in a row.
const LONGEST: Duration = Duration::from_secs(60);
/// How many objects are written at once.
const AT_ONCE: usize = 8;
/// How long what one object needs may take.
const CALL: Duration = Duration::from_secs(10);

/// How to write.
#[derive(Clone)]
pub struct Writing {
    /// For writes.
    pub client: Client,
    /// Whether this gateway is the one that writes.
    pub leading: watch::Receiver<bool>,
    /// Which gateway events come from, such as its pod's name.
    pub reporter: String,
}

impl Writing {
    /// For the only gateway there is.
    #[must_use]
    pub fn alone(client: Client, reporter: impl Into<String>) -> Self {
        let (_, leading) = watch::channel(true);
        Self {
            client,
            leading,
            reporter: reporter.into(),
        }
    }
}

/// What is to be done about the finalizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finalizer {
    /// Nothing.
    Leave,
    /// It is to be there.
    Add,
    /// It is to go, and the object with it.
    Remove,
}

/// What one object should be like.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Tells it from another of the same name.
    pub uid: String,
    /// As it was seen.
    pub resource_version: String,
    /// As they were seen.
    pub finalizers: Vec<String>,
    /// As it was seen.
    pub status: Value,
    /// As it should be.
    pub wanted: Wanted,
    /// Likewise.
    pub finalizer: Finalizer,
}

/// Names an object.
pub type Id = (Kind, String);
/// What all objects should be like.
pub type Orders = Arc<BTreeMap<Id, Order>>;

/// What was done about one object.
#[derive(Debug, Clone)]
struct Done {
    uid: String,
    wanted: Option<Wanted>,
    at: Instant,
    not_before: Instant,
    failures: u32,
}

/// The status as JSON: `seen` tells since when conditions are as they are.
#[must_use]
pub fn render(wanted: &Wanted, seen: &Value, now: SystemTime) -> Value {
    let stamp = |time: SystemTime| {
        let seconds = Timestamp::try_from(time).map(Timestamp::as_second);
        let whole = seconds.and_then(Timestamp::from_second);
        whole.map(|stamp| stamp.to_string()).unwrap_or_default()
    };
    let conditions: Vec<Value> = wanted
        .conditions
        .iter()
        .map(|condition| {
            let before = seen_condition(seen, condition.kind);
            let since = before
                .filter(|before| before["status"] == condition.status)
                .and_then(|before| before["lastTransitionTime"].as_str())
                .map_or_else(|| stamp(now), str::to_owned);
            json!({
                "type": condition.kind,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message,
                "lastTransitionTime": since,
                "observedGeneration": wanted.generation,
            })
        })
        .collect();
    let mut status = Map::new();
    status.insert("conditions".to_owned(), conditions.into());
    status.insert("observedGeneration".to_owned(), wanted.generation.into());
    let mut maybe = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            status.insert(name.to_owned(), value);
        }
    };
    maybe("state", wanted.state.clone().map(Value::from));
    maybe("instances", wanted.instances.map(Value::from));
    maybe("sessions", wanted.sessions.map(Value::from));
    maybe(
        "lastStart",
        wanted.last_start.map(|time| stamp(time).into()),
    );
    maybe("why", wanted.why.clone().map(Value::from));
    Value::Object(status)
}

fn seen_condition<'v>(status: &'v Value, kind: &str) -> Option<&'v Value> {
    let all = status["conditions"].as_array()?;
    all.iter().find(|condition| condition["type"] == kind)
}

/// Whether two statuses say the same; conditions are a map by type, whatever their order.
#[must_use]
pub fn same(one: &Value, other: &Value) -> bool {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else {
        return one == other;
    };
    let by_type = |value: &Value| -> BTreeMap<String, Value> {
        let all = value.as_array().into_iter().flatten();
        all.map(|c| (c["type"].as_str().unwrap_or_default().to_owned(), c.clone()))
            .collect()
    };
    one.len() == other.len()
        && one.iter().all(|(name, value)| match other.get(name) {
            Some(theirs) if name == "conditions" => by_type(value) == by_type(theirs),
            Some(theirs) => value == theirs,
            None => false,
        })
}

/// Follows the orders until there are no more.
pub async fn write(namespace: String, writing: Writing, mut orders: watch::Receiver<Orders>) {
    let reporter = Reporter {
        controller: MANAGER.to_owned(),
        instance: Some(writing.reporter.clone()),
    };
    let desk = Desk {
        namespace,
        recorder: Recorder::new(writing.client.clone(), reporter),
        client: writing.client,
    };
    let leading = writing.leading;
    let mut done: BTreeMap<Id, Done> = BTreeMap::new();
    loop {
        if *leading.borrow() {
            let now = Arc::clone(&orders.borrow_and_update());
            done.retain(|id, _| now.contains_key(id));
            desk.round(&now, &mut done).await;
        }
        tokio::select! {
            changed = orders.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

struct Desk {
    namespace: String,
    client: Client,
    recorder: Recorder,
}

impl Desk {
    /// Does what is due.
    async fn round(&self, orders: &BTreeMap<Id, Order>, done: &mut BTreeMap<Id, Done>) {
        let now = Instant::now();
        let mut due = Vec::new();
        for (id, order) in orders {
            if is_due(order, done.get(id), now) {
                due.push((id.clone(), order.clone()));
            }
        }
        let outcomes: Vec<(Id, Order, Result<(), kube::Error>)> = stream::iter(due)
            .map(|(id, order)| async move {
                // One call that an API server never answers must not hold up all others.
                let done = timeout(CALL, self.carry_out(&id, &order)).await;
                let outcome = done.unwrap_or_else(|late| Err(kube::Error::Service(late.into())));
                (id, order, outcome)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (id, order, outcome) in outcomes {
            let failures = done.get(&id).map_or(0, |done| done.failures);
            let entry = settle(&id, order, outcome, failures, Instant::now());
            done.insert(id, entry);
        }
    }

    async fn carry_out(&self, id: &Id, order: &Order) -> Result<(), kube::Error> {
        let (kind, name) = id;
        let resource = kind.resource();
        let api =
            Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.namespace, &resource);
        if order.finalizer != Finalizer::Leave {
            let mut finalizers = order.finalizers.clone();
            finalizers.retain(|finalizer| finalizer != FINALIZER);
            if order.finalizer == Finalizer::Add {
                finalizers.push(FINALIZER.to_owned());
            }
            // Only what was seen is changed: others put finalizers there too.
            let patch = json!({"metadata": {
                "uid": order.uid,
                "resourceVersion": order.resource_version,
                "finalizers": finalizers,
            }});
            let params = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            api.patch_metadata(name, &params, &Patch::Merge(patch))
                .await?;
            if order.finalizer == Finalizer::Remove {
                tracing::info!(
                    kind = kind.as_str(),
                    name,
                    "{name}: its last instance has ended, and it may go"
                );
                return Ok(());
            }
        }
        let status = render(&order.wanted, &order.status, SystemTime::now());
        if same(&status, &order.status) {
            return Ok(());
        }
        let patch = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": kind.as_str(),
            "metadata": {"name": name, "uid": order.uid},
            "status": status,
        });
        let params = PatchParams::apply(MANAGER).force();
        api.patch_status(name, &params, &Patch::Apply(patch))
            .await?;
        self.tell(id, order).await;
        Ok(())
    }

    /// Events for what changed for the worse or the better. They are a courtesy: a failure is only logged.
    async fn tell(&self, (kind, name): &Id, order: &Order) {
        let regarding = ObjectReference {
            api_version: Some(format!("{GROUP}/{VERSION}")),
            kind: Some(kind.as_str().to_owned()),
            namespace: Some(self.namespace.clone()),
            name: Some(name.clone()),
            uid: Some(order.uid.clone()),
            ..ObjectReference::default()
        };
        for condition in &order.wanted.conditions {
            let before = seen_condition(&order.status, condition.kind);
            let was = |field: &str| before.and_then(|before| before[field].as_str());
            let bad = condition.status == "False";
            let told = was("status") == Some(condition.status)
                && was("reason") == Some(condition.reason)
                && (!bad
                    || condition.kind != "Accepted"
                    || was("message") == Some(&condition.message));
            // What was never bad need not be said to be good.
            if told || (!bad && was("status") != Some("False")) || condition.reason == "NotInForce"
            {
                continue;
            }
            let event = Event {
                type_: if bad {
                    EventType::Warning
                } else {
                    EventType::Normal
                },
                reason: condition.reason.to_owned(),
                note: Some(condition.message.chars().take(900).collect()),
                action: condition.kind.to_owned(),
                secondary: None,
            };
            if let Err(error) = self.recorder.publish(&event, &regarding).await {
                tracing::debug!(%error, name, "an event could not be written");
            }
        }
    }
}

/// Whether something is to be done now. Pure.
fn is_due(order: &Order, done: Option<&Done>, now: Instant) -> bool {
    let done = done.filter(|done| done.uid == order.uid);
    if done.is_some_and(|done| now < done.not_before) {
        return false;
    }
    let differs = || {
        !same(
            &render(&order.wanted, &order.status, SystemTime::UNIX_EPOCH),
            &order.status,
        )
    };
    let written = done.is_some_and(|done| {
        done.wanted.as_ref() == Some(&order.wanted) && now < done.at + FORGOTTEN
    });
    order.finalizer != Finalizer::Leave || (!written && differs())
}

/// What to remember of an outcome.
fn settle(
    (kind, name): &Id,
    order: Order,
    outcome: Result<(), kube::Error>,
    failures: u32,
    now: Instant,
) -> Done {
    let done = Done {
        uid: order.uid,
        wanted: None,
        at: now,
        not_before: now + PACE,
        failures: 0,
    };
    match outcome {
        Ok(()) => Done {
            wanted: Some(order.wanted),
            ..done
        },
        // It has changed, or is gone: the watch tells.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => done,
        Err(error) => {
            let failures = failures.saturating_add(1);
            if failures == 1 {
                tracing::warn!(kind = kind.as_str(), name, %error, "{name}: its status cannot be written; it is tried again");
            }
            let wait = PACE * 2_u32.saturating_pow(failures.min(10));
            Done {
                failures,
                not_before: now + wait.min(LONGEST),
                ..done
            }
        }
    }
}
