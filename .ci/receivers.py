"""The receivers of docs/receivers.md, against what a local stack sends; .ci/receivers runs this.

Usage: receivers.py LOCAL FOLDER, where FOLDER has receiver.py and receiver.js
"""

import contextlib
import http.client
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from datetime import datetime, timedelta, timezone

from standardwebhooks import Webhook

local, folder = sys.argv[1:]
RECEIVERS = {
    "Python": [sys.executable, f"{folder}/receiver.py"],
    "TypeScript": ["node", f"{folder}/receiver.js"],
}
# The longest time to wait for anything, in seconds. It is reached only if something is broken.
PATIENCE = 60
OTHER_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
JOB_EVENTS = ["job.succeeded", "job.failed", "job.canceled"]


def until(what: str, holds):
    """Calls holds until it returns a true value, and returns that value."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if value := holds():
            return value
        time.sleep(0.05)
    sys.exit(f"Timed out waiting for {what}.")


def ask(path: str, body: object = None):
    """Asks the API. A body is posted."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(api + path, data, {"content-type": "application/json", "x-api-key": "alice-key"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


class Recorder(http.server.BaseHTTPRequestHandler):
    """A receiver that accepts everything and keeps it, byte for byte."""

    requests = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Receiver:
    """A receiver of the document, which runs with a secret."""

    def __init__(self, command: list, secret: str, running: contextlib.ExitStack):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.log = tempfile.NamedTemporaryFile("r+")
        settings = os.environ | {"WEBHOOK_SECRET": secret, "PORT": str(self.port)}
        process = subprocess.Popen(command, env=settings, stdout=self.log, stderr=subprocess.DEVNULL)
        running.callback(process.wait)
        running.callback(process.kill)
        until("a receiver", lambda: self.listens() or process.poll() is not None)
        assert process.poll() is None, f"{command} has ended"

    def listens(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0

    def send(self, headers: dict, body: bytes) -> int:
        """Sends a request and returns the status of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request("POST", "/", body, {name: headers[name] for name in headers if name.startswith("webhook-")})
        status = connection.getresponse().status
        connection.close()
        return status

    def printed(self) -> list:
        """Returns what it has printed, in lines."""
        return pathlib.Path(self.log.name).read_text().splitlines()


def check(name: str, command: list, recorded: list) -> None:
    """Checks that a receiver accepts each request as it was recorded, and nothing else."""
    with contextlib.ExitStack() as running:
        receiver, stranger = Receiver(command, secret, running), Receiver(command, OTHER_SECRET, running)
        accepted, refused = [], 0
        for headers, body in recorded:
            event = json.loads(body)
            line = f"{headers['webhook-id']} {event['type']} {event['data']['id']}"
            assert receiver.send(headers, body) == 204, f"{name} refuses {headers} {body}"
            accepted.append(line)
            wrong = [(headers, body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]) for at in range(len(body))]
            wrong += [(headers, body[:-1]), (headers, body + b" "), (headers, b"")]
            for header in ["webhook-id", "webhook-timestamp", "webhook-signature"]:
                changed = headers[header].translate(str.maketrans("123abcABC", "231bcaBCA"))
                assert changed != headers[header], header
                wrong.append((headers | {header: changed}, body))
                wrong.append(({other: headers[other] for other in headers if other != header}, body))
            signed = lambda minutes: sign(headers, body, timedelta(minutes=minutes))
            wrong += [(signed(-6), body), (signed(6), body)]
            for changed in wrong:
                assert receiver.send(*changed) == 400, f"{name} accepts {changed} for {headers} {body}"
            assert stranger.send(headers, body) == 400, f"{name} accepts another's secret"
            refused += len(wrong) + 1
            # It is the timestamp that is refused above, and not the signature of this script.
            assert receiver.send(signed(0), body) == 204, f"{name} refuses what this script signs"
            accepted.append(line)
        until("what it prints", lambda: len(receiver.printed()) >= len(accepted))
        assert receiver.printed() == accepted, receiver.printed()
        assert stranger.printed() == []
        print(f"{name}: accepts {len(recorded)} events as the service sends them, and refuses {refused} other requests.")


def sign(headers: dict, body: bytes, ago: timedelta) -> dict:
    """Signs a request with its own secret, but at another time."""
    at = datetime.now(timezone.utc) + ago
    signature = Webhook(secret).sign(headers["webhook-id"], at, body.decode())
    return headers | {"webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


with contextlib.ExitStack() as all_running, tempfile.TemporaryDirectory() as made:
    ready = pathlib.Path(made, "ready.json")
    log = open(pathlib.Path(made, "log"), "w+")
    stack = subprocess.Popen(
        [local, "--port", "0", "--ready-file", ready, "--webhooks-to-loopback", "--model-plain"]
        + ["--api-key", "alice=alice-key"],
        stdout=log,
        stderr=log,
    )
    all_running.callback(stack.wait)
    all_running.callback(stack.kill)
    until("the local stack", lambda: ready.exists() or stack.poll() is not None)
    if stack.poll() is not None:
        sys.exit(f"The local stack has ended: {pathlib.Path(log.name).read_text()}")
    api = json.loads(ready.read_text())["api"]
    secret = ask("/webhook-secret")["secret"]

    recorder = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=recorder.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{recorder.server_port}/"
    jobs = [{"prompt": "A heist on the moon", "custom_id": "première"}, {"prompt": "nsfw"}]
    ask("/batches", {"name": "Дом", "jobs": jobs, "webhook": {"url": url, "events": JOB_EVENTS + ["batch.ended"]}})
    until("the events of a batch", lambda: len(Recorder.requests) >= 3)
    kinds = sorted(json.loads(body)["type"] for _, body in Recorder.requests)
    assert kinds == ["batch.ended", "job.failed", "job.succeeded"], kinds
    for name, command in RECEIVERS.items():
        check(name, command, Recorder.requests)

    # For a day after a rotation, a receiver may have either secret.
    rotated = ask("/webhook-secret/rotate", {})
    assert rotated["secret"] != secret == rotated["previous"][0]["secret"], rotated
    for name, command in RECEIVERS.items():
        for own in [secret, rotated["secret"]]:
            receiver = Receiver(command, own, all_running)
            job = ask("/jobs", {"prompt": "A heist", "webhook": {"url": f"http://127.0.0.1:{receiver.port}/"}})
            until("the event of a job", receiver.printed)
            assert receiver.printed()[0].split()[1:] == ["job.succeeded", job["id"]], receiver.printed()
        print(f"{name}: accepts events with the new secret, and with the one before it.")
    recorder.shutdown()
