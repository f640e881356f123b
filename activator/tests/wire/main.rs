//! What the data plane does on the wire: real sockets, a scripted autoscaler, a real HTTP server as the instance.

#![expect(unreachable_pub, reason = "the modules of one test binary")]
#![expect(clippy::unwrap_used, reason = "what a test does not expect fails it")]

mod support;

mod bytes;
mod children;
mod cold;
mod docs;
mod drains;
mod edge;
mod ends;
mod goodbye;
mod late;
mod legacy;
mod listen;
mod lost;
mod methods;
mod mirrored;
mod modern;
mod moved;
mod pods;
mod refused;
mod replay;
mod revival;
mod revived;
mod shutdown;
mod sse_transport;
mod stalled;
mod strands;
mod streams;
