"""Parts that tests and benches share: the service as processes, the servers it needs, and a fake model.

`bench/` may import the tests' parts only from here. tests/unit/test_benches.py checks this.
"""

from testbed.collector import collecting
from testbed.pgbouncer import Pooler, pgbouncer
from testbed.postgres import PostgresServer, postgres
from testbed.production import Production, eventually, production, valkey
from testbed.seaweedfs import S3Server, seaweedfs
from testbed.service import ROOT, PictureServer, Service, command_of, environment, pictures, serving
from tests.fakes.flex import FlexServer
from tests.fakes.gemini import Behaviour, FakeGemini, SeenCall, numbered_picture
from tests.fakes.gemini_behaviours import rate_limited
from tests.rows import job_of, new_account, staged_images

__all__ = [
    "ROOT",
    "Behaviour",
    "FakeGemini",
    "FlexServer",
    "PictureServer",
    "Pooler",
    "PostgresServer",
    "Production",
    "S3Server",
    "SeenCall",
    "Service",
    "collecting",
    "command_of",
    "environment",
    "eventually",
    "job_of",
    "new_account",
    "numbered_picture",
    "pgbouncer",
    "pictures",
    "postgres",
    "production",
    "rate_limited",
    "seaweedfs",
    "serving",
    "staged_images",
    "valkey",
]
