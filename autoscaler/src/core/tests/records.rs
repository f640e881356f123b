//! Session records as values.

use mcp_gateway_api::{
    failure::FailureKind,
    ids::{BackendName, InstanceId, SessionKey, TenantName, UpstreamSession},
    record::{
        MAX_RECORD_TEXT, MAX_SUBSCRIPTIONS, SessionBinding, SessionNews, SessionRef, SessionUpdate,
    },
    view::Stamp,
};
use proptest::prelude::*;

use crate::core::records::{RecordLimits, Records};

fn update(n: u8, tenant: &str, news: SessionNews) -> SessionUpdate {
    SessionUpdate {
        session: SessionRef {
            key: SessionKey([n; 24]),
            backend: BackendName::new("everything").unwrap(),
            tenant: TenantName::new(tenant).unwrap(),
            expires_at: 100 + u64::from(n),
        },
        news,
    }
}

fn records(total: usize, per_tenant: usize) -> Records {
    Records::new(RecordLimits { total, per_tenant })
}

fn level() -> SessionNews {
    SessionNews::LogLevel("debug".into())
}

#[test]
fn records_are_bounded_for_each_tenant_and_in_the_whole() {
    let mut records = records(3, 2);
    records
        .apply(&update(1, "red", level()), Stamp::default())
        .unwrap();
    records
        .apply(&update(2, "red", level()), Stamp::default())
        .unwrap();
    let full = records
        .apply(&update(3, "red", level()), Stamp::default())
        .unwrap_err();
    assert_eq!(full.kind, FailureKind::Capacity);
    // What is there may still change.
    records
        .apply(&update(2, "red", SessionNews::Asleep), Stamp::default())
        .unwrap();
    records
        .apply(&update(3, "blue", level()), Stamp::default())
        .unwrap();
    assert!(
        records
            .apply(&update(4, "blue", level()), Stamp::default())
            .is_err()
    );
    assert_eq!(records.pop_expired(101), Some(SessionKey([1; 24])));
    records
        .apply(&update(4, "blue", level()), Stamp::default())
        .unwrap();
}

#[test]
fn an_ended_session_keeps_nothing_and_takes_no_more_news() {
    let mut records = records(9, 9);
    records
        .apply(&update(1, "red", level()), Stamp::default())
        .unwrap();
    let ended = records
        .apply(&update(1, "red", SessionNews::Ended), Stamp::default())
        .unwrap()
        .unwrap();
    assert!(ended.ended && ended.log_level.is_none());
    let late = SessionNews::Revived(SessionBinding {
        instance: InstanceId(1),
        upstream: UpstreamSession("u".into()),
    });
    let refused = records
        .apply(&update(1, "red", late), Stamp::default())
        .unwrap_err();
    assert_eq!(refused.kind, FailureKind::SessionGone);
    assert_eq!(
        records.apply(&update(1, "red", SessionNews::Ended), Stamp::default()),
        Ok(None)
    );
}

#[test]
fn news_that_change_nothing_make_no_record() {
    let mut records = records(9, 9);
    let opened = SessionNews::Opened(InstanceId(1));
    let unsubscribed = SessionNews::Unsubscribed("file:///a".into());
    let failed = SessionNews::RevivalFailed { retry: true };
    for news in [opened, unsubscribed, failed] {
        assert_eq!(
            records.apply(&update(1, "red", news), Stamp::default()),
            Ok(None)
        );
    }
    assert!(records.is_empty());
}

/// Clients that end their sessions as they should must not fill the table for those that are still there.
#[test]
fn that_sessions_have_ended_makes_room_for_one_that_lives() {
    let mut records = records(10, 3);
    let key = |n: u8| SessionKey([n; 24]);
    for n in [2, 1] {
        let ended = update(n, "red", SessionNews::Ended);
        records.apply(&ended, Stamp::default()).unwrap();
    }
    let revived = |n| update(n, "red", level());
    assert_eq!(
        records.in_the_way_of(&revived(3).session),
        None,
        "room is left"
    );
    records.apply(&revived(3), Stamp::default()).unwrap();
    assert_eq!(
        records.in_the_way_of(&revived(3).session),
        None,
        "it is known"
    );
    let blue = update(4, "blue", level()).session;
    assert_eq!(
        records.in_the_way_of(&blue),
        None,
        "another tenant has its own"
    );
    for (n, first_to_expire) in [(4, 1), (5, 2)] {
        assert!(records.apply(&revived(n), Stamp::default()).is_err());
        assert_eq!(
            records.in_the_way_of(&revived(n).session),
            Some(key(first_to_expire))
        );
        assert!(records.remove(&key(first_to_expire)));
        records.apply(&revived(n), Stamp::default()).unwrap();
    }
    assert_eq!(
        records.in_the_way_of(&revived(6).session),
        None,
        "all of them live"
    );
    assert!(records.apply(&revived(6), Stamp::default()).is_err());
}

#[test]
fn texts_and_subscriptions_are_bounded() {
    let mut records = records(9, 9);
    let long = "x".repeat(MAX_RECORD_TEXT + 1);
    assert!(
        records
            .apply(
                &update(1, "red", SessionNews::LogLevel(long.clone())),
                Stamp::default()
            )
            .is_err()
    );
    assert!(
        records
            .apply(
                &update(1, "red", SessionNews::Subscribed(long)),
                Stamp::default()
            )
            .is_err()
    );
    for n in 0..MAX_SUBSCRIPTIONS {
        let news = SessionNews::Subscribed(format!("file:///{n}"));
        records
            .apply(&update(1, "red", news), Stamp::default())
            .unwrap();
    }
    let more = SessionNews::Subscribed("file:///more".into());
    assert!(
        records
            .apply(&update(1, "red", more), Stamp::default())
            .is_err()
    );
    // One it has already is no more.
    let again = SessionNews::Subscribed("file:///0".into());
    assert_eq!(
        records.apply(&update(1, "red", again), Stamp::default()),
        Ok(None)
    );
}

fn news() -> impl Strategy<Value = SessionNews> {
    prop_oneof![
        Just(SessionNews::Asleep),
        Just(SessionNews::Ended),
        Just(level()),
        "[ab]{1,2}".prop_map(SessionNews::Subscribed),
        "[ab]{1,2}".prop_map(SessionNews::Unsubscribed),
        any::<bool>().prop_map(|retry| SessionNews::RevivalFailed { retry }),
    ]
}

proptest! {
    #[test]
    fn the_indexes_agree_whatever_the_news(
        updates in proptest::collection::vec((0_u8..6, news(), any::<bool>()), 0..60),
    ) {
        let mut records = records(4, 3);
        for (n, news, remove) in updates {
            let tenant = if n % 2 == 0 { "red" } else { "blue" };
            if remove {
                records.remove(&SessionKey([n; 24]));
            } else {
                let _ = records.apply(&update(n, tenant, news), Stamp::default());
            }
            prop_assert_eq!(records.iter().count(), records.len());
            prop_assert!(records.len() <= 4);
        }
        while records.pop_expired(u64::MAX).is_some() {}
        prop_assert!(records.is_empty());
        prop_assert_eq!(records.first_expiry(), None);
    }
}
