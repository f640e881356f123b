//! Instances, and what the control plane says of them. A snapshot is cut into parts by [`snapshot_parts`] and put
//! together by [`Assembly`].

use std::sync::Arc;

use mcp_gateway_api::{
    ids::Generation,
    record::SessionRecord,
    slot::{Owner, SlotKey},
    view::{Endpoint, InstanceSecret, InstanceView, Lookup, Reach, Service, Stamp, ViewEvent},
};
use prost::Message as _;

use super::{
    FromWire, Nonsense, ToWire, all, backend_name, instance_bytes, instance_id, need, principal_id,
    session_key, shared, tenant_name, text,
};
use crate::scaler::{self as wire, endpoint, lookup_answer, slot_key, view_message};

/// A part of a snapshot or a restatement is closed once it is this large, in bytes: far below what a message may be, so
/// that one more instance or record always fits.
pub(crate) const PART: usize = 1 << 20;

impl ToWire for InstanceView {
    type Wire = wire::InstanceView;

    fn to_wire(&self) -> wire::InstanceView {
        wire::InstanceView {
            id: instance_bytes(self.id),
            slot: Some(self.slot.to_wire()),
            tenant: self.tenant.as_str().to_owned(),
            generation: self.generation.0,
            endpoint: Some(self.endpoint.to_wire()),
            service: self.service.to_wire() as i32,
            stamp: Some(self.stamp.to_wire()),
        }
    }
}

impl FromWire for InstanceView {
    type Wire = wire::InstanceView;

    fn from_wire(wire: wire::InstanceView) -> Result<Self, Nonsense> {
        Ok(Self {
            id: instance_id(&wire.id)?,
            slot: need("slot", wire.slot)?,
            tenant: tenant_name(&wire.tenant)?,
            generation: Generation(wire.generation),
            endpoint: need("endpoint", wire.endpoint)?,
            service: FromWire::from_wire(wire.service)?,
            stamp: need("stamp", wire.stamp)?,
        })
    }
}

impl ToWire for SlotKey {
    type Wire = wire::SlotKey;

    fn to_wire(&self) -> wire::SlotKey {
        let owner = match &self.owner {
            Owner::Session(key) => slot_key::Owner::Session(key.0.to_vec()),
            Owner::Principal(id) => slot_key::Owner::Principal(id.0.to_vec()),
            Owner::Tenant(name) => slot_key::Owner::Tenant(name.as_str().to_owned()),
            Owner::Nobody => slot_key::Owner::Nobody(wire::Nothing {}),
        };
        wire::SlotKey {
            backend: self.backend.as_str().to_owned(),
            owner: Some(owner),
        }
    }
}

impl FromWire for SlotKey {
    type Wire = wire::SlotKey;

    fn from_wire(wire: wire::SlotKey) -> Result<Self, Nonsense> {
        let owner = match wire.owner.ok_or(Nonsense::Missing("owner"))? {
            slot_key::Owner::Session(key) => Owner::Session(session_key(&key)?),
            slot_key::Owner::Principal(id) => Owner::Principal(principal_id(&id)?),
            slot_key::Owner::Tenant(name) => Owner::Tenant(tenant_name(&name)?),
            slot_key::Owner::Nobody(_) => Owner::Nobody,
        };
        Ok(Self {
            backend: backend_name(&wire.backend)?,
            owner,
        })
    }
}

impl ToWire for Endpoint {
    type Wire = wire::Endpoint;

    fn to_wire(&self) -> wire::Endpoint {
        let reach = match self.reach {
            Reach::Tcp(address) => endpoint::Reach::Tcp(address.to_string()),
            Reach::InProcess => endpoint::Reach::InProcess(wire::Nothing {}),
        };
        wire::Endpoint {
            reach: Some(reach),
            host: self.host.to_string(),
            path: self.path.to_string(),
            secret: self.secret.as_ref().map(|secret| secret.0.to_string()),
        }
    }
}

impl FromWire for Endpoint {
    type Wire = wire::Endpoint;

    fn from_wire(wire: wire::Endpoint) -> Result<Self, Nonsense> {
        let reach = match wire.reach.ok_or(Nonsense::Missing("reach"))? {
            endpoint::Reach::Tcp(address) => {
                let parsed = address.parse();
                Reach::Tcp(parsed.map_err(|_no_address| Nonsense::Malformed("address"))?)
            }
            endpoint::Reach::InProcess(_) => Reach::InProcess,
        };
        let secret = wire.secret.map(|secret| shared("secret", secret));
        Ok(Self {
            reach,
            host: shared("host", wire.host)?,
            path: shared("path", wire.path)?,
            secret: secret.transpose()?.map(InstanceSecret),
        })
    }
}

impl ToWire for Service {
    type Wire = wire::Service;

    fn to_wire(&self) -> wire::Service {
        match self {
            Self::Open => wire::Service::Open,
            Self::IdleDrain => wire::Service::IdleDrain,
            Self::RetireDrain => wire::Service::RetireDrain,
            Self::Cut => wire::Service::Cut,
        }
    }
}

impl FromWire for Service {
    type Wire = i32;

    fn from_wire(value: i32) -> Result<Self, Nonsense> {
        let field = "service";
        match wire::Service::try_from(value) {
            Err(_) | Ok(wire::Service::Unspecified) => Err(Nonsense::Unknown { field, value }),
            Ok(wire::Service::Open) => Ok(Self::Open),
            Ok(wire::Service::IdleDrain) => Ok(Self::IdleDrain),
            Ok(wire::Service::RetireDrain) => Ok(Self::RetireDrain),
            Ok(wire::Service::Cut) => Ok(Self::Cut),
        }
    }
}

