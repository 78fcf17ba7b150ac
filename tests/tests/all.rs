//! Everything that crosses crates, in one binary that links the stack once.

mod adapters;
mod batches;
mod binaries;
mod cli;
mod contract;
mod crashes;
mod deliveries;
mod detours;
mod documents;
mod first_hour;
mod groups;
mod lists;
mod metrics;
mod origin;
mod owners;
mod page;
mod pipeline;
mod posters;
mod races;
mod refusals;
mod restart;
mod simulation;
mod soak;
mod steering;
mod template;
mod volume;
