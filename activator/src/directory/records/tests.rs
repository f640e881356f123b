use std::collections::VecDeque;

use mcp_gateway_api::{
    ids::{BackendName, InstanceId, TenantName, UpstreamSession},
    record::{SessionBinding, SessionRef},
};
use proptest::prelude::*;

use super::*;

const KEY: SessionKey = SessionKey([1; 24]);

fn update(news: SessionNews) -> SessionUpdate {
    let session = SessionRef {
        key: KEY,
        backend: BackendName::new("b").unwrap(),
        tenant: TenantName::default(),
        expires_at: 0,
    };
    SessionUpdate { session, news }
}

fn learn(records: &mut Records, news: SessionNews) -> Option<Number> {
    records.learn(&update(news)).map(|(number, _)| number)
}

fn record(news: &[SessionNews]) -> SharedRecord {
    let mut records = Records::default();
    for one in news {
        learn(&mut records, one.clone());
    }
    records.get(&KEY).unwrap()
}

fn revived(on: u128) -> SessionNews {
    SessionNews::Revived(SessionBinding {
        instance: InstanceId(on),
        upstream: UpstreamSession("u".into()),
    })
}

#[test]
fn the_echo_of_older_news_takes_nothing_newer_back() {
    let mut records = Records::default();
    learn(&mut records, SessionNews::Asleep);
    learn(&mut records, revived(2));
    learn(&mut records, SessionNews::LogLevel("debug".into()));
    let newest = records.get(&KEY).unwrap();
    assert_eq!(
        records.tell(record(&[SessionNews::Asleep]), Teller::Knower),
        None
    );
    assert_eq!(records.get(&KEY).unwrap(), newest);
    assert_eq!(
        records.tell(record(&[SessionNews::Asleep, revived(2)]), Teller::Knower),
        None
    );
    assert_eq!(records.get(&KEY).unwrap(), newest);
}

#[test]
fn what_others_recorded_is_seen_beneath_the_own_news() {
    let mut records = Records::default();
    learn(&mut records, SessionNews::LogLevel("debug".into()));
    let changed = records.tell(record(&[revived(3)]), Teller::Knower).unwrap();
    assert_eq!(changed.log_level.as_deref(), Some("debug"));
    assert_eq!(changed.binding, record(&[revived(3)]).binding);
}

#[test]
fn what_the_view_never_confirms_is_given_up_after_a_while_if_it_told_something_else() {
    let mut records = Records::default();
    let number = learn(&mut records, SessionNews::Asleep).unwrap();
    records.settle(&KEY, number, true);
    records.tell(record(&[revived(3)]), Teller::Knower);
    assert_eq!(records.get(&KEY).unwrap().binding, Some(None));
    assert!(records.tidy().is_empty());
    assert_eq!(records.tidy(), [record(&[revived(3)])]);
    assert!(records.ahead.is_empty());
}

#[test]
fn an_end_that_could_not_be_written_outlasts_complete_listings() {
    let mut records = Records::default();
    let number = learn(&mut records, SessionNews::Ended).unwrap();
    records.settle(&KEY, number, false);
    for _ in 0..3 {
        records.keep_only(&HashSet::new(), false);
        records.tidy();
        assert!(records.get(&KEY).unwrap().ended);
    }
    records.tell(record(&[SessionNews::Asleep]), Teller::Knower);
    assert!(records.get(&KEY).unwrap().ended);
    records.forget(&KEY);
    assert_eq!(records.get(&KEY), None);
}

#[test]
fn what_the_control_plane_will_not_take_is_remembered_within_bounds() {
    let mut records = Records::default();
    let many = u32::try_from(MOST_REFUSED).unwrap() + 50;
    for n in 0..many {
        let mut update = update(SessionNews::Ended);
        update.session.key.0[..4].copy_from_slice(&n.to_be_bytes());
        let (number, _) = records.learn(&update).unwrap();
        records.settle(&update.session.key, number, false);
    }
    records.tidy();
    records.keep_only(&HashSet::new(), false);
    assert_eq!(records.known.len(), MOST_REFUSED);
    assert_eq!(records.ahead.len(), MOST_REFUSED);
    let mut records = Records::default();
    for n in 0..1_000 {
        learn(&mut records, SessionNews::LogLevel(format!("{n}")));
    }
    assert!(records.known[&KEY].own.len() <= MOST_OWN);
    assert_eq!(records.get(&KEY).unwrap().log_level.as_deref(), Some("999"));
}

fn news() -> impl Strategy<Value = SessionNews> {
    prop_oneof![
        Just(SessionNews::Asleep),
        (0..3_u128).prop_map(revived),
        (0..3_u8).prop_map(|level| SessionNews::LogLevel(level.to_string())),
        (0..3_u8).prop_map(|uri| SessionNews::Subscribed(uri.to_string())),
        (0..3_u8).prop_map(|uri| SessionNews::Unsubscribed(uri.to_string())),
    ]
}

fn sorted(record: &SessionRecord) -> SessionRecord {
    let mut record = record.clone();
    record.subscriptions.sort();
    record
}

proptest! {
    /// One activator's news, written in order and echoed in order, however late: what is shown is always all of it.
    #[test]
    fn late_echoes_never_change_what_is_known(
        steps in proptest::collection::vec((0..4_u8, news()), 0..80),
    ) {
        let mut records = Records::default();
        let mut all = SessionRecord::new(&update(SessionNews::Asleep).session);
        let mut leader = all.clone();
        let mut sent: VecDeque<(Option<Number>, SessionNews)> = VecDeque::new();
        let mut echoes: VecDeque<SharedRecord> = VecDeque::new();
        for (step, news) in steps {
            match step {
                0 | 1 => {
                    if let Some(next) = learned(Some(&all), &update(news.clone())) {
                        all = next;
                    }
                    let number = learn(&mut records, news.clone());
                    sent.push_back((number, news));
                }
                2 => if let Some((number, news)) = sent.pop_front() {
                    if let Some(next) = learned(Some(&leader), &update(news)).filter(|next| *next != leader) {
                        leader = next;
                        echoes.push_back(Arc::new(leader.clone()));
                    }
                    if let Some(number) = number {
                        records.settle(&KEY, number, true);
                    }
                },
                _ => if let Some(echo) = echoes.pop_front() {
                    records.tell(echo, Teller::Knower);
                },
            }
            if echoes.is_empty() {
                records.tidy();
            }
            if let Some(shown) = records.get(&KEY) {
                prop_assert_eq!(sorted(&shown), sorted(&all));
            }
        }
    }
}
