"""A picture of who spoke when: one lane per result, one colour per speaker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mac_agent.engines.engine import Turn

if TYPE_CHECKING:
    from pathlib import Path

# Okabe and Ito (2008): distinct with every common colour vision; the eighth, black, is for text.
SPEAKER_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
INK, PALE = "#22272e", "#eef1f4"
ROW_HEIGHT_IN, MARGIN_IN, WIDTH_IN = 0.34, 1.35, 12.0
DOTS_PER_INCH = 150
MAX_ROWS_PER_LANE = 20
MINUTES_FROM_S = 120.0


def draw_timeline(path: Path, lanes: Mapping[str, Sequence[Turn]], duration_s: float, title: str) -> None:
    """Draw lanes above each other, such as ``{"reference": …, "result": …}``, each with a row per speaker.

    Args:
        path: the picture; its suffix chooses the format (.png, .svg, .pdf).
        lanes: turns by the name of the lane. A speaker of a later lane takes row and colour of the speaker of the
            first lane with whom most time is shared, whatever the labels are.
        duration_s: seconds of audio, the width of the picture.
        title: above the picture.
    """
    # The canvas is asked for by name: no window system, no state shared with other pictures.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - a second to import, one command needs it
    from matplotlib.figure import Figure  # noqa: PLC0415

    rows = _arrange(lanes)
    heights = [max(len(colours), 1) for colours in rows.values()] or [1]
    figure = Figure(figsize=(WIDTH_IN, MARGIN_IN + ROW_HEIGHT_IN * (sum(heights) + len(heights))), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (name, turns) in zip(axes, lanes.items(), strict=False):
        _draw_lane(axis, name, turns, rows[name], duration_s)
    _label_time(axes[-1], duration_s)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    figure.savefig(path, facecolor="white")


def _arrange(lanes: Mapping[str, Sequence[Turn]]) -> dict[str, dict[str, str]]:
    """Return, for each lane, the colour of each speaker, in the order of their rows."""
    first: list[str] = []
    first_turns: Sequence[Turn] = ()
    arranged = {}
    for name, turns in lanes.items():
        speakers = _speakers_by_speech(turns)
        places = dict(enumerate(speakers)) if not first else _match(speakers, turns, first, first_turns)
        if not first:
            first, first_turns = speakers, turns
        rows = sorted(places.items())[:MAX_ROWS_PER_LANE]
        arranged[name] = {speaker: SPEAKER_COLOURS[place % len(SPEAKER_COLOURS)] for place, speaker in rows}
    return arranged


def _match(
    speakers: Sequence[str], turns: Sequence[Turn], first: Sequence[str], first_turns: Sequence[Turn]
) -> dict[int, str]:
    """Return speakers in the order of the first lane; those who are not in it come after."""
    shared: dict[tuple[str, str], float] = {}
    for turn in turns:
        for known in first_turns:
            overlap_s = min(turn.end_s, known.end_s) - max(turn.start_s, known.start_s)
            if overlap_s > 0:
                pair = (turn.speaker, known.speaker)
                shared[pair] = shared.get(pair, 0.0) + overlap_s
    places: dict[int, str] = {}
    for speaker, other in sorted(shared, key=lambda pair: (-shared[pair], pair)):
        place = first.index(other)
        if place not in places and speaker not in places.values():
            places[place] = speaker
    strangers = [speaker for speaker in speakers if speaker not in places.values()]
    return places | dict(enumerate(strangers, start=len(first)))


def _speakers_by_speech(turns: Sequence[Turn]) -> list[str]:
    """Return labels, most speech first."""
    seconds: dict[str, float] = {}
    for turn in turns:
        seconds[turn.speaker] = seconds.get(turn.speaker, 0.0) + turn.end_s - turn.start_s
    return sorted(seconds, key=lambda speaker: (-seconds[speaker], speaker))


def _draw_lane(axis: Any, name: str, turns: Sequence[Turn], colours: Mapping[str, str], duration_s: float) -> None:  # noqa: ANN401 - matplotlib's axes
    speakers = list(colours)
    for row, speaker in enumerate(speakers):
        axis.barh(row, max(duration_s, 0.001), height=0.72, color=PALE, zorder=1)
        spans = [(turn.start_s, max(turn.end_s - turn.start_s, 0.0)) for turn in turns if turn.speaker == speaker]
        axis.broken_barh(spans, (row - 0.36, 0.72), facecolors=colours[speaker], zorder=2)
        axis.annotate(
            f" {sum(length for _, length in spans):.0f} s",
            xy=(1.0, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            color=INK,
        )
    if not speakers:
        axis.annotate("nobody speaks", xy=(0.5, 0.5), xycoords="axes fraction", ha="center", va="center", color=INK)
    axis.set_yticks(range(len(speakers)), labels=speakers, fontsize=9, color=INK)
    axis.set_ylim(max(len(speakers), 1) - 0.5, -0.5)
    axis.set_xlim(0, max(duration_s, 0.001))
    axis.set_title(name, loc="left", fontsize=10, color=INK)
    axis.tick_params(axis="both", length=0)
    axis.grid(axis="x", color="#d5dae0", linewidth=0.6, zorder=0)
    for side in ("top", "right", "left", "bottom"):
        axis.spines[side].set_visible(False)


def _label_time(axis: Any, duration_s: float) -> None:  # noqa: ANN401 - matplotlib's axes
    if duration_s < MINUTES_FROM_S:
        axis.set_xlabel("seconds", color=INK)
        return
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415 - as above

    axis.xaxis.set_major_locator(MaxNLocator(nbins=12, steps=[1, 1.5, 3, 6, 10]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda second, _: f"{int(second // 60)}:{int(second % 60):02d}"))
    axis.set_xlabel("minutes:seconds", color=INK)
