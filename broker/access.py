"""Who may publish and receive what: the access rules of each user, on every broker that we set up."""

from dataclasses import dataclass

from schemas.topics import TopicKind, Topics

BROKER_VERSION = "$SYS/broker/version"  # Mosquitto's: `omi-bridge doctor` tells it


@dataclass(frozen=True)
class Access:
    """Topic filters of one user."""

    publish: tuple[str, ...]
    receive: tuple[str, ...]
    subscribe: tuple[str, ...]
    """Filters it may subscribe to. Wider than `receive` only so that one filter can ask for all that it may receive."""


def access_of(role: str, topics: Topics, *, sender_id: str = "+") -> Access:
    """Return the rules of one role.

    Args:
        role: `bridge`, `agent`, `backend` or `watch`.
        topics: the topics of one root.
        sender_id: of a bridge or an agent, its id; `+` lets one user speak for every one (embedded broker only).

    Raises:
        ValueError: there is no such role.
    """
    bridge_beats = topics.filter(TopicKind.BRIDGE_HEARTBEAT)
    receive: tuple[str, ...]
    match role:
        case "bridge":
            publish = _filters(topics, "ACCEPTED PARTS UPDATED CONTROL PERSON_ACCEPTED")
            publish += _filters(topics, "FAILURE BRIDGE_HEARTBEAT", sender_id=sender_id)
            # Everything: the bridge has all audio anyway, and `omi-bridge watch` shows an operator every message.
            every = f"{topics.root}/#"
            subscribe = (*_filters(topics, " ".join(TopicKind.__members__)), every)
            return Access(publish, receive=(every, BROKER_VERSION), subscribe=subscribe)
        case "agent":
            publish = _filters(topics, "TURNS FAILURE WANT AGENT_HEARTBEAT", sender_id=sender_id)
            # Its own beat: it sees there a second process under its id, and a will that came too late.
            receive = (*_filters(topics, "PARTS CONTROL AGENT_HEARTBEAT", sender_id=sender_id), bridge_beats)
        case "backend":
            publish = _filters(topics, "EVENTS AUDIO PERSON_EVENTS")
            receive = (
                *_filters(topics, "ACCEPTED UPDATED PERSON_ACCEPTED"),
                bridge_beats,
            )  # the bridge's beat names the live agents
        case "watch":
            # For a person who watches: states and failures, never audio, transcript text or voice embeddings.
            publish = ()
            receive = (*_filters(topics, "ACCEPTED UPDATED FAILURE WANT CONTROL AGENT_HEARTBEAT"), bridge_beats)
            return Access(publish, receive, subscribe=(f"{topics.root}/#", *receive))
        case _:
            raise ValueError(f"no role {role!r}: use bridge, agent, backend or watch")
    return Access(publish, receive, subscribe=receive)


def _filters(topics: Topics, kinds: str, *, sender_id: str = "+") -> tuple[str, ...]:
    return tuple(topics.filter(TopicKind[kind], sender_id=sender_id) for kind in kinds.split())
