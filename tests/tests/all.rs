//! Everything that crosses crates, in one binary that links the stack once.

mod adapters;
mod binaries;
mod contract;
mod crashes;
mod deliveries;
mod pipeline;
mod template;
