//! Two pods of this machine between which nothing passes: packets are dropped, nothing
//! is closed.
//!
//! Invariant: the rules go with the value, whatever became of the run; only a SIGKILL to
//! this process leaves them, and they say whose they are.

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context as _, bail};

/// Drops what passes between two addresses, until dropped itself.
#[derive(Debug)]
pub(super) struct Parted {
    /// From and to.
    made: Vec<[String; 2]>,
}

impl Parted {
    /// Parts them, in both directions.
    ///
    /// # Errors
    /// The packet filter does not take the rules.
    pub(super) fn between(one: IpAddr, other: IpAddr) -> anyhow::Result<Self> {
        let (one, other) = (one.to_string(), other.to_string());
        let mut own = Self { made: Vec::new() };
        for way in [[one.clone(), other.clone()], [other, one]] {
            rule("-I", &way)?;
            own.made.push(way);
        }
        Ok(own)
    }

    /// Brings them together again.
    ///
    /// # Errors
    /// The packet filter keeps a rule.
    pub(super) fn mend(mut self) -> anyhow::Result<()> {
        while let Some(way) = self.made.last() {
            rule("-D", way)?;
            self.made.pop();
        }
        Ok(())
    }
}

impl Drop for Parted {
    fn drop(&mut self) {
        for way in &self.made {
            // Nobody is left to tell, and the next may still succeed.
            drop(rule("-D", way));
        }
    }
}

fn rule(change: &str, [from, to]: &[String; 2]) -> anyhow::Result<()> {
    let filter = if from.contains(':') {
        "ip6tables"
    } else {
        "iptables"
    };
    let done = Command::new(filter)
        .args(["-w", "5", change, "FORWARD", "-s", from, "-d", to])
        .args(["-m", "comment", "--comment", "mcp-gateway-loadtest chaos"])
        .args(["-j", "DROP"])
        .output()
        .context(filter)?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("{filter} {change} from {from} to {to}: {said}");
    }
    Ok(())
}
