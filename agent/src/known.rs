//! What home is to know of this pod, and what it was told. Pure.
//!
//! What is known is absolute and told again after every lost connection: within the [`State`] of the next hello, never
//! as a difference to what an earlier connection may have carried. Only warnings are told once.

use std::collections::VecDeque;

use mcp_gateway_link::agent::{
    Exited, FromAgent, Hello, Ready, Running, State, Warning, from_agent::What,
};

/// Warnings that wait for a connection; of more the oldest are forgotten.
const WARNINGS: usize = 16;

/// What there is to know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// Orders were received; until then there is nothing to say.
    pub(crate) ordered: bool,
    /// The server's process runs.
    pub(crate) running: bool,
    /// It accepts requests.
    pub(crate) ready: Option<Ready>,
    /// It has ended.
    pub(crate) exited: Option<Exited>,
    warnings: VecDeque<String>,
    /// How many warnings there ever were.
    warned: u64,
}

impl Known {
    /// Adds a warning.
    pub(crate) fn warn(&mut self, text: String) {
        if self.warnings.len() == WARNINGS {
            self.warnings.pop_front();
        }
        self.warnings.push_back(text);
        self.warned += 1;
    }

    /// As a hello says it.
    fn state(&self) -> Option<State> {
        self.ordered.then(|| State {
            ready: self.ready.clone(),
            exited: self.exited.clone(),
            running: self.running,
        })
    }
}

/// What one connection has carried, and warnings that any has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    running: bool,
    ready: bool,
    exited: bool,
    warned: u64,
}

impl Told {
    /// Begins a connection: all that is known goes into its hello.
    pub(crate) fn greet(&mut self, known: &Known, hello: &mut Hello) {
        hello.state = known.state();
        self.running = known.running;
        self.ready = known.ready.is_some();
        self.exited = known.exited.is_some();
    }

    /// What is to be said now, in order.
    pub(crate) fn news(&mut self, known: &Known) -> Vec<FromAgent> {
        let mut news = Vec::new();
        if known.running && !self.running {
            self.running = true;
            news.push(What::Running(Running {}));
        }
        if let Some(ready) = known.ready.as_ref().filter(|_| !self.ready) {
            self.ready = true;
            news.push(What::Ready(ready.clone()));
        }
        let fresh = usize::try_from(known.warned - self.warned).unwrap_or(usize::MAX);
        let old = known.warnings.len().saturating_sub(fresh);
        self.warned = known.warned;
        let warnings = known.warnings.iter().skip(old).cloned();
        news.extend(warnings.map(|text| What::Warning(Warning { text })));
        if let Some(exited) = known.exited.as_ref().filter(|_| !self.exited) {
            self.exited = true;
            news.push(What::Exited(exited.clone()));
        }
        news.into_iter()
            .map(|what| FromAgent { what: Some(what) })
            .collect()
    }

    /// Whether there is nothing more to say, ever.
    pub(crate) const fn all(&self) -> bool {
        self.exited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(news: &[FromAgent]) -> Vec<&'static str> {
        let kind = |what: &What| match what {
            What::Hello(_) => "hello",
            What::Running(_) => "running",
            What::Ready(_) => "ready",
            What::Exited(_) => "exited",
            What::Warning(_) => "warning",
        };
        news.iter()
            .filter_map(|m| m.what.as_ref().map(kind))
            .collect()
    }

    fn all() -> Known {
        let mut known = Known {
            ordered: true,
            running: true,
            ready: Some(Ready::default()),
            exited: Some(Exited::default()),
            ..Known::default()
        };
        known.warn("mind the gap".into());
        known
    }

    #[test]
    fn everything_is_told_once_and_in_order() {
        let mut told = Told::default();
        told.greet(&Known::default(), &mut Hello::default());
        assert_eq!(
            kinds(&told.news(&all())),
            ["running", "ready", "warning", "exited"]
        );
        assert!(told.news(&all()).is_empty());
        assert!(told.all());
    }

    #[test]
    fn a_new_connection_hears_in_its_hello_what_an_older_one_may_not_have_carried() {
        let mut told = Told::default();
        let _lost = told.news(&all());
        let mut hello = Hello::default();
        told.greet(&all(), &mut hello);
        let state = hello.state.unwrap();
        assert!(state.running && state.ready.is_some() && state.exited.is_some());
        assert!(told.news(&all()).is_empty());
    }

    #[test]
    fn a_first_hello_says_nothing_of_a_state() {
        let mut hello = Hello::default();
        Told::default().greet(&Known::default(), &mut hello);
        assert_eq!(hello.state, None);
    }

    #[test]
    fn of_too_many_warnings_the_newest_are_told() {
        let mut known = Known::default();
        (0..100).for_each(|n| known.warn(n.to_string()));
        let mut told = Told::default();
        let news = told.news(&known);
        assert_eq!(news.len(), WARNINGS);
        assert_eq!(
            news.last().unwrap().what,
            Some(What::Warning(Warning { text: "99".into() }))
        );
        known.warn("100".into());
        assert_eq!(told.news(&known).len(), 1);
    }
}