impl ToWire for Lookup {
    type Wire = lookup_answer::Found;

    fn to_wire(&self) -> lookup_answer::Found {
        match self {
            Self::Ready(view) => lookup_answer::Found::Ready(view.to_wire()),
            Self::Gone => lookup_answer::Found::Gone(wire::Nothing {}),
            Self::Unknown => lookup_answer::Found::Unknown(wire::Nothing {}),
        }
    }
}

impl FromWire for Lookup {
    type Wire = lookup_answer::Found;

    fn from_wire(wire: lookup_answer::Found) -> Result<Self, Nonsense> {
        match wire {
            lookup_answer::Found::Ready(view) => Ok(Self::Ready(FromWire::from_wire(view)?)),
            lookup_answer::Found::Gone(_) => Ok(Self::Gone),
            lookup_answer::Found::Unknown(_) => Ok(Self::Unknown),
        }
    }
}

/// An event as the messages it takes: a snapshot may take several.
#[must_use]
pub fn view_messages(event: &ViewEvent) -> Vec<wire::ViewMessage> {
    let one = |what| vec![wire::ViewMessage { what: Some(what) }];
    match event {
        ViewEvent::Snapshot {
            stamp,
            complete,
            instances,
            records,
        } => snapshot_parts(*stamp, *complete, instances, records),
        ViewEvent::Instance(view) => one(view_message::What::Instance(view.to_wire())),
        ViewEvent::Gone {
            instance,
            why,
            stamp,
        } => one(view_message::What::Gone(wire::Gone {
            instance: instance_bytes(*instance),
            why: why.to_string(),
            stamp: Some(stamp.to_wire()),
        })),
        ViewEvent::Record(record) => one(view_message::What::Record(record.to_wire())),
        ViewEvent::Forget(key) => one(view_message::What::Forget(key.0.to_vec())),
    }
}

fn snapshot_parts(
    stamp: Stamp,
    complete: bool,
    instances: &[InstanceView],
    records: &[Arc<SessionRecord>],
) -> Vec<wire::ViewMessage> {
    let parts = parts(instances, records);
    let last = parts.len() - 1;
    let numbered = parts.into_iter().enumerate();
    numbered
        .map(|(at, (instances, records))| wire::SnapshotPart {
            stamp: Some(stamp.to_wire()),
            complete,
            instances,
            records,
            more: at < last,
        })
        .map(|part| wire::ViewMessage {
            what: Some(view_message::What::Snapshot(part)),
        })
        .collect()
}

type Part = (Vec<wire::InstanceView>, Vec<wire::SessionRecord>);

/// Instances and records in parts of bounded size, at least one.
pub(crate) fn parts(instances: &[InstanceView], records: &[Arc<SessionRecord>]) -> Vec<Part> {
    let mut parts = vec![Part::default()];
    let mut size = 0;
    let mut room = |parts: &mut Vec<Part>, more: usize| {
        size += more;
        if size > PART {
            parts.push(Part::default());
            size = more;
        }
    };
    for view in instances.iter().map(ToWire::to_wire) {
        room(&mut parts, view.encoded_len());
        if let Some(part) = parts.last_mut() {
            part.0.push(view);
        }
    }
    for record in records.iter().map(|record| record.to_wire()) {
        room(&mut parts, record.encoded_len());
        if let Some(part) = parts.last_mut() {
            part.1.push(record);
        }
    }
    parts
}

/// Puts snapshots together; lets other events through.
#[derive(Debug, Default)]
pub struct Assembly {
    instances: Vec<InstanceView>,
    records: Vec<Arc<SessionRecord>>,
}

impl Assembly {
    /// Takes one message; an event, if it is whole with it.
    ///
    /// # Errors
    /// Names the field that makes no sense.
    pub fn take(&mut self, message: wire::ViewMessage) -> Result<Option<ViewEvent>, Nonsense> {
        let what = message.what.ok_or(Nonsense::Missing("event"))?;
        let event = match what {
            view_message::What::Welcome(_) => return Ok(None),
            view_message::What::Snapshot(part) => return self.part(part),
            view_message::What::Instance(view) => ViewEvent::Instance(FromWire::from_wire(view)?),
            view_message::What::Gone(gone) => ViewEvent::Gone {
                instance: instance_id(&gone.instance)?,
                why: text("why", gone.why)?.into(),
                stamp: need("stamp", gone.stamp)?,
            },
            view_message::What::Record(record) => {
                ViewEvent::Record(Arc::new(FromWire::from_wire(record)?))
            }
            view_message::What::Forget(key) => ViewEvent::Forget(session_key(&key)?),
        };
        Ok(Some(event))
    }

    fn part(&mut self, part: wire::SnapshotPart) -> Result<Option<ViewEvent>, Nonsense> {
        self.instances.extend(all::<InstanceView>(part.instances)?);
        let records = all::<SessionRecord>(part.records)?;
        self.records.extend(records.into_iter().map(Arc::new));
        if part.more {
            return Ok(None);
        }
        let whole = std::mem::take(self);
        Ok(Some(ViewEvent::Snapshot {
            stamp: need("stamp", part.stamp)?,
            complete: part.complete,
            instances: whole.instances,
            records: whole.records,
        }))
    }
}
