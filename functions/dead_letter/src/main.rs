//! The Lambda function `dead_letter`.

fn main() -> Result<(), lambda_runtime::Error> {
    shared::aws::lambda::run(dead_letter::App::new, dead_letter::handle)
}
