//! The Lambda function `submit`.

fn main() -> Result<(), lambda_runtime::Error> {
    shared::aws::lambda::run(submit::App::new, submit::handle)
}
