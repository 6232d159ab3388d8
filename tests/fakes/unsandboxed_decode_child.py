"""tests/fakes/hooked_decode_child.py without a sandbox, as on a system that has none."""

from __future__ import annotations

from pipeline.decode import child
from tests.fakes.hooked_decode_child import decode

if __name__ == "__main__":
    child.main(decode, sandboxed=False)
