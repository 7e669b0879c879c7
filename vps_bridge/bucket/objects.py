"""The calls of S3 that a spool needs: whole objects are put, read, listed with every version, and deleted with all.

An object is put in one request, never in S3's parts: it is there whole or not at all, and a put that was cut off leaves
nothing behind that would have to be found and deleted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.errors import SettingsError
from vps_bridge.bucket.address import BucketAddress
from vps_bridge.errors import StoreUnavailable
from vps_bridge.outage import Outage

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

BLOCK_BYTES = 2**20
CONNECTIONS = 16
ATTEMPTS = 2  # of one call: what is lost on the way is asked for again, the rest is for whoever called
DELETE_ROUNDS = 3  # a put whose answer was lost may have made another version meanwhile
LOOK = "look after the store, audio waits with its publishers"
_SETTINGS = {
    "NoSuchBucket": "there is no such bucket: make it, or correct OMI_SPOOL_URL",
    "InvalidAccessKeyId": "it does not know the access key: correct OMI_SPOOL_ACCESS_KEY",
    "SignatureDoesNotMatch": "the secret is not that of the access key: correct OMI_SPOOL_SECRET_FILE",
    "AccessDenied": "the access key may not do that, or the bucket has object lock: docs/bucket.md lists what it needs",
}
_REMEDIES = {
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it (timedatectl set-ntp true)",
    "QuotaExceeded": "the bucket is full: make room there, or raise its quota",
    "XMinioStorageFull": "the bucket's disk is full: make room there",
    "InsufficientStorage": "the bucket's disk is full: make room there",
}
_NOT_KNOWN = ("NotImplemented", "MethodNotAllowed", "501", "405")


class BucketUnavailable(StoreUnavailable):
    """The bucket does not do what it is asked."""


class BucketRefuses(BucketUnavailable):
    """The bucket cannot be used as the settings have it: it will not be different the next time."""


class ObjectMissing(Exception):
    """There is no such object."""


@dataclass(frozen=True)
class StoredObject:
    """One version of an object, or the mark of its deletion."""

    key: str
    version: str | None
    """None in a bucket without versions."""
    modified_at: float
    """Unix time, by the store's clock."""


