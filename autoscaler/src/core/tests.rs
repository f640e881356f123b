//! The pure parts one by one; the whole is proved by the simulation and by the loop's tests.

mod activity;
mod machines;
mod planner;
mod records;
mod takeover;
mod whole;
