//! The Rust SDK's client, through the same steps as the programs of `dev/protocol/clients`.
#![expect(
    deprecated,
    reason = "2026-07-28 deprecates sampling; servers of earlier revisions ask for it"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rmcp::{
    ClientHandler, ClientLifecycleMode, ClientServiceExt as _, ErrorData, RoleClient,
    model::{
        CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ClientRequest,
        CreateMessageRequestParams, CreateMessageResult, ElicitRequestParams, ElicitResult,
        ElicitationAction, Implementation, ProgressNotificationParam, ProtocolVersion, Role,
        SamplingMessage, SamplingMessageContentBlock,
    },
    service::{NotificationContext, PeerRequestOptions, RequestContext, RunningService},
    transport::StreamableHttpClientTransport,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    documents::Backend,
    gateway::{Gateway, PATIENCE},
    tools::{self, Share},
};

/// How the client opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    Initialize,
    Auto,
    Discover,
}

impl Era {
    /// Those that can meet a server.
    pub(crate) fn all(modern: bool) -> Vec<Self> {
        if modern {
            vec![Self::Initialize, Self::Auto, Self::Discover]
        } else {
            vec![Self::Initialize, Self::Auto]
        }
    }

    fn mode(self) -> ClientLifecycleMode {
        let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
        match self {
            Self::Initialize => ClientLifecycleMode::Initialize,
            Self::Auto => ClientLifecycleMode::Auto {
                preferred_versions,
                legacy_version: None,
            },
            Self::Discover => ClientLifecycleMode::Discover { preferred_versions },
        }
    }
}

/// A user named Ada, who counts progress.
#[derive(Clone, Default)]
struct Ada(Arc<AtomicUsize>);

impl ClientHandler for Ada {
    async fn create_elicitation(
        &self,
        _request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(json!({"name": "Ada"})))
    }

    async fn create_message(
        &self,
        _params: CreateMessageRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let message =
            SamplingMessage::new(Role::Assistant, SamplingMessageContentBlock::text("Paris"));
        Ok(CreateMessageResult::new(message, "test".to_owned()))
    }

    async fn on_progress(
        &self,
        _params: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get_info(&self) -> ClientConfig {
        let able = ClientCapabilities::builder()
            .enable_elicitation()
            .enable_sampling()
            .build();
        ClientConfig::new(able, Implementation::new("rmcp", "3"))
    }
}

struct Client {
    ada: Ada,
    running: RunningService<RoleClient, Ada>,
    profile: Value,
}

impl Client {
    async fn connect(url: &str, era: Era, profile: &str) -> Result<Self, String> {
        let file = tools::root().join("dev/protocol/clients/profiles.json");
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        let profiles: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let ada = Ada::default();
        let transport = StreamableHttpClientTransport::from_uri(url);
        let running = ada
            .clone()
            .serve_with_lifecycle(transport, era.mode())
            .await;
        let running = running.map_err(|error| format!("connect: {error}"))?;
        Ok(Self {
            ada,
            running,
            profile: profiles[profile].clone(),
        })
    }

    fn params(&self, step: &str) -> CallToolRequestParams {
        let entry = &self.profile[step];
        let arguments = entry["arguments"].as_object().cloned().unwrap_or_default();
        CallToolRequestParams::new(entry["tool"].as_str().unwrap_or_default().to_owned())
            .with_arguments(arguments)
    }

    fn can(&self, step: &str) -> bool {
        self.profile.get(step).is_some()
    }

    async fn list(&self) -> Result<(), String> {
        let tools = self
            .running
            .list_all_tools()
            .await
            .map_err(|error| format!("list: {error}"))?;
        let wanted = self.profile["call"]["tool"].as_str().unwrap_or_default();
        if tools.iter().any(|tool| tool.name == wanted) {
            Ok(())
        } else {
            Err(format!("no tool {wanted} in the list"))
        }
    }

