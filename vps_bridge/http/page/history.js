// The history of a conversation's labels, with undo and redo.

import { redo, undo } from "./api.js";
import { button, element, notify, replaceKeepingFocus } from "./element.js";
import { ago, clock } from "./format.js";

const SHOWN = 30;
const QUOTED = 40; // characters of a line
const OUTCOMES = {
  spread: "it holds for the whole voice",
  alone: "it holds for this line alone, not for the whole voice",
  void: "nothing came of it",
};
const ABOUT_VOICES = ["voice_is", "voice_is_not", "same_voice"];
const REASONS = {
  contradicted: "other labels of people say otherwise",
  sounds_different: "the two voices sound different",
  overridden: "a later correction says otherwise",
  no_voice: "nobody was heard there",
  cut: "the line was cut since, and the other part is not labelled",
};

export class History {
  constructor(conversationId) {
    this.conversationId = conversationId;
    this.shown = SHOWN;
    this.writes = [];
    this.segments = new Map();
    this.known = null; // the latest write that was shown
    this.tools = element("p", { class: "row" });
    this.root = element("section", { "aria-labelledby": "history-title" });
  }

  update(writes, segments) {
    this.writes = writes;
    this.segments = new Map(segments.map((segment) => [segment.id, segment]));
    const news = writes.filter((write) => write.kind !== "apply" && this.known !== null && write.version > this.known);
    if (news.length) notify(`Done: ${this.summarize(news[news.length - 1])}.`);
    this.known = writes[writes.length - 1]?.version ?? 0;
    this.show();
  }

  show() {
    const newest = [...this.writes].reverse();
    const corrected = newest.find((write) => write.kind === "correct")?.version ?? 0; // what was undone before it stays so
    const toUndo = newest.find((write) => ["correct", "redo"].includes(write.kind) && write.undone_by === null);
    const toRedo = newest.find((write) => write.kind === "undo" && write.undone_by === null && write.version > corrected);
    replaceKeepingFocus(
      this.tools,
      this.tool("Undo", undo, toUndo),
      this.tool("Redo", redo, toRedo),
    );
    const more = () => {
      this.shown += SHOWN;
      this.show();
    };
    replaceKeepingFocus(
      this.root,
      element("h2", { id: "history-title" }, "History"),
      newest.length ? "" : element("p", {}, "No label was changed yet."),
      element("ol", { class: "cards" }, newest.slice(0, this.shown).map((write) => this.describe(write))),
      newest.length > this.shown ? button("Show earlier ones", more, { "data-key": "earlier" }) : "",
    );
  }

  // Says what it would undo or redo: that may be somebody else's change.
  tool(words, change, write) {
    const about = write ? [": ", element("span", { class: "about" }, this.said(this.rootOf(write)))] : [];
    return button([words, ...about], () => this.act(change, write), { disabled: !write, "data-key": words });
  }

  // The change that an undo, or an undo of one, is about in the end.
  rootOf(write) {
    const before = write.kind === "undo" || write.kind === "redo" ? this.writes.find((one) => one.version === write.undoes) : null;
    return before ? this.rootOf(before) : write;
  }

  said(write) {
    const lines = write.corrections.map((said) => describeSaid(said, this.segments));
    return lines.join("; ") || `the labels of change ${write.version}`;
  }

  summarize(write) {
    const words = { undo: "taken back: ", redo: "brought back: " }[write.kind] ?? "";
    return words + this.said(this.rootOf(write));
  }

  describe(write) {
    const who = write.kind === "apply" ? "The bridge" : write.by || "Somebody";
    const root = this.rootOf(write);
    const lines = root === write
      ? write.corrections.map((said, place) => describeCorrection(said, write.outcomes[place], this.segments, write.changes.length))
      : [this.said(root)];
    const labels = write.changes.length;
    const changed = labels ? `${labels} ${labels === 1 ? "label" : "labels"} changed` : null;
    const canAct = write.kind === "correct" || (write.kind === "apply" && labels > 0); // others act on these
    const isBack = write.undone_by !== null;
    const quiet = [changed, isBack && canAct ? `taken back by change ${write.undone_by}` : null].filter(Boolean);
    const act = isBack ? () => this.act(redo, write) : () => this.act(undo, write);
    const words = isBack ? "Bring back" : "Take back";
    return element(
      "li",
      { class: "card" },
      element("p", {}, element("strong", {}, `${write.version}. ${who} `), describeKind(write), ` ${ago(write.written_at_s)}`),
      lines.map((line) => element("p", {}, line)),
      quiet.length ? element("p", { class: "quiet" }, quiet.join("; ")) : null,
      !canAct ? null
        : button(words, act, { "data-key": `write-${write.version}`, "aria-label": `${words} change ${write.version}` }),
    );
  }

  async act(change, write) {
    const began_ms = performance.now();
    try {
      await change(this.conversationId, write.version);
      notify("Saved. The labels are being worked out.", began_ms);
    } catch (error) {
      notify(error.message);
    }
  }
}

function describeKind(write) {
  if (write.kind === "undo") return "took back";
  if (write.kind === "redo") return "brought back";
  if (write.kind === "correct") return "corrected";
  return write.because_of === null ? "labelled" : `labelled anew, because of change ${write.because_of}`;
}

function describeCorrection(said, outcome, segments, labels) {
  // As it was said: of a voice, or of a line that belongs to that voice anyway, so that no other label changed.
  const isPlain = !outcome || (outcome.outcome === "spread" && (ABOUT_VOICES.includes(said.kind) || labels <= 1));
  const became = isPlain ? "" : ` – ${OUTCOMES[outcome.outcome] ?? outcome.outcome}`;
  const why = outcome?.reason ? ` (${REASONS[outcome.reason] ?? outcome.reason})` : "";
  return describeSaid(said, segments) + became + why;
}

function describeSaid(said, segments) {
  const speaker = `Speaker ${said.speaker_id}`;
  if (said.kind === "same_voice") return `Speakers ${said.speaker_ids.join(" and ")} are one`;
  if (said.kind === "other_voice") return `${said.segment_ids.map((id) => quote(id, segments)).join(", ")} is somebody else`;
  if (said.kind === "segment_is") return `${quote(said.segment_id, segments)} is ${said.person_id ?? speaker}`;
  if (said.kind === "voice_is") return `${speaker} is ${said.person_id}`;
  return `${speaker} is not ${said.person_id}`;
}

// A line of the transcript, as people know it.
function quote(id, segments) {
  const segment = segments.get(id);
  if (!segment) return `segment ${id}`;
  const text = segment.text.length > QUOTED ? `${segment.text.slice(0, QUOTED)}…` : segment.text;
  return `“${text}” (${clock(segment.start_s)})`;
}
