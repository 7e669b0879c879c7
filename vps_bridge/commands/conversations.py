"""`omi-bridge show` and `conversations`: conversations, their labels, and what is still to come."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len
from rich.table import Column

from broker.terminal import print_json
from vps_bridge.commands.jobs import Limit, bounded, describe_refused, print_refused, print_rest, show_job
from vps_bridge.commands.terminal import (
    AsJson,
    ConfigFile,
    DataDir,
    age,
    checked_id,
    explained,
    known,
    make_table,
    opened,
    out,
    print_warnings,
)

if TYPE_CHECKING:
    from schemas.conversation import ConversationTurn, ConversationUpdated, FailedAudio
    from schemas.record import Record
    from schemas.voice_people import VoicePerson
    from vps_bridge.conversations.store import StoredSegment
    from vps_bridge.ledger import Ledger
    from vps_bridge.ledger.records import AgentRecord, ConversationRecord, JobRecord
    from vps_bridge.ledger.refusals import RefusedChunk

READ_AT_ONCE = 500
LEARNED = "learned"
MAX_ID_SHARE = 0.2  # of the width of a terminal, for a column of the ids of segments
_NOT_MATCHED = {
    "below_threshold": "too unlike",
    "margin": "too close to the next",
    "little_speech": "too little clean speech",
    "not_mutual": "another voice is more alike",
    "not_calibrated": "its model was never calibrated",
}
_NOT_LEARNED = {
    "asks": "it sounds unlike the person's other voiceprints; `omi-bridge people confirm --anyway` if it is right",
    "little_speech": "too little clean speech",
    "gone": "the voice is not known well enough any more",
    "no_id": "no id that a topic can carry",
}


def show(
    name: Annotated[str, typer.Argument(help="The id of a conversation or of a job.", callback=checked_id)],
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show a conversation (who said what, what is still to come), or what happened to a job.

    Examples: omi-bridge show call-1 --json, or omi-bridge show j-0123456789abcdef01234567
    """
    from vps_bridge.dispatch.failed_audio import describe_failures

    with explained(), opened(config, data_dir) as (ledger, store, stale_s):
        conversation, job, refused = name, ledger.jobs.get(name), ledger.refusals.of_conversation(name)
        if job is not None and ledger.conversations.get(name) is None:
            show_job(job, ledger.jobs.events(job.job_id), as_json=as_json)
            return
        if refused and ledger.conversations.get(conversation) is None:
            _show_refused_only(conversation, refused, as_json=as_json)
            return
        record = known(ledger, conversation)
        stored = store.read(conversation)
        jobs = ledger.jobs.all(conversation_id=conversation)
        segments = _describe_segments(stored.segments if stored else (), record)
        facts = _conversation_facts(record, ledger, ledger.agents.all(), stale_s, jobs)
        update = _read_update(record)
        warnings, turns, people = (update.warnings, update.turns or (), update.people) if update else ((), (), ())
        failures = describe_failures(jobs)
        if as_json:
            told = {"failures": failures, "turns": turns, "people": people}
            lists = {"segments": segments, "jobs": [asdict(job) for job in jobs]} | _dump(told)
            refusals = [describe_refused(item) for item in refused]
            print_json(facts | {"warnings": list(warnings)} | lists | {"refused_chunks": refusals})
            return
        out.print(f"{conversation}: {facts['state']}" + (f" ({facts['reason']})" if facts["reason"] else ""))
        _print_faults(warnings, failures)
        _print_people(people)
        if stored is not None and stored.segments:
            _print_transcript(stored.segments, _persons_of(record))
        else:
            _print_turns(turns, _persons_of(record))
        print_refused(refused)


def _read_update(record: ConversationRecord) -> ConversationUpdated | None:
    from schemas.codec import decode
    from schemas.conversation import ConversationUpdated

    return decode(ConversationUpdated, record.updated_payload) if record.updated_payload else None


