// The timeline: a lane for each voice, above them the transcript as it is labelled. Only what is visible is drawn.

import { button, element } from "./element.js";
import { clock, duration } from "./format.js";
import { SortedSpans, overlaps } from "./spans.js";
import { colourNumber } from "./voices.js";

const LANE_PX = 34; // as --lane in style.css
const AXIS_PX = 24;
const MIN_WINDOW_S = 2;
const TICKS_S = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
const TICK_PX = 90;
const ZOOM = 1.6;

export class Timeline {
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.voices = [];
    this.segments = this.turns = new SortedSpans([]);
    this.doubled = new SortedSpans([]);
    this.from_s = 0;
    this.to_s = 60;
    this.chosen = null;
    this.isDue = false;
    this.canvas = element("canvas", { "aria-hidden": "true" });
    this.words = element("p", { class: "hidden" });
    this.track = element(
      "div",
      {
        class: "track",
        tabindex: 0,
        role: "group",
        "aria-label": "Timeline. Arrow keys move, plus and minus zoom, Home shows all.",
        onkeydown: (event) => this.onKey(event),
        onpointerdown: (event) => this.onPress(event),
      },
      this.words,
      this.canvas,
    );
    this.track.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.shown = element("span", { class: "quiet" });
    this.legend = element("span", { class: "legend", hidden: true },
      element("span", { class: "swatch overlap", "aria-hidden": "true" }), "two speak at once");
    this.tools = element(
      "p",
      { class: "row" },
      button("Zoom in", () => this.zoom(1 / ZOOM)),
      button("Zoom out", () => this.zoom(ZOOM)),
      button("Show all", () => this.showAll()),
      this.shown,
      this.legend,
    );
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(this.track);
    this.theme = matchMedia("(prefers-color-scheme: dark)");
    this.onTheme = () => this.draw();
    this.theme.addEventListener("change", this.onTheme);
  }

  close() {
    this.sizes.disconnect();
    this.theme.removeEventListener("change", this.onTheme);
  }

  update(voices, segments, turns) {
    const isFirst = this.end_s === undefined;
    this.voices = voices;
    this.segments = new SortedSpans(segments);
    this.turns = new SortedSpans(turns ?? []);
    this.doubled = new SortedSpans(overlaps(turns ?? []));
    this.start_s = Math.min(this.segments.start_s, this.turns.start_s, 0);
    this.end_s = Math.max(this.segments.end_s, this.turns.end_s, this.start_s + MIN_WINDOW_S);
    const overlap_s = this.doubled.spans.reduce((sum, span) => sum + span.end_s - span.start_s, 0);
    this.legend.hidden = overlap_s === 0;
    const lanes = voices.map((voice) => `${voice.name} speaks ${duration(voice.speech_s)}`).join(", ");
    this.words.textContent = `${duration(this.end_s)} long. ${lanes}. Two at once for ${duration(overlap_s)}.`;
    if (isFirst) this.showAll();
    else this.draw();
  }

  choose(segment) {
    this.chosen = segment;
    if (segment && (segment.end_s < this.from_s || segment.start_s > this.to_s)) {
      const half_s = (this.to_s - this.from_s) / 2;
      this.look(segment.start_s - half_s, segment.start_s + half_s);
    }
    this.draw();
  }

  showAll() {
    const margin_s = (this.end_s - this.start_s) * 0.01;
    this.look(this.start_s - margin_s, this.end_s + margin_s);
  }

  look(from_s, to_s) {
    const most_s = (this.end_s - this.start_s) * 1.02;
    const width_s = Math.min(Math.max(to_s - from_s, MIN_WINDOW_S), Math.max(most_s, MIN_WINDOW_S));
    const margin_s = width_s * 0.02;
    const latest_s = Math.max(this.start_s - margin_s, this.end_s + margin_s - width_s);
    this.from_s = Math.min(Math.max(from_s, this.start_s - margin_s), latest_s);
    this.to_s = this.from_s + width_s;
    this.shown.textContent = `${clock(Math.max(0, this.from_s))} to ${clock(this.to_s)}`;
    this.draw();
  }

  zoom(factor, around_s = (this.from_s + this.to_s) / 2) {
    this.look(around_s - (around_s - this.from_s) * factor, around_s + (this.to_s - around_s) * factor);
  }

  move(share) {
    const step_s = (this.to_s - this.from_s) * share;
    this.look(this.from_s + step_s, this.to_s + step_s);
  }

  onKey(event) {
    const act = {
      ArrowLeft: () => this.move(-0.2),
      ArrowRight: () => this.move(0.2),
      "+": () => this.zoom(1 / ZOOM),
      "=": () => this.zoom(1 / ZOOM),
      "-": () => this.zoom(ZOOM),
      Home: () => this.showAll(),
    }[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  }

  onWheel(event) {
    const isSideways = Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey;
    if (!event.ctrlKey && !event.metaKey && !isSideways) return; // the page scrolls
    event.preventDefault();
    if (isSideways) this.move((event.deltaX || event.deltaY) / this.track.clientWidth);
    else this.zoom(Math.exp(event.deltaY / 300), this.moment(event.clientX));
  }

  onPress(event) {
    if (event.button !== 0) return;
    const [pressedX, from_s, to_s] = [event.clientX, this.from_s, this.to_s];
    let hasMoved = false;
    const drag = (moved) => {
      hasMoved ||= Math.abs(moved.clientX - pressedX) > 4;
      const step_s = ((pressedX - moved.clientX) / this.track.clientWidth) * (to_s - from_s);
      if (hasMoved) this.look(from_s + step_s, to_s + step_s);
    };
    const release = (released) => {
      window.removeEventListener("pointermove", drag);
      if (!hasMoved) this.onChoose(this.segments.at(this.moment(released.clientX)));
    };
    window.addEventListener("pointermove", drag);
    window.addEventListener("pointerup", release, { once: true });
  }

  moment(clientX) {
    const share = (clientX - this.track.getBoundingClientRect().left) / this.track.clientWidth;
    return this.from_s + share * (this.to_s - this.from_s);
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
    const [width, height] = [this.track.clientWidth, AXIS_PX + LANE_PX * (this.voices.length + 1)];
    if (!width || this.end_s === undefined) return;
    const ratio = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    this.style = getComputedStyle(this.track);
    this.colours = new Map(); // asking the style takes longer than drawing
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    this.scale = width / (this.to_s - this.from_s);
    this.drawOverlaps(pen, height);
    this.drawAxis(pen, width, height);
    this.drawSegments(pen);
    this.drawTurns(pen);
    this.drawChosen(pen, height);
  }

  x(moment_s) {
    return (moment_s - this.from_s) * this.scale;
  }

  colour(name) {
    if (!this.colours.has(name)) this.colours.set(name, this.style.getPropertyValue(name).trim());
    return this.colours.get(name);
  }

  drawOverlaps(pen, height) {
    pen.fillStyle = this.colour("--overlap");
    for (const span of this.doubled.within(this.from_s, this.to_s)) {
      pen.fillRect(this.x(span.start_s), AXIS_PX, Math.max(1, (span.end_s - span.start_s) * this.scale), height);
    }
  }

  drawAxis(pen, width, height) {
    const least_s = ((this.to_s - this.from_s) * TICK_PX) / width;
    const step_s = TICKS_S.find((tick) => tick >= least_s) ?? TICKS_S[TICKS_S.length - 1];
    pen.font = this.style.font;
    pen.textBaseline = "middle";
    for (let tick_s = Math.ceil(Math.max(0, this.from_s) / step_s) * step_s; tick_s < this.to_s; tick_s += step_s) {
      pen.fillStyle = this.colour("--line");
      pen.fillRect(Math.round(this.x(tick_s)), AXIS_PX, 1, height);
      pen.fillStyle = this.colour("--quiet");
      const [words, left] = [clock(tick_s).replace(/\.0$/, ""), this.x(tick_s) + 3];
      if (left + pen.measureText(words).width < width) pen.fillText(words, left, AXIS_PX / 2);
    }
  }

  drawSegments(pen) {
    let drawnX = -Infinity;
    for (const segment of this.segments.within(this.from_s, this.to_s)) {
      const [left, right] = [this.x(segment.start_s), this.x(segment.end_s)];
      if (right < drawnX + 0.5) continue; // within the last pixel
      drawnX = right;
      pen.fillStyle = this.colour(`--voice-${colourNumber(segment.speaker_id)}`);
      pen.globalAlpha = segment.left_alone && !segment.by_person ? 0.35 : 1;
      pen.fillRect(left, AXIS_PX + 11, Math.max(1, right - left - 1), LANE_PX - 22);
    }
    pen.globalAlpha = 1;
  }

  drawTurns(pen) {
    const lanes = new Map(this.voices.map((voice, place) => [voice.speaker_id, place + 1]));
    const drawn = new Map();
    for (const turn of this.turns.within(this.from_s, this.to_s)) {
      const lane = lanes.get(turn.speaker_id);
      const [left, right] = [this.x(turn.start_s), this.x(turn.end_s)];
      if (lane === undefined || right < (drawn.get(lane) ?? -Infinity) + 0.5) continue;
      drawn.set(lane, right);
      pen.fillStyle = this.colour(`--voice-${colourNumber(turn.speaker_id)}`);
      pen.fillRect(left, AXIS_PX + lane * LANE_PX + 6, Math.max(1, right - left), LANE_PX - 12);
    }
  }

  drawChosen(pen, height) {
    if (!this.chosen) return;
    pen.strokeStyle = this.colour("--focus");
    pen.lineWidth = 2;
    const left = this.x(this.chosen.start_s);
    pen.strokeRect(left, AXIS_PX + 1, Math.max(3, this.x(this.chosen.end_s) - left), height - AXIS_PX - 2);
  }
}
