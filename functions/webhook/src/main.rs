//! The Lambda function `webhook`.

use lambda_runtime::{Error, run, service_fn};
use shared::aws::logs;
use webhook::{App, handle};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    logs::start();
    let app = &App::from_env()?;
    run(service_fn(move |event| handle(app, event))).await
}
