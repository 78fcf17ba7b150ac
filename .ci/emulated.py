"""The steps of .ci/deploy that use the emulator through boto3.

Usage: emulated.py serve                             runs the emulator
       emulated.py template SOURCE TARGET ZIPS       writes the template with the zips, without what is not emulated
       emulated.py bucket NAME                       creates the bucket that sam deploy uploads to
       emulated.py api STACK                         prints the address of the API and the key
       emulated.py poster API KEY                    makes a poster and checks it
       emulated.py pool                              creates a user pool and prints its ARN
       emulated.py users API KEY POOL                checks what the users of the pool can do, and what others cannot
       emulated.py newman REPORT                     checks a report of newman
       emulated.py setting STACK FUNCTION NAME VALUE checks an environment variable of the function behind the alias
"""

import json
import os
import re
import sys
import time
import urllib.error
import urllib.request

import boto3

ENDPOINT = os.environ.get("AWS_ENDPOINT_URL", "")

# The requests of the Postman collection that the emulator answers differently from AWS, and why. Each must fail, so
# that a request is removed from this list when it starts to work.
NOT_EMULATED = {
    "An unknown path": "its API Gateway does not take the gateway responses from the API's definition",
    "A wrong API key": "its API Gateway does not take the gateway responses from the API's definition",
    "A wrong method": "its API Gateway does not know the method ANY",
}


def outputs(stack: str) -> dict:
    """Returns the outputs of a stack."""
    described = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}


def serve() -> None:
    """Runs the emulator, and adds to its events what they lack: the id of the caller's API key."""
    from ministack.app import main
    from ministack.services import apigateway_v1 as gateway

    build = gateway._build_lambda_event_v1

    def build_with_key(api, stage_name, stage, resource, path, method, headers, *arguments, **options):
        event = build(api, stage_name, stage, resource, path, method, headers, *arguments, **options)
        key = gateway._resolve_api_key(gateway._api_key_from_request(headers)) or {}
        event["requestContext"]["identity"] |= {"apiKey": key.get("value"), "apiKeyId": key.get("id")}
        return event

    gateway._build_lambda_event_v1 = build_with_key
    sys.argv = sys.argv[:1]
    main()


def write_template(source: str, target: str, zips: str) -> None:
    """Writes the template as sam build would, with each function's zip as its code.

    The emulator does not support alarms on more than one metric, so these are left out. It accepts an event source's
    concurrency only as a number, and not as the string that a parameter yields. Everything else is deployed as it is.
    """
    with open(source, encoding="utf-8") as file:
        text = re.sub(r"CodeUri: functions/(\w+)", rf"CodeUri: {zips}/\1/bootstrap.zip", file.read())
    for name, alarm in re.findall(r"^(  (?:\w+):\n)((?:    .*\n|\n)+)", text, re.MULTILINE):
        if "Type: AWS::CloudWatch::Alarm" in alarm and "      Metrics:\n" in alarm:
            text = text.replace(name + alarm, "")
            print(f"Left out, because the emulator does not know metric math: {name.strip(' :' + chr(10))}")
    text, changed = re.subn(r"(?<= {14}MaximumConcurrency: )!Ref MaximumConcurrency\n", "2\n", text)
    check(changed == 1, "the worker's event source does not look as expected")
    print("Written as a number, because the emulator does not read it from the parameter: MaximumConcurrency")
    with open(target, "w", encoding="utf-8") as file:
        file.write(text)


def create_bucket(name: str) -> None:
    """Creates a bucket."""
    boto3.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})


def print_api(stack: str) -> None:
    """Prints the address of the API, which differs from that on AWS, and the key that callers need."""
    told = outputs(stack)
    api = told["ApiUrl"].removeprefix("https://").split(".")[0]
    key = boto3.client("apigateway").get_api_key(apiKey=told["ApiKeyId"], includeValue=True)["value"]
    print(f"{ENDPOINT}/restapis/{api}/v1/_user_request_", key)


def call(
    method: str, url: str, key: str | None = None, body: dict | None = None, token: str | None = None
) -> tuple[int, bytes]:
    """Returns the status and body of an answer, whatever the status is."""
    headers = {"Content-Type": "application/json", "x-api-key": key, "Authorization": token}
    headers = {name: value for name, value in headers.items() if value}
    data = json.dumps(body).encode() if body is not None else None
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def check(holds: bool, what: str) -> None:
    """Ends the program if the condition does not hold."""
    if not holds:
        sys.exit(what)


