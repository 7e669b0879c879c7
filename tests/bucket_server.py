"""An S3-compatible server of these tests alone: moto, in a process of its own, which checks signatures and rights.

It knows buckets with versions and with object lock. What it keeps is gone when it ends.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import free_port
from tests.inbox import WAIT_S, eventually
from vps_bridge.bucket.address import BucketAddress
from vps_bridge.bucket.keys import make_key_file

USER = "omi-bridge"
BUCKET = "omi-audio"
REGION = "us-east-1"
RIGHTS = (
    "s3:PutObject",
    "s3:GetObject",
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:ListBucket",
    "s3:ListBucketVersions",
    "s3:GetBucketVersioning",
)
"""What docs/bucket.md says that the bridge needs."""
# moto copies all objects of a bucket for each listing of versions, and remembers the copies for ever: gigabytes within
# some hundred payloads.
_SERVER = """\
from collections import deque
from moto.s3.models import FakeKey
from moto.server import main
FakeKey.instances_tracked = deque(maxlen=0)
main()
"""
# Calls before the first that is checked: those that make the user who is checked.
_UNCHECKED = 3


@dataclass
class RunningBucket:
    """The server, an administrator's client, and the keys of the bridge's own user."""

    port: int
    log_file: Path
    process: subprocess.Popen[bytes]
    access_key: str = ""
    secret: str = field(default="", repr=False)
    admin: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def address(self, *, prefix: str = "audio/", endpoint: str | None = None, **changes: Any) -> BucketAddress:
        known = {
            "bucket": BUCKET,
            "prefix": prefix,
            "endpoint": endpoint or self.url,
            "region": REGION,
            "access_key": self.access_key,
            "secret": self.secret,
            "timeout_s": 5.0,
        }
        return BucketAddress(**{**known, **changes})

    def environment(self, directory: Path, *, endpoint: str | None = None, **changes: str) -> dict[str, str]:
        """Settings of a bridge that keeps its audio here, with a key file in `directory`."""
        key_file, secret_file = directory / "spool-keys", directory / "spool-secret"
        if not key_file.exists():
            make_key_file(key_file)
        secret_file.touch(mode=0o600)
        secret_file.write_text(self.secret)
        return {
            "OMI_SPOOL_URL": f"s3://{BUCKET}/audio",
            "OMI_SPOOL_ENDPOINT": endpoint or self.url,
            "OMI_SPOOL_ACCESS_KEY": self.access_key,
            "OMI_SPOOL_SECRET_FILE": str(secret_file),
            "OMI_SPOOL_KEY_FILE": str(key_file),
            **changes,
        }

    def versions(self, bucket: str = BUCKET) -> list[tuple[str, str]]:
        """Key and version of everything there is: deleted versions and marks of deletions too."""
        found = self.admin.list_object_versions(Bucket=bucket)
        return [(one["Key"], one["VersionId"]) for one in (*found.get("Versions", ()), *found.get("DeleteMarkers", ()))]

    def audio(self) -> list[tuple[str, str]]:
        """Those of `versions` that hold audio, or tell of some."""
        return [(key, version) for key, version in self.versions() if key.count("/") == 3]

    def bytes_of(self, key: str, version: str) -> bytes:
        body: bytes = self.admin.get_object(Bucket=BUCKET, Key=key, VersionId=version)["Body"].read()
        return body

    def keep_versions(self, bucket: str = BUCKET) -> None:
        self.admin.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    def allow(self, *rights: str) -> None:
        """Give the bridge's user these rights and no others."""
        statement = [{"Effect": "Allow", "Action": list(rights), "Resource": "*"}]
        policy = json.dumps({"Version": "2012-10-17", "Statement": statement})
        self._iam().put_user_policy(UserName=USER, PolicyName="audio", PolicyDocument=policy)

    def make_user(self) -> None:
        iam = self._iam(("unchecked", "unchecked"))
        iam.create_user(UserName="admin")
        everything = [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
        policy = json.dumps({"Version": "2012-10-17", "Statement": everything})
        iam.put_user_policy(UserName="admin", PolicyName="all", PolicyDocument=policy)
        made = iam.create_access_key(UserName="admin")["AccessKey"]
        self._admin_keys = made["AccessKeyId"], made["SecretAccessKey"]
        self._iam().create_user(UserName=USER)
        self.allow(*RIGHTS)
        made = self._iam().create_access_key(UserName=USER)["AccessKey"]
        self.access_key, self.secret = made["AccessKeyId"], made["SecretAccessKey"]
        self.admin = self._client("s3", self._admin_keys)
        self.admin.create_bucket(Bucket=BUCKET)

    def _iam(self, keys: tuple[str, str] | None = None) -> Any:
        return self._client("iam", keys or self._admin_keys)

    def _client(self, service: str, keys: tuple[str, str]) -> Any:
        import boto3

        session = boto3.session.Session(aws_access_key_id=keys[0], aws_secret_access_key=keys[1], region_name=REGION)
        return session.client(service, endpoint_url=self.url)


@contextlib.contextmanager
def run_bucket(directory: Path) -> Iterator[RunningBucket]:
    """A server with one bucket, and a user who may do what the bridge has to."""
    for package in ("boto3", "moto", "flask", "flask_cors"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install -r requirements/dev.txt -r requirements/bucket.txt")
    port, log_file = free_port(), directory / "bucket.log"
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(_UNCHECKED)}
    with log_file.open("ab") as log:
        command = [sys.executable, "-c", _SERVER, "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=directory)
    bucket = RunningBucket(port, log_file, process)
    try:
        eventually(lambda: b"Running on" in log_file.read_bytes())
        bucket.make_user()
        yield bucket
    finally:
        process.terminate()
        process.wait(WAIT_S)
