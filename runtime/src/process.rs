//! Instances as child processes on this machine.
