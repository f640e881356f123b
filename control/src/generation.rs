//! The generation of a backend: a hash of what would start.
//!
//! Every part is prefixed with its length, so that no two different launches share a stream of bytes.

use mcp_gateway_api::{
    backend::{EnvValue, LaunchSpec, PodOptions, Transport},
    ids::Generation,
    policy::Isolation,
};
use sha2::{Digest, Sha256};

struct Stream(Sha256);

impl Stream {
    fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
    }

    fn maybe(&mut self, text: Option<&str>) {
        self.0.update([u8::from(text.is_some())]);
        self.text(text.unwrap_or_default());
    }

    fn count(&mut self, count: usize) {
        self.0.update((count as u64).to_be_bytes());
    }
}

/// What a pod is made of, beyond what a process is. A process's launch adds nothing, so that its generation stays.
fn pod(stream: &mut Stream, launch: &LaunchSpec) {
    let LaunchSpec {
        image, port, pod, ..
    } = launch;
    if image.is_none() && port.is_none() && **pod == PodOptions::default() {
        return;
    }
    stream.maybe(image.as_deref());
    stream.count(usize::from(port.unwrap_or_default()));
    // Ordered maps and plain values: equal ones read alike.
    stream.text(&format!("{pod:?}"));
}

/// The generation of this launch under this isolation.
pub(crate) fn of(launch: &LaunchSpec, isolation: Isolation) -> Generation {
    let mut stream = Stream(Sha256::new());
    for list in [&launch.command, &launch.args] {
        stream.count(list.len());
        list.iter().for_each(|part| stream.text(part));
    }
    let dir = launch.working_dir.as_ref().map(|dir| dir.to_string_lossy());
    stream.maybe(dir.as_deref());
    stream.count(launch.env.len());
    for var in &launch.env {
        stream.text(&var.name);
        let (kind, value, key) = match &var.value {
            EnvValue::Literal(value) => ("literal", value, None),
            EnvValue::FromEnv(name) => ("env", name, None),
            EnvValue::FromSecret(from) => ("secret", &from.name, Some(from)),
            EnvValue::FromConfigMap(from) => ("config map", &from.name, Some(from)),
        };
        stream.text(kind);
        stream.text(value);
        if let Some(from) = key {
            stream.text(&from.key);
            stream.count(usize::from(from.optional));
        }
    }
    stream.text(match launch.transport {
        Transport::Stdio => "stdio",
        Transport::StreamableHttp => "streamable-http",
        Transport::Sse => "sse",
    });
    stream.text(&launch.path);
    stream.maybe(launch.host.as_deref());
    stream.maybe(launch.health_path.as_deref());
    pod(&mut stream, launch);
    stream.text(match isolation {
        Isolation::Session => "session",
        Isolation::Tenant => "tenant",
        Isolation::Shared => "shared",
    });
    let digest = stream.0.finalize();
    let first = digest.iter().take(8);
    Generation(first.fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}
