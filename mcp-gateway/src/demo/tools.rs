//! The demo server's tools: one for each thing a gateway can get wrong.
//!
//! A legacy session has a counter of its own, born and lost with this value; a
//! modern exchange has no session, so the counter of the process stands in.
//! Whatever a caller can make large or long has a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rmcp::handler::server::tool::InputResponses;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    CallToolResponse, CallToolResult, ContentBlock, ElicitRequest, ElicitRequestParams,
    ElicitationSchema, Implementation, InputRequest, InputRequests, InputRequiredResult,
    ProgressNotificationParam, ProtocolVersion, ServerCapabilities, ServerConfig,
};
use rmcp::schemars::{self, JsonSchema};
use rmcp::service::{ElicitationError, RequestContext};
use rmcp::{ErrorData, RoleServer, ServerHandler, tool, tool_handler, tool_router};
use serde::{Deserialize, Serialize};

/// Longest run of `slow`.
const MAX_STEPS: u32 = 600;
/// Longest pause between two steps of `slow`.
const MAX_STEP: Duration = Duration::from_secs(10);
/// Largest answer of `big`, in bytes.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Key of the one question `elicit` asks in a modern exchange.
const QUESTION: &str = "name";
/// What `elicit` asks.
const PROMPT: &str = "What is your name?";

/// One session's worth of demo server.
#[derive(Clone, Debug)]
pub(super) struct DemoServer {
    session_count: Arc<AtomicU64>,
    process_count: Arc<AtomicU64>,
}

impl DemoServer {
    /// A server whose own counter starts at nothing; `process_count` is shared by
    /// all exchanges that have no session.
    pub(super) fn new(process_count: Arc<AtomicU64>) -> Self {
        Self {
            session_count: Arc::default(),
            process_count,
        }
    }
}

/// Arguments of `echo`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Echo {
    /// What to send back.
    message: String,
}

/// Arguments of `slow`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Slow {
    /// How many steps to take, at most 600.
    #[serde(default = "five")]
    steps: u32,
    /// Pause before each step in milliseconds, at most 10,000.
    #[serde(default = "quarter_second")]
    step_ms: u64,
}

fn five() -> u32 {
    5
}

fn quarter_second() -> u64 {
    250
}

/// Arguments of `big`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Big {
    /// How many bytes of text to answer with, at most 16 MiB.
    bytes: usize,
}

/// What `elicit` asks for.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Name {
    /// The name to greet.
    name: String,
}
rmcp::elicit_safe!(Name);

#[tool_router]
impl DemoServer {
    #[tool(description = "Send a message back")]
    async fn echo(&self, Parameters(Echo { message }): Parameters<Echo>) -> String {
        message
    }

    #[tool(description = "Count the calls of this session: a server with a memory")]
    async fn counter(&self, context: RequestContext<RoleServer>) -> String {
        let counter = if is_modern(&context) {
            &self.process_count
        } else {
            &self.session_count
        };
        (counter.fetch_add(1, Ordering::Relaxed) + 1).to_string()
    }

    #[tool(description = "Work for a while, telling of the progress; can be cancelled")]
    async fn slow(
        &self,
        Parameters(Slow { steps, step_ms }): Parameters<Slow>,
        context: RequestContext<RoleServer>,
    ) -> Result<String, ErrorData> {
        let steps = steps.min(MAX_STEPS);
        let pause = Duration::from_millis(step_ms).min(MAX_STEP);
        for step in 1..=steps {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = context.ct.cancelled() => {
                    return Err(ErrorData::internal_error("cancelled", None));
                }
            }
            tell_progress(&context, step, steps).await;
        }
        Ok(format!("done in {steps} steps"))
    }

    #[tool(description = "Answer with a text of the given size")]
    async fn big(&self, Parameters(Big { bytes }): Parameters<Big>) -> String {
        "0123456789abcdef"
            .chars()
            .cycle()
            .take(bytes.min(MAX_BYTES))
            .collect()
    }

    #[tool(description = "Ask the user's name and greet them: a round trip inside a call")]
    async fn elicit(
        &self,
        InputResponses(responses): InputResponses,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if is_modern(&context) {
            return elicit_by_round_trip(responses.as_ref().and_then(|all| all.get(QUESTION)));
        }
        let greeting = match context.peer.elicit::<Name>(PROMPT).await {
            Ok(Some(Name { name })) => format!("Hello, {name}!"),
            Ok(None) | Err(ElicitationError::NoContent) => "Hello, whoever you are!".to_owned(),
            Err(ElicitationError::UserDeclined | ElicitationError::UserCancelled) => {
                "As you wish.".to_owned()
            }
            Err(error) => return Err(ErrorData::invalid_request(error.to_string(), None)),
        };
        Ok(text(greeting).into())
    }
}

/// 2026-07-28 forbids a server's own requests: the question is the first answer,
/// and the client calls again with what it was told.
fn elicit_by_round_trip(
    response: Option<&serde_json::Value>,
) -> Result<CallToolResponse, ErrorData> {
    let Some(response) = response else {
        let requested_schema = ElicitationSchema::from_type::<Name>()
            .map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        let question = InputRequest::Elicitation(ElicitRequest::new(
            ElicitRequestParams::FormElicitationParams {
                meta: None,
                message: PROMPT.to_owned(),
                requested_schema,
            },
        ));
        let questions = InputRequests::from([(QUESTION.to_owned(), question)]);
        return Ok(InputRequiredResult::new(Some(questions), Some("asked".to_owned())).into());
    };
    let name = (response["action"] == "accept")
        .then(|| response["content"]["name"].as_str())
        .flatten();
    Ok(text(match name {
        Some(name) => format!("Hello, {name}!"),
        None => "As you wish.".to_owned(),
    })
    .into())
}

fn text(text: String) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}

fn is_modern(context: &RequestContext<RoleServer>) -> bool {
    context
        .protocol_version()
        .is_some_and(|version| version >= ProtocolVersion::V_2026_07_28)
}

/// Tells a caller who asked for it; one who is gone is not an error here.
async fn tell_progress(context: &RequestContext<RoleServer>, step: u32, steps: u32) {
    let Some(token) = context.meta.get_progress_token() else {
        return;
    };
    let progress = ProgressNotificationParam::new(token, f64::from(step))
        .with_total(f64::from(steps))
        .with_message(format!("step {step} of {steps}"));
    if let Err(error) = context.peer.notify_progress(progress).await {
        tracing::debug!(%error, "progress was not delivered");
    }
}

#[tool_handler]
impl ServerHandler for DemoServer {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new(
                "mcp-gateway-demo",
                env!("CARGO_PKG_VERSION"),
            ))
            .with_instructions("Try echo, counter, slow, big and elicit.")
    }
}
