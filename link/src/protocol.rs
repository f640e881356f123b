//! Numbers that both ends of the network form agree on.

use std::time::Duration;

/// The newest version of the protocol that this side speaks.
pub const NEWEST: u32 = 1;
/// The oldest.
pub const OLDEST: u32 = 1;

/// Metadata of an UNAVAILABLE call: the leader's ip:port.
pub const LEADER: &str = "mcp-gateway-leader";

/// What each line of an agent's own begins with: in a container it has one output with its server, whose last words are
/// not to be taken for ours.
pub const AGENT_SAYS: &str = "mcp-gateway-agent: ";

/// Longest message, in bytes; snapshots and restatements are cut into parts far below it.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;
/// Most calls at once on one connection: above the exchanges that an activator holds.
pub(crate) const MAX_STREAMS: u32 = 16_384;
/// Most withdrawn calls at once: a whole hold may be withdrawn in one moment.
pub(crate) const MAX_RESETS: usize = 16_384;
/// What may be under way in one call: an activator that does not read its view must not starve its claims.
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;
/// What may be under way on one connection.
pub(crate) const CONNECTION_WINDOW: u32 = 16 << 20;
/// A peer that answers no ping for so long, asked each time so much has passed, is gone.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(5);

/// The version that a peer who speaks `oldest` to `newest` and this side speak together.
///
/// # Errors
/// There is none: a sentence for both logs.
pub fn common(newest: u32, oldest: u32) -> Result<u32, String> {
    let version = newest.min(NEWEST);
    if version < oldest.max(OLDEST) {
        return Err(format!(
            "the autoscaler speaks versions {OLDEST} to {NEWEST} of the scaler protocol and the activator {oldest} to \
             {newest}: bring both to releases that share one"
        ));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_peer_that_still_speaks_ours_is_served_in_ours() {
        assert_eq!(common(NEWEST, OLDEST), Ok(NEWEST));
        assert_eq!(common(NEWEST + 5, OLDEST), Ok(NEWEST));
    }

    #[test]
    fn a_peer_with_no_version_in_common_is_told_so_in_a_sentence() {
        let sentence = common(NEWEST + 5, NEWEST + 1).unwrap_err();
        assert!(sentence.contains("bring both to releases"), "{sentence}");
        // A peer that says nothing speaks nothing.
        assert!(common(0, 0).is_err());
    }
}
