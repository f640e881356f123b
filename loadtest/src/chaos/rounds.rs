//! Accounts of many rounds put together, one for each fault. Pure.

use super::ledger::{Account, Micros};

/// What a fault came to over all its rounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rounds {
    /// How often it was made.
    pub times: usize,
    /// Counts are sums. Its times are those of the worst round.
    pub sum: Account,
    /// Each round's.
    pub recovered: Vec<Micros>,
    /// Each round's slowest answer in a session that was there.
    pub slowest: Vec<Micros>,
    /// Each round's slowest new session.
    pub slowest_cold: Vec<Micros>,
}

/// One for each fault, in the order in which they were first made.
#[must_use]
pub fn together<'a>(accounts: impl IntoIterator<Item = &'a Account>) -> Vec<Rounds> {
    let mut all: Vec<Rounds> = Vec::new();
    for account in accounts {
        match all.iter_mut().find(|one| one.sum.name == account.name) {
            Some(rounds) => rounds.add(account),
            None => all.push(Rounds::first(account)),
        }
    }
    all
}

impl Rounds {
    fn first(account: &Account) -> Self {
        Self {
            times: 1,
            recovered: vec![account.recovered],
            slowest: vec![account.slowest],
            slowest_cold: vec![account.slowest_cold],
            sum: account.clone(),
        }
    }

    fn add(&mut self, account: &Account) {
        let Account {
            name: _,
            calls,
            cold,
            in_flight,
            delayed,
            turned,
            revived,
            lost,
            ended,
            misrouted,
            duplicated,
            orphaned,
            moved,
            streams,
            recovered,
            slowest,
            slowest_cold,
        } = account;
        let sum = &mut self.sum;
        for (sum, one) in [
            (&mut sum.calls, calls),
            (&mut sum.cold, cold),
            (&mut sum.in_flight, in_flight),
            (&mut sum.delayed, delayed),
            (&mut sum.turned, turned),
            (&mut sum.revived, revived),
            (&mut sum.lost, lost),
            (&mut sum.ended, ended),
            (&mut sum.misrouted, misrouted),
            (&mut sum.duplicated, duplicated),
            (&mut sum.orphaned, orphaned),
            (&mut sum.moved, moved),
            (&mut sum.streams, streams),
        ] {
            *sum += one;
        }
        sum.recovered = sum.recovered.max(*recovered);
        sum.slowest = sum.slowest.max(*slowest);
        sum.slowest_cold = sum.slowest_cold.max(*slowest_cold);
        self.times += 1;
        self.recovered.push(*recovered);
        self.slowest.push(*slowest);
        self.slowest_cold.push(*slowest_cold);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str, lost: usize, recovered: Micros) -> Account {
        Account {
            name: name.to_owned(),
            calls: 10,
            lost,
            recovered,
            ..Account::default()
        }
    }

    #[test]
    fn what_went_wrong_in_one_of_many_rounds_is_in_the_sum() {
        let accounts = [
            account("nothing", 0, 0),
            account("leader", 0, 7),
            account("pod", 1, 5),
            account("leader", 2, 3),
        ];
        let all = together(&accounts);
        let names: Vec<&str> = all.iter().map(|one| one.sum.name.as_str()).collect();
        assert_eq!(names, ["nothing", "leader", "pod"]);
        let leader = &all[1];
        assert_eq!(
            (leader.times, leader.sum.calls, leader.sum.lost),
            (2, 20, 2)
        );
        assert_eq!(
            (leader.sum.recovered, &leader.recovered[..]),
            (7, &[7, 3][..])
        );
        let wrongs = |sum: usize, one: &Account| sum + one.wrongs();
        let before = accounts.iter().fold(0, wrongs);
        assert_eq!(all.iter().map(|one| &one.sum).fold(0, wrongs), before);
    }
}
