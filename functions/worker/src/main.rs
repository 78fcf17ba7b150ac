//! The Lambda function `worker`.

fn main() -> Result<(), lambda_runtime::Error> {
    shared::aws::lambda::run(worker::App::new, worker::handle)
}
