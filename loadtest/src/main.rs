//! `mcp-gateway-loadtest`: measure, then report. Each measurement writes one
//! section; `report` turns any number of them into tables and drawings.

mod on_pods;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use mcp_gateway_loadtest::section::{AtRest, Section};
use mcp_gateway_loadtest::target::{Pids, Target};
use mcp_gateway_loadtest::{
    chaos, client, cold, lean, process, report, sessions, spread, warm, witness,
};
use tokio::net::TcpListener;

/// Measures the gateway beside what it competes with.
#[derive(Debug, Parser)]
#[command(version, about)]
enum Cli {
    /// Closed loop of tools/call over kept connections, the targets in turn.
    Warm(WarmArgs),
    /// First request to first answer, through the gateway and by hand in turn.
    Cold(ColdArgs),
    /// Cold starts of pods on the cluster of $KUBECONFIG, every road in turn.
    ColdPods(on_pods::ColdPodsArgs),
    /// Many cold sessions at once against as many bare pods.
    BurstPods(on_pods::BurstPodsArgs),
    /// What live sessions cost that nobody uses.
    Sessions(SessionsArgs),
    /// Resident memory of processes now.
    Memory(MemoryArgs),
    /// Sections into a report: Markdown, SVG and JSON.
    Report(ReportArgs),
    /// A proxy on loopback that sends each request to one of several upstreams, at random; prints its URL.
    Spread(SpreadArgs),
    /// Kills one thing after the other under load, on a real cluster.
    Chaos(chaos::command::ChaosArgs),
    /// The leanest MCP server, at http://$HOST:$PORT/mcp.
    #[command(subcommand)]
    Serve(ServeArgs),
    /// Prints ports of 127.0.0.1 that are free now, one a line.
    FreePorts {
        /// How many, all different.
        count: u16,
    },
}

#[derive(Debug, Args)]
struct WarmArgs {
    /// NAME=URL; the first is what the others are compared with.
    #[arg(long = "target", required = true)]
    targets: Vec<Target>,
    /// NAME=PID[,PID...]: processes whose CPU time counts for that target.
    #[arg(long = "pid")]
    pids: Vec<Pids>,
    /// Kept connections per target.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Rounds that count.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Length of a round in milliseconds.
    #[arg(long, default_value_t = 1_000)]
    round_ms: u64,
    /// The tool to call.
    #[arg(long, default_value = "echo")]
    tool: String,
    /// Its arguments, as JSON.
    #[arg(long, default_value = r#"{"message":"hello"}"#)]
    arguments: String,
    /// What the report calls it.
    #[arg(long)]
    title: String,
    /// The section's file.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct ColdArgs {
    /// NAME=URL of a backend with `isolation: session`.
    #[arg(long)]
    gateway: Target,
    /// How the server is spoken to when started by hand.
    #[arg(long, value_enum)]
    transport: cold::Transport,
    /// How many pairs.
    #[arg(long, default_value_t = 30)]
    samples: usize,
    /// What the report calls it.
    #[arg(long)]
    title: String,
    /// The section's file.
    #[arg(long)]
    out: PathBuf,
    /// Program and arguments of the same server.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct SessionsArgs {
    /// NAME=URL of a backend whose sessions share an instance.
    #[arg(long)]
    target: Target,
    /// NAME=PID[,PID...]: whose memory counts.
    #[arg(long)]
    pid: Pids,
    /// How many sessions.
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// What the report calls it.
    #[arg(long)]
    title: String,
    /// The section's file.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct MemoryArgs {
    /// NAME=PID[,PID...], one row each.
    #[arg(long = "pid", required = true)]
    pids: Vec<Pids>,
    /// What the report calls it.
    #[arg(long)]
    title: String,
    /// The section's file.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct ReportArgs {
    /// A line about the machine or the versions.
    #[arg(long = "note")]
    notes: Vec<String>,
    /// The report's files, without their ending.
    #[arg(long)]
    out: PathBuf,
    /// Section files, in the order of the report.
    #[arg(required = true)]
    sections: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct SpreadArgs {
    /// Loopback address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// API key of requests that bring no Authorization of their own.
    #[arg(long, env = "MCP_GATEWAY_SPREAD_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Seed of the random choice [default: another each time].
    #[arg(long)]
    seed: Option<u64>,
    /// Most connections of clients at once; more wait.
    #[arg(long, default_value_t = 1024)]
    connections: usize,
    /// `http://HOST:PORT` of each upstream.
    #[arg(required = true)]
    upstreams: Vec<spread::Upstream>,
}

#[derive(Debug, Subcommand)]
enum ServeArgs {
    /// Says of each call where it ran and for whom, and tells a collector.
    Witness {
        /// Address to listen on.
        #[arg(long, env = "HOST", default_value = "127.0.0.1")]
        host: IpAddr,
        /// Port to listen on.
        #[arg(long, env = "PORT", default_value_t = 8000)]
        port: u16,
        /// The collector.
        #[arg(long, env = "WITNESS_TELL")]
        tell: Option<SocketAddr>,
    },
    /// Answers every request with the same small JSON result.
    Lean {
        /// Address to listen on.
        #[arg(long, env = "HOST", default_value = "127.0.0.1")]
        host: IpAddr,
        /// Port to listen on.
        #[arg(long, env = "PORT", default_value_t = 8000)]
        port: u16,
    },
}

// One thread: the load must cost as little of the machine as it can.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Cli::parse() {
        Cli::Warm(args) => {
            let options = warm::Options {
                body: client::tools_call(&args.tool, &args.arguments)?,
                title: args.title,
                targets: args.targets,
                pids: args.pids,
                connections: args.connections,
                rounds: args.rounds,
                round: Duration::from_millis(args.round_ms),
            };
            write_section(&args.out, &Section::Warm(warm::run(&options).await?))
        }
        Cli::Cold(args) => {
            let options = cold::Options {
                title: args.title,
                gateway: args.gateway,
                transport: args.transport,
                command: args.command,
                samples: args.samples,
            };
            write_section(&args.out, &Section::Cold(cold::run(&options).await?))
        }
        Cli::Sessions(args) => {
            let options = sessions::Options {
                title: args.title,
                target: args.target,
                pids: args.pid,
                count: args.count,
            };
            write_section(
                &args.out,
                &Section::Sessions(sessions::run(&options).await?),
            )
        }
        Cli::ColdPods(args) => on_pods::cold(args).await,
        Cli::BurstPods(args) => on_pods::burst(args).await,
        Cli::Memory(args) => write_section(
            &args.out,
            &Section::Memory(at_rest(args.title, &args.pids)?),
        ),
        Cli::Report(args) => write_report(&args),
        Cli::Chaos(args) => chaos::command::command(args).await,
        Cli::Serve(ServeArgs::Witness { host, port, tell }) => {
            let listener = TcpListener::bind((host, port)).await?;
            let host = std::env::var("HOSTNAME").unwrap_or_default();
            let name = format!("{host}.{:08x}", rand::random::<u32>());
            let witness = witness::Witness::new(name, tell).await?;
            witness::serve(listener, Arc::new(witness)).await;
            Ok(())
        }
        Cli::Serve(ServeArgs::Lean { host, port }) => {
            let address = SocketAddr::new(host, port);
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address}"))?;
            lean::serve(listener).await;
            Ok(())
        }
        Cli::Spread(args) => spread(args).await,
        Cli::FreePorts { count } => free_ports(count).await,
    }
}

