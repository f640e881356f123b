//! What became of every call, and whose fault it was. Pure.
//!
//! A call is *lost* if it got no result though every process it was sent to was
//! alive: only what was in flight inside a killed process is excused, and only
//! from one failure. It is *misrouted* if another session's state answered, or an
//! older state of the same session once a newer one had; *duplicated* if it ran
//! more than once. Judgement never looks at a clock: times are arguments, in
//! microseconds since the run began.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::witness::Testimony;

/// Microseconds since the run began.
pub type Micros = u64;

/// How much longer than it has to a call may take and still be called prompt.
const PROMPT: Micros = 1_000_000;

/// How long after a process's end its peers may take to see their streams end.
const NOTICED: Micros = 2_000_000;

/// What a call was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A quick call in a session that has been there.
    Warm,
    /// A call that streams for a while, in such a session.
    Slow,
    /// A new session that needs an instance of its own, and its first call.
    Cold,
}

/// How a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Failure {
    /// The connection to the activator broke after the request was sent.
    Broken,
    /// The gateway said that the instance went away before it answered.
    InstanceLost,
    /// The gateway said that there is no such session.
    SessionGone,
    /// Any other refusal that does not say when to come again.
    Refused,
    /// Nothing was answered in time, or no activator could be reached.
    Silent,
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// A result.
    Answered(Testimony),
    /// None.
    Failed {
        /// How.
        failure: Failure,
        /// What was said.
        said: String,
    },
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// Unique in the run.
    pub id: u64,
    /// The name that its session's client gave.
    pub client: String,
    /// What it was for.
    pub kind: Kind,
    /// When it was due.
    pub begun: Micros,
    /// When it was over.
    pub ended: Micros,
    /// How long it has to take: what the server was asked to sleep.
    pub asked: Micros,
    /// How often it was told to come again later.
    pub delayed: u32,
    /// How often an activator refused the connection and the other was used.
    pub turned: u32,
    /// The activator of its last attempt.
    pub activator: usize,
    /// When that attempt was sent.
    pub sent: Micros,
    /// Where its session was known to be at that moment.
    pub instance: Option<String>,
    /// What it came to.
    pub outcome: Outcome,
}

/// Something that was seen on a passive stream and should not have been.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// The stream's client.
    pub client: String,
    /// The activator that it was open at.
    pub activator: usize,
    /// When.
    pub at: Micros,
    /// Whether it carried somebody else's message; otherwise it ended.
    pub strange: bool,
}

/// A process that was killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Victim {
    /// An activator, by its place.
    Activator(usize),
    /// A server, by its instance.
    Instance(String),
}

/// When a process was killed: it was alive before `from` and dead after `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kill {
    /// What.
    pub victim: Victim,
    /// The order.
    pub from: Micros,
    /// The end.
    pub to: Micros,
}

/// A fault, from its beginning until the next one's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// What was done.
    pub name: String,
    /// When it began.
    pub begun: Micros,
    /// When what was taken away was given back.
    pub mended: Micros,
    /// Whom it killed.
    pub kills: Vec<Kill>,
    /// Instances that ran for nobody afterwards.
    pub orphaned: usize,
}

/// What happened from one fault to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// What was done.
    pub name: String,
    /// Calls that ended in this time.
    pub calls: usize,
    /// Those among them that started an instance.
    pub cold: usize,
    /// In flight inside a killed process, and so excused.
    pub in_flight: usize,
    /// Told to come again later, once or more, and answered then.
    pub delayed: usize,
    /// Refused a connection, and answered by the other activator.
    pub turned: usize,
    /// Sessions that came back elsewhere because their instance had been killed.
    pub revived: usize,
    /// No result, and no excuse.
    pub lost: usize,
    /// Told that their session is gone.
    pub ended: usize,
    /// Answered by a state that is not their session's newest.
    pub misrouted: usize,
    /// Ran more than once.
    pub duplicated: usize,
    /// Instances that ran for nobody afterwards.
    pub orphaned: usize,
    /// Sessions whose instance changed though it had not been killed.
    pub moved: usize,
    /// Passive streams that ended though their activator was alive, or carried
    /// somebody else's messages.
    pub streams: usize,
    /// Microseconds from the fault to the end of the last call, of a session that
    /// was there, that was not answered promptly.
    pub recovered: Micros,
    /// The slowest answer to a call in a session that was there, less what it was
    /// asked to take.
    pub slowest: Micros,
    /// The slowest start of an instance.
    pub slowest_cold: Micros,
}

