//! Leases that their holders do not give back in time.

use super::*;

const ONE: InstanceId = InstanceId(1);

fn at(second: u64) -> Instant {
    Instant::now() + Duration::from_secs(second)
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_given_back_once_by_its_holder_or_when_its_term_is_over() {
    let directory = directory();
    directory.apply_claimed(view(1, Service::Open, 1));
    let short = directory.lease_until(ONE, at(5)).unwrap();
    let long = directory.lease_until(ONE, at(9)).unwrap();
    let _endless = directory.lease(ONE).unwrap();
    directory.give_back_overdue(at(4));
    assert_eq!(directory.leases(), 3);
    directory.give_back_overdue(at(5));
    assert_eq!(directory.leases(), 2);
    let like = short.another();
    drop(short);
    assert_eq!(directory.leases(), 2, "it was given back before");
    drop(like);
    assert_eq!(directory.leases(), 2, "what keeps nothing yields its like");
    let another = long.another();
    drop(long);
    directory.give_back_overdue(at(9));
    assert_eq!(directory.leases(), 2, "a second lease has no term");
    drop(another);
    directory.give_back_all();
    assert_eq!(directory.leases(), 1, "nor has the third");
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_every_term_and_no_other_drain_does() {
    let directory = directory();
    directory.apply_claimed(view(1, Service::Open, 1));
    let _held = directory.lease_until(ONE, at(900)).unwrap();
    for (sequence, service) in (2..).zip([Service::IdleDrain, Service::RetireDrain]) {
        directory.apply_claimed(view(1, service, sequence));
        directory.give_back_overdue(at(0));
        assert_eq!(directory.leases(), 1);
    }
    directory.apply_claimed(view(1, Service::Cut, 4));
    directory.give_back_overdue(at(0));
    assert_eq!(directory.leases(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_visit_is_to_an_instance_that_retires_and_is_not_counted() {
    let directory = directory();
    directory.apply_claimed(view(1, Service::Open, 1));
    assert!(directory.visit(ONE).is_none(), "there is a lease to be had");
    directory.apply_claimed(view(1, Service::RetireDrain, 2));
    let visit = directory.visit(ONE).unwrap();
    assert_eq!((visit.instance(), directory.leases()), (ONE, 0));
    drop((visit.another(), visit));
    assert_eq!(directory.leases(), 0);
    directory.apply_claimed(view(1, Service::Cut, 3));
    assert!(directory.visit(ONE).is_none());
    assert!(directory.visit(InstanceId(2)).is_none());
}
