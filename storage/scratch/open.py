"""Opens the scratch store of SCRATCH_URL."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from config.settings import Settings
from pipeline.ports import Scratch
from storage.scratch.files import FileScratch


def open_scratch(settings: Settings) -> Scratch:
    """The store of SCRATCH_URL. It does not contact S3 yet."""
    kind, _, place = settings.scratch_url.partition(":")
    if kind == "file":
        return FileScratch(Path(place))
    from storage.scratch.s3 import S3Scratch, s3_client

    bucket, _, prefix = place.strip("/").partition("/")
    return S3Scratch(partial(s3_client, settings), bucket=bucket, prefix=prefix, own_endpoint=bool(settings.s3_endpoint_url))
