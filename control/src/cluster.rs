//! placeholder

pub mod definitions;
