//! A modelled runtime: answers late, or after its instance has spoken; refuses, hangs, crashes; ends what it is told to,
//! unless a later leader has taken it.

use std::{collections::BTreeMap, time::Duration};

use mcp_gateway_api::{
    failure::ExitReport,
    ids::InstanceId,
    view::{Endpoint, Reach},
};
use mcp_gateway_autoscaler::core::{Ticket, event::Event};
use mcp_gateway_runtime::{Found, FoundStage, LaunchOrder, Launched, RuntimeEvent};
use rand::{Rng, rngs::StdRng};

#[derive(Default)]
pub(crate) struct Copy {
    pub(crate) told_to_end: bool,
    /// What it was launched for; a stranger was launched for nothing.
    pub(crate) order: Option<LaunchOrder>,
    pub(crate) running: bool,
    pub(crate) ready: bool,
    /// The last leader that has taken it.
    pub(crate) taken_by: u64,
}

#[derive(Default)]
pub(crate) struct Runtime {
    pub(crate) alive: BTreeMap<InstanceId, Copy>,
    /// In order of creation.
    created: Vec<InstanceId>,
}

/// What happens after so long.
pub(crate) type Plan = Vec<(Duration, Happening)>;

pub(crate) enum Happening {
    /// Said to that leader, whatever has become of the instance.
    Say(u64, Event),
    /// Said only while the instance is alive.
    IfAlive(InstanceId, RuntimeEvent),
    /// It ends by itself.
    Crash(InstanceId),
}

pub(crate) fn ms(rng: &mut StdRng, below: u64) -> Duration {
    Duration::from_micros(rng.random_range(0..below * 1_000))
}

pub(crate) fn exit(summary: &str) -> ExitReport {
    ExitReport {
        code: Some(1),
        summary: summary.into(),
        ..ExitReport::default()
    }
}

pub(crate) fn endpoint() -> Endpoint {
    Endpoint {
        secret: None,
        reach: Reach::InProcess,
        host: "localhost".into(),
        path: "/mcp".into(),
    }
}

impl Runtime {
    /// Launches; says what will happen when.
    pub(crate) fn launch(
        &mut self,
        (epoch, ticket): (u64, Ticket),
        order: LaunchOrder,
        rng: &mut StdRng,
        kind: bool,
    ) -> Plan {
        let fate = if kind { 99 } else { rng.random_range(0..100) };
        if fate < 5 {
            let outcome = Err(exit("there is no such command"));
            return vec![(
                ms(rng, 20),
                Happening::Say(epoch, Event::Launched { ticket, outcome }),
            )];
        }
        let id = InstanceId(rng.random());
        let copy = Copy {
            order: Some(order),
            taken_by: epoch,
            ..Copy::default()
        };
        self.alive.insert(id, copy);
        self.created.push(id);
        let outcome = Ok(Launched {
            instance: id,
            pid: None,
            log: None,
        });
        let answered = match fate {
            5 => Duration::from_secs(rng.random_range(500..900)),
            6..10 => ms(rng, 3_000),
            _ => ms(rng, 10),
        };
        let running = ms(rng, 10);
        let mut plan = vec![
            (
                answered,
                Happening::Say(epoch, Event::Launched { ticket, outcome }),
            ),
            (running, Happening::IfAlive(id, RuntimeEvent::Running(id))),
        ];
        match fate {
            10..18 => plan.push((running + ms(rng, 500), Happening::Crash(id))),
            18..22 => {}
            _ => {
                let slow = if fate < 30 { 4_000 } else { 100 };
                let ready = running + ms(rng, slow);
                plan.push((
                    ready,
                    Happening::IfAlive(id, RuntimeEvent::Ready(id, endpoint())),
                ));
                if (22..40).contains(&fate) {
                    plan.push((ready + ms(rng, 20_000), Happening::Crash(id)));
                }
            }
        }
        if rng.random_ratio(1, 10) {
            let warning = RuntimeEvent::Warning(id, "it listens everywhere".into());
            plan.push((ms(rng, 100), Happening::IfAlive(id, warning)));
        }
        plan
    }

    /// Somebody else's instance speaks: nobody has launched it.
    pub(crate) fn stray(&mut self, rng: &mut StdRng) -> RuntimeEvent {
        let id = InstanceId(rng.random());
        self.alive.insert(id, Copy::default());
        if rng.random() {
            RuntimeEvent::Running(id)
        } else {
            RuntimeEvent::Ready(id, endpoint())
        }
    }

    /// What a new leader finds, and what it will be told again.
    pub(crate) fn find(&mut self, rng: &mut StdRng) -> (Vec<Found>, Plan) {
        self.created.retain(|id| self.alive.contains_key(id));
        let mut found = vec![];
        let mut plan = vec![];
        for (id, copy) in &self.alive {
            if copy.running || copy.order.is_none() {
                let again = RuntimeEvent::Running(*id);
                plan.push((ms(rng, 1_000), Happening::IfAlive(*id, again)));
            }
            if copy.ready {
                let again = RuntimeEvent::Ready(*id, endpoint());
                plan.push((ms(rng, 3_000), Happening::IfAlive(*id, again)));
            }
        }
        for id in &self.created {
            let copy = &self.alive[id];
            let Some(order) = &copy.order else { continue };
            let stage = match (copy.ready, copy.running) {
                _ if copy.told_to_end => FoundStage::Ending,
                (true, _) if rng.random() => FoundStage::Ready(endpoint()),
                (true, _) | (false, true) => FoundStage::Running,
                (false, false) => FoundStage::Starting,
            };
            found.push(Found {
                launched: Launched {
                    instance: *id,
                    pid: None,
                    log: None,
                },
                backend: order.backend.name.clone(),
                generation: order.backend.generation,
                slot: order.slot.clone(),
                tenant: order.tenant.clone(),
                stage,
            });
        }
        (found, plan)
    }

    /// A leader takes one that it found; `false` if it is too late.
    pub(crate) fn take(&mut self, id: InstanceId, epoch: u64) -> bool {
        let Some(copy) = self.alive.get_mut(&id) else {
            return false;
        };
        if copy.told_to_end {
            return false;
        }
        copy.taken_by = copy.taken_by.max(epoch);
        true
    }

    /// Told to end one; says when it will be gone.
    pub(crate) fn terminate(
        &mut self,
        id: InstanceId,
        epoch: u64,
        rng: &mut StdRng,
    ) -> Option<(Duration, Happening)> {
        let copy = self.alive.get_mut(&id).filter(|c| c.taken_by <= epoch)?;
        copy.told_to_end = true;
        // Now and then the order is lost, and has to be given again.
        if rng.random_ratio(1, 50) {
            return None;
        }
        Some((ms(rng, 300), Happening::Crash(id)))
    }
}
