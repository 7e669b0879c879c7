"""A bucket of a real server: what is put comes back, what is deleted is in no version, and every refusal says why."""

from __future__ import annotations

import hashlib
import tracemalloc
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bucket_server import BUCKET, RIGHTS, RunningBucket
from tests.faulty_bucket import Faults, faulty_way
from tests.inbox import eventually
from vps_bridge.bucket.audio import BucketAudio
from vps_bridge.bucket.encryption import AudioDamaged, ChunkNames, KeyMissing
from vps_bridge.bucket.keys import SpoolKeys, drop_old_keys, make_key_file, rotate_key_file
from vps_bridge.bucket.objects import BucketObjects, BucketRefuses, ObjectMissing
from vps_bridge.errors import StoreUnavailable

AUDIO = bytes(range(256)) * 5_000
SHA256 = hashlib.sha256(AUDIO).hexdigest()


class Place:
    """One ledger's place in the bucket."""

    def __init__(
        self, server: RunningBucket, directory: Path, *, keys: SpoolKeys | None = None, **address: Any
    ) -> None:
        self.bucket, self.directory, self.ledger_id = server, directory, uuid.uuid4().hex
        self.key_file = directory / "keys"
        self.file = directory / "audio"
        self.file.write_bytes(AUDIO)
        (directory / "scratch").mkdir()
        self._keys = keys or make_key_file(self.key_file)
        self.audio = self.another(**address)

    def another(self, keys: SpoolKeys | None = None, **address: Any) -> BucketAudio:
        objects = BucketObjects(self.bucket.address(**address))
        return BucketAudio(objects, keys or self._keys, self.ledger_id, self.directory / "scratch")

    def names(self, conversation_id: str = "call-1", chunk_id: str = "chunk-1") -> ChunkNames:
        return ChunkNames(self.ledger_id, conversation_id, chunk_id, self.audio.new_name(conversation_id))

    def fetched(self, names: ChunkNames, audio: BucketAudio | None = None) -> bytes:
        (audio or self.audio).fetch(self.directory / "came", names, SHA256)
        return (self.directory / "came").read_bytes()

    def key(self, names: ChunkNames) -> str:
        return f"audio/{self.ledger_id}/{names.name.replace('-', '/')}"

    def left(self) -> list[tuple[str, str]]:
        return [found for found in self.bucket.audio() if self.ledger_id in found[0]]


def problem_of(audio: BucketAudio) -> str | None:
    return audio.objects.problem


@pytest.fixture
def place(bucket: RunningBucket, tmp_path: Path) -> Place:
    return Place(bucket, tmp_path)


@pytest.fixture
def way(bucket: RunningBucket) -> Iterator[tuple[str, Faults]]:
    with faulty_way(bucket.port) as found:
        yield found


@pytest.fixture(params=["plain", "versions", "suspended"])
def kind(request: pytest.FixtureRequest, bucket: RunningBucket) -> str:
    """A bucket that keeps nothing of what is deleted, one that keeps all, one that did."""
    if request.param != "plain":
        bucket.keep_versions()
    if request.param == "suspended":
        bucket.admin.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})
    return str(request.param)


def test_of_a_deleted_conversation_no_version_is_left(kind: str, place: Place) -> None:
    kept = place.names("call-2")
    place.audio.put(place.file, kept)
    doomed = [place.names(chunk_id=chunk_id) for chunk_id in ("chunk-1", "chunk-2")]
    for names in doomed:
        for _ in range(3):  # as after answers that were lost
            place.audio.put(place.file, names)
        assert place.fetched(names) == AUDIO
    # Somebody else's tool deletes as S3 does: in a bucket with versions that only marks.
    place.bucket.admin.delete_object(Bucket=BUCKET, Key=place.key(doomed[0]))
    assert len(place.left()) >= 2
    assert place.audio.erase_conversation("call-1") > 0
    assert {key for key, _ in place.left()} == {place.key(kept)}
    place.audio.erase([kept.name])
    place.audio.erase([kept.name])
    assert place.left() == []


