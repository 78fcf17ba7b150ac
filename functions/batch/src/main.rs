//! The Lambda function `batch`.

fn main() -> Result<(), lambda_runtime::Error> {
    shared::aws::lambda::run(batch::App::new, batch::handle)
}
