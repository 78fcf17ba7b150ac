"""The worker as a plain Python Lambda would do it: each message of a batch in a thread of a pool."""

import base64
import json
import os
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config

# A painting must not be repeated by the SDK, and ten threads want ten connections, which is the default.
bedrock = boto3.client("bedrock-runtime", region_name=os.environ["BEDROCK_REGION"], config=Config(retries={"total_max_attempts": 1}))
dynamodb = boto3.client("dynamodb")
# As it does by itself over HTTPS; here there is none, and it would hash each picture.
s3 = boto3.client("s3", config=Config(s3={"payload_signing_enabled": False}))
pool = ThreadPoolExecutor(10)

TABLE = os.environ["TABLE_NAME"]
BUCKET = os.environ["IMAGE_BUCKET"]
MODEL = os.environ["MODEL_ID"]


def move(key, before, after, url=""):
    """Moves a job from one status to the next, which only one of several workers can."""
    dynamodb.update_item(
        TableName=TABLE,
        Key=key,
        UpdateExpression="SET #status = :after, image_url = :url",
        ConditionExpression="#status = :before",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":before": {"S": before}, ":after": {"S": after}, ":url": {"S": url}},
    )


def paint(record):
    job = json.loads(record["body"])["job"]
    key = {"pk": {"S": f"JOB#{job}"}}
    item = dynamodb.get_item(TableName=TABLE, Key=key, ConsistentRead=True)["Item"]
    move(key, "queued", "running")
    request = {"prompt": item["prompt"]["S"], "aspect_ratio": "2:3", "output_format": "png"}
    answer = bedrock.invoke_model(modelId=MODEL, body=json.dumps(request), contentType="application/json")
    picture = base64.b64decode(json.loads(answer["body"].read())["images"][0])
    name = f"images/{job}.png"
    s3.put_object(Bucket=BUCKET, Key=name, Body=picture, ContentType="image/png")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": name}, ExpiresIn=3600)
    move(key, "running", "succeeded", url)


def attempt(record):
    try:
        paint(record)
    except Exception as error:
        print(f"{record['messageId']}: {error}")
        return {"itemIdentifier": record["messageId"]}


def handler(event, context):
    failures = pool.map(attempt, event["Records"])
    return {"batchItemFailures": [failure for failure in failures if failure]}
