"""The whole job inside one request: the caller waits while the model paints. There is no table and no queue."""

import base64
import json
import os
import uuid

import boto3
from botocore.config import Config

bedrock = boto3.client("bedrock-runtime", region_name=os.environ["BEDROCK_REGION"], config=Config(retries={"total_max_attempts": 1}))
# As it does by itself over HTTPS; here there is none, and it would hash each picture.
s3 = boto3.client("s3", config=Config(s3={"payload_signing_enabled": False}))


def handler(event, context):
    request = {"prompt": json.loads(event["body"])["prompt"], "aspect_ratio": "2:3", "output_format": "png"}
    answer = bedrock.invoke_model(modelId=os.environ["MODEL_ID"], body=json.dumps(request), contentType="application/json")
    picture = base64.b64decode(json.loads(answer["body"].read())["images"][0])
    target = {"Bucket": os.environ["IMAGE_BUCKET"], "Key": f"images/{uuid.uuid4()}.png"}
    s3.put_object(**target, Body=picture, ContentType="image/png")
    url = s3.generate_presigned_url("get_object", Params=target, ExpiresIn=3600)
    return {"statusCode": 200, "body": json.dumps({"url": url})}
