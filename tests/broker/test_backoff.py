from broker.backoff import Backoff


def test_pauses_double_up_to_the_longest_and_start_over():
    backoff = Backoff.start(1.0, 5.0)
    pauses = []
    for _ in range(5):
        pauses.append(backoff.pause_s)
        backoff = backoff.longer()
    assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert backoff.restarted().pause_s == 1.0


def test_the_shortest_pause_is_never_above_the_longest():
    assert Backoff.start(10.0, 5.0).pause_s == 5.0


def test_jitter_stays_between_half_the_pause_and_the_pause():
    drawn = [Backoff.start(4.0, 4.0).jittered_s() for _ in range(200)]
    assert all(2.0 <= pause_s <= 4.0 for pause_s in drawn)
    assert max(drawn) - min(drawn) > 0.5
