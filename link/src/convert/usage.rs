//! What activators tell of use, and who they are.

use std::{sync::Arc, time::Duration};

use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck, InstanceActivity},
    record::SessionRecord,
    scaler::{ActivatorPod, Permit, PodUid, Restatement},
    view::InstanceView,
};

use super::{
    FromWire, Nonsense, ToWire, activator_bytes, activator_id, all, instance_bytes, instance_id,
    nanos, need, number, session_key, view,
};
use crate::scaler as wire;

impl ToWire for ActivityReport {
    type Wire = wire::ActivityReport;

    fn to_wire(&self) -> wire::ActivityReport {
        wire::ActivityReport {
            activator: activator_bytes(self.activator),
            sequence: self.sequence,
            full: self.full,
            instances: self.instances.iter().map(ToWire::to_wire).collect(),
        }
    }
}

impl FromWire for ActivityReport {
    type Wire = wire::ActivityReport;

    fn from_wire(wire: wire::ActivityReport) -> Result<Self, Nonsense> {
        Ok(Self {
            activator: activator_id(&wire.activator)?,
            sequence: wire.sequence,
            full: wire.full,
            instances: all(wire.instances)?,
        })
    }
}

impl ToWire for InstanceActivity {
    type Wire = wire::InstanceActivity;

    fn to_wire(&self) -> wire::InstanceActivity {
        wire::InstanceActivity {
            instance: instance_bytes(self.instance),
            leases: self.leases,
            idle_for_ns: nanos(self.idle_for),
        }
    }
}

impl FromWire for InstanceActivity {
    type Wire = wire::InstanceActivity;

    fn from_wire(wire: wire::InstanceActivity) -> Result<Self, Nonsense> {
        Ok(Self {
            instance: instance_id(&wire.instance)?,
            leases: wire.leases,
            idle_for: Duration::from_nanos(wire.idle_for_ns),
        })
    }
}

impl ToWire for DrainAck {
    type Wire = wire::DrainAck;

    fn to_wire(&self) -> wire::DrainAck {
        wire::DrainAck {
            activator: activator_bytes(self.activator),
            instance: instance_bytes(self.instance),
            stamp: Some(self.stamp.to_wire()),
            leases: self.leases,
        }
    }
}

impl FromWire for DrainAck {
    type Wire = wire::DrainAck;

    fn from_wire(wire: wire::DrainAck) -> Result<Self, Nonsense> {
        Ok(Self {
            activator: activator_id(&wire.activator)?,
            instance: instance_id(&wire.instance)?,
            stamp: need("stamp", wire.stamp)?,
            leases: wire.leases,
        })
    }
}

impl ToWire for ActivatorPod {
    type Wire = wire::ActivatorPod;

    fn to_wire(&self) -> wire::ActivatorPod {
        wire::ActivatorPod {
            uid: self.uid.0.to_be_bytes().to_vec(),
            incarnation: self.incarnation,
        }
    }
}

impl FromWire for ActivatorPod {
    type Wire = wire::ActivatorPod;

    fn from_wire(wire: wire::ActivatorPod) -> Result<Self, Nonsense> {
        Ok(Self {
            uid: PodUid(number("pod UID", &wire.uid)?),
            incarnation: wire.incarnation,
        })
    }
}

impl ToWire for Permit {
    type Wire = wire::Permit;

    fn to_wire(&self) -> wire::Permit {
        wire::Permit {
            session: self.session.0.to_vec(),
            instance: instance_bytes(self.instance),
        }
    }
}

impl FromWire for Permit {
    type Wire = wire::Permit;

    fn from_wire(wire: wire::Permit) -> Result<Self, Nonsense> {
        Ok(Self {
            session: session_key(&wire.session)?,
            instance: instance_id(&wire.instance)?,
        })
    }
}

/// A restatement in parts of bounded size. What grows only with the instances and sessions in use is in the first, of
/// which a message holds more than 100,000.
#[must_use]
pub fn restatement_parts(all: &Restatement) -> Vec<wire::RestatementPart> {
    let halves = view::parts(&all.instances, &all.records).into_iter();
    let mut parts: Vec<_> = halves
        .map(|(instances, records)| wire::RestatementPart {
            instances,
            records,
            ..wire::RestatementPart::default()
        })
        .collect();
    if let Some(first) = parts.first_mut() {
        first.report = Some(all.report.to_wire());
        first.epoch = all.epoch;
        first.gone = all.gone.iter().copied().map(instance_bytes).collect();
        first.permits = all.permits.iter().map(ToWire::to_wire).collect();
    }
    if let Some(last) = parts.last_mut() {
        last.last = true;
    }
    parts
}

/// Puts a restatement together.
#[derive(Debug, Default)]
pub struct Retelling {
    /// All but instances and records, from the first part.
    head: Option<Restatement>,
    instances: Vec<InstanceView>,
    records: Vec<Arc<SessionRecord>>,
}

impl Retelling {
    /// Takes a part; the whole, if it was the last.
    ///
    /// # Errors
    /// Names the field that makes no sense.
    pub fn take(&mut self, part: wire::RestatementPart) -> Result<Option<Restatement>, Nonsense> {
        if let Some(report) = part.report {
            let gone = part.gone.iter().map(|id| instance_id(id));
            self.head = Some(Restatement {
                epoch: part.epoch,
                report: FromWire::from_wire(report)?,
                instances: Vec::new(),
                records: Vec::new(),
                gone: gone.collect::<Result<_, _>>()?,
                permits: all(part.permits)?,
            });
        }
        self.instances.extend(all::<InstanceView>(part.instances)?);
        let records = all::<SessionRecord>(part.records)?;
        self.records.extend(records.into_iter().map(Arc::new));
        if !part.last {
            return Ok(None);
        }
        let whole = std::mem::take(self);
        let head = whole.head.ok_or(Nonsense::Missing("report"))?;
        Ok(Some(Restatement {
            instances: whole.instances,
            records: whole.records,
            ..head
        }))
    }
}
