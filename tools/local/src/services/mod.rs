//! The AWS services of the pipeline, in this process.
//!
//! [`DynamoDb`], [`S3`] and [`Sqs`] each answer over the real wire protocol on a loopback port, so the functions use the same
//! SDK clients as when deployed, and any other AWS client works too. Each has a method `serve`, which answers until its
//! `shutdown` resolves and running requests have finished. Instances share nothing.

mod dynamodb;
mod s3;
mod sqs;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use dynamodb::DynamoDb;
pub(crate) use s3::S3;
pub(crate) use sqs::Sqs;

use std::future::IntoFuture;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn;
use axum::serve::ListenerExt;
use futures_util::future::{BoxFuture, Shared};
use rustack_sqs_model::error::SqsError;
use tokio::net::TcpListener;

use crate::host::loopback_only;

/// How long a shutdown waits for running requests, in case a client stalls in the middle of one.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the DynamoDB database failed: {0}")]
    Database(#[from] dynoxide::DynoxideError),
    #[error("cannot create the queue {queue}: {source}")]
    Queue { queue: String, source: SqsError },
    #[error("cannot use {} for storage: {source}", path.display())]
    Storage { path: PathBuf, source: io::Error },
    #[error("the embedded server failed: {0}")]
    Server(#[source] io::Error),
}

/// The signal to stop, for which the server and its requests can all wait.
pub(crate) type Shutdown = Shared<BoxFuture<'static, ()>>;

/// Serves `router`, to programs of this machine only, until `shutdown` resolves and running requests have finished.
pub(crate) async fn serve_router(listener: TcpListener, router: Router, shutdown: Shutdown) -> Result<(), Error> {
    // Without TCP_NODELAY the last part of an answer waits some 40 ms for the client's delayed acknowledgment.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    let router = router.layer(from_fn(loopback_only));
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone()).into_future();
    let deadline = async {
        shutdown.await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        result = server => result.map_err(Error::Server),
        () = deadline => {
            tracing::warn!("a request did not end within the shutdown");
            Ok(())
        }
    }
}
