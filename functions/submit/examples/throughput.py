"""Takes prompts in with boto3 as the function does: records to DynamoDB, tickets to SQS.

Prints the time and the CPU of the fastest of some rounds, in seconds, as JSON.
"""

import json
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config

address, how, prompts, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
settings = {
    "endpoint_url": address,
    "region_name": "us-west-2",
    "aws_access_key_id": "a",
    "aws_secret_access_key": "b",
    "config": Config(max_pool_connections=16),
}
dynamodb, sqs = boto3.client("dynamodb", **settings), boto3.client("sqs", **settings)
queue = address + "/000000000000/queue"


def record(number):
    prompt = f"Poster {number} of many: a noir detective thriller in 1940s Venice"
    order = {"prompt": {"S": prompt}, "aspect_ratio": {"S": "2:3"}, "output_format": {"S": "png"}}
    now = {"N": str(time.time_ns() // 1_000_000)}
    return {
        "pk": {"S": f"JOB#{uuid.uuid4()}"},
        "owner": {"S": "everyone"},
        "created_at": now,
        "order": {"M": order},
        "status": {"S": "queued"},
        "fence": {"N": "0"},
        "attempts": {"N": "0"},
        "deadline_at": now,
        "expires_at": now,
    }


def ticket(item):
    return json.dumps({"v": 1, "job": item["pk"]["S"][4:]})


def write(items):
    dynamodb.batch_write_item(RequestItems={"jobs": [{"PutRequest": {"Item": item}} for item in items]})


def send(items):
    entries = [{"Id": str(n), "MessageBody": ticket(item)} for n, item in enumerate(items)]
    sqs.send_message_batch(QueueUrl=queue, Entries=entries)


def batches(pool):
    items = [record(number) for number in range(prompts)]
    dynamodb.put_item(TableName="jobs", Item={"pk": {"S": f"BATCH#{uuid.uuid4()}"}})
    list(pool.map(write, [items[n : n + 25] for n in range(0, prompts, 25)]))
    list(pool.map(send, [items[n : n + 10] for n in range(0, prompts, 10)]))
    dynamodb.put_item(TableName="jobs", Item={"pk": {"S": f"BATCH#{uuid.uuid4()}"}})


def one_by_one(_pool):
    for number in range(prompts):
        item = record(number)
        dynamodb.put_item(TableName="jobs", Item=item, ConditionExpression="attribute_not_exists(pk)")
        sqs.send_message(QueueUrl=queue, MessageBody=ticket(item))


measured = []
with ThreadPoolExecutor(16) as pool:
    for _ in range(rounds):
        begun, cpu = time.perf_counter(), time.process_time()
        (batches if how == "batches" else one_by_one)(pool)
        measured.append((time.perf_counter() - begun, time.process_time() - cpu))
best = min(measured)
print(json.dumps({"time": best[0], "cpu": best[1]}))
