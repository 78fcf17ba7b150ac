//! The Lambda function `dead_letter`.

use dead_letter::{App, handle};
use lambda_runtime::{Error, run, service_fn, tracing};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    tracing::init_default_subscriber();
    let app = &App::from_env().await?;
    run(service_fn(move |event| handle(app, event))).await
}
