"""When each conversation is looked at: its chunks for jobs, its turns for labels, and whether it is final."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import structlog

from vps_bridge.backoff import RetryTimer
from vps_bridge.conversations.store import StoreError
from vps_bridge.database import STORAGE_ERRORS
from vps_bridge.dispatch.labelling_mark import LabellingMark
from vps_bridge.dispatch.labelling_process import LabellingProcess, LargeLabelling
from vps_bridge.dispatch.labelling_work import LabellingWork
from vps_bridge.dispatch.updates import Updater
from vps_bridge.error_guard import ErrorGuard, describe_error
from vps_bridge.errors import LabellingFailed, LedgerUnavailable, StoreUnavailable
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import ConversationRecord, describe_completion
from vps_bridge.rules.assemble import plan_jobs
from vps_bridge.rules.completion import is_all_here, is_final, required_quiet_s
from vps_bridge.rules.ownership import Owns, own_all
from vps_bridge.settings import BridgeSettings

_LOG = structlog.get_logger(__name__)
END_CHECK_MIN_S = 0.5  # a conversation's end is not looked at more often
LONG_ASSIGNMENT_S = 0.05  # what waits to be sent does not wait for an assignment that took longer the last time
ASSIGN_REST = 4.0  # an assignment that took t is not repeated before 4 t have passed: never most of the bridge's time
ASSIGN_BUDGET_S = 2.0
BUSY_REST_S = 1.0  # how long a large conversation waits before it asks again for the one process that does those
MAX_TRIES = 3  # attempts at a conversation's labels that come to nothing, in a row
RETRY = "omi-bridge retry CONVERSATION"


class ConversationSchedule:
    """What is due when, for every conversation that is not at rest. Times are monotonic seconds.

    Runs on the bridge's own thread only. What changes a conversation is noted here; the work is done when it is due.
    """

    def __init__(  # noqa: PLR0913 - each is something that another part of the bridge knows or does
        self,
        settings: BridgeSettings,
        ledger: Ledger,
        updater: Updater,
        guard: ErrorGuard,
        *,
        before_long_work: Callable[[], None],
        on_final: Callable[[str, float], None],
        on_failed: Callable[[str, str], None],
        wake: Callable[[], None],
        awaits_audio: Callable[[str], bool],
        owns: Owns = own_all,
    ) -> None:
        """Take up what an earlier run left.

        Args:
            settings: how long to wait for what.
            ledger: where conversations, chunks and jobs are.
            updater: works labels out.
            guard: keeps an error in one conversation from the others.
            before_long_work: called before an assignment that will take long, so that what waits is sent first.
            on_final: called with a conversation that has become final, and the time.
            on_failed: called with a conversation that is set aside, and why.
            awaits_audio: whether audio of a conversation has come that is not accepted yet.
            wake: called from another thread when the labels of a large conversation are there.
            owns: whether this bridge owns a conversation.
        """
        self._settings, self._ledger, self._updater, self._guard = settings, ledger, updater, guard
        self._awaits_audio, self._owns = awaits_audio, owns
        self._before_long_work, self._on_final, self._on_failed = before_long_work, on_final, on_failed
        self._beside = LabellingProcess(updater.policy, limit_s=settings.labels_limit_s, on_answer=wake)
        self._since_s = time.monotonic()  # what came before this has come then
        self._last_audio_s: dict[str, float] = {}
        self._ended_too_soon = set[str]()  # more audio came after their end
        # When to look at the chunks of a conversation that no job covers: at once, and when a pause has passed.
        self._assemble_due_s = dict[str, float]()
        self._assign_tries = RetryTimer(settings.retry_min_s, settings.retry_max_s)
        self._assign_rests: dict[str, tuple[float, float]] = {}  # how long it took, and until when it rests
        # Conversations that may be final, and when to look; what changes them puts them here anew.
        self._end_due_s = dict[str, float]()
        # Those that the messages just taken are about.
        self._to_assemble, self._to_assign = set[str](), set[str]()
        # Those whose last attempt is not to be counted.
        self._uncounted = set[str]()
        self._mark = LabellingMark(settings.root)
        if self._mark.left is not None:
            ledger.conversations.count_try(self._mark.left)
        self.find_work()

    def find_work(self, now_s: float = 0.0) -> None:
        """Look for what there is to do in the conversations that this bridge owns: no message says so."""
        for name in filter(self._owns, self._ledger.chunks.uncovered_conversations()):
            self._assemble_due_s.setdefault(name, now_s)
        for end in self._ledger.conversations.awaiting_final():
            if self._owns(end.conversation_id):
                self._end_due_s.setdefault(end.conversation_id, now_s)

    def take_up(self) -> None:
        """Take up the conversations that this bridge owns from now on, as after a start, and leave all others."""
        self._since_s = time.monotonic()
        for known in (self._assemble_due_s, self._end_due_s, self._last_audio_s):
            for name in [name for name in known if not self._owns(name)]:
                del known[name]
        self._ended_too_soon = set(filter(self._owns, self._ended_too_soon))
        self.find_work()

    def note_audio(self, conversation_id: str, *, is_late: bool = False) -> None:
        """Note that audio came, or that no more will: its chunks are looked at with the next `assemble_new`.

        Where it came after the end, more may follow: its chunks wait for each other as in an open conversation.
        """
        self._last_audio_s[conversation_id] = time.monotonic()
        (self._ended_too_soon.add if is_late else self._ended_too_soon.discard)(conversation_id)
        self._to_assemble.add(conversation_id)

    def note_change(self, conversation_id: str) -> None:
        """Note that labels may be out of date: they are looked at with the next `assign_new`."""
        self._to_assign.add(conversation_id)

    def forget(self, conversation_id: str) -> None:
        """Forget a deleted conversation."""
        self._last_audio_s.pop(conversation_id, None)
        self._ended_too_soon.discard(conversation_id)
        self._end_due_s.pop(conversation_id, None)
        self._assign_rests.pop(conversation_id, None)

    def assemble_new(self, now_s: float) -> bool:
        """Make jobs of the chunks that just came; return whether there are new jobs."""
        conversation_ids, self._to_assemble = self._to_assemble, set()
        return self._assemble_all(conversation_ids, now_s)

    def assemble_due(self, now_s: float) -> bool:
        """Make jobs of chunks that waited long enough for more; return whether there are new jobs."""
        return self._assemble_all([name for name, due_s in self._assemble_due_s.items() if due_s <= now_s], now_s)

    def close(self) -> None:
        """End what works beside the bridge; that is no fault of the conversation it worked on."""
        name = self._beside.close()
        if name is not None:
            self._ledger.conversations.take_try_back(name)
        self._mark.close()

    def assign_new(self, now_s: float) -> None:
        """Work out the labels of the conversations that messages just changed, and note those that were large."""
        ended = self._beside.take()
        if ended is not None:
            self._guard.run(f"assigning {ended.work.name}", partial(self._note_large, ended, now_s))
        conversation_ids, self._to_assign = self._to_assign, set()
        self._assign_all(conversation_ids, now_s)

    def assign_due(self, now_s: float) -> None:
        """Work out the labels of all conversations that are dirty, or may have become final."""
        self._take_tries_back()
        dirty = list(filter(self._owns, self._ledger.conversations.dirty()))
        self._assign_tries.keep_only(set(dirty))
        ending = [name for name, due_s in self._end_due_s.items() if due_s <= now_s]
        self._assign_all(dict.fromkeys([*ending, *dirty]), now_s)

    def _take_tries_back(self) -> None:
        for name in sorted(self._uncounted):
            self._ledger.conversations.take_try_back(name)
            self._uncounted.discard(name)

    def _assemble_all(self, conversation_ids: Iterable[str], now_s: float) -> bool:
        made: list[str] = []
        for conversation_id in conversation_ids:
            self._assemble_due_s[conversation_id] = now_s + self._settings.pause_s
            work = partial(self._assemble, conversation_id, now_s, made)
            self._guard.run(f"assembling {conversation_id}", work)
        return bool(made)

    def _assemble(self, conversation_id: str, now_s: float, made: list[str]) -> None:
        conversation = self._ledger.conversations.get(conversation_id)
        chunks = self._ledger.chunks.of_conversation(conversation_id) if conversation else []
        if conversation is None or all(chunk.covered for chunk in chunks):
            self._assemble_due_s.pop(conversation_id, None)
            return
        infos = [chunk.info for chunk in chunks]
        closing = conversation.completed and is_all_here(describe_completion(conversation, chunks)) is not False
        closing = closing and conversation_id not in self._ended_too_soon and not self._awaits_audio(conversation_id)
        idle_s = self._idle_s(conversation_id, now_s)
        plans = plan_jobs(infos, closing=closing, idle_s=idle_s, rules=self._settings.assembly_rules)
        if {chunk.chunk_id for chunk in chunks if not chunk.covered} == {name for plan in plans for name in plan.fresh}:
            self._assemble_due_s.pop(conversation_id, None)
        for job_id in self._ledger.jobs.add(conversation_id, plans) if plans else ():
            made.append(job_id)
            _LOG.info("job_ready", conversation=conversation_id, job=job_id)

    def _assign_all(self, conversation_ids: Iterable[str], now_s: float) -> None:
        for conversation_id in conversation_ids:
            if time.monotonic() - now_s > ASSIGN_BUDGET_S:
                break  # the rest is as dirty at the next tick; agents and beats do not wait for it
            self._guard.run(f"assigning {conversation_id}", partial(self._assign, conversation_id, now_s))

    def _assign(self, conversation_id: str, now_s: float) -> None:
        took_s, rests_until_s = self._assign_rests.pop(conversation_id, (0.0, 0.0))
        if now_s < rests_until_s:
            self._assign_rests[conversation_id] = took_s, rests_until_s
            return
        final = self._is_final(conversation_id, now_s)
        if not final and not self._ledger.conversations.is_to_assign(conversation_id):
            return
        if self._beside.works_on(conversation_id) or not self._assign_tries.take(conversation_id, now_s):
            return
        if not self._ledger.take_labels(conversation_id):
            return  # another bridge works them out now
        try:
            self._try_counted(conversation_id, now_s, took_s, final=final)
        finally:
            if not self._beside.works_on(conversation_id):
                self._ledger.give_labels(conversation_id)

    def _try_counted(self, conversation_id: str, now_s: float, took_s: float, *, final: bool) -> None:
        with self._mark.on(conversation_id), self._contained(conversation_id):
            conversation = self._ledger.conversations.take_up(conversation_id)
            if conversation is None:
                return
            if conversation.label_tries >= MAX_TRIES:
                self._set_aside(conversation_id, f"the bridge ended {MAX_TRIES} times while it worked out its labels")
                return
            self._try(conversation, now_s, took_s, final=final)

    def _try(self, conversation: ConversationRecord, now_s: float, took_s: float, *, final: bool) -> None:
        conversation_id = conversation.conversation_id
        if took_s > LONG_ASSIGNMENT_S:
            self._before_long_work()
        began_s = time.monotonic()
        work = self._updater.read(conversation, final=final)
        if not work.is_small:
            self._start_beside(work, final=final)
            return
        if self._updater.assign(work, final=final):
            self._note_assigned(conversation_id, now_s, final=final)
        self._let_rest(conversation_id, began_s)

    def _start_beside(self, work: LabellingWork, *, final: bool) -> None:
        """Have a large conversation's labels worked out beside the bridge, or later where that is busy."""
        if self._beside.is_busy:
            self._assign_tries.reset(work.name)
            self._assign_rests[work.name] = 0.0, time.monotonic() + BUSY_REST_S
            return
        # Counted before it is made: an attempt that takes the whole bridge with it counts too. Of a small one, which
        # is made between two messages, the mark tells the next start.
        self._ledger.conversations.count_try(work.name)
        self._beside.start(work, final=final)

    def _note_large(self, ended: LargeLabelling, now_s: float) -> None:
        name = ended.work.name
        self._let_rest(name, ended.began_s)
        with self._given_back(name), self._contained(name, is_counted=True):
            if isinstance(ended.labelling, LabellingFailed):
                raise ended.labelling
            final = ended.final and self._is_final(name, now_s)  # more may have come meanwhile
            if self._updater.note(ended.work, ended.labelling, final=final):
                self._note_assigned(name, now_s, final=final)
            else:
                self._ledger.conversations.take_try_back(name)

    def _note_assigned(self, conversation_id: str, now_s: float, *, final: bool) -> None:
        self._assign_tries.reset(conversation_id)
        if final:
            self._end_due_s.pop(conversation_id, None)
            self._last_audio_s.pop(conversation_id, None)
            self._ended_too_soon.discard(conversation_id)
            self._on_final(conversation_id, now_s)

    def _let_rest(self, conversation_id: str, began_s: float) -> None:
        took_s = time.monotonic() - began_s
        if took_s > LONG_ASSIGNMENT_S:
            self._assign_rests[conversation_id] = took_s, began_s + took_s * (1 + ASSIGN_REST)

    @contextmanager
    def _given_back(self, conversation_id: str) -> Iterator[None]:
        """Let others work out its labels afterwards."""
        try:
            yield
        finally:
            self._ledger.give_labels(conversation_id)

    @contextmanager
    def _contained(self, conversation_id: str, *, is_counted: bool = False) -> Iterator[None]:
        """Set a conversation aside whose labels failed too often. What the disk does is not its fault."""
        conversations = self._ledger.conversations
        try:
            yield
        except (*STORAGE_ERRORS, StoreError, StoreUnavailable):
            if is_counted:
                self._uncounted.add(conversation_id)
                with suppress(LedgerUnavailable):  # the ledger itself may be away: at a later tick then
                    self._take_tries_back()
            raise
        except Exception as error:
            known = conversations.peek(conversation_id) if is_counted else None
            tries = known.label_tries if known is not None else conversations.count_try(conversation_id)
            if tries >= MAX_TRIES:
                self._set_aside(conversation_id, describe_error(error))
            raise

    def _set_aside(self, conversation_id: str, reason: str) -> None:
        """Have a conversation fail: its labels stay as they are until an operator brings it back."""
        self._ledger.conversations.put_aside(conversation_id, reason)
        self._end_due_s.pop(conversation_id, None)
        self._assign_tries.reset(conversation_id)
        _LOG.error("conversation_set_aside", conversation=conversation_id, reason=reason, remedy=RETRY)
        self._on_failed(conversation_id, reason)

    def _is_final(self, conversation_id: str, now_s: float) -> bool:
        """Whether a conversation waits for nothing more; where time alone will tell, look again then."""
        end = self._ledger.conversations.find_completion(conversation_id)
        if end is None:
            self._end_due_s.pop(conversation_id, None)
            return False
        idle_s, quiet_s = self._idle_s(conversation_id, now_s), self._settings.quiet_s
        self._end_due_s[conversation_id] = now_s + max(END_CHECK_MIN_S, required_quiet_s(end, quiet_s=quiet_s) - idle_s)
        is_quiet = is_final(end, idle_s=idle_s, quiet_s=quiet_s)
        return is_quiet and not self._awaits_audio(conversation_id)

    def _idle_s(self, conversation_id: str, now_s: float) -> float:
        """Return how long no audio of a conversation has come; before this bridge took it up counts as then."""
        return now_s - self._last_audio_s.get(conversation_id, self._since_s)
