//! The real control loop at the other end: two leaders of one installation, one after the other.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mcp_gateway_api::{
    activity::ActivityReport,
    backend::{Backend, LaunchSpec, Transport},
    catalog::Catalog,
    ids::{ActivatorId, BackendName, Generation, InstanceId, TenantName},
    policy::{Isolation, ScalingPolicy},
    scaler::{PodUid, Presence, Restatement, Scaler},
    slot::{Owner, SlotKey},
    view::{Endpoint, Lookup, Reach, ViewEvent},
};
use mcp_gateway_autoscaler::{Autoscaler, AutoscalerConfig, driver::Takeover};
use mcp_gateway_link::Lead;
use mcp_gateway_runtime::{
    Found, FoundStage, Launched,
    scripted::{Happening, ScriptedRuntime, Step},
};
use tokio::sync::watch;

use crate::support::{Installation, next, request};

const LONG: Duration = Duration::from_secs(20);
const ME: ActivatorId = ActivatorId(5);

pub(crate) fn catalog() -> watch::Receiver<Arc<Catalog>> {
    catalog_of(ScalingPolicy::for_processes(Isolation::Shared))
}

pub(crate) fn catalog_of(policy: ScalingPolicy) -> watch::Receiver<Arc<Catalog>> {
    let name = BackendName::new("demo").unwrap();
    let backend = Backend {
        name: name.clone(),
        generation: Generation(7),
        description: None,
        launch: LaunchSpec {
            image: None,
            port: None,
            pod: Arc::default(),
            command: vec!["demo".into()],
            args: Vec::new(),
            working_dir: None,
            env: Vec::new(),
            transport: Transport::StreamableHttp,
            path: "/mcp".into(),
            host: None,
            health_path: None,
        },
        policy: Arc::new(policy),
        tenants: Vec::new(),
    };
    let backends = [(name, Arc::new(backend))].into();
    watch::channel(Arc::new(Catalog { backends })).1
}

pub(crate) fn endpoint() -> Endpoint {
    Endpoint {
        reach: Reach::Tcp("127.0.0.1:9".parse().unwrap()),
        host: "localhost:9".into(),
        path: "/mcp".into(),
        secret: None,
    }
}

/// What an activator that used `instances` says to a new leader.
fn restatement(epoch: u64, instances: Vec<mcp_gateway_api::view::InstanceView>) -> Restatement {
    Restatement {
        epoch,
        report: ActivityReport {
            activator: ME,
            sequence: 1,
            full: true,
            instances: Vec::new(),
        },
        instances,
        records: Vec::new(),
        gone: Vec::new(),
        permits: Vec::new(),
    }
}

/// A leader that finds one ready instance.
fn takeover(instance: InstanceId) -> Takeover {
    Takeover {
        epoch: 2,
        found: vec![Found {
            launched: Launched {
                instance,
                pid: None,
                log: None,
            },
            backend: BackendName::new("demo").unwrap(),
            generation: Generation(7),
            slot: SlotKey {
                backend: BackendName::new("demo").unwrap(),
                owner: Owner::Nobody,
            },
            tenant: TenantName::default(),
            stage: FoundStage::Ready(endpoint()),
        }],
    }
}

#[tokio::test]
async fn a_new_leader_adopts_the_instance_that_an_activator_in_another_pod_uses() {
    let installation = Installation::new();
    let (one, two) = (installation.replica().await, installation.replica().await);
    let activator = installation.activator(&[one.address, two.address]);

    let launch = Step::Launch {
        backend: BackendName::new("demo").unwrap(),
        takes: Duration::ZERO,
        answer: Ok(vec![
            (Duration::ZERO, Happening::Running),
            (Duration::ZERO, Happening::Ready(endpoint())),
        ]),
    };
    let (runtime, events) = ScriptedRuntime::new([launch]);
    let config = AutoscalerConfig::default();
    let started = Autoscaler::start(config.clone(), Arc::clone(&runtime) as _, events, catalog());
    let (scaler, handle) = started.unwrap();
    let scaler = Arc::new(scaler);
    one.lead.send_replace(Lead::Here { epoch: 1, scaler });

    let mut view = activator.subscribe(ME);
    next(&mut view).await;
    // However many ask, one is started.
    let claims = (0..50).map(|_| activator.claim(request(LONG)));
    let answers = futures_util::future::join_all(claims).await;
    let claimed = answers[0].clone().unwrap().instance;
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().unwrap().instance.id == claimed.id)
    );
    runtime.finish();

    // The leader ends without a word to its instances; another finds what runs.
    handle.step_down();
    one.lead.send_replace(Lead::Elsewhere(Some(two.address)));
    let (runtime, events) = ScriptedRuntime::new([]);
    let takeover = takeover(claimed.id);
    let led = Autoscaler::lead(
        config,
        Arc::clone(&runtime) as _,
        events,
        catalog(),
        takeover,
    );
    let (scaler, _handle) = led.unwrap();
    scaler
        .expect(BTreeMap::from([(PodUid(77), Presence::Runs)]))
        .await;
    let scaler = Arc::new(scaler);
    two.lead.send_replace(Lead::Here { epoch: 2, scaler });

    // It asks for what is known, by a snapshot that is not complete, and then completes the view.
    loop {
        if let ViewEvent::Snapshot {
            stamp, complete, ..
        } = next(&mut view).await
            && stamp.epoch == 2
        {
            if complete {
                break;
            }
            activator
                .restate(restatement(2, vec![claimed.clone()]))
                .await
                .unwrap();
        }
    }
    let again = activator.claim(request(LONG)).await.unwrap().instance;
    assert_eq!((again.id, again.stamp.epoch), (claimed.id, 2));
    let found = activator.lookup(claimed.id).await;
    assert!(matches!(found, Lookup::Ready(view) if view.id == claimed.id));
    // Nothing was launched and nothing ended.
    runtime.finish();
}
