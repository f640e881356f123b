//! A gateway in its parts, with its servers as pods: one session, whichever activator its requests reach.

mod again;
mod lone;
mod roles;

use roles::Roles;

use crate::{
    pods::{
        cluster::{EMBEDDED, space},
        count, demo,
    },
    tools::{self, Share},
    wire::Peer,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_one_at_every_activator_and_is_revived_once_wherever_it_is_asked_for() {
    let Some(space) = space("a gateway in its parts").await else {
        return;
    };
    let backend = demo("demo", "streamable-http")
        .spec("image", EMBEDDED)
        .spec("agent", "embedded")
        .policy("isolation", "session")
        .policy("idleTimeout", "6s");
    let _turn = tools::turn(Share::Whole).await;
    let roles = Roles::start(&space, &[backend]).await;
    let here = Peer::connect(&roles.url(0, "demo"), "here").await;
    let here = here.expect("a session");
    let there = here.at(&roles.url(1, "demo"), 1_000);
    for (peer, expected) in [(&here, 1), (&there, 2), (&here, 3)] {
        assert_eq!(count(peer).await, expected, "one session, one pod");
    }
    assert_eq!(space.pods().await.len(), 1);

    roles.until_cold("demo").await;
    space.until_empty().await;
    assert_eq!(count(&there).await, 1, "revived at the other activator");
    assert_eq!(count(&here).await, 2, "and known to the first");
    assert_eq!(roles.status("demo").await.starts, 2);

    roles.until_cold("demo").await;
    space.until_empty().await;
    let mut both = <[u64; 2]>::from(tokio::join!(count(&here), count(&there)));
    both.sort_unstable();
    assert_eq!(
        both,
        [1, 2],
        "asked for at both at once, it is revived once"
    );
    assert_eq!(roles.status("demo").await.starts, 3);
    assert_eq!(space.pods().await.len(), 1);
}