    async fn call(&self, step: &str) -> Result<(), String> {
        if !self.can(step) {
            return Ok(());
        }
        let answer = self
            .running
            .call_tool(self.params(step))
            .await
            .map_err(|error| format!("{step}: {error}"))?;
        let text = serde_json::to_string(&answer).map_err(|error| error.to_string())?;
        let wanted = self.profile[step]["expect"].as_str().unwrap_or_default();
        if text.contains(wanted) {
            Ok(())
        } else {
            Err(format!("{step}: {text:.300}"))
        }
    }

    async fn progress(&self) -> Result<(), String> {
        let before = self.ada.0.load(Ordering::Relaxed);
        self.call("progress").await?;
        if self.can("progress") && self.ada.0.load(Ordering::Relaxed) == before {
            return Err("progress: none was told".to_owned());
        }
        Ok(())
    }

    /// Cancels a long call once it has told of its progress; it is another's business that the server stops.
    async fn cancel(&self) -> Result<(), String> {
        if !self.can("cancel") {
            return Ok(());
        }
        let before = self.ada.0.load(Ordering::Relaxed);
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(self.params("cancel")));
        let call = self
            .running
            .send_cancellable_request(request, PeerRequestOptions::no_options())
            .await;
        let call = call.map_err(|error| format!("cancel: {error}"))?;
        let give_up = Instant::now() + PATIENCE;
        while self.ada.0.load(Ordering::Relaxed) == before {
            if Instant::now() > give_up {
                return Err("cancel: the call never told of its progress".to_owned());
            }
            sleep(Duration::from_millis(5)).await;
        }
        call.cancel(None)
            .await
            .map_err(|error| format!("cancel: {error}"))
    }

    async fn all(&self) -> Result<(), String> {
        self.list().await?;
        self.call("call").await?;
        self.progress().await?;
        self.cancel().await?;
        self.call("elicit").await?;
        self.call("sample").await
    }
}

/// All steps on one client, from cold and again after a nap; the revision it ended up with.
pub(crate) async fn run(
    gateway: &Gateway,
    backend: &str,
    profile: &str,
    era: Era,
) -> Result<String, String> {
    gateway.until_cold(backend).await;
    let whole = async {
        let client = Client::connect(&gateway.url(backend), era, profile).await?;
        client.all().await?;
        gateway.until_cold(backend).await;
        client
            .all()
            .await
            .map_err(|error| format!("after the nap: {error}"))?;
        let revision = client
            .running
            .peer_info()
            .map(|info| format!("{:?}", info.protocol_version));
        client
            .running
            .cancel()
            .await
            .map_err(|error| error.to_string())?;
        Ok(revision.unwrap_or_default())
    };
    timeout(2 * PATIENCE, whole)
        .await
        .unwrap_or_else(|_| Err("took too long".to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_client_meets_the_demo_server_in_every_era_from_cold_and_after_a_nap() {
    let demo = |name, transport| Backend::demo(name, transport).policy("idleTimeout", "300ms");
    let _turn = tools::turn(Share::Half).await;
    let gateway = Gateway::start(&[demo("stdio", "stdio"), demo("http", "streamable-http")]).await;
    for backend in ["stdio", "http"] {
        for era in Era::all(true) {
            let outcome = run(&gateway, backend, "demo", era).await;
            println!("{backend} {era:?}: {outcome:?}");
            assert!(outcome.is_ok(), "{backend} {era:?}: {outcome:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_client_begins_a_new_session_after_its_own_expired() {
    let demo = Backend::demo("demo", "stdio")
        .policy("idleTimeout", "300ms")
        .policy("onIdle", "expire");
    let _turn = tools::turn(Share::Half).await;
    let gateway = Gateway::start(&[demo]).await;
    let client = Client::connect(&gateway.url("demo"), Era::Initialize, "demo")
        .await
        .expect("connects");
    client.call("call").await.expect("an answer");
    gateway.until_cold("demo").await;
    client.call("call").await.expect("it begins anew by itself");
}
