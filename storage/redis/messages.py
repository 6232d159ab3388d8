"""The messages that announce steps. They are tasks in the format of Celery (protocol 2) and of its Redis transport.

They are written here, because Celery takes five times as long to write one, and would have to be imported by every process that
announces steps.
"""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import dataclass

TASK = "workers.run_step"  #: Celery's name of the only task
#: A step that is announced before its commit is announced again unless the commit ends within this time. Its worker looks for the step
#: for longer.
EARLY_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Message:
    """What a message says."""

    step: int
    input: str | None = None  #: scratch key of images that may be staged before the step is claimed
    traceparent: str | None = None  #: of the request
    early: bool = False  #: the step may not be committed yet
    answer_to: str | None = None  #: the channel of the process in which a request waits for the job


def message_of(message: Message, queue: str) -> bytes:
    """The message that announces a step, as it lies in Celery's queue."""
    step = message.step
    more: dict[str, object] = {} if message.input is None else {"input": message.input, "traceparent": message.traceparent}
    if message.answer_to is not None:
        more["answer_to"] = message.answer_to
    if message.early:
        more["early"] = True
    name = str(uuid.uuid4())
    body = json.dumps([[step], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    return json.dumps(
        {
            "body": base64.b64encode(body.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": TASK,
                "id": name,
                "root_id": name,
                "parent_id": None,
                "argsrepr": f"[{step}]",
                "kwargsrepr": "{}",
                "retries": 0,
                "timelimit": [None, None],
                "eta": None,
                "expires": None,
                "group": None,
                "ignore_result": True,
                **more,
            },
            "properties": {
                "correlation_id": name,
                "reply_to": None,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    ).encode()


def read_message(text: bytes) -> Message:
    """What a message says. Its body is [args, kwargs, embed]. Raises ValueError if it announces no step."""
    try:
        message = json.loads(text)
        args, _, _ = json.loads(base64.b64decode(message["body"]))
        headers = message.get("headers") or {}
        texts = {name: text for name, text in headers.items() if isinstance(text, str)}
        return Message(
            int(args[0]),
            input=texts.get("input"),
            traceparent=texts.get("traceparent"),
            early=headers.get("early") is True,
            answer_to=texts.get("answer_to"),
        )
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"this message announces no step: {error!r}") from error
