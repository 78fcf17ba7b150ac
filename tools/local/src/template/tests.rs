use super::*;

pub(crate) fn read(template: &str, parameters: &[(&str, &str)]) -> Result<Deployment, String> {
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let surroundings =
        Surroundings { sqs: "http://127.0.0.1:9".to_owned(), parameters, secret: "0123456789".to_owned() };
    Deployment::read(template, &surroundings).map_err(|error| error.to_string())
}

#[test]
fn the_deployed_template_is_understood() {
    let deployment = read(TEMPLATE, &[("MaxAttempts", "5")]).expect("it is understood");
    let functions: Vec<_> = deployment.functions.keys().collect();
    assert_eq!(functions, ["batch", "dead_letter", "status", "submit", "webhook", "worker"]);
    let worker = &deployment.functions["worker"];
    assert_eq!(worker.environment["MAX_ATTEMPTS"], "5");
    assert_eq!(worker.environment["TABLE_NAME"], deployment.tables["JobsTable"].name);
    let queue = deployment.queue_by_arn(&worker.sources[0].queue).expect("its queue is there");
    assert_eq!(worker.environment["QUEUE_URL"], queue.url);
    let policy: Value = serde_json::from_str(&queue.attributes["RedrivePolicy"]).expect("the policy is JSON");
    assert_eq!(policy["deadLetterTargetArn"], deployment.queues["DeadLetterQueue"].arn.as_str());
    assert_eq!(worker.environment["IMAGE_BUCKET"], deployment.buckets["ImageBucket"]);
    assert_eq!(deployment.buckets["ImageBucket"], "moviePosterDesign-ImageBucket".to_lowercase());
}

#[test]
fn conditions_choose() {
    let named = read(TEMPLATE, &[("BucketName", "movieposterdesign01")]).expect("it is understood");
    assert_eq!(named.buckets["ImageBucket"], "movieposterdesign01");
    let silent = read(TEMPLATE, &[("Webhooks", "false")]).expect("it is understood");
    assert!(!silent.functions.contains_key("webhook") && !silent.tables.contains_key("DeliveriesTable"));
    assert!(!silent.functions["worker"].environment.contains_key("WEBHOOK_QUEUE_URL"));
}

#[test]
fn what_is_not_understood_is_refused_with_its_place() {
    let template =
        "Resources:\n  Q:\n    Type: AWS::SQS::Queue\n    Properties:\n      DelaySeconds: !Select [0, [1]]\n";
    let error = read(template, &[]).expect_err("Select is not understood");
    assert!(error.contains("Resources/Q/Properties/DelaySeconds") && error.contains("Fn::Select"), "{error}");
    let error = read(TEMPLATE, &[("MaxAttemps", "5")]).expect_err("there is no such parameter");
    assert!(error.contains("there is no MaxAttemps"), "{error}");
    for (name, value) in [("MaxAttempts", "0"), ("MaxAttempts", "many"), ("ModelId", "dall-e")] {
        let error = read(TEMPLATE, &[(name, value)]).expect_err("the value breaks a rule");
        assert!(error.contains(&format!("Parameters/{name}")), "{error}");
    }
}
