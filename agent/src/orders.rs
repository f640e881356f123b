//! From the orders of home to what is to be run. Pure.

use std::{path::PathBuf, time::Duration};

use mcp_gateway_api::{
    backend::{EnvValue, EnvVar, LaunchSpec, Transport},
    failure::ExitReport,
    ids::BackendName,
    view::InstanceSecret,
};
use mcp_gateway_link::agent::{self as proto, Orders};

/// What is to be run here.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// For which backend.
    pub(crate) backend: BackendName,
    /// How it starts.
    pub(crate) launch: LaunchSpec,
    /// Where it listens.
    pub(crate) port: u16,
    /// From a stdio child's first request to its first message.
    pub(crate) start_timeout: Duration,
    /// What requests to a bridge must bear.
    pub(crate) secret: Option<InstanceSecret>,
    /// Longest request body of a bridge, in bytes.
    pub(crate) max_body: usize,
}

fn refused(summary: impl Into<String>) -> ExitReport {
    ExitReport {
        summary: summary.into(),
        ..ExitReport::default()
    }
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl Task {
    /// The `Host` header of this server.
    pub(crate) fn host(&self) -> String {
        let given = self.launch.host.clone();
        given.unwrap_or_else(|| format!("localhost:{}", self.port))
    }
}

/// Reads orders; `image_command` is what the image itself would run, for orders that name no command.
///
/// # Errors
/// A sentence on why they cannot be carried out.
pub(crate) fn read(orders: Orders, image_command: &[String]) -> Result<Task, ExitReport> {
    let transport = match orders.transport() {
        proto::Transport::Stdio => Transport::Stdio,
        proto::Transport::StreamableHttp => Transport::StreamableHttp,
        proto::Transport::Sse => Transport::Sse,
        proto::Transport::Unspecified => {
            return Err(refused(format!(
                "its orders name a transport that this agent ({}) does not know: use an agent image as new as the gateway",
                env!("CARGO_PKG_VERSION")
            )));
        }
    };
    let backend = BackendName::new(&orders.backend)
        .map_err(|_invalid| refused("its orders name no backend"))?;
    let port = u16::try_from(orders.port)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| refused(format!("its orders name {} as port", orders.port)))?;
    let command = if orders.command.is_empty() {
        image_command.to_vec()
    } else {
        orders.command
    };
    let env = orders.env.into_iter().map(|(name, value)| EnvVar {
        name,
        value: EnvValue::Literal(value),
    });
    Ok(Task {
        backend,
        port,
        start_timeout: Duration::from_millis(orders.start_timeout_ms),
        secret: filled(orders.instance_secret).map(|secret| InstanceSecret(secret.into())),
        max_body: usize::try_from(orders.max_body).unwrap_or(usize::MAX),
        launch: LaunchSpec {
            image: None,
            port: Some(port),
            pod: std::sync::Arc::default(),
            command,
            args: orders.args,
            working_dir: filled(orders.working_dir).map(PathBuf::from),
            env: env.collect(),
            transport,
            path: filled(orders.path).unwrap_or_else(|| "/mcp".to_owned()),
            host: filled(orders.host),
            health_path: filled(orders.health_path),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> Orders {
        Orders {
            backend: "demo".into(),
            transport: proto::Transport::StreamableHttp.into(),
            port: 8000,
            ..Orders::default()
        }
    }

    #[test]
    fn the_images_command_serves_where_the_orders_name_none() {
        let image = ["node".to_owned(), "server.js".to_owned()];
        assert_eq!(read(orders(), &image).unwrap().launch.command, image);
        let named = Orders {
            command: vec!["other".into()],
            ..orders()
        };
        assert_eq!(read(named, &image).unwrap().launch.command, ["other"]);
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_with_a_sentence() {
        for (wrong, said) in [
            (
                Orders {
                    port: 0,
                    ..orders()
                },
                "port",
            ),
            (
                Orders {
                    port: 70_000,
                    ..orders()
                },
                "70000",
            ),
            (
                Orders {
                    transport: 99,
                    ..orders()
                },
                "transport",
            ),
            (
                Orders {
                    backend: "../x".into(),
                    ..orders()
                },
                "backend",
            ),
        ] {
            let report = read(wrong, &[]).unwrap_err();
            assert!(report.summary.contains(said), "{}", report.summary);
        }
    }

    #[test]
    fn what_is_empty_takes_its_default() {
        let task = read(orders(), &[]).unwrap();
        assert_eq!(
            (task.launch.path.as_str(), task.host().as_str()),
            ("/mcp", "localhost:8000")
        );
        assert_eq!(task.secret, None);
    }
}
