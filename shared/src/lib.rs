//! The vocabulary of the movie poster service.
//!
//! At the root of this crate stands what the service talks about, free of I/O: what a caller may ask for
//! ([`order`], [`poster`], [`batch`]), the life of a job ([`job`]), the wire formats of the API ([`api`], [`problem`]), of the queue
//! ([`ticket`]) and of the model ([`stability`]), and the mark in a picture's file that tells its [`origin`]. The module `aws`, behind the feature of the same name, carries
//! these things to and from the AWS services.

#[cfg(feature = "aws")]
pub mod aws;

pub mod api;
pub mod backoff;
pub mod batch;
pub mod cursor;
pub mod id;
pub mod job;
pub mod json;
pub mod order;
pub mod origin;
pub mod poster;
pub mod problem;
pub mod settings;
pub mod stability;
pub mod ticket;
pub mod time;

pub use batch::Batch;
pub use id::{BatchId, JobId};
pub use job::{Job, JobState, Owner};
pub use order::Order;
pub use problem::Problem;
pub use time::{Clock, Timestamp};
