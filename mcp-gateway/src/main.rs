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
mod listen;
mod report;
mod secrets;
mod serve;
mod shutdown;
mod telemetry;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::Parser;
use cli::{Cli, Command};
use config::{ConfigError, Settings};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve(*args),
        Command::Keys(command) => keys::run(command),
        Command::Secrets(command) => secrets::run(command),
        Command::DemoServer(args) => {
            serve::async_runtime().and_then(|r| r.block_on(demo::run(args.transport)))
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
    let telemetry = telemetry::Telemetry::start(&settings.log)?;
    let page = telemetry.page();
    let outcome = serve::async_runtime().and_then(|r| r.block_on(serve::run(settings, page)));
    telemetry.finish();
    outcome
}
