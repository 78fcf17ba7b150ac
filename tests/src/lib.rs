//! What the tests of the whole service share: a pipeline of their own each, a wire that can be disturbed, and a stand-in
//! for Lambda's runtime API.

pub mod audit;
pub mod pipeline;
pub mod restart;
pub mod runtime_api;
pub mod simulation;
pub mod soak;
pub mod volume;
pub mod wire;
