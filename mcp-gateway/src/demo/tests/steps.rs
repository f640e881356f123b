//! A real client, and what it does with a demo server, step by step.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ClientRequest,
    ElicitRequestParams, ElicitResult, ElicitationAction, Implementation,
    ProgressNotificationParam, ProtocolVersion, ServerResult,
};
use rmcp::service::{NotificationContext, PeerRequestOptions, RequestContext, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{
    ClientHandler, ClientLifecycleMode, ClientServiceExt as _, ErrorData, RoleClient, ServiceError,
};
use serde_json::{Value, json};

/// Answers elicitations as Ferris, and counts progress.
#[derive(Clone, Default)]
pub(super) struct Ferris {
    /// Progress notifications so far.
    pub(super) progress: Arc<AtomicUsize>,
}

impl ClientHandler for Ferris {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(
            ClientCapabilities::builder().enable_elicitation().build(),
            Implementation::new("ferris", "1.0.0"),
        )
    }

    async fn create_elicitation(
        &self,
        _request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(json!({"name": "Ferris"})))
    }

    async fn on_progress(
        &self,
        _progress: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connected client.
pub(super) type Client = RunningService<RoleClient, Ferris>;

/// Only `initialize`, as every client before 2026-07-28.
pub(super) fn legacy() -> ClientLifecycleMode {
    ClientLifecycleMode::Initialize
}

/// Only `server/discover`.
pub(super) fn modern() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
    }
}

/// Connects; the client's own session recovery is off, so that what the tests see
/// is what the server did.
pub(super) async fn connect(url: &str, lifecycle: ClientLifecycleMode) -> Client {
    let config = StreamableHttpClientTransportConfig::with_uri(url.to_owned())
        .reinit_on_expired_session(false);
    Ferris::default()
        .serve_with_lifecycle(
            StreamableHttpClientTransport::from_config(config),
            lifecycle,
        )
        .await
        .expect("the client connects")
}

fn request(tool: &'static str, arguments: Value) -> CallToolRequestParams {
    let Value::Object(arguments) = arguments else {
        panic!("arguments are an object, not {arguments}");
    };
    CallToolRequestParams::new(tool).with_arguments(arguments)
}

/// Calls a tool and gives its text.
pub(super) async fn call(client: &Client, tool: &'static str, arguments: Value) -> String {
    try_call(client, tool, arguments)
        .await
        .expect("the call succeeds")
}

/// Calls a tool and gives its text, or why there is none.
pub(super) async fn try_call(
    client: &Client,
    tool: &'static str,
    arguments: Value,
) -> Result<String, ServiceError> {
    let result = client.call_tool(request(tool, arguments)).await?;
    Ok(result
        .content
        .iter()
        .filter_map(|block| block.as_text())
        .map(|text| text.text.as_str())
        .collect())
}

/// The counter's next value.
pub(super) async fn count(client: &Client) -> u64 {
    call(client, "counter", json!({}))
        .await
        .parse()
        .expect("a number")
}

/// Cancels a call that would take ten minutes.
pub(super) async fn cancel(client: &Client) {
    let call = ClientRequest::CallToolRequest(CallToolRequest::new(request(
        "slow",
        json!({"steps": 600, "step_ms": 1000}),
    )));
    let handle = client
        .send_cancellable_request(call, PeerRequestOptions::no_options())
        .await
        .expect("the call is sent");
    handle
        .cancel(Some("the test is over".to_owned()))
        .await
        .expect("the call is cancelled");
}

/// Everything a client does with a server it has just met, in order.
pub(super) async fn all(client: &Client) {
    let tools = client.list_all_tools().await.expect("tools are listed");
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    for tool in ["echo", "counter", "slow", "big", "elicit"] {
        assert!(names.contains(&tool), "{tool} is not among {names:?}");
    }
    assert_eq!(
        call(client, "echo", json!({"message": "hello"})).await,
        "hello"
    );
    let first = count(client).await;
    assert_eq!(count(client).await, first + 1);
    assert_eq!(
        call(client, "big", json!({"bytes": 300_000})).await.len(),
        300_000
    );

    let before = client.service().progress.load(Ordering::Relaxed);
    let slow = client
        .send_request(ClientRequest::CallToolRequest(CallToolRequest::new(
            request("slow", json!({"steps": 3, "step_ms": 10})),
        )))
        .await
        .expect("slow answers");
    assert!(matches!(slow, ServerResult::CallToolResult(_)), "{slow:?}");
    let told = client.service().progress.load(Ordering::Relaxed) - before;
    assert_eq!(told, 3, "one notification for each step");

    cancel(client).await;
    assert_eq!(call(client, "elicit", json!({})).await, "Hello, Ferris!");
}

/// Ends the client within a moment.
pub(super) async fn close(client: Client) {
    tokio::time::timeout(Duration::from_secs(10), client.cancel())
        .await
        .expect("the client closes in time")
        .expect("the client closes");
}
