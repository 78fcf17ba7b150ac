"""A caller's program with the client that openapi-python-client generates: python client.py ADDRESS KEY FILE"""

import sys
import time
import urllib.request

from movie_poster_creator_client import AuthenticatedClient
from movie_poster_creator_client.api.batches import get_batch, list_batch_jobs, submit_batch
from movie_poster_creator_client.api.jobs import get_job, submit_job
from movie_poster_creator_client.api.webhooks import list_deliveries
from movie_poster_creator_client.models import (
    AcceptedBatch,
    AspectRatio,
    BatchDefaults,
    BatchJobRequest,
    BatchRequest,
    BatchStatus,
    DeliveryStatus,
    Job,
    JobEvent,
    JobEventType,
    JobRequest,
    JobWebhook,
    Lettering,
    Problem,
    ProblemCode,
    Status,
)

address, key, file = sys.argv[1:]
client = AuthenticatedClient(base_url=address, token=key, prefix="", auth_header_name="x-api-key", timeout=30)

request = JobRequest(prompt="A heist on the moon", poster=Lettering(title="Moonfall"))
job = submit_job.sync(client=client, body=request)
assert isinstance(job, Job) and job.prompt == request.prompt, job
while job.finished_at is None:
    job = get_job.sync(job.id, client=client, prefer="wait=20")
    assert isinstance(job, Job), job
assert job.status == Status.SUCCEEDED and job.image is not None, job
urllib.request.urlretrieve(job.image.url, file)
with open(file, "rb") as picture:
    assert len(picture.read()) == job.image.bytes_

# The batch's defaults apply to fields that a job leaves out. A client that sends its own defaults would override them.
batch = submit_batch.sync(
    client=client,
    body=BatchRequest(
        defaults=BatchDefaults(aspect_ratio=AspectRatio("1:1")),
        jobs=[BatchJobRequest(prompt="A heist in Venice", custom_id="venice")],
    ),
)
assert isinstance(batch, AcceptedBatch), batch
while get_batch.sync(batch.id, client=client).status == BatchStatus.IN_PROGRESS:
    time.sleep(0.2)
page = list_batch_jobs.sync(batch.id, client=client, limit=1)
assert [(job.custom_id, job.aspect_ratio) for job in page.jobs] == [("venice", AspectRatio("1:1"))], page

# An endpoint whose name does not resolve, so that its delivery stays pending.
webhook = JobWebhook(url="https://posters.invalid/hooks", events=[JobEventType.JOB_SUCCEEDED])
job = submit_job.sync(client=client, body=JobRequest(prompt="A message in a bottle", webhook=webhook))
assert isinstance(job, Job) and job.webhook.url == webhook.url, job
while not (deliveries := list_deliveries.sync(client=client, job=job.id).deliveries):
    time.sleep(0.2)
assert deliveries[0].status == DeliveryStatus.PENDING and deliveries[0].tries[0].error.code == "dns_failed", deliveries
assert isinstance(deliveries[0].event, JobEvent) and deliveries[0].event.data.id == job.id, deliveries

problem = submit_job.sync(client=client, body=JobRequest(prompt=" "))
assert isinstance(problem, Problem) and problem.code == ProblemCode.INVALID_REQUEST, problem
assert problem.errors[0].pointer == "/prompt", problem
print("python: submitted, waited, saved a picture, read a delivery and a problem.")