impl Account {
    /// Everything whose goal is zero.
    #[must_use]
    pub fn wrongs(&self) -> usize {
        self.lost
            + self.ended
            + self.misrouted
            + self.duplicated
            + self.orphaned
            + self.moved
            + self.streams
    }
}

/// All that was seen in a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Calls, in any order.
    pub calls: Vec<Call>,
    /// What servers said of the calls they ran.
    #[serde(skip)]
    pub heard: Vec<Testimony>,
    /// Passive streams.
    pub troubles: Vec<Trouble>,
    /// Faults, in their order.
    pub marks: Vec<Mark>,
}

/// One account for the time before the first fault, and one for each fault.
#[must_use]
pub fn accounts(seen: &Seen) -> Vec<Account> {
    let names = seen.marks.iter().map(|mark| mark.name.clone());
    let mut accounts: Vec<Account> = std::iter::once("nothing".to_owned())
        .chain(names)
        .map(|name| Account {
            name,
            ..Account::default()
        })
        .collect();
    for (account, mark) in accounts.iter_mut().skip(1).zip(&seen.marks) {
        account.orphaned = mark.orphaned;
    }
    let kills: Vec<&Kill> = seen.marks.iter().flat_map(|mark| &mark.kills).collect();
    // A call that waited for its session's revival ran elsewhere than its client knew.
    let ran = seen.heard.iter().map(|one| (one.id, one.instance.as_str()));
    let ran: HashMap<u64, &str> = ran.collect();
    let place = |at: Micros| seen.marks.partition_point(|mark| mark.begun <= at);
    for call in &seen.calls {
        let at = place(call.ended);
        let since = at.checked_sub(1).map(|mark| seen.marks[mark].begun);
        let place = ran.get(&call.id).copied().or(call.instance.as_deref());
        let excused = kills.iter().any(|kill| excuses(kill, call, place));
        enter(&mut accounts[at], call, excused, since);
    }
    for trouble in &seen.troubles {
        let dead = |kill: &&Kill| {
            kill.victim == Victim::Activator(trouble.activator)
                && (kill.from..=kill.to + NOTICED).contains(&trouble.at)
        };
        if trouble.strange || !kills.iter().any(dead) {
            accounts[place(trouble.at)].streams += 1;
        }
    }
    for call in repeated(seen) {
        accounts[place(call.ended)].duplicated += 1;
    }
    for (call, change) in changes(&seen.calls) {
        let account = &mut accounts[place(call.ended)];
        match change {
            Change::Back => account.misrouted += 1,
            Change::From(instance) => {
                let killed = |kill: &&Kill| kill.victim == Victim::Instance(instance.to_owned());
                if kills.iter().any(killed) {
                    account.revived += 1;
                } else {
                    account.moved += 1;
                }
            }
        }
    }
    accounts
}

