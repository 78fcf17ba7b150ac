//! The script `preflight`, in accounts of different kinds. A stub that prints fixed answers replaces the AWS CLI;
//! `.ci/deploy` runs the script with the real CLI against an emulator.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The calls of an account without problems.
const GOOD: [(&str, &str); 11] = [
    ("sts get-caller-identity", "123456789012\tarn:aws:iam::123456789012:user/me"),
    ("cloudformation describe-stacks", "!Stack with id movie-poster does not exist"),
    ("apigateway get-rest-apis", "\n"),
    ("lambda get-account-settings", "1000\t1000"),
    ("apigateway get-account", "None"),
    ("bedrock get-foundation-model-availability", "AVAILABLE\tAUTHORIZED\tAVAILABLE\tAVAILABLE"),
    ("bedrock get-foundation-model ", "ACTIVE"),
    ("service-quotas list-service-quotas", "\n\n150.0\n"),
    ("bedrock get-model-invocation-logging-configuration", "None"),
    ("s3api head-bucket", "!An error occurred (404) when calling the HeadBucket operation: Not Found"),
    ("iam get-role", "a-role"),
];

/// A call and its answer.
type Answers<'a> = &'a [(&'a str, &'a str)];

/// The calls that differ from [`GOOD`], the arguments, and a line that must be printed.
type Case<'a> = (Answers<'a>, &'a [&'a str], &'a str);

/// Runs the script with a stub of the AWS CLI that answers as in [`GOOD`], except for `others`. An answer that begins
/// with `!` is an error. Returns the output, and whether the script succeeded.
fn preflight(others: Answers<'_>, arguments: &[&str]) -> (String, bool) {
    let folder = tempfile::tempdir().expect("a directory");
    let mut stub = "#!/usr/bin/env bash\nasked=\"$* \"\n".to_owned();
    for (call, answer) in others.iter().chain(&GOOD) {
        let (answer, status) = answer.strip_prefix('!').map_or((*answer, 0), |error| (error, 1));
        let stream = if status == 0 { "" } else { " >&2" };
        stub += &format!("case $asked in *{call:?}*) printf '%b\\n' {answer:?}{stream}; exit {status} ;; esac\n");
    }
    stub += "echo \"not expected: $asked\" >&2; exit 9\n";
    let aws = folder.path().join("aws");
    std::fs::write(&aws, stub).expect("it is written");
    std::fs::set_permissions(&aws, PermissionsExt::from_mode(0o755)).expect("it is made executable");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").expect("a search path"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../preflight");
    let output = Command::new(script).args(arguments).env("PATH", path).output().expect("it runs");
    let told = String::from_utf8(output.stdout).expect("it is UTF-8");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (told, output.status.success())
}

#[test]
fn an_account_without_problems_passes() {
    let (told, good) = preflight(&[], &["AlarmEmail=me@example.com", "BucketName=posters-of-mine"]);
    assert!(good, "{told}");
    assert!(told.lines().all(|line| line.starts_with("ok ")), "{told}");
    assert!(told.contains("150 requests a minute, enough for 10 pictures"), "{told}");
}

#[test]
fn each_problem_of_an_account_is_reported_with_what_to_do() {
    let role = ("apigateway get-account ", "arn:aws:iam::123456789012:role/logs");
    let pending = [
        ("--query Stacks[0].StackStatus", "CREATE_COMPLETE"),
        ("cloudformation describe-stacks", "AlarmEmail\tme@example.com\nMaximumConcurrency\t4"),
        ("cloudformation describe-stack-resource", "arn:aws:sns:us-west-2:123456789012:t"),
        ("sns list-subscriptions-by-topic", "PendingConfirmation"),
    ];
    let cases: [Case<'_>; 17] = [
        (&[], &[], "look   Nobody is notified of alarms"),
        (
            &[("lambda get-account-settings", "10\t10")],
            &[],
            "look   Lambda runs 10 functions at once in this account, so 4 waiting callers",
        ),
        (&[("lambda get-account-settings", "10\t10")], &["MaxWaitSeconds=0"], "ok     Lambda runs 10 functions"),
        (&[("lambda get-account-settings", "10\t10")], &["MaximumConcurrency=6"], "stop   Lambda runs 10 functions"),
        (&[("lambda get-account-settings", "10\t10")], &["StatusReservedConcurrency=5"], "stop   5 of 10 executions"),
        (
            &[],
            &["WorkerReservedConcurrency=1"],
            "stop   WorkerReservedConcurrency is 1, less than MaximumConcurrency, 2",
        ),
        (&[], &["ApiGatewayLogRole=existing"], "stop   API Gateway has no log role"),
        (&[role], &[], "look   API Gateway has a log role already"),
        (&[role], &["ApiGatewayLogRole=existing"], "ok     API Gateway has a log role"),
        (
            &[role, ("iam get-role", "!An error occurred (NoSuchEntity) when calling GetRole")],
            &["ApiGatewayLogRole=existing"],
            "which no longer exists. Deploy with ApiGatewayLogRole=create",
        ),
        (
            &[("bedrock get-foundation-model-availability", "AVAILABLE\tAUTHORIZED\tAVAILABLE\tNOT_AVAILABLE")],
            &[],
            "look   The account is not subscribed",
        ),
        (&[("bedrock get-foundation-model ", "LEGACY")], &[], "look   stability.stable-image-core-v1:1 is LEGACY"),
        (&[("service-quotas list-service-quotas", "60.0")], &[], "look   stability.stable-image-core-v1:1 takes 60"),
        (
            &[("service-quotas", "!AccessDeniedException")],
            &[],
            "?      The quota of stability.stable-image-core-v1:1: Acc",
        ),
        (&[("s3api head-bucket", "\n")], &["BucketName=taken"], "stop   The bucket taken already exists"),
        (
            &[("--query Stacks[0].StackStatus", "ROLLBACK_COMPLETE"), pending[1]],
            &[],
            "stop   The stack movie-poster is in",
        ),
        (&pending, &[], "look   me@example.com has not confirmed"),
    ];
    for (others, arguments, line) in cases {
        let (told, good) = preflight(others, arguments);
        assert!(told.lines().any(|one| one.contains(line)), "{line}\n{told}");
        assert_eq!(good, !told.contains("\nstop "), "{told}");
    }
}
