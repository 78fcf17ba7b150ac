"""POST /jobs as a plain Python Lambda would do it: a record in the table and a message in the queue."""

import json
import os
import time
import uuid

import boto3

dynamodb = boto3.client("dynamodb")
sqs = boto3.client("sqs")


def handler(event, context):
    order = json.loads(event["body"])
    prompt = order.get("prompt", "").strip()
    if not 1 <= len(prompt) <= 10_000:
        return {"statusCode": 400, "body": json.dumps({"error": "the prompt must have 1 to 10000 characters"})}
    job = str(uuid.uuid4())
    dynamodb.put_item(
        TableName=os.environ["TABLE_NAME"],
        Item={
            "pk": {"S": f"JOB#{job}"},
            "prompt": {"S": prompt},
            "status": {"S": "queued"},
            "submitted_at": {"N": str(int(time.time()))},
        },
        ConditionExpression="attribute_not_exists(pk)",
    )
    sqs.send_message(QueueUrl=os.environ["QUEUE_URL"], MessageBody=json.dumps({"job": job}))
    return {"statusCode": 202, "body": json.dumps({"id": job, "status": "queued", "prompt": prompt})}