def test_the_check_leaves_no_version_of_its_own(kind: str, place: Place) -> None:
    for _ in range(2):
        place.audio.prove()
    mine = [key for key, _ in place.bucket.versions() if place.ledger_id in key]
    assert mine == [f"audio/{place.ledger_id}/marker"]
    assert list((place.directory / "scratch").iterdir()) == []


def test_what_was_damaged_on_the_way_is_read_again_and_what_stays_damaged_is_never_audio(
    place: Place, way: tuple[str, Faults]
) -> None:
    url, faults = way
    names = place.names()
    place.audio.put(place.file, names)
    far = place.another(endpoint=url)
    far.check()
    faults.damages = True
    with pytest.raises(AudioDamaged, match="changed"):
        place.fetched(names, far)
    assert not (place.directory / "came").exists()
    assert [method for method, path in faults.asked if "?" not in path] == ["GET", "GET"]
    faults.clear()
    assert place.fetched(names, far) == AUDIO
    assert list((place.directory / "scratch").iterdir()) == []


def test_an_object_in_anothers_place_is_not_taken_for_it(place: Place) -> None:
    first, second = place.names(), place.names(chunk_id="chunk-2")
    place.audio.put(place.file, first)
    place.audio.put(place.file, second)
    keys = [key for key, _ in place.left()]
    place.bucket.admin.copy_object(Bucket=BUCKET, Key=keys[0], CopySource={"Bucket": BUCKET, "Key": keys[1]})
    damaged = 0
    for names in (first, second):
        try:
            assert place.fetched(names) == AUDIO
        except AudioDamaged:
            damaged += 1
    assert damaged == 1


def test_a_key_that_is_added_to_the_file_is_found_without_a_restart(place: Place) -> None:
    names = place.names()
    reader = place.another()
    rotated = rotate_key_file(place.key_file)
    place.another(rotated).put(place.file, names)
    text = place.key_file.read_text()
    drop_old_keys(place.key_file)
    place.key_file.write_text("\n".join(line for line in text.splitlines() if rotated.newest.secret.hex() != line))
    with pytest.raises(KeyMissing, match=rotated.newest.key_id.hex()):
        place.fetched(names, reader)
    place.key_file.write_text(text)
    with pytest.raises(KeyMissing):
        place.fetched(names, reader)
    assert place.fetched(names, reader) == AUDIO


def test_a_bucket_that_never_was_this_ledgers_is_not_believed_when_it_has_nothing(place: Place) -> None:
    wrong = place.another(prefix="elsewhere/")
    wrong.note_known()
    with pytest.raises(BucketRefuses, match=r"never held audio of this ledger.*OMI_SPOOL_URL"):
        wrong.fetch(place.directory / "came", place.names(), SHA256)
    place.audio.check()
    with pytest.raises(ObjectMissing):
        place.fetched(place.names())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bucket": "no-such-bucket"}, "NoSuchBucket.*make it, or correct OMI_SPOOL_URL"),
        ({"access_key": "NOBODY"}, "InvalidAccessKeyId.*OMI_SPOOL_ACCESS_KEY"),
        ({"secret": "wrong"}, "SignatureDoesNotMatch.*OMI_SPOOL_SECRET_FILE"),
    ],
)
def test_what_the_settings_have_wrong_is_named(place: Place, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BucketRefuses, match=words):
        place.another(**changes).prove()


OF_VERSIONS = ("s3:ListBucketVersions", "s3:DeleteObjectVersion")
OF_PLAIN = ("s3:ListBucket", "s3:DeleteObject")


