//! Both ends as they are: the activator's table, the port over TLS, and two leaders one after the other.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use mcp_gateway_activator::directory::Directory;
use mcp_gateway_api::{
    claim::{ClaimRequest, Purpose, Standing},
    failure::ExitReport,
    ids::{
        ActivatorId, BackendName, Generation, InstanceId, SessionKey, TenantName, UpstreamSession,
    },
    policy::{Isolation, ScalingPolicy},
    record::{SessionBinding, SessionNews, SessionRef, SessionUpdate},
    scaler::{PodUid, Presence, Scaler},
    slot::{Owner, SlotKey},
    view::{InstanceView, Lookup, Service},
};
use mcp_gateway_autoscaler::{
    Autoscaler, AutoscalerConfig, AutoscalerHandle, InProcessScaler, driver::Takeover,
};
use mcp_gateway_link::Lead;
use mcp_gateway_runtime::{
    Found, FoundStage, Launched,
    scripted::{Happening, ScriptedRuntime, Step},
};
use tokio_util::sync::CancellationToken;

use crate::{
    core::{catalog_of, endpoint},
    support::{Installation, Replica, request},
};

const LONG: Duration = Duration::from_secs(20);
const ME: ActivatorId = ActivatorId(5);
/// Where this activator runs (`Installation::config`), and where another one does.
const HERE: PodUid = PodUid(77);
const ELSEWHERE: PodUid = PodUid(78);
/// Found by the second leader, and used by nobody.
const IDLE: InstanceId = InstanceId(9);

fn name() -> BackendName {
    BackendName::new("demo").unwrap()
}

fn policy(idle_timeout: Duration) -> ScalingPolicy {
    ScalingPolicy {
        idle_timeout,
        ..ScalingPolicy::for_processes(Isolation::Tenant)
    }
}

fn session() -> SessionRef {
    SessionRef {
        key: SessionKey([1; 24]),
        backend: name(),
        tenant: TenantName::default(),
        expires_at: u64::MAX,
    }
}

fn found(instance: InstanceId, tenant: &TenantName) -> Found {
    Found {
        launched: Launched {
            instance,
            pid: None,
            log: None,
        },
        backend: name(),
        generation: Generation(7),
        slot: SlotKey {
            backend: name(),
            owner: Owner::Tenant(tenant.clone()),
        },
        tenant: tenant.clone(),
        stage: FoundStage::Ready(endpoint()),
    }
}

fn ends(number: usize) -> Step {
    let exit = Happening::Exited(ExitReport::default());
    Step::Terminate {
        number,
        course: vec![(Duration::ZERO, exit)],
    }
}

/// Waits until it is so; a test that waits for what never comes fails.
async fn eventually<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let came = tokio::time::timeout(LONG, waiting).await;
    assert!(came.is_ok(), "it never came: {what}");
}

/// The first leader, with one instance that starts at once.
fn first_leader() -> (Arc<ScriptedRuntime>, InProcessScaler, AutoscalerHandle) {
    let launch = Step::Launch {
        backend: name(),
        takes: Duration::ZERO,
        answer: Ok(vec![
            (Duration::ZERO, Happening::Running),
            (Duration::ZERO, Happening::Ready(endpoint())),
        ]),
    };
    let (runtime, events) = ScriptedRuntime::new([launch]);
    let catalog = catalog_of(policy(Duration::from_secs(3_600)));
    let config = AutoscalerConfig::default();
    let (scaler, handle) =
        Autoscaler::start(config, Arc::clone(&runtime) as _, events, catalog).unwrap();
    (runtime, scaler, handle)
}

/// The second one finds that instance and an idle one, and waits for two activators. It ends the idle one first.
async fn second_leader(
    used: &InstanceView,
) -> (Arc<ScriptedRuntime>, InProcessScaler, AutoscalerHandle) {
    let other = TenantName::new("other").unwrap();
    let (runtime, events) = ScriptedRuntime::with_found([used.id, IDLE], [ends(1), ends(0)]);
    let led = Autoscaler::lead(
        AutoscalerConfig::default(),
        Arc::clone(&runtime) as _,
        events,
        catalog_of(policy(Duration::from_millis(100))),
        Takeover {
            epoch: 2,
            found: vec![found(used.id, &used.tenant), found(IDLE, &other)],
        },
    );
    let (scaler, handle) = led.unwrap();
    let both = [HERE, ELSEWHERE].map(|uid| (uid, Presence::Runs));
    scaler.expect(BTreeMap::from(both)).await;
    (runtime, scaler, handle)
}

fn leads(replica: &Replica, epoch: u64, scaler: &InProcessScaler) {
    let scaler = Arc::new(scaler.clone());
    replica.lead.send_replace(Lead::Here { epoch, scaler });
}

fn of_session() -> ClaimRequest {
    ClaimRequest {
        purpose: Purpose::Session {
            session: session(),
            bound: None,
        },
        ..request(LONG)
    }
}

#[tokio::test]
async fn leases_and_sessions_of_an_activator_come_through_a_change_of_leaders() {
    let installation = Installation::new();
    let (one, two) = (installation.replica().await, installation.replica().await);
    let remote = Arc::new(installation.activator(&[one.address, two.address]));
    let directory = Directory::new(ME);
    let cancel = CancellationToken::new();
    let following = directory
        .clone()
        .run(Arc::clone(&remote) as _, cancel.clone());
    let following = tokio::spawn(following);

    let (runtime, scaler, handle) = first_leader();
    leads(&one, 1, &scaler);
    let claimed = remote.claim(request(LONG)).await.unwrap().instance;
    directory.apply_claimed(claimed.clone());
    let lease = directory.lease(claimed.id).unwrap();
    let home = SessionBinding {
        instance: claimed.id,
        upstream: UpstreamSession("revived".into()),
    };
    let revived = SessionUpdate {
        session: session(),
        news: SessionNews::Revived(home.clone()),
    };
    remote.record(revived).await.unwrap();
    eventually("the record", async || {
        directory.record(&session().key).is_some()
    })
    .await;
    runtime.finish();

    // The leader ends without a word to anybody.
    handle.step_down();
    one.lead.send_replace(Lead::Elsewhere(None));
    let (runtime, leader, _handle) = second_leader(&claimed).await;
    leads(&two, 2, &leader);
    // That it has it open is what the activator said: nobody else could.
    eventually("the adoption", async || {
        let view = directory.view(claimed.id);
        view.is_some_and(|view| view.stamp.epoch == 2 && view.service == Service::Open)
    })
    .await;
    // Longer than anything may idle: as long as one has not been heard, nothing ends.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(leader.lookup(InstanceId(12_345)).await, Lookup::Unknown);
    assert_eq!(runtime.left(), 2);

    leader
        .expect(BTreeMap::from([(HERE, Presence::Runs)]))
        .await;
    // Now what nobody uses is drained, which this activator acknowledges, and ends; what is leased does not.
    eventually("the end of the other", async || runtime.left() == 1).await;
    assert_eq!(leader.lookup(InstanceId(12_345)).await, Lookup::Gone);
    assert!(directory.lease(claimed.id).is_ok());
    assert!(directory.record(&session().key).is_some());
    let again = remote.claim(of_session()).await.unwrap();
    assert_eq!(again.standing, Standing::Bound(home));
    assert_eq!(again.instance.id, claimed.id);

    drop(lease);
    eventually("the end of the last", async || runtime.left() == 0).await;
    runtime.finish();
    cancel.cancel();
    following.await.unwrap();
    directory.leave(&*remote).await;
}
