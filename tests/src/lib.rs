//! What the tests of the whole service share: a pipeline for each test, ways to disturb calls to services, proxies in
//! front of a service, and a stand-in for Lambda's runtime API.

pub mod audit;
pub mod events;
pub mod front;
pub mod interceptor;
pub mod pipeline;
pub mod receiver;
pub mod restart;
pub mod runtime_api;
pub mod simulation;
pub mod soak;
pub mod told;
pub mod volume;
pub mod wire;