class BucketObjects:
    """One bucket. Safe to use from several threads. Calls raise `BucketUnavailable`, whose words name the remedy."""

    def __init__(self, address: BucketAddress) -> None:
        """Ask nothing yet. Raises `SettingsError` where the library is missing."""
        try:
            import boto3  # noqa: PLC0415 - half a second, and an extra that few install
            from botocore.config import Config  # noqa: PLC0415
        except ImportError as error:
            words = "a bucket needs boto3: pip install 'omi-diarization[bucket]' (requirements/bucket.txt)"
            raise SettingsError("spool_url", "the settings", words) from error
        self.address, self._outage, self.has_versions = address, Outage(error=BucketUnavailable), False
        self._refused = dict[str, str]()  # by call, why it is refused
        self.calls = self.failures = 0
        """Since the start; of several threads, so a few may be missing."""
        config = Config(
            signature_version="s3v4",
            connect_timeout=address.timeout_s,
            read_timeout=address.timeout_s,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            max_pool_connections=CONNECTIONS,
            # Checksums in trailers are not understood by every store; ours are Content-MD5, and the cipher's tag.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if address.endpoint else "auto"},
        )
        session = boto3.session.Session(
            aws_access_key_id=address.access_key, aws_secret_access_key=address.secret, region_name=address.region
        )
        self._client: Any = session.client("s3", endpoint_url=address.endpoint, config=config)

    @property
    def problem(self) -> str | None:
        """Why the store cannot be used just now; None where it did what it was asked last."""
        return self._outage.reason or next(iter(self._refused.copy().values()), None)

    def find_versions(self) -> bool:
        """Ask whether the bucket keeps versions of what is deleted, and remember it: deletions delete them too."""
        try:
            answer = self._call("get_bucket_versioning")
        except _NotKnown:
            answer = {}  # a store without versions
        self.has_versions = answer.get("Status") in ("Enabled", "Suspended")
        return self.has_versions

    def put(self, key: str, file: Path, md5: str) -> None:
        """Store a file as a whole, durably; the same key again replaces it."""
        with file.open("rb") as body:
            self._call("put_object", Key=key, Body=body, ContentMD5=md5, ContentLength=file.stat().st_size)

    def read(self, key: str) -> Iterator[bytes]:
        """Yield an object's bytes, block by block. Raises `ObjectMissing` too."""
        body = self._call("get_object", Key=key)["Body"]
        try:
            while True:
                with self._explained():
                    block = body.read(BLOCK_BYTES)
                if not block:
                    return
                yield block
        finally:
            body.close()

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield what is stored below a prefix: every version, and every mark of a deletion."""
        if not self.has_versions:
            for page in self._pages("list_objects_v2", "ContinuationToken", "NextContinuationToken", prefix):
                for found in page.get("Contents", ()):
                    yield StoredObject(found["Key"], None, found["LastModified"].timestamp())
            return
        for page in self._version_pages(prefix):
            for found in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                yield StoredObject(found["Key"], found["VersionId"], found["LastModified"].timestamp())

    def erase(self, prefix: str) -> int:
        """Delete everything below a prefix in every version, look that nothing is left, and return how much it was."""
        erased = 0
        for _ in range(DELETE_ROUNDS):
            there = list(self.list(prefix))
            if not there:
                return erased
            for found in there:
                version = {} if found.version is None else {"VersionId": found.version}
                self._call("delete_object", Key=found.key, **version)
            erased += len(there)
        if left := sum(1 for _ in self.list(prefix)):
            raise BucketRefuses(
                f"{left} deleted versions of audio are still in {self.address.shown}: take object lock and retention "
                "off that bucket, and allow s3:DeleteObjectVersion"
            )
        return erased

    def _pages(self, call: str, cursor: str, following: str, prefix: str) -> Iterator[dict[str, Any]]:
        more: dict[str, str] = {}
        while True:
            page = self._call(call, Prefix=prefix, **more)
            yield page
            if not page.get("IsTruncated"):
                return
            more = {cursor: page[following]}

    def _version_pages(self, prefix: str) -> Iterator[dict[str, Any]]:
        more: dict[str, str] = {}
        while True:
            page = self._call("list_object_versions", Prefix=prefix, **more)
            yield page
            if not page.get("IsTruncated"):
                return
            marks = {"KeyMarker": page.get("NextKeyMarker"), "VersionIdMarker": page.get("NextVersionIdMarker")}
            more = {name: value for name, value in marks.items() if value}

    def _call(self, name: str, **arguments: object) -> dict[str, Any]:
        def ask() -> dict[str, Any] | ObjectMissing | BucketRefuses | _NotKnown:
            try:
                with self._explained():
                    answer: dict[str, Any] = getattr(self._client, name)(Bucket=self.address.bucket, **arguments)
                    return answer
            except (ObjectMissing, BucketRefuses, _NotKnown) as error:
                return error  # that is an answer too: the store is there, nobody waits for it

        self.calls += 1
        try:
            answer = self._outage.guard(ask)
        except StoreUnavailable:
            self.failures += 1
            raise
        if isinstance(answer, BucketRefuses):
            self.failures += 1
            self._refused[name] = str(answer)
        elif not isinstance(answer, _NotKnown):
            self._refused.pop(name, None)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the library raises into what is ours."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as above

        began_s = time.monotonic()
        try:
            yield
        except ClientError as error:
            raise self._judge(error) from error
        except (BotoCoreError, OSError) as error:
            # Only the kind of error: its text may hold an address with a signature.
            took_s = time.monotonic() - began_s
            words = f"{self.address.shown} does not answer ({type(error).__name__} after {took_s:.0f} s)"
            raise BucketUnavailable(f"{words}: {LOOK}") from error

    def _judge(self, error: ClientError) -> Exception:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in ("NoSuchKey", "NoSuchVersion"):
            return ObjectMissing(code)
        if code in _NOT_KNOWN:
            return _NotKnown(f"{self.address.shown} does not know {error.operation_name}")
        answered = f"{self.address.shown} answers {status} {code} to {error.operation_name}"
        if code in _SETTINGS:
            return BucketRefuses(f"{answered}: {_SETTINGS[code]}")
        return BucketUnavailable(f"{answered}: {_REMEDIES.get(code, LOOK)}")


class _NotKnown(Exception):
    """A call that this store does not have."""