def make_poster(api: str, key: str) -> None:
    """Submits a job, waits for it, and checks the picture."""
    order = {"prompt": "A noir detective thriller in 1940s Venice", "seed": 5}
    status, body = call("POST", f"{api}/jobs", body=order)
    check(status == 403, f"without a key the API answers {status}: {body!r}")
    status, body = call("POST", f"{api}/jobs", key, order)
    check(status == 202, f"the API answers {status}: {body!r}")
    job = json.loads(body)
    end = time.monotonic() + 60
    while job["status"] in ("queued", "running"):
        check(time.monotonic() < end, f"the job does not end: {job}")
        time.sleep(0.5)
        status, body = call("GET", f"{api}/jobs/{job['id']}", key)
        check(status == 200, f"the API answers {status}: {body!r}")
        job = json.loads(body)
    check(job["status"] == "succeeded", f"the job failed: {job}")
    status, picture = call("GET", job["image"]["url"])
    check(status == 200 and picture.startswith(b"\x89PNG"), f"the picture is not there: {status}")
    check(len(picture) == job["image"]["bytes"], "the picture has another size than the job says")
    print(f"Job {job['id']} has a picture of {len(picture)} bytes.")


def create_pool() -> None:
    """Creates a user pool and prints its ARN."""
    print(boto3.client("cognito-idp").create_user_pool(PoolName="posters")["UserPool"]["Arn"])


def check_users(api: str, key: str, pool: str) -> None:
    """Checks that each user of the pool has jobs of their own, and that every call needs both a key and a token."""
    client = boto3.client("cognito-idp")
    pool = pool.rsplit("/", 1)[1]
    app = client.create_user_pool_client(
        UserPoolId=pool, ClientName="posters", ExplicitAuthFlows=["ALLOW_USER_PASSWORD_AUTH"]
    )["UserPoolClient"]["ClientId"]

    def sign_in(name: str) -> str:
        login = {"USERNAME": name, "PASSWORD": "Posters-1"}
        client.admin_create_user(UserPoolId=pool, Username=name, MessageAction="SUPPRESS")
        client.admin_set_user_password(UserPoolId=pool, Username=name, Password=login["PASSWORD"], Permanent=True)
        signed_in = client.initiate_auth(ClientId=app, AuthFlow="USER_PASSWORD_AUTH", AuthParameters=login)
        return signed_in["AuthenticationResult"]["IdToken"]

    ada, bob = sign_in("ada"), sign_in("bob")
    status, body = call("POST", f"{api}/jobs", key, {"prompt": "A heist on the moon"}, ada)
    check(status == 202, f"with a key and a token the API answers {status}: {body!r}")
    job = f"{api}/jobs/{json.loads(body)['id']}"
    for who, path, sent, expected in [
        ("the same user", job, (key, ada), 200),
        ("another user with the same key", job, (key, bob), 404),
        ("a key without a token", job, (key, None), 401),
        ("a key with a bad token", job, (key, "x" + ada), 401),
        ("a token without a key", job, (None, ada), 403),
        ("neither, on /health", f"{api}/health", (None, None), 200),
    ]:
        status, body = call("GET", path, sent[0], token=sent[1])
        check(status == expected, f"{who}: the API answers {status}, not {expected}: {body!r}")
        print(f"{status}: {who}")


def judge_report(path: str) -> None:
    """Checks that exactly the requests of the Postman collection failed that are known to fail here."""
    with open(path, encoding="utf-8") as file:
        run = json.load(file)["run"]
    failed = {failure["source"]["name"] for failure in run["failures"]}
    check(run["stats"]["assertions"]["total"] > 200, "hardly anything was checked")
    check(failed == NOT_EMULATED.keys(), f"these failed: {sorted(failed)}; expected: {sorted(NOT_EMULATED)}")
    for name, why in NOT_EMULATED.items():
        print(f"Failed as expected, because of the emulator: {name} ({why})")
    assertions = run["stats"]["assertions"]
    print(f"{assertions['total'] - assertions['failed']} of {assertions['total']} assertions hold; the others are these.")


def check_setting(stack: str, function: str, name: str, value: str) -> None:
    """Checks an environment variable of a function, behind the alias that callers reach."""
    client = boto3.client("lambda")
    deployed = client.get_function_configuration(FunctionName=f"moviePosterDesign-{function}-{stack}", Qualifier="live")
    found = deployed["Environment"]["Variables"].get(name)
    check(found == value, f"version {deployed['Version']} of {function} has {name}={found}, not {value}")
    print(f"Version {deployed['Version']} of {function} has {name}={found}.")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    commands = {
        "serve": serve,
        "template": write_template,
        "bucket": create_bucket,
        "api": print_api,
        "poster": make_poster,
        "pool": create_pool,
        "users": check_users,
        "newman": judge_report,
        "setting": check_setting,
    }
    commands[command](*arguments)
