//! The vocabulary of the movie poster service: what a caller may ask for, and the life of a job.
//!
//! - A **job** ([`Job`]) is one picture that a caller asked for. Its record in the table is authoritative. A job is
//!   queued, then running, then succeeded, failed or canceled.
//! - A **ticket** ([`ticket::Ticket`]) is a message in the queue that says: look at this job. Tickets can be late,
//!   repeated or lost, so a worker always reads the record before it acts.
//! - A **claim** ([`Job::claim`]) is a worker's conditional write that makes the job running. Of several workers with
//!   the same ticket, one write succeeds, so one worker paints.
//! - A **lease** ([`job::Lease`]) limits a claim in time. When a worker crashes, its lease ends by itself, and another
//!   worker can claim the job.
//! - The **fence** ([`Job::fence`]) numbers the versions of a record. Each transition raises it by one, and the table
//!   stores a version only over the version before it. A worker that was too slow is refused, and changes nothing.
//!
//! A transition takes the current time and returns the next version of the job. It does no I/O, and it does not change
//! the job that it is called on:
//!
//! ```
//! use shared::{Job, JobId, JobState, Order, Owner, Timestamp, job::{ClaimRefused, Lease, Terms}, order::Model};
//! use std::time::Duration;
//!
//! let (now, minute, day) = (Timestamp::from_ms(0), Duration::from_secs(60), Duration::from_secs(86_400));
//! let order = Order::parse(serde_json::json!({ "prompt": "A heist on the moon" }), "", Model::Core).unwrap();
//! let job = Job::new(JobId::new(), Owner::new("alice"), order, now, Terms { deadline: day, retention: 30 * day });
//!
//! let claimed = job.claim(Lease::new(now + minute), 3, now).unwrap();
//! assert_eq!((claimed.attempts, claimed.fence), (1, job.fence + 1));
//! // No other worker can claim the job until the lease has ended.
//! assert_eq!(claimed.claim(Lease::new(now + minute), 3, now), Err(ClaimRefused::Leased(now + minute)));
//! assert!(claimed.claim(Lease::new(now + 2 * minute), 3, now + minute).is_ok());
//! // Its owner may cancel it at any time. The fence of the worker's next write is then too low.
//! assert!(matches!(claimed.cancel(now).unwrap().state, JobState::Canceled { .. }));
//! ```
//!
//! The rules of a request are in [`order`], [`poster`] and [`batch`], those of a file of jobs in [`batch_file`], the
//! wire formats of the API in [`api`] and [`problem`], and the model's in [`stability`]. None of these does I/O, but a
//! new id or lease draws random numbers. The module `aws`, behind the feature of the same name, contains the adapters
//! to DynamoDB, SQS, S3, Bedrock and API Gateway.

#[cfg(feature = "aws")]
pub mod aws;

pub mod address;
pub mod api;
pub mod backoff;
pub mod batch;
pub mod batch_file;
pub mod caller;
pub mod cursor;
pub mod delivery;
pub mod event;
pub mod fault;
pub mod id;
pub mod image;
pub mod job;
pub mod json;
pub mod label;
pub mod order;
pub mod origin;
pub mod poster;
pub mod problem;
pub mod replay;
pub mod settings;
mod spelled;
pub mod stability;
pub mod text;
pub mod ticket;
pub mod time;
pub mod webhook;
pub mod webhook_secret;
pub use batch::Batch;
pub use caller::Owner;
pub use id::{BatchId, JobId};
pub use job::{Job, JobState};
pub use order::Order;
pub use problem::Problem;
pub use time::{Clock, Timestamp};
