"""Keeping what a labelling taught: the voiceprints that people confirmed, or an enrolment's one."""

from __future__ import annotations

import structlog

from vps_bridge.dispatch.labelling_work import LabellingWork, to_print
from vps_bridge.labelling.enrolment import LEARNED, Calibrated
from vps_bridge.labelling.relabel import Relabelling
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.deleted_people import FROM_CONVERSATION, FROM_ENROLMENT
from vps_bridge.ledger.people import NOBODY, PrintRecord
from vps_bridge.people.match import Print, is_of_less_speech, is_other_voice

_LOG = structlog.get_logger(__name__)


def keep_prints(ledger: Ledger, work: LabellingWork, labelling: Relabelling, calibrated: Calibrated) -> None:
    """Keep the voiceprints that a labelling found, and drop those whose confirmation was taken back.

    Done again it changes nothing, so that it may be done before the labels are noted.

    Args:
        ledger: keeps them.
        work: what the labels were worked out of.
        labelling: the labels, and what they taught.
        calibrated: rules of who is who that go before the shipped ones.
    """
    owner, name, people = work.conversation.owner or NOBODY, work.name, labelling.people
    if work.conversation.enrols is not None:
        _keep_enrolment(ledger, owner, name, labelling)
        return
    prints = [_to_record(found, FROM_CONVERSATION, name) for found in people.learned]
    before = ledger.people.from_conversation(name)
    wanted = {(owner, each.person_id): each for each in prints}
    kept = {(owner, person_id) for person_id in people.kept}
    if any(before.get(key) != each for key, each in wanted.items()) or before.keys() - wanted.keys() - kept:
        changed = {
            person_id: (to_print(each), to_print(before[owner, person_id]))
            for (_, person_id), each in wanted.items()
            if (owner, person_id) in before
        }
        replaced = [each for each, (new, old) in changed.items() if _has_taken_back(new, old, calibrated)]
        better = [each for each, (new, old) in changed.items() if is_of_less_speech(old, new)]
        ledger.people.learn(owner, name, prints, people.kept, replaced=replaced, better=better)
        ledger.corrections.forget_unnamed(name)
        _LOG.info("voiceprints_learned", conversation=name, prints=len(prints))
    for each in people.told:
        if each.voiceprint not in (None, LEARNED):
            ledger.people.decide(owner, each.person_id, str(each.voiceprint), name, each.similarity)


def _has_taken_back(new: Print, old: Print, calibrated: Calibrated) -> bool:
    """Whether a voiceprint is another voice's now, or is no more that of two voices that somebody took for one."""
    return is_other_voice(new, old, calibrated=calibrated) or is_of_less_speech(new, old)


def _keep_enrolment(ledger: Ledger, owner: str, name: str, labelling: Relabelling) -> None:
    told = labelling.people.enrolment
    if told is None:
        return
    for found in labelling.people.learned:
        ledger.people.enrol(owner, _to_record(found, FROM_ENROLMENT, name))
    if not labelling.people.learned:
        ledger.people.decide(owner, told.person_id, told.outcome, name, told.similarity)
    _LOG.info("enrolled", conversation=name, outcome=told.outcome)


def _to_record(found: Print, source: str, name: str) -> PrintRecord:
    vector = found.vector.astype("<f4").tobytes()
    return PrintRecord(found.person_id, source, name, found.embedding_space, vector, found.clean_s)
