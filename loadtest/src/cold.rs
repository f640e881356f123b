//! Cold starts: from the first request to its answer, through the gateway and by
//! hand, one after the other.
//!
//! By hand means what a person would write to be quick: spawn the server, knock
//! until it accepts, send `initialize`, read the answer. Both sides send the same
//! request and both start from nothing; the gateway's backend must have
//! `isolation: session`, so that every `initialize` finds no instance.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rand::Rng as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::client::Client;
use crate::section::{Cold, ColdPair};
use crate::target::Target;

/// How long a start may take.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two knocks by hand.
const KNOCK: Duration = Duration::from_micros(500);

/// How the server started by hand is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// Streamable HTTP at `http://127.0.0.1:$PORT/mcp`.
    Http,
    /// Lines on stdin and stdout.
    Stdio,
}

/// What to start, and how often.
#[derive(Clone, Debug)]
pub struct Options {
    /// What was measured, for the report.
    pub title: String,
    /// The gateway's endpoint of a backend with `isolation: session`.
    pub gateway: Target,
    /// How the server speaks.
    pub transport: Transport,
    /// Program and arguments of the same server.
    pub command: Vec<String>,
    /// How many pairs.
    pub samples: usize,
}

/// Runs all pairs; which side goes first alternates.
///
/// # Errors
/// A start fails or takes longer than a minute.
pub async fn run(options: &Options) -> anyhow::Result<Cold> {
    let mut pairs = Vec::with_capacity(options.samples);
    for sample in 0..=options.samples {
        // A random pause, so that no sample is in step with a period of anything.
        sleep(Duration::from_micros(rand::rng().random_range(0..20_000))).await;
        let pair = if sample % 2 == 0 {
            let by_hand_millis = by_hand(options).await?;
            ColdPair {
                by_hand_millis,
                gateway_millis: through(&options.gateway).await?,
            }
        } else {
            let gateway_millis = through(&options.gateway).await?;
            ColdPair {
                by_hand_millis: by_hand(options).await?,
                gateway_millis,
            }
        };
        // The first pair only fills caches.
        if sample > 0 {
            progress(options, sample, &pair);
            pairs.push(pair);
        }
    }
    Ok(Cold {
        title: options.title.clone(),
        pairs,
    })
}

#[expect(clippy::print_stderr, reason = "progress of a command-line tool")]
fn progress(options: &Options, sample: usize, pair: &ColdPair) {
    if sample.is_multiple_of(5) {
        eprintln!(
            "{}: {sample}/{}  by hand {:.1} ms, gateway {:.1} ms",
            options.title, options.samples, pair.by_hand_millis, pair.gateway_millis
        );
    }
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

async fn through(gateway: &Target) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut client = Client::connect(gateway).await?;
    timeout(START_TIMEOUT, client.initialize())
        .await
        .context("through the gateway")??;
    let taken = millis(start);
    client.delete().await?;
    Ok(taken)
}

async fn by_hand(options: &Options) -> anyhow::Result<f64> {
    let start = Instant::now();
    let (mut child, taken) = match options.transport {
        Transport::Http => http_by_hand(options, start).await?,
        Transport::Stdio => stdio_by_hand(options, start).await?,
    };
    child.kill().await?;
    Ok(taken)
}

fn command(options: &Options) -> anyhow::Result<Command> {
    let [program, arguments @ ..] = options.command.as_slice() else {
        bail!("no command was given after --");
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stderr(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}

async fn http_by_hand(options: &Options, start: Instant) -> anyhow::Result<(Child, f64)> {
    let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
    let child = command(options)?
        .env("HOST", "127.0.0.1")
        .env("PORT", port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| options.command.join(" "))?;
    let target: Target = format!("by hand=http://127.0.0.1:{port}/mcp").parse()?;
    let mut client = loop {
        match Client::connect(&target).await {
            Ok(client) => break client,
            Err(error) if start.elapsed() > START_TIMEOUT => return Err(error),
            Err(_) => sleep(KNOCK).await,
        }
    };
    client.initialize().await?;
    Ok((child, millis(start)))
}

async fn stdio_by_hand(options: &Options, start: Instant) -> anyhow::Result<(Child, f64)> {
    const INITIALIZE: &[u8] = b"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},\"clientInfo\":{\"name\":\"mcp-gateway-loadtest\",\"version\":\"0\"}}}\n";
    let mut child = command(options)?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| options.command.join(" "))?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        bail!("the child has no pipes");
    };
    input.write_all(INITIALIZE).await?;
    let mut line = String::new();
    timeout(START_TIMEOUT, BufReader::new(output).read_line(&mut line)).await??;
    if !line.contains("\"result\"") {
        bail!("the server by hand answered {line}");
    }
    Ok((child, millis(start)))
}