fn enter(account: &mut Account, call: &Call, excused: bool, fault: Option<Micros>) {
    account.calls += 1;
    account.cold += usize::from(call.kind == Kind::Cold);
    let took = call.ended.saturating_sub(call.begun + call.asked);
    let answered = match &call.outcome {
        Outcome::Answered(testimony) => {
            let own = testimony.id == call.id && testimony.owner == call.client;
            account.misrouted += usize::from(!own);
            account.delayed += usize::from(call.delayed > 0);
            account.turned += usize::from(call.turned > 0);
            true
        }
        Outcome::Failed { .. } if excused => {
            account.in_flight += 1;
            false
        }
        Outcome::Failed { failure, .. } => {
            match failure {
                Failure::SessionGone => account.ended += 1,
                Failure::Broken | Failure::InstanceLost | Failure::Refused | Failure::Silent => {
                    account.lost += 1
                }
            }
            false
        }
    };
    if call.kind == Kind::Cold {
        account.slowest_cold = account.slowest_cold.max(took);
        return;
    }
    account.slowest = account.slowest.max(took);
    let prompt = answered && call.delayed == 0 && took <= PROMPT;
    if let Some(fault) = fault.filter(|_| !prompt) {
        account.recovered = account.recovered.max(call.ended.saturating_sub(fault));
    }
}

/// Whether what became of a call may be the killed process's own end.
fn excuses(kill: &Kill, call: &Call, place: Option<&str>) -> bool {
    let Outcome::Failed { failure, .. } = &call.outcome else {
        return false;
    };
    let during = call.sent <= kill.to && kill.from <= call.ended;
    let by = match (&kill.victim, failure) {
        (Victim::Activator(activator), Failure::Broken) => *activator == call.activator,
        (Victim::Instance(instance), Failure::InstanceLost) => place == Some(instance),
        (Victim::Activator(_), Failure::InstanceLost)
        | (Victim::Instance(_), Failure::Broken)
        | (_, Failure::SessionGone | Failure::Refused | Failure::Silent) => false,
    };
    during && by
}

/// Calls that ran more than once.
fn repeated(seen: &Seen) -> impl Iterator<Item = &Call> {
    let mut ran: HashMap<u64, usize> = HashMap::new();
    for testimony in &seen.heard {
        *ran.entry(testimony.id).or_default() += 1;
    }
    let often = move |call: &&Call| ran.get(&call.id).is_some_and(|times| *times > 1);
    seen.calls.iter().filter(often)
}

/// Answered calls that no server told of.
#[must_use]
pub fn unheard(seen: &Seen) -> usize {
    let heard: HashSet<u64> = seen.heard.iter().map(|testimony| testimony.id).collect();
    let answered = |call: &&Call| matches!(call.outcome, Outcome::Answered(_));
    let answered = seen.calls.iter().filter(answered);
    answered.filter(|call| !heard.contains(&call.id)).count()
}

enum Change<'a> {
    /// To a state that a newer one had replaced.
    Back,
    /// From this instance to a new state.
    From(&'a str),
}

/// Where the states of sessions changed, as their clients could see it: a call that
/// was begun when another had been answered must not be answered by an older state.
fn changes(calls: &[Call]) -> Vec<(&Call, Change<'_>)> {
    let mut sessions: HashMap<&str, Vec<(&Call, &Testimony)>> = HashMap::new();
    for call in calls {
        if let Outcome::Answered(testimony) = &call.outcome {
            let of = sessions.entry(call.client.as_str()).or_default();
            of.push((call, testimony));
        }
    }
    let mut found = Vec::new();
    for mut answered in sessions.into_values() {
        answered.sort_by_key(|(call, _)| call.ended);
        // The states in the order in which they were first seen, each with the end
        // of its first answer.
        let mut states: Vec<(&Testimony, Micros)> = Vec::new();
        for (call, testimony) in answered {
            let known = |(state, _): &(&Testimony, Micros)| state.session == testimony.session;
            match states.iter().position(known) {
                None => {
                    if let Some((last, _)) = states.last() {
                        found.push((call, Change::From(last.instance.as_str())));
                    }
                    states.push((testimony, call.ended));
                }
                Some(state) => {
                    let newer = states.get(state + 1);
                    if newer.is_some_and(|(_, seen)| *seen < call.sent) {
                        found.push((call, Change::Back));
                    }
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
