//! Who may use a bridge that others can reach: those who bear the instance's secret.
//!
//! A bridge in a pod listens where every other pod of the cluster may knock. The secret is compared in constant time,
//! and before anything else of a request is looked at. Whoever does not bear it is counted, told nothing, and does not
//! keep its connection. The header stays here: children get messages, not headers.

use std::{net::IpAddr, time::Duration};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use mcp_gateway_api::view::{InstanceSecret, SECRET_HEADER};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use super::{body::Body, refusal::empty};

/// How long a connection may stay on which nobody has shown the secret yet.
pub(super) const STRANGER: Duration = Duration::from_secs(10);

/// Lets in who bears the secret.
#[derive(Debug)]
pub struct Gate {
    secret: InstanceSecret,
    refused: watch::Sender<Refused>,
}

/// Who was not let in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refused {
    /// How many requests so far.
    pub count: u64,
    /// Where the last came from, if that is known.
    pub last: Option<IpAddr>,
}

impl Gate {
    /// For this instance.
    #[must_use]
    pub fn new(secret: InstanceSecret) -> Self {
        Self {
            secret,
            refused: watch::Sender::new(Refused::default()),
        }
    }

    /// Who was refused so far.
    #[must_use]
    pub fn refused(&self) -> watch::Receiver<Refused> {
        self.refused.subscribe()
    }

    /// Whether these headers bear the secret, once; counts if not.
    pub(super) fn admits(&self, headers: &HeaderMap, from: Option<IpAddr>) -> bool {
        let mut shown = headers.get_all(SECRET_HEADER).iter();
        let known = match (shown.next(), shown.next()) {
            (Some(only), None) => only.as_bytes().ct_eq(self.secret.0.as_bytes()).into(),
            (_, _) => false,
        };
        if !known {
            self.refused.send_modify(|refused| {
                refused.count += 1;
                refused.last = from;
            });
        }
        known
    }
}

/// What a stranger is answered.
pub(super) fn refusal() -> Response<Body> {
    let mut answer = empty(StatusCode::FORBIDDEN);
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(header::CONNECTION, close);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::new(InstanceSecret("open-sesame".into()))
    }

    fn headers(values: &[&'static str]) -> HeaderMap {
        let pairs = values.iter().map(|value| {
            let value = HeaderValue::from_static(value);
            (http::HeaderName::from_static(SECRET_HEADER), value)
        });
        pairs.collect()
    }

    #[test]
    fn only_the_secret_itself_once_is_let_in_and_all_else_is_counted() {
        let gate = gate();
        assert!(gate.admits(&headers(&["open-sesame"]), None));
        assert_eq!(*gate.refused().borrow(), Refused::default());
        let mut twice = headers(&["open-sesame"]);
        twice.append(SECRET_HEADER, HeaderValue::from_static("open-sesame"));
        for wrong in [
            headers(&[]),
            headers(&[""]),
            headers(&["open-sesam"]),
            headers(&["open-sesame1"]),
            twice,
        ] {
            assert!(
                !gate.admits(&wrong, Some([192, 0, 2, 7].into())),
                "{wrong:?}"
            );
        }
        let seen = *gate.refused().borrow();
        assert_eq!(seen.count, 5);
        assert_eq!(seen.last, Some([192, 0, 2, 7].into()));
    }

    #[test]
    fn the_secret_is_not_shown_in_a_debug_line() {
        assert!(!format!("{:?}", gate()).contains("sesame"));
    }
}
