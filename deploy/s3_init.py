"""Makes the bucket of SCRATCH_URL, with a rule that deletes what is two days old: the last net below the cleanup steps.

Run once before the service starts (docker-compose.yml does), and again at will: other rules of the bucket stay. It reads the
settings as the service does.
"""  # noqa: INP001 - a script, in no package

from __future__ import annotations

import os
import sys
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from config.roles import WITHOUT
from config.settings import SettingsFault, load_settings
from storage.scratch.s3 import s3_client

RULE = "extract-image-scratch"
DAYS = 2


def main() -> str:
    """What was done, as a sentence. Raises SettingsFault, ValueError, ClientError or BotoCoreError."""
    settings = load_settings(os.environ, without=WITHOUT["bucket"])
    if not settings.scratch_url.startswith("s3://"):
        raise ValueError("SCRATCH_URL must be s3://<bucket>/<prefix>")
    bucket, _, prefix = settings.scratch_url.removeprefix("s3://").strip("/").partition("/")
    client = s3_client(settings)
    _make_bucket(client, bucket)
    _set_rule(client, bucket, f"{prefix}/" if prefix else "")
    return f"The bucket {bucket} is there, and what lies in it below /{prefix} for {DAYS} days is deleted."


def _make_bucket(client: Any, bucket: str) -> None:
    region = client.meta.region_name
    elsewhere = region not in ("us-east-1", "aws-global")  # Amazon takes no LocationConstraint for its first region
    place = {"CreateBucketConfiguration": {"LocationConstraint": region}} if elsewhere else {}
    try:
        client.create_bucket(Bucket=bucket, **place)
    except (client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        client.head_bucket(Bucket=bucket)  # raises where it is somebody else's


def _set_rule(client: Any, bucket: str, prefix: str) -> None:
    """S3 takes all rules of a bucket at once, so those of others are sent along."""
    try:
        rules = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchLifecycleConfiguration":
            raise
        rules = []
    ours = {
        "ID": RULE,
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "Expiration": {"Days": DAYS},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": DAYS},
    }
    others = [rule for rule in rules if rule.get("ID") != RULE]
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [*others, ours]})


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{main()}\n")
    except ClientError as error:  # its own message may quote keys
        fault = error.response["Error"].get("Code", "")
        sys.exit(f"The scratch bucket can't be made ready: S3 refused {error.operation_name} ({fault}).")
    except (SettingsFault, ValueError, BotoCoreError) as error:
        sys.exit(f"The scratch bucket can't be made ready: {error}")
