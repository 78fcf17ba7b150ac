"""What schemathesis cannot learn about the API from its OpenAPI document."""

import unicodedata

import schemathesis

LISTS = ("/jobs", "/batches", "/batches/{id}/jobs", "/deliveries")

# The cursors that the API has returned, by the list that they belong to.
cursors = {}

# An endpoint that the API accepts. No request reaches it, as its name does not resolve (RFC 2606).
ENDPOINT = "https://posters.invalid/hooks"

# Unicode's white space, which the API trims from both ends of a text before it counts the characters.
SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Removes the access without a key: the server under test has API keys, so every caller must send one."""
    raw_schema["security"].remove({})


@schemathesis.hook
def filter_body(context, body):
    """Skips bodies for which only the document's prose, and not its schema, says whether they are accepted."""
    orders = [body]
    if isinstance(body, dict):
        orders.append(body.get("defaults"))
        orders.extend(body["jobs"] if isinstance(body.get("jobs"), list) else [])
        if not is_plain(body.get("name")):
            return False
    return all(is_told(order) for order in orders)


def is_told(order):
    """Whether the schema can tell if the server accepts this job or these defaults."""
    if not isinstance(order, dict):
        return True
    for text, limit in texts(order):
        # A text that is too long only before it is trimmed breaks its schema, but is accepted.
        if isinstance(text, str) and (len(text) > limit >= len(text.strip(SPACE)) or not is_plain(text)):
            return False
    metadata = order.get("metadata")
    if isinstance(metadata, dict) and not all(is_plain(text, True) for pair in metadata.items() for text in pair):
        return False
    return True


def is_plain(text, may_be_empty=False):
    """Whether a text has only characters that are certainly allowed, at least one of them certainly visible."""
    if not isinstance(text, str):
        return True
    is_allowed = all(c == " " or unicodedata.category(c)[0] not in "CZ" for c in text)
    return is_allowed and (may_be_empty or any("!" <= c <= "~" for c in text))


def texts(order):
    """The texts of a job that are trimmed, each with its limit."""
    for name in ("prompt", "negative_prompt"):
        yield order.get(name), 10_000
    yield order.get("custom_id"), 64
    poster = order.get("poster")
    if isinstance(poster, dict):
        yield poster.get("title"), 80
        yield poster.get("tagline"), 120
        for credit in poster["credits"] if isinstance(poster.get("credits"), list) else []:
            if isinstance(credit, dict):
                yield credit.get("role"), 32
                yield credit.get("name"), 48


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes a valid request follow the rules that no schema can express."""
    # A header with control characters is not HTTP (RFC 9110, section 5.5), so it is refused before the API sees it.
    for name, value in (case.headers or {}).items():
        case.headers[name] = "".join(c for c in str(value) if c.isprintable())
    if not case.meta or not case.meta.generation.mode.is_positive:
        return
    # Only one of these selects the deliveries.
    if case.query and "job" in case.query:
        case.query.pop("batch", None)
    # A cursor is sealed: only the API can make one. The request uses the last one that its list returned.
    if case.query and "cursor" in case.query:
        cursor = cursors.get(list_of(case))
        if cursor is None:
            del case.query["cursor"]
        else:
            case.query["cursor"] = cursor
    if case.operation.path == "/deliveries/replay" and isinstance(case.body, dict):
        case.body.pop("cursor", None)
    if isinstance(case.body, dict) and isinstance(case.body.get("webhook"), dict):
        case.body["webhook"]["url"] = ENDPOINT
    if case.operation.path == "/jobs" and isinstance(case.body, dict):
        paint_webp(case.body)
    if case.operation.path == "/batches" and isinstance(case.body, dict):
        # A job inherits the defaults of its batch, so the two must be compatible.
        defaults = case.body.get("defaults") or {}
        paint_webp(defaults)
        jobs = case.body.get("jobs") or []
        for job in jobs:
            for name in ("model", "output_format"):
                if job.get(name) is None and defaults.get(name) is not None:
                    job[name] = defaults[name]
            paint_webp(job)
        # No two jobs of a batch may have the same custom_id.
        seen = set()
        for job in jobs:
            custom_id = job.get("custom_id")
            if custom_id in seen:
                del job["custom_id"]
            elif custom_id is not None:
                seen.add(custom_id)


def paint_webp(order):
    """Selects the only model that returns WebP, if the order asks for it."""
    if order.get("output_format") == "webp":
        order["model"] = "stability.sd3-5-large-v1:0"


@schemathesis.hook
def after_call(context, case, response):
    if response.status_code == 200 and case.operation.path in LISTS:
        cursors[list_of(case)] = response.json()["next_cursor"]


def list_of(case):
    query = case.query or {}
    return case.formatted_path, *(query.get(name) for name in ("job", "batch", "status"))
