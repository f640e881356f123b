//! `mcp-gateway`: parse, dispatch, exit code. Everything else is in the modules below.
//!
//! Exit codes: 0 done, 1 failed, 2 not understood.

mod admin;
mod banner;
mod built_in;
mod cli;
mod config;
mod crds;
mod demo;
mod files;
mod keys;
mod landing;
mod leaving;
mod listen;
mod parts;
mod report;
mod roles;
mod secrets;
mod serve;
mod shutdown;
mod telemetry;

use std::{
    future::Future,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::Parser;
use cli::{Cli, Command};
use config::{
    ConfigError, Log, Settings,
    roles::{ActivatorSettings, AutoscalerSettings},
};
use telemetry::{MetricsPage, Telemetry};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve(*args),
        Command::Activator(args) => activator(&args),
        Command::Autoscaler(args) => autoscaler(&args),
        Command::Keys(command) => keys::run(command),
        Command::Secrets(command) => secrets::run(command),
        Command::DemoServer(args) => {
            parts::async_runtime().and_then(|r| r.block_on(demo::run(args.transport)))
        }
        Command::Crds => crds::run(),
        Command::Version => {
            writeln!(io::stdout(), "mcp-gateway {}", env!("CARGO_PKG_VERSION")).map_err(Into::into)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(io::stderr(), "mcp-gateway: {error:#}");
            ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
        }
    }
}

fn serve(args: cli::ServeArgs) -> anyhow::Result<()> {
    let env = |name: &str| std::env::var_os(name).map(Into::into);
    let settings = Settings::load(args, env, io::stderr().is_terminal())?;
    let log = settings.log.clone();
    run(&log, |page| serve::run(settings, page))
}

fn activator(args: &cli::ActivatorArgs) -> anyhow::Result<()> {
    let settings = ActivatorSettings::load(args, io::stderr().is_terminal())?;
    let log = settings.log.clone();
    run(&log, |page| roles::activator::run(settings, page))
}

fn autoscaler(args: &cli::AutoscalerArgs) -> anyhow::Result<()> {
    let settings = AutoscalerSettings::load(args, io::stderr().is_terminal())?;
    let log = settings.log.clone();
    run(&log, |page| roles::autoscaler::run(settings, page))
}

/// Runs something that serves until it is asked to end, with logs, metrics and traces around it.
fn run<F>(log: &Log, main: impl FnOnce(MetricsPage) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let telemetry = Telemetry::start(log)?;
    let page = telemetry.page();
    let outcome = parts::async_runtime().and_then(|r| r.block_on(main(page)));
    telemetry.finish();
    outcome
}
