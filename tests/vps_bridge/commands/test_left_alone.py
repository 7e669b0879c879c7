"""What `omi-bridge publish --wait` says of segments that kept their labels."""

from schemas.conversation import ConversationUpdated
from vps_bridge.commands.publish import describe_left_alone


def test_reasons_are_counted_also_where_the_list_did_not_fit_the_update() -> None:
    counts = {"no_audio": 1, "two_speakers": 20, "human": 1}
    update = ConversationUpdated(conversation_id="c", updated_version=1, state="final", left_alone_counts=counts)
    assert describe_left_alone(update) == "22 left alone (20 two_speakers, 1 human, 1 no_audio)"
    assert describe_left_alone(update.model_copy(update={"left_alone_counts": {}})) == "0 left alone"
