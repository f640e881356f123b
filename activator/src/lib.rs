//! placeholder
pub mod auth;
pub mod directory;
pub mod era;
pub mod hold;
pub mod lease;
pub mod memory;
pub mod message;
pub mod session;
pub mod sse;
