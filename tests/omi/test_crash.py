"""What was answered 200 is there after `kill -9`, and what found no room is counted where people look."""

import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.brokers import RunningBroker, free_port
from tests.omi.clocked_bridge import ClockedBridge, start_clocked
from tests.omi.traffic import OmiSender, make_document
from tests.vps_bridge.live_bridge import Backend, wait_until
from vps_bridge.doctor.omi_check import check_omi
from vps_bridge.ledger import Ledger
from vps_bridge.omi.users import NewAccess, UserFile
from vps_bridge.settings import BridgeSettings

BEGAN_AT = 1_780_000_000.0
RATE = 8_000
USERS = 4


@pytest.fixture(scope="module")
def omi(
    mosquitto: RunningBroker, backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClockedBridge]:
    limits = {"OMI_OMI_USER_BYTES": str(2**20), "OMI_HTTP_PORT": str(free_port())}
    bridge = start_clocked(mosquitto, tmp_path_factory.mktemp("data"), backend, BEGAN_AT, **limits)
    yield bridge
    bridge.stop()


def url(access: NewAccess) -> str:
    return f"/omi/audio?sample_rate={RATE}&uid={access.user.uid}&token={access.token}"


def body(user: int, place: int) -> bytes:
    """A second of audio that tells whose and which it is."""
    return f"{user:04}{place:04}".encode() * (RATE // 4)


def send_until_cut_off(omi: ClockedBridge, access: NewAccess, user: int, answered: list[int]) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{omi.omi_port}") as client:
        for place in range(60):
            try:
                answer = client.post(url(access), content=body(user, place), headers={"Idempotency-Key": f"k{place}"})
            except httpx.TransportError:
                return
            assert answer.status_code == 200
            answered.append(place)


def test_what_was_answered_is_in_its_conversation_after_a_kill_and_once(omi: ClockedBridge, backend: Backend) -> None:
    users = [omi.add_user(f"u{user}") for user in range(USERS)]
    answered: list[list[int]] = [[] for _ in users]
    threads = [
        threading.Thread(target=send_until_cut_off, args=(omi, access, user, answered[user]))
        for user, access in enumerate(users)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: min(map(len, answered)) > 5, "some answers to everybody")
    report(omi, users[0], 0)  # whose audio may be taken now, or by the next start
    omi.kill()
    for thread in threads:
        thread.join()
    omi.start(backend)
    omi.wait_open()
    for user, access in enumerate(users):
        last = answered[user][-1]  # its answer may have been lost on the way: it comes again under the same key
        again = omi.client.post(url(access), content=body(user, last), headers={"Idempotency-Key": f"k{last}"})
        assert again.status_code == 200
        if user:
            report(omi, access, user)
    for user in range(USERS):
        wanted = [body(user, place) for place in answered[user]]
        audio = wait_audio(omi, user, len(wanted) * 2 * RATE)
        got = [audio[at : at + 2 * RATE] for at in range(0, len(audio), 2 * RATE)]
        assert got[: len(wanted)] == wanted
        # One more may be there: written, and its answer cut off.
        assert got[len(wanted) :] in ([], [body(user, len(wanted))])


def report(omi: ClockedBridge, access: NewAccess, user: int) -> None:
    row = {"id": f"s{user}", "start": 0.0, "end": 200.0, "text": "words"}
    document = make_document(f"c{user}", BEGAN_AT - 100, [row])
    assert omi.post(OmiSender(access).send_conversation(document, BEGAN_AT + 60)).status_code == 200


def wait_audio(omi: ClockedBridge, user: int, size: int) -> bytes:
    return wait_until(lambda: found if len(found := audio_of(omi, user)) >= size else None, "the audio")


def audio_of(omi: ClockedBridge, user: int) -> bytes:
    ledger = Ledger(omi.data_dir / "bridge", exclusive=False)
    chunks = ledger.chunks.of_conversation(f"c{user}")
    ledger.close()
    ordered = sorted(chunks, key=lambda chunk: int(chunk.chunk_id.split("-")[1]))
    return b"".join((omi.spool / (chunk.spool_name or "")).read_bytes() for chunk in ordered)


def test_what_finds_no_room_is_503_and_counted_and_what_a_removed_user_sent_is_gone(omi: ClockedBridge) -> None:
    access = omi.add_user("much")
    codes = [omi.client.post(url(access), content=bytes(400_000)).status_code for _ in range(4)]
    assert codes == [200, 200, 503, 503]
    settings = BridgeSettings(data_dir=omi.data_dir, omi_http_port=omi.omi_port)
    (check,) = wait_until(
        lambda: [one for one in check_omi(settings, BEGAN_AT + 5) if "2 POSTs turned away" in one.found], "the doctor"
    )
    assert "OMI_OMI_USER_BYTES" in (check.remedy or "")
    metrics = httpx.get(f"http://127.0.0.1:{omi.options['OMI_HTTP_PORT']}/metrics").text
    assert 'omi_bridge_omi_posts_total{answer="turned_away"} 2.0' in metrics
    assert UserFile(omi.data_dir / "bridge").remove("much")
    wait_until(lambda: omi.logged("omi_user_erased", records=2), "the removed user's audio to be erased")
    assert omi.client.post(url(access), content=bytes(2)).status_code == 401
