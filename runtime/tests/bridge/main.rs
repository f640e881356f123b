//! The bridge as clients see it: over real children, and over scripted ones where time matters.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in what tests share fails the test that called it"
)]

mod real;
mod scripted;
mod support;
