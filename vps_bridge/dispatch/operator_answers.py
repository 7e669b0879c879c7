"""What became of an operator's retry or cancel, and what to do about what failed: for commands and HTTP alike."""

from __future__ import annotations

from schemas.failure import FailureCode, policy_of
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.operator_actions import ActionResult
from vps_bridge.ledger.records import FailedJob
from vps_bridge.ledger.refusals import RefusedChunk

SAID = {
    ActionResult.RETRIED: "waits for an agent again",
    ActionResult.CANCELLED: "is cancelled; an agent that works on it is told at its next heartbeat",
    ActionResult.ALREADY_WAITING: "waits for an agent already",
    ActionResult.ALREADY_CANCELLED: "is cancelled already",
    ActionResult.ALREADY_DIARIZED: "is diarized already",
    ActionResult.AUDIO_GONE: "cannot be tried again, its audio is gone: publish it again under a new chunk_id",
    ActionResult.BROUGHT_BACK: "has its labels worked out again",
    ActionResult.NOT_SET_ASIDE: "is not among those that failed: nothing to do",
    ActionResult.UNKNOWN: "is unknown: `omi-bridge jobs --limit 0` lists them all",
}
"""To be put behind the name of the job or conversation."""
FORGET_REFUSED = "omi-bridge failed --forget-refused"
RETRY_REFUSED = (ActionResult.ALREADY_CANCELLED, ActionResult.AUDIO_GONE, ActionResult.UNKNOWN)
CANCEL_REFUSED = (ActionResult.ALREADY_DIARIZED, ActionResult.UNKNOWN)


def work_labels_out_again(ledger: Ledger, conversation_id: str) -> ActionResult:
    """Have the labels of a failed conversation worked out again."""
    if ledger.conversations.get(conversation_id) is None:
        return ActionResult.UNKNOWN
    is_back = ledger.conversations.bring_back(conversation_id)
    return ActionResult.BROUGHT_BACK if is_back else ActionResult.NOT_SET_ASIDE


def advise(failed_job: FailedJob) -> str:
    """Say what to do about a failed job."""
    job = failed_job.job
    code = job.failure_code or "" if failed_job.has_audio else FailureCode.PAYLOAD_INCOMPLETE
    return policy_of(code).remedy.format(job=job.job_id)


def advise_set_aside(conversation_id: str) -> str:
    """Say what to do about a conversation whose labels could not be worked out."""
    return f"omi-bridge retry {conversation_id}"


def advise_refused(item: RefusedChunk) -> str:
    """Say what to do about audio that was refused."""
    if policy_of(item.reason).is_retryable:
        return "its publisher may send it again as it is; once it is accepted this entry goes"
    return f"the bridge has no audio of it: mend what is wrong and publish it again, then: {FORGET_REFUSED}"
