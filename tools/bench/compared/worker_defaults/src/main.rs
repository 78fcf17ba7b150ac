//! The worker as it comes when nothing is chosen: the SDK's default features, HTTP client, roots and chain of
//! credentials, a runtime of many threads, and Cargo's own release profile. Its work is the product's.

use aws_config::BehaviorVersion;
use lambda_runtime::{Error, run, service_fn, tracing};
use shared::Clock;
use shared::aws::{Aws, Endpoints, Output};
use worker::{App, handle};

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing::init_default_subscriber();
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let aws = Aws::new(config, Endpoints::default()).with_output(Output::stdout());
    let app = &App::new(&aws, Clock::system(), &|name| std::env::var(name).ok())?;
    run(service_fn(move |event| handle(app, event))).await
}
