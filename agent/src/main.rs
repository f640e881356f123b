//! Our process inside a pod.

fn main() {}
