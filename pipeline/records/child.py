"""The child process that checks records for `pipeline/records/apart.py`.

Each line of its standard input is a JSON array of a schema and a record. It answers each with a line that says what is wrong with
the record, empty if it fits. The first line, which is empty too, says that it has started. It ends with its standard input.
"""

from __future__ import annotations

import os
import resource
import sys

from pipeline.hardening import make_private
from pipeline.numbers import read_json
from pipeline.records.validate import compile_schema


def main() -> None:
    memory = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)  # other work on this machine goes first
    make_private()
    answers = sys.stdout.buffer
    answers.write(b"\n")
    answers.flush()
    for line in sys.stdin.buffer:
        schema, record = read_json(line)
        fault = compile_schema(schema, most_here=sys.maxsize)(record)
        answers.write(" ".join(fault.split()).encode("utf-8", "replace") + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
