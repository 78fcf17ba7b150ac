//! The whole pipeline on one machine: the handlers and SDK clients of the deployed functions, over AWS-compatible services
//! that run in this process and are set up from the deployed template.

pub mod bedrock;
mod data;
mod event_source;
mod gateway;
mod handlers;
mod host;
mod invoke;
mod ports;
mod resume;
mod services;
mod stack;
pub mod template;

pub use gateway::{ApiKeys, EVERYONE};
pub use handlers::Apps;
pub use resume::ResumeError;
pub use stack::{Options, Ready, Stack, StartError};
