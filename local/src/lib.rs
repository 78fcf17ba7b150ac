//! The whole pipeline on one machine: the deployed functions' own handlers and SDK clients, over AWS-compatible services
//! that are embedded in this process and provisioned from the deployed template.

pub mod bedrock;
mod event_source;
mod gateway;
mod host;
mod invoke;
mod provision;
mod requeue;
pub mod services;
mod stack;
pub mod template;

pub use gateway::{ApiKeys, EVERYONE};
pub use provision::ProvisionError;
pub use requeue::RequeueError;
pub use stack::{Apps, BedrockMode, Options, Ready, Stack, StartError};
