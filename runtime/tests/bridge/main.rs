//! The bridge as clients see it: over real children, and over scripted ones where time matters.

mod real;
mod scripted;
mod support;
