//! The Lambda function `status`.

fn main() -> Result<(), lambda_runtime::Error> {
    shared::aws::lambda::run(status::App::new, status::handle)
}