def _print_transcript(segments: Sequence[StoredSegment], persons: Mapping[int | None, str | None]) -> None:
    """Print who says what, with the ids that `omi-bridge correct` takes: below the text where a column is too wide."""
    longest = max(cell_len(segment.id) for segment in segments)
    has_column = longest <= out.width * MAX_ID_SHARE
    ids = [Column("segment", min_width=longest)] if has_column else []
    table = make_table("start", "end", "speaker", *ids, "text" if has_column else "text and segment")
    for segment in segments:
        name = segment.id
        for start_s, end_s, speaker, text in _spoken_lines(segment, persons):
            said = (name, text) if has_column else (f"{text}\n{name}".strip(),)
            table.add_row(f"{start_s:.2f}", f"{end_s:.2f}", speaker, *said)
            name = ""  # of its further pieces
    out.print(table)


def _print_turns(turns: Sequence[ConversationTurn], persons: Mapping[int | None, str | None]) -> None:
    """Print who speaks when in the audio, where no transcript came."""
    from vps_bridge.conversations.store import speaker_name

    table = make_table("start", "end", "speaker", title="no transcript: turns, in seconds of the audio")
    for turn in turns:
        speaker = persons.get(turn.speaker_id) or speaker_name(turn.speaker_id) or "unknown"
        table.add_row(f"{turn.start_s:.2f}", f"{turn.end_s:.2f}", speaker)
    if turns:
        out.print(table)
    else:
        out.print("no transcript came, and no turns are known yet")


def _dump(told: Mapping[str, Sequence[Record]]) -> dict[str, list[dict[str, Any]]]:
    return {name: [one.model_dump() for one in records] for name, records in told.items()}


def _print_people(people: Sequence[VoicePerson]) -> None:
    for person in people:
        out.print(_describe_person(person), highlight=False, soft_wrap=True)


def _describe_person(person: VoicePerson) -> str:
    """Say who a voice is or may be, how alike it sounds, what a match needs, and what keeps it from being learned."""
    from vps_bridge.conversations.store import speaker_name

    is_open = person.identity == "suggested"
    words = f"{speaker_name(person.speaker_id)} {'may be' if is_open else 'is'} {person.person_id} ({person.identity})"
    facts = [f"{person.similarity:.2f} alike"] if person.similarity is not None else []
    facts += [f"{person.needed:.2f} needed"] if person.needed is not None else []
    if person.runner_up is not None and person.runner_up_similarity is not None:
        facts.append(f"next {person.runner_up} {person.runner_up_similarity:.2f}")
    facts += [_NOT_MATCHED.get(person.reason, person.reason)] if person.reason else []
    if person.voiceprint not in (None, LEARNED):
        facts.append(f"not learned: {_NOT_LEARNED.get(str(person.voiceprint), person.voiceprint)}")
    return f"{words}: {', '.join(facts)}" if facts else words


def _show_refused_only(conversation: str, refused: list[RefusedChunk], *, as_json: bool) -> None:
    reason = "everything that was sent for it was refused"
    if as_json:
        chunks = [describe_refused(item) for item in refused]
        print_json({"conversation_id": conversation, "state": None, "reason": reason, "refused_chunks": chunks})
        return
    out.print(f"{conversation}: {reason}", highlight=False)
    print_refused(refused)


def _persons_of(record: ConversationRecord) -> dict[int | None, str | None]:
    """Return who people say the voices are, by number."""
    from vps_bridge.labelling.number import VoiceBook

    book = VoiceBook.from_json(record.voices) if record.voices else VoiceBook()
    return {voice.speaker_id: voice.person_id for voice in book.voices}


def _describe_segments(segments: Sequence[StoredSegment], record: ConversationRecord) -> list[dict[str, Any]]:
    """Return segments for machines; the person of each is its own, else that of its voice."""
    persons = _persons_of(record)
    described = []
    for segment in segments:
        facts = asdict(segment) | {"person_id": segment.person_id or persons.get(segment.speaker_id)}
        facts["words"] = None if segment.words is None else [word.model_dump() for word in segment.words]
        facts["pieces"] = [piece.model_dump() for piece in segment.pieces]
        facts.pop("is_undone")  # what a person took back is in the history: the segment is as it was before the write
        described.append(facts)
    return described


