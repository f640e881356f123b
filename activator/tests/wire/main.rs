//! What the data plane does on the wire: real sockets, a scripted autoscaler, a real HTTP server as the instance.

mod support;

mod cold;
mod edge;
mod ends;
mod legacy;
mod modern;
mod revival;
mod shutdown;
