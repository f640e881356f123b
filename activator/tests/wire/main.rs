//! What the data plane does on the wire: real sockets, a scripted autoscaler, a real HTTP server as the instance.

#![expect(unreachable_pub, reason = "the modules of one test binary")]

mod support;

mod cold;
mod edge;
mod ends;
mod legacy;
mod listen;
mod modern;
mod revival;
mod shutdown;
mod sse_transport;
mod streams;
