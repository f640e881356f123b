//! Where the autoscalers are: addresses as they are given, names looked up again and again.
//!
//! Invariants: what was found last stays until something else is found, because a name server that is away says nothing
//! about autoscalers; nobody is told unless the addresses changed.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use tokio::{
    net::lookup_host,
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::cli::ScalerAddress;

/// From one look to the next. A replica that is new is also named by the others once it leads.
const LOOK_EACH: Duration = Duration::from_secs(2);
/// How long a name server may take.
const LOOKUP: Duration = Duration::from_secs(5);
/// Most addresses taken from all names.
const MAX_REPLICAS: usize = 64;

/// Looks until `stop`.
pub(super) fn follow(
    given: Vec<ScalerAddress>,
    stop: CancellationToken,
) -> watch::Receiver<Vec<SocketAddr>> {
    let (found, follows) = watch::channel(Vec::new());
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        let mut each = interval(LOOK_EACH);
        each.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            each.tick().await;
            let (addresses, trouble) = look(&given).await;
            if trouble != told {
                if let Some(why) = &trouble {
                    tracing::warn!(why, "an autoscaler's name cannot be looked up");
                }
                told = trouble;
            }
            found.send_if_modified(|now| {
                let other = !addresses.is_empty() && *now != addresses;
                if other {
                    *now = addresses;
                }
                other
            });
        }
    }));
    follows
}

/// The addresses, sorted, and what went wrong last.
async fn look(given: &[ScalerAddress]) -> (Vec<SocketAddr>, Option<String>) {
    let (mut found, mut trouble) = (BTreeSet::new(), None);
    for one in given {
        match one {
            ScalerAddress::Address(address) => {
                found.insert(*address);
            }
            ScalerAddress::Name(name) => match timeout(LOOKUP, lookup_host(name.as_str())).await {
                Ok(Ok(addresses)) => found.extend(addresses),
                Ok(Err(error)) => trouble = Some(format!("{name}: {error}")),
                Err(_late) => trouble = Some(format!("{name}: no answer in time")),
            },
        }
    }
    (found.into_iter().take(MAX_REPLICAS).collect(), trouble)
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::follow;
    use crate::cli::ScalerAddress;

    #[tokio::test]
    async fn names_are_looked_up_beside_addresses_and_one_that_is_unknown_takes_none_away() {
        let given = ["10.0.0.1:7444", "localhost:7444", "nowhere.invalid:7444"];
        let given: Vec<ScalerAddress> = given.iter().map(|one| one.parse().unwrap()).collect();
        let stop = CancellationToken::new();
        let mut found = follow(given, stop.clone());
        let found = found.wait_for(|found| !found.is_empty()).await.unwrap();
        assert!(found.contains(&"10.0.0.1:7444".parse().unwrap()));
        assert!(found.iter().any(|address| address.ip().is_loopback()));
        stop.cancel();
    }
}