def _spoken_lines(
    segment: StoredSegment, persons: Mapping[int | None, str | None]
) -> list[tuple[float, float, str, str]]:
    """Return start, end, speaker and text of a segment, or of each of its pieces."""
    if not segment.pieces:
        matched = f"{segment.matched_person} (matched)" if segment.matched_person else None
        person = segment.person_id or persons.get(segment.speaker_id) or matched
        speaker = "you" if segment.is_user else person or segment.speaker or "unknown"
        return [(segment.start_s, segment.end_s, speaker, segment.text)]
    words = [word.text for word in segment.words] if segment.words else segment.text.split()
    return [
        (
            piece.start_s,
            piece.end_s,
            persons.get(piece.speaker_id) or piece.speaker or "unknown",
            " ".join(words[piece.first_word : piece.last_word + 1]),
        )
        for piece in segment.pieces
    ]


def _print_faults(warnings: Sequence[str], failures: Sequence[FailedAudio]) -> None:
    print_warnings(warnings)
    for failure in failures:
        lost = f"no labels from {failure.audio_s:.0f} s of audio: {failure.job_id} failed"
        words = f"{lost}, {failure.code}: {failure.message}\n  then: {failure.remedy}"
        out.print(words, highlight=False, soft_wrap=True)


def _conversation_facts(
    record: ConversationRecord,
    ledger: Ledger,
    agents: Sequence[AgentRecord],
    stale_s: float,
    failed: Sequence[JobRecord],
) -> dict[str, Any]:
    from vps_bridge.dispatch.status import describe_status

    name, is_settled = record.conversation_id, record.packed_at is not None or record.final_at is not None
    state, reason = describe_status(
        record,
        [] if is_settled else ledger.chunks.of_conversation(name),
        failed if is_settled else ledger.jobs.of_conversation(name),
        agents,
        now=time.time(),
        stale_s=stale_s,
    )
    # `asdict` copies every value: a third of the command's time where there are thousands of conversations.
    facts = vars(record) | {"state": state, "reason": reason}
    facts.pop("updated_payload")
    return facts


def conversations(
    limit: Limit = None, config: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """List the conversations and where each stands, the latest first.

    Example: omi-bridge conversations --limit 200
    """
    from vps_bridge.ledger.job_states import JobState
    from vps_bridge.ledger.records import JobRecord

    with explained(), opened(config, data_dir) as (ledger, _store, stale_s):
        most = bounded(limit, as_json=as_json)
        names = ledger.listing.latest_first() if most is None else ledger.listing.latest(0, most)
        batches = (names[start : start + READ_AT_ONCE] for start in range(0, len(names), READ_AT_ONCE))
        records = (record for batch in batches for record in ledger.listing.some(batch))
        agents, failed = ledger.agents.all(), defaultdict[str, list[JobRecord]](list)
        for job in ledger.jobs.all(states=(JobState.FAILED,)):
            failed[job.conversation_id].append(job)
        listed = [
            _conversation_facts(record, ledger, agents, stale_s, failed[record.conversation_id]) for record in records
        ]
        if as_json:
            print_json(listed)
            return
        table = make_table("conversation", "state", "why", "last activity", "update", "applied")
        for facts in listed:
            versions = (str(facts["updated_version"]), str(facts["applied_version"]))
            active = f"{age(facts['last_activity_at'])} ago"
            table.add_row(facts["conversation_id"], facts["state"], facts["reason"] or "", active, *versions)
        if listed:
            out.print(table)
            print_rest(len(listed), ledger.listing.count())
        else:
            out.print("no conversation yet: omi-bridge publish FILE --conversation ID makes one", highlight=False)
