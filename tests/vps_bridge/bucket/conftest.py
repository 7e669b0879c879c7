from collections.abc import Iterator

import pytest

from tests.bucket_server import RunningBucket, run_bucket


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBucket]:
    """A server for a file's tests; each bridge has a ledger, and so a place in it, of its own."""
    with run_bucket(tmp_path_factory.mktemp("bucket")) as server:
        yield server
