//! `mcp-gateway-loadtest chaos`: the full set, and its report.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::fault::Fault;
use super::ledger::Account;
use super::load::Rates;
use super::site::Form;
use super::{Chaos, Options, report, run};

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
    #[arg(long, env = "KUBECONFIG", required_unless_present = "again")]
    kubeconfig: Option<PathBuf>,
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
    /// Kills nothing: reports earlier runs again, together, of their JSON (may be repeated).
    #[arg(long, value_name = "FILE")]
    again: Vec<PathBuf>,
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
    if let Some(folder) = args.out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let runs = if args.again.is_empty() {
        let options = args.options()?;
        // From here on, also for what is asked for before anybody waits for it.
        let (mut once, twice) = (interrupts()?, interrupts()?);
        let chaos = tokio::select! {
            chaos = run(&options, once.recv()) => chaos?,
            // What is dropped with the run takes away what it made, packet filters' rules too.
            () = impatience(twice) => bail!("interrupted"),
        };
        write(&args.out, "json", &serde_json::to_string(&chaos)?)?;
        write(&args.out, "log", &chaos.logs)?;
        vec![chaos]
    } else {
        let runs = args.again.iter().map(|file| read(file));
        runs.collect::<anyhow::Result<_>>()?
    };
    let text = report::markdown(&runs, &args.notes);
    write(&args.out, "md", &text)?;
    write(&args.out, "svg", &report::picture(&runs))?;
    print!("{text}");
    runs.iter().try_for_each(judge)
}

impl ChaosArgs {
    fn options(&self) -> anyhow::Result<Options> {
        let faults = match &self.faults[..] {
            [] => Fault::all(self.form),
            faults => faults.to_vec(),
        };
        let kubeconfig = self.kubeconfig.as_ref().context("no --kubeconfig")?;
        Ok(Options {
            form: self.form,
            gateway: std::path::absolute(&self.gateway)?,
            manifests: std::path::absolute(&self.manifests)?,
            kubeconfig: std::path::absolute(kubeconfig)?,
            cluster: self.cluster.as_ref().map(std::path::absolute).transpose()?,
            faults,
            rounds: self.rounds,
            rates: Rates {
                calls: self.calls,
                cold: self.cold,
            },
            api_server_away: Duration::from_secs(self.away),
        })
    }
}

/// Whether a run came to what it is to come to.
fn judge(chaos: &Chaos) -> anyhow::Result<()> {
    let wrongs: usize = chaos.accounts.iter().map(Account::wrongs).sum();
    if wrongs + chaos.unheard > 0 {
        bail!("{wrongs} things went wrong that must not");
    }
    if let Some(why) = &chaos.cut_short {
        bail!("not all faults were made: {why}");
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Chaos> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no run's", path.display()))
}

fn interrupts() -> std::io::Result<Signal> {
    signal(SignalKind::interrupt())
}

/// Interrupted once, a run ends after its fault, with its report; twice, at once.
#[expect(clippy::print_stderr, reason = "progress of a command-line tool")]
async fn impatience(mut interrupts: Signal) {
    interrupts.recv().await;
    eprintln!("ends after this fault; once more to end now, without a report");
    interrupts.recv().await;
}

fn write(out: &Path, ending: &str, text: &str) -> anyhow::Result<()> {
    let path = out.with_extension(ending);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
