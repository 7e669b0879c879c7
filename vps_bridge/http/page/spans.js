// Spans of time, sorted by their start, and questions about them. Nothing here draws.

// Spans that can be searched quickly: `latestEnd[n]` is the latest end among the first n+1.
export class SortedSpans {
  constructor(spans) {
    this.spans = [...spans].sort((one, other) => one.start_s - other.start_s || one.end_s - other.end_s);
    this.latestEnd = new Float64Array(this.spans.length);
    let latest = -Infinity;
    this.spans.forEach((span, place) => {
      latest = Math.max(latest, span.end_s);
      this.latestEnd[place] = latest;
    });
  }

  get end_s() {
    return this.spans.length ? this.latestEnd[this.spans.length - 1] : 0;
  }

  get start_s() {
    return this.spans.length ? this.spans[0].start_s : 0;
  }

  // Returns the spans that a window shows, without looking at all of them.
  within(from_s, to_s) {
    const first = firstPlace(this.spans.length, (place) => this.latestEnd[place] > from_s);
    const last = firstPlace(this.spans.length, (place) => this.spans[place].start_s >= to_s);
    return this.spans.slice(first, last);
  }

  // Returns the span at a moment, else the nearest before it, else the first.
  at(moment_s) {
    const after = firstPlace(this.spans.length, (place) => this.spans[place].start_s > moment_s);
    const found = this.spans.slice(Math.max(0, after - 20), after).reverse().find((span) => span.end_s > moment_s);
    return found ?? this.spans[Math.max(0, after - 1)] ?? null;
  }
}

// Returns the first place at which a condition holds that holds for all later ones; `count` where for none.
export function firstPlace(count, holds) {
  let [low, high] = [0, count];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

// Returns whose turns are longest within a stretch, by number; null where nobody speaks.
export function longestWithin(turns, start_s, end_s) {
  const spoken = new Map();
  for (const turn of turns.within(start_s, end_s)) {
    const length_s = Math.min(turn.end_s, end_s) - Math.max(turn.start_s, start_s);
    if (length_s > 0) spoken.set(turn.speaker_id, (spoken.get(turn.speaker_id) ?? 0) + length_s);
  }
  return [...spoken].sort((one, other) => other[1] - one[1])[0]?.[0] ?? null;
}

// Returns the stretches in which two or more of these spans are at once.
export function overlaps(spans) {
  const edges = spans.flatMap((span) => [[span.start_s, 1], [span.end_s, -1]]);
  edges.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
  const found = [];
  let depth = 0;
  for (const [moment_s, step] of edges) {
    if (step === 1 && depth === 1) found.push({ start_s: moment_s, end_s: moment_s });
    depth += step;
    if (step === -1 && depth === 1) found[found.length - 1].end_s = moment_s;
  }
  return found.filter((span) => span.end_s - span.start_s > 0.01);
}