@pytest.mark.parametrize("has_versions", [True, False])
def test_each_right_that_is_missing_is_found_before_audio_is_accepted(
    bucket: RunningBucket, tmp_path: Path, has_versions: bool
) -> None:
    name = f"rights-{uuid.uuid4().hex[:8]}"
    bucket.admin.create_bucket(Bucket=name)
    if has_versions:
        bucket.keep_versions(name)
    place = Place(bucket, tmp_path, bucket=name)
    needed = [right for right in RIGHTS if right not in (OF_PLAIN if has_versions else OF_VERSIONS)]
    try:
        for missing in needed:
            bucket.allow(*(right for right in needed if right != missing))
            with pytest.raises(BucketRefuses, match=r"AccessDenied.*docs/bucket\.md"):
                place.another(bucket=name).prove()
        bucket.allow(*needed)
        place.another(bucket=name).prove()
    finally:
        bucket.allow(*RIGHTS)


def test_a_bucket_that_may_not_forget_is_refused(bucket: RunningBucket, tmp_path: Path) -> None:
    locked = f"locked-{uuid.uuid4().hex[:8]}"
    bucket.admin.create_bucket(Bucket=locked, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    bucket.admin.put_object_lock_configuration(
        Bucket=locked, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    with pytest.raises(BucketRefuses, match="object lock"):
        Place(bucket, tmp_path, bucket=locked).audio.prove()


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (503, "SlowDown", "503 SlowDown"),
        (500, "InternalError", "500 InternalError"),
        (403, "QuotaExceeded", "the bucket is full"),
        (507, "InsufficientStorage", "the bucket's disk is full"),
        (403, "RequestTimeTooSkewed", "clock is wrong"),
    ],
)
def test_what_passes_is_told_and_not_taken_for_a_wrong_setting(
    place: Place, way: tuple[str, Faults], status: int, code: str, words: str
) -> None:
    url, faults = way
    far = place.another(endpoint=url)
    far.check()
    faults.status, faults.code = status, code
    with pytest.raises(StoreUnavailable, match=words) as caught:
        far.put(place.file, place.names())
    assert not isinstance(caught.value, BucketRefuses)
    assert problem_of(far)
    faults.clear()
    names = place.names()

    def is_put() -> bool:
        try:
            far.put(place.file, names)
        except StoreUnavailable:
            return False  # it is left alone for a moment
        return True

    eventually(is_put)
    assert problem_of(far) is None
    assert place.fetched(names) == AUDIO


def test_a_bucket_that_hangs_is_given_up_in_time(place: Place, way: tuple[str, Faults]) -> None:
    url, faults = way
    far = place.another(endpoint=url, timeout_s=0.2)
    faults.delay_s = 5.0
    with pytest.raises(StoreUnavailable, match="does not answer"):
        far.put(place.file, place.names())


def test_a_put_whose_answer_was_lost_is_no_second_chunk(place: Place, way: tuple[str, Faults]) -> None:
    url, faults = way
    far = place.another(endpoint=url)
    far.check()
    names = place.names()
    faults.loses_answers, faults.methods = True, ("PUT",)
    with pytest.raises(StoreUnavailable):
        far.put(place.file, names)
    assert {key for key, _ in place.left()} == {place.key(names)}
    place.audio.put(place.file, names)
    assert place.fetched(names) == AUDIO
    place.audio.erase_conversation("call-1")
    assert place.left() == []


def test_large_audio_takes_little_memory_on_its_way_out_and_back(place: Place) -> None:
    large = AUDIO * 25  # 32 MB
    place.file.write_bytes(large)
    names, sha256 = place.names(), hashlib.sha256(large).hexdigest()
    del large
    tracemalloc.start()
    try:
        place.audio.put(place.file, names)
        place.audio.fetch(place.directory / "came", names, sha256)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert place.file.stat().st_size == (place.directory / "came").stat().st_size == 25 * len(AUDIO)
    assert peak_bytes < 12e6


def test_the_age_of_what_nobody_knows_is_by_the_buckets_own_clock(place: Place) -> None:
    names = place.names()
    place.audio.put(place.file, names)
    found = {stray.name: stray.age_s for stray in place.audio.strays()}
    assert found.keys() == {names.name}
    assert 0 <= found[names.name] < 600
