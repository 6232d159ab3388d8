"""The messages that announce steps. They are tasks in the format of Celery (protocol 2) and of its Redis transport.

They are written here, because Celery takes five times as long to write one, and would have to be imported by every process that
announces steps.
"""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

TASK = "workers.run_step"  #: Celery's name of the only task


def message_of(step: int, queue: str) -> bytes:
    """The message that announces a step, as it lies in Celery's queue."""
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


def step_of(payload: Any) -> int:
    """The step id in a message's body. Celery's body is [args, kwargs, embed]."""
    return int(payload[0][0])
