//! Our process inside a pod: calls home, runs the server it is ordered to, bridges stdio.
//!
//! From the outside in: `argv` (what the command line asks), `contract` (what the pod's environment says), `life` (orders,
//! one server, its end), `home` (the line), `patience` (pure: whom to call when), `known` (pure: what home is to know),
//! `orders` (pure: what is to be run), `lend` (the form `init`). Servers and the bridge are the runtime's
//! ([`mcp_gateway_runtime::process::alone`]).
//!
//! Compatible for good: agents outlive upgrades, in images of other people. Everything runs on one thread, and names
//! are never resolved (a static program cannot).

use std::{
    env,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use mcp_gateway_link::protocol::AGENT_SAYS;
use tokio::time::Instant;

use crate::argv::Invocation;

mod argv;
mod contract;
mod home;
mod known;
mod lend;
mod life;
mod log;
mod orders;
mod patience;

/// Usage error (as `sysexits.h` has it).
const MISUSED: u8 = 64;

fn main() -> ExitCode {
    let args = env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned());
    let done = match argv::read(args.collect()) {
        Invocation::Serve(image_command) => serve(image_command),
        Invocation::Lend(dir) => alone(lend::lend(Path::new(&dir))),
        Invocation::Lent(dir) => alone(lend::lent(Path::new(&dir))),
        Invocation::Version => {
            say(concat!(
                "mcp-gateway-agent ",
                env!("CARGO_PKG_VERSION"),
                "\n"
            ));
            Ok(ExitCode::SUCCESS)
        }
        Invocation::Help => {
            say(argv::HELP);
            Ok(ExitCode::SUCCESS)
        }
        Invocation::Misused(why) => {
            complain(&format!("{why}\n\n{}", argv::HELP));
            Ok(ExitCode::from(MISUSED))
        }
    };
    done.unwrap_or_else(|error| {
        complain(&format!("{AGENT_SAYS}{error}\n"));
        ExitCode::FAILURE
    })
}

fn say(text: &str) {
    // Whoever asked and does not listen does not want to know.
    let _ = io::stdout().write_all(text.as_bytes());
}

fn complain(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

fn serve(image_command: Vec<String>) -> io::Result<ExitCode> {
    log::begin();
    let (contract, environment) = contract::read(env::vars_os());
    let contract = contract.map_err(io::Error::other)?;
    hide();
    let given = |began| life::Given {
        contract,
        image_command,
        environment,
        began,
    };
    alone(async move { life::live(given(Instant::now())).await })
}

/// Runs it to its end on this thread.
fn alone(work: impl Future<Output = io::Result<ExitCode>>) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Spawning and the copying of output: few, short, and their memory is to be given back.
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(1))
        .thread_stack_size(256 * 1024)
        .build()?;
    runtime.block_on(work)
}

/// Keeps our memory and first environment, where the proofs of this pod's identity are, from the server, which runs as
/// the same user.
fn hide() {
    #[cfg(target_os = "linux")]
    if let Err(error) =
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
    {
        tracing::warn!(%error, "the server may read this process's memory");
    }
}
