// The transcript: a list of which only the rows in sight exist, however long it is.

import { button, element } from "./element.js";
import { clock, percent } from "./format.js";
import { SortedSpans, firstPlace, longestWithin } from "./spans.js";
import { colourNumber } from "./voices.js";

const GUESSED_ROW_PX = 64;
const BEYOND_PX = 400; // rows are made so far beyond what is in sight
const LEFT_ALONE = {
  human: "a person labelled it",
  two_speakers: "two people speak in it",
  low_coverage: "no voice covers enough of it",
  no_voice: "too little is heard of who speaks in it",
  no_audio: "there is no audio of it",
  "clock.unknown": "its place in the audio is not known",
  "clock.unverified": "its place in the audio is not sure",
  "times.impossible": "its times cannot be right",
  "label.stale": "its number belongs to another voice now",
};

export class Transcript {
  constructor({ onChoose, onCorrect, onPlay }) {
    this.onPlay = onPlay;
    this.onChoose = onChoose;
    this.onCorrect = onCorrect;
    this.segments = [];
    this.turns = new SortedSpans([]);
    this.heights = new Map(); // as measured, by segment
    this.tops = new Float64Array(1);
    this.rows = new Map(); // the rows that exist, by place
    this.chosen = 0;
    this.isDue = false;
    this.areTopsOld = true;
    this.space = element("div", { class: "space", role: "list", "aria-label": "Segments" });
    this.root = element("div", { class: "transcript", onkeydown: (event) => this.onKey(event) }, this.space);
    this.root.addEventListener("scroll", () => this.draw(), { passive: true });
    this.sizes = new ResizeObserver(() => {
      if (this.root.clientWidth === this.width) return;
      this.width = this.root.clientWidth;
      this.heights.clear();
      this.areTopsOld = true;
      this.draw();
    });
    this.sizes.observe(this.root);
  }

  close() {
    this.sizes.disconnect();
  }

  update(voices, segments, turns, nameOf) {
    const chosenId = this.segments[this.chosen]?.id;
    const focused = this.focusedControl();
    this.nameOf = nameOf;
    this.turns = new SortedSpans(turns ?? []);
    this.labelNames = new Map(voices.map((voice) => [voice.speaker, voice.name]));
    this.segments = segments;
    this.chosen = Math.max(0, segments.findIndex((segment) => segment.id === chosenId));
    for (const row of this.rows.values()) row.remove();
    this.rows.clear();
    this.areTopsOld = true;
    this.drawNow();
    if (focused !== null) this.focusRow(this.chosen, focused);
  }

  focusedControl() {
    if (!this.root.contains(document.activeElement)) return null;
    const controls = [...document.activeElement.closest(".segment")?.querySelectorAll("button") ?? []];
    return controls.indexOf(document.activeElement);
  }

  // Brings a segment into sight; `takesFocus` moves the keyboard there too.
  choose(segment, { takesFocus = false } = {}) {
    const place = this.segments.findIndex((one) => one.id === segment?.id);
    if (place < 0) return;
    this.setChosen(place);
    const [top, bottom] = [this.tops[place], this.tops[place + 1]];
    if (top < this.root.scrollTop) this.root.scrollTop = top;
    else if (bottom > this.root.scrollTop + this.root.clientHeight) this.root.scrollTop = bottom - this.root.clientHeight;
    this.drawNow();
    if (takesFocus) this.focusRow(place, -1);
  }

  // The lines that a person should look at: given to another voice than is heard, or left as they were.
  findDoubtful() {
    return this.segments.filter(
      (segment) => (segment.left_alone && !segment.by_person) || heardInstead(this.turns, segment) !== null,
    );
  }

  // Brings the next line in sight that a person should look at; after the last comes the first.
  chooseNextDoubtful() {
    const doubtful = new Set(this.findDoubtful());
    const isNext = (segment, place) => place > this.chosen && doubtful.has(segment);
    const later = this.segments.findIndex(isNext);
    const place = later < 0 ? this.segments.findIndex((segment) => doubtful.has(segment)) : later;
    if (place < 0) return;
    this.choose(this.segments[place], { takesFocus: true });
    this.onChoose(this.segments[place]);
  }

  setChosen(place) {
    this.mark(this.chosen, false);
    this.chosen = place;
    this.mark(place, true);
  }

  mark(place, isChosen) {
    const row = this.rows.get(place);
    if (!row) return;
    row.tabIndex = isChosen ? 0 : -1;
    for (const control of row.querySelectorAll("button")) control.tabIndex = row.tabIndex; // Tab leaves the list after one row
    if (isChosen) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }

  // Puts the keyboard on a row, or on its n-th button.
  focusRow(place, control) {
    const row = this.rows.get(place);
    (row?.querySelectorAll("button")[control] ?? row)?.focus({ preventScroll: true });
  }

