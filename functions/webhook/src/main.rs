//! The Lambda function `webhook`.

use webhook::{App, handle};

fn main() -> Result<(), lambda_runtime::Error> {
    shared::aws::lambda::run(|aws, clock, lookup| App::new(aws, clock, lookup)?.checked(), handle)
}
