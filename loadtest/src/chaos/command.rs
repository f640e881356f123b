//! `mcp-gateway-loadtest chaos`: the full set, and its report.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::fault::Fault;
use super::load::Rates;
use super::site::Form;
use super::{Options, report, run, timeline};

/// Kills one thing after the other under load, on a real cluster.
#[derive(Debug, clap::Args)]
pub struct ChaosArgs {
    /// What the gateway runs as.
    #[arg(long, value_enum, default_value_t)]
    form: Form,
    /// The gateway's binary; with --form pods it only helps to install the image's.
    #[arg(long, default_value = "target/debug/mcp-gateway")]
    gateway: PathBuf,
    /// What --form pods installs.
    #[arg(long, default_value = "dev/manifests")]
    manifests: PathBuf,
    /// The cluster; it needs the images witness and agent (dev/image), and gateway for
    /// --form pods.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
    /// dev/cluster, if the cluster is its: without it the cluster's own parts are
    /// left alone, and with --form pods the gateway too.
    #[arg(long, env = "MCP_GATEWAY_CLUSTER")]
    cluster: Option<PathBuf>,
    /// What to kill (may be repeated); everything in turn by default.
    #[arg(long = "fault", value_enum)]
    faults: Vec<Fault>,
    /// How often.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Calls per second in sessions that stay.
    #[arg(long, default_value_t = 40.0)]
    calls: f64,
    /// New sessions per second, each with an instance of its own.
    #[arg(long, default_value_t = 0.25)]
    cold: f64,
    /// Seconds for which the API server is away.
    #[arg(long, default_value_t = 30)]
    away: u64,
    /// A line for the report (may be repeated).
    #[arg(long = "note")]
    notes: Vec<String>,
    /// The report's files, without their ending.
    #[arg(long, default_value = "target/loadtest/chaos")]
    out: PathBuf,
}

/// Runs it and writes Markdown, JSON and SVG.
///
/// # Errors
/// It could not be run, or something was lost, misrouted, duplicated or orphaned.
#[expect(clippy::print_stdout, reason = "the report is this command's answer")]
pub async fn command(args: ChaosArgs) -> anyhow::Result<()> {
    let faults = match args.faults {
        faults if faults.is_empty() => Fault::all(args.form),
        faults => faults,
    };
    let options = Options {
        form: args.form,
        gateway: std::path::absolute(args.gateway)?,
        manifests: std::path::absolute(args.manifests)?,
        kubeconfig: std::path::absolute(args.kubeconfig)?,
        cluster: args.cluster.map(std::path::absolute).transpose()?,
        faults,
        rounds: args.rounds,
        rates: Rates {
            calls: args.calls,
            cold: args.cold,
        },
        api_server_away: Duration::from_secs(args.away),
    };
    let chaos = tokio::select! {
        chaos = run(&options) => chaos?,
        // What is dropped with the run takes away what it made, packet filters' rules too.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    if let Some(folder) = args.out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let text = report::markdown(&chaos, &args.notes);
    write(&args.out, "md", &text)?;
    write(&args.out, "svg", &timeline::svg(&chaos.seen))?;
    write(&args.out, "json", &serde_json::to_string(&chaos)?)?;
    write(&args.out, "log", &chaos.logs)?;
    print!("{text}");
    let wrongs: usize = chaos
        .accounts
        .iter()
        .map(super::ledger::Account::wrongs)
        .sum();
    if wrongs + chaos.unheard > 0 {
        bail!("{wrongs} things went wrong that must not");
    }
    Ok(())
}

fn write(out: &Path, ending: &str, text: &str) -> anyhow::Result<()> {
    let path = out.with_extension(ending);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
