//! The Lambda function `batch`.

use batch::{App, handle};
use lambda_runtime::{Error, run, service_fn};
use shared::aws::logs;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    logs::start();
    let app = &App::from_env()?;
    run(service_fn(move |event| handle(app, event))).await
}