  onKey(event) {
    const page = Math.max(1, Math.floor(this.root.clientHeight / GUESSED_ROW_PX) - 1);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Enter" && event.target.getAttribute("role") === "listitem") {
      event.preventDefault();
      this.onCorrect(this.segments[this.chosen]);
    }
    if (step === undefined || !this.segments.length) return;
    event.preventDefault();
    const place = Math.min(Math.max(this.chosen + step, 0), this.segments.length - 1);
    this.choose(this.segments[place], { takesFocus: true });
    this.onChoose(this.segments[place]);
  }

  draw() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.drawNow();
    });
  }

  drawNow() {
    if (this.areTopsOld) this.placeRows();
    this.makeRows();
    if (this.measure()) {
      this.placeRows();
      this.makeRows();
      this.measure();
    }
    for (const [place, row] of this.rows) row.style.transform = `translateY(${this.tops[place]}px)`;
  }

  placeRows() {
    this.areTopsOld = false;
    this.tops = new Float64Array(this.segments.length + 1);
    for (let place = 0; place < this.segments.length; place += 1) {
      this.tops[place + 1] = this.tops[place] + (this.heights.get(this.segments[place].id) ?? GUESSED_ROW_PX);
    }
    this.space.style.height = `${this.tops[this.segments.length]}px`;
  }

  makeRows() {
    const [top, bottom] = [this.root.scrollTop - BEYOND_PX, this.root.scrollTop + this.root.clientHeight + BEYOND_PX];
    const first = firstPlace(this.segments.length, (place) => this.tops[place + 1] > top);
    const last = firstPlace(this.segments.length, (place) => this.tops[place] >= bottom);
    for (const [place, row] of this.rows) {
      const isKept = (place >= first && place < last) || place === this.chosen || row.contains(document.activeElement);
      if (!isKept) {
        row.remove();
        this.rows.delete(place);
      }
    }
    // Also where it is out of sight: Tab enters the list there, and the focus comes back there from a dialog.
    if (this.segments.length && !this.rows.has(this.chosen)) this.addRow(this.chosen);
    for (let place = first; place < last; place += 1) {
      if (!this.rows.has(place)) this.addRow(place);
    }
  }

  // Rows are kept in the order of the segments, for the keyboard and for screen readers.
  addRow(place) {
    const row = this.makeRow(this.segments[place], place);
    const following = [...this.rows.keys()].filter((other) => other > place).sort((one, other) => one - other)[0];
    this.space.insertBefore(row, following === undefined ? null : this.rows.get(following));
    this.rows.set(place, row);
    this.mark(place, place === this.chosen);
  }

  measure() {
    let isNew = false;
    for (const [place, row] of this.rows) {
      const height = row.offsetHeight;
      if (height && this.heights.get(this.segments[place].id) !== height) {
        this.heights.set(this.segments[place].id, height);
        isNew = true;
      }
    }
    return isNew;
  }

  makeRow(segment, place) {
    const name = this.nameOf(segment);
    const choose = () => {
      this.setChosen(place);
      this.onChoose(segment);
    };
    return element(
      "div",
      {
        class: "segment",
        role: "listitem",
        tabindex: -1,
        "aria-posinset": place + 1,
        "aria-setsize": this.segments.length,
        "data-segment": segment.id,
        "data-key": `segment-${segment.id}`,
        onclick: choose,
        onfocus: choose,
      },
      element("p", { class: "who" }, swatch(segment.speaker_id), element("strong", {}, name), ` ${clock(segment.start_s)}`),
      element("div", { class: "said" }, this.saidBy(segment), this.describeLabel(segment, name)),
      element(
        "p",
        { class: "row" },
        button("Play", () => this.onPlay(segment), {
          "aria-label": `Play ${clock(segment.start_s)}`,
          "data-key": `play-${segment.id}`,
        }),
        button("Correct…", () => this.onCorrect(segment), {
          "aria-label": `Correct who speaks at ${clock(segment.start_s)}`,
          "data-key": `correct-${segment.id}`,
        }),
      ),
    );
  }

  saidBy(segment) {
    if (!segment.pieces.length) return element("p", {}, segment.text || "(no text)");
    return segment.pieces.map((piece) =>
      element("p", {}, swatch(piece.speaker_id), element("strong", {}, this.nameOf(piece)), ` ${piece.text}`),
    );
  }

  describeLabel(segment, name) {
    const words = [];
    const heard = heardInstead(this.turns, segment);
    const isOdd = heard !== null;
    if (isOdd) {
      words.push(`a person said so, but ${this.nameOf({ speaker_id: heard })} is heard here`);
    } else if (segment.by_person) words.push("a person said so");
    else if (segment.left_alone) words.push(`left as it was: ${LEFT_ALONE[segment.left_alone] ?? segment.left_alone}`);
    if (segment.coverage !== null && segment.speaker_id !== null) {
      words.push(`${name} is heard in ${percent(segment.coverage)} of it`);
    }
    if (segment.runner_up) words.push(`next: ${this.labelNames.get(segment.runner_up) ?? segment.runner_up}`);
    if (segment.pieces.some((piece) => piece.estimated)) words.push("cut where a sentence ends: its words have no times");
    return words.length ? element("p", { class: isOdd ? "problem" : "quiet" }, words.join(" · ")) : null;
  }
}

// Returns who is heard, by number, where a person gave a line to somebody else; null elsewhere.
function heardInstead(turns, segment) {
  const heard = segment.by_person ? longestWithin(turns, segment.start_s, segment.end_s) : null;
  return heard === segment.speaker_id ? null : heard;
}

export function swatch(speakerId) {
  return element("span", { class: `swatch voice-${colourNumber(speakerId)}`, "aria-hidden": "true" });
}