#[expect(clippy::print_stdout, reason = "the URL is this command's answer")]
async fn spread(args: SpreadArgs) -> anyhow::Result<()> {
    let proxy = spread::Spread::new(spread::Options {
        upstreams: args.upstreams,
        key: args.key,
        seed: args.seed,
        connections: args.connections,
    })?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("http://{}", listener.local_addr()?);
    match proxy.serve(listener).await? {}
}

#[expect(clippy::print_stdout, reason = "the ports are this command's answer")]
async fn free_ports(count: u16) -> anyhow::Result<()> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(TcpListener::bind("127.0.0.1:0").await?);
    }
    for listener in &held {
        println!("{}", listener.local_addr()?.port());
    }
    Ok(())
}

fn at_rest(title: String, pids: &[Pids]) -> anyhow::Result<AtRest> {
    let rows = pids
        .iter()
        .map(|named| {
            let memory = process::memory(&named.pids)
                .with_context(|| format!("no memory of {} can be read", named.name))?;
            Ok((named.name.clone(), memory))
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(AtRest { title, rows })
}

fn write_section(path: &Path, section: &Section) -> anyhow::Result<()> {
    write(path, &serde_json::to_string_pretty(section)?)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[expect(clippy::print_stdout, reason = "the report is this command's answer")]
fn write_report(args: &ReportArgs) -> anyhow::Result<()> {
    let sections = args
        .sections
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{} is no section", path.display()))
        })
        .collect::<anyhow::Result<_>>()?;
    let report = report::report(sections, args.notes.clone());
    let text = report::markdown(&report);
    write(&args.out.with_extension("md"), &text)?;
    write(&args.out.with_extension("svg"), &report::svg(&report))?;
    write(
        &args.out.with_extension("json"),
        &serde_json::to_string_pretty(&report)?,
    )?;
    print!("{text}");
    Ok(())
}
