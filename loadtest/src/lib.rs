//! Measures the gateway beside what it competes with, in one run.
//!
//! Absolute times say more about the machine than about the program, so every
//! figure here comes from an interleaved comparison: short rounds of each target
//! in turn, differences and ratios between rounds that ran next to each other,
//! each with its 95 % interval.
//!
//! ```text
//! target    what is measured: a name and a URL
//! client    one MCP session on one kept connection, raw HTTP/1.1
//! warm      closed loop of tools/call, targets in turn         -> section
//! cold      first request to first answer, against by hand      -> section
//! sessions  what a live session costs that nobody uses          -> section
//! pods      cold starts of pods on a cluster, every road in turn -> section
//! phases    where the time of a cold start went; pure
//! process   CPU time and resident memory, from /proc
//! spread    a proxy that sends each request to one of several upstreams, at random
//! chaos     kills under open-loop load on a cluster: what was lost, and whose fault
//! witness   a server that tells of each call it ran
//! lean      a server that costs next to nothing, to measure proxies before
//! section   what a measurement leaves behind: values, no opinion
//! stats     quantiles and bootstrap intervals; pure
//! report    sections -> figures -> Markdown, SVG, JSON; pure
//! ```
//!
//! Nothing here starts or configures the gateway, nginx or a server that is
//! measured warm: the script `loadtest/compare` does. Only [`chaos`] and [`pods`]
//! start gateways: the one must be able to kill them, the other to give them a
//! namespace of their own.

pub mod chaos;
pub mod client;
pub mod cold;
pub mod lean;
pub mod phases;
pub mod pods;
pub mod process;
pub mod report;
pub mod section;
pub mod sessions;
pub mod spread;
pub mod stats;
pub mod target;
pub mod warm;
pub mod witness;
