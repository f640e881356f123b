//! What a live session costs that nobody uses: open many, and weigh the process.
//!
//! The sessions stay open and idle, without streams; only the connections that
//! opened them are kept, and those are few.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::process;
use crate::section::Sessions;
use crate::target::{Pids, Target};

/// Connections that share the work of opening.
const LANES: usize = 8;
/// Between the last answer and the scales: what is freed lazily is freed.
const SETTLE: Duration = Duration::from_secs(2);

/// What to open.
#[derive(Clone, Debug)]
pub struct Options {
    /// What was measured, for the report.
    pub title: String,
    /// Where.
    pub target: Target,
    /// Whose memory counts.
    pub pids: Pids,
    /// How many sessions.
    pub count: usize,
}

/// Opens the sessions and weighs before and after.
///
/// # Errors
/// A session cannot be opened, or a process cannot be weighed.
pub async fn run(options: &Options) -> anyhow::Result<Sessions> {
    let weigh = || {
        process::memory(&options.pids.pids)
            .with_context(|| format!("no memory of {} can be read", options.pids.name))
    };
    // The instance, the pool and the connections exist before the first weighing.
    open(&options.target, 1).await?;
    sleep(SETTLE).await;
    let before = weigh()?;
    let start = Instant::now();
    let shares = (0..LANES).map(|lane| (options.count + lane) / LANES);
    try_join_all(shares.map(|share| open(&options.target, share))).await?;
    let seconds = start.elapsed().as_secs_f64();
    sleep(SETTLE).await;
    Ok(Sessions {
        title: options.title.clone(),
        count: options.count,
        seconds,
        before,
        after: weigh()?,
    })
}

async fn open(target: &Target, count: usize) -> anyhow::Result<()> {
    let mut client = Client::connect(target).await?;
    for _ in 0..count {
        client.forget_session();
        client.initialize().await?;
        client.initialized().await?;
    }
    Ok(())
}
