//! Load with faults, in its short form. The long form is `cargo run -p tests --bin soak`.

use std::time::Duration;

use local::bedrock::Behavior;
use tests::soak::{Load, soak};

#[tokio::test(flavor = "multi_thread")]
async fn every_job_of_a_faulty_model_ends_once_with_its_picture_or_a_reason() {
    let load = Load::default();
    let model = Behavior { latency: Duration::from_millis(20), ..load.model };
    let report = soak(Load { jobs: 300, per_batch: 100, model, patience: Duration::from_secs(90), ..load }).await;
    assert!(report.audit.is_good(), "{report}");
    assert!(report.model.throttled + report.model.errors + report.model.filtered > 0, "nothing went wrong: {report}");
}
