// The history of a conversation's labels, with undo and redo.

import { redo, undo } from "./api.js";
import { button, element, notify, replaceKeepingFocus } from "./element.js";
import { ago } from "./format.js";

const SHOWN = 30;
const OUTCOMES = {
  spread: "it reaches the whole voice",
  alone: "only the segments it names",
  void: "nothing came of it",
};
const REASONS = {
  contradicted: "other labels of people say otherwise",
  sounds_different: "the two voices sound different",
  overridden: "a later correction says otherwise",
  no_voice: "nobody was heard there",
};

export class History {
  constructor(conversationId) {
    this.conversationId = conversationId;
    this.shown = SHOWN;
    this.writes = [];
    this.tools = element("p", { class: "row" });
    this.root = element("section", { "aria-labelledby": "history-title" });
  }

  update(writes) {
    this.writes = writes;
    this.show();
  }

  show() {
    const newest = [...this.writes].reverse();
    const corrected = newest.find((write) => write.kind === "correct")?.version ?? 0; // what was undone before it stays so
    const toUndo = newest.find((write) => ["correct", "redo"].includes(write.kind) && write.undone_by === null);
    const toRedo = newest.find((write) => write.kind === "undo" && write.undone_by === null && write.version > corrected);
    replaceKeepingFocus(
      this.tools,
      button("Undo", () => this.act(undo, toUndo), { disabled: !toUndo, "data-key": "undo" }),
      button("Redo", () => this.act(redo, toRedo), { disabled: !toRedo, "data-key": "redo" }),
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

  describe(write) {
    const who = write.kind === "apply" ? "The bridge" : write.by || "Somebody";
    const lines = write.corrections.map((said, place) => describeCorrection(said, write.outcomes[place]));
    const labels = write.changes.length;
    const changed = labels ? `${labels} ${labels === 1 ? "label" : "labels"} changed` : null;
    const isBack = write.undone_by !== null;
    const quiet = [changed, isBack ? `taken back by change ${write.undone_by}` : null].filter(Boolean);
    const act = isBack ? () => this.act(redo, write) : () => this.act(undo, write);
    const words = isBack ? "Bring back" : "Take back";
    return element(
      "li",
      { class: "card" },
      element("p", {}, element("strong", {}, `${write.version}. ${who} `), describeKind(write), ` ${ago(write.written_at_s)}`),
      lines.map((line) => element("p", {}, line)),
      quiet.length ? element("p", { class: "quiet" }, quiet.join("; ")) : null,
      write.kind === "apply" && !labels ? null
        : button(words, act, { "data-key": `write-${write.version}`, "aria-label": `${words} change ${write.version}` }),
    );
  }

  async act(change, write) {
    try {
      await change(this.conversationId, write.version);
      notify("Taken. The labels are being worked out.");
    } catch (error) {
      notify(error.message);
    }
  }
}

function describeKind(write) {
  if (write.kind === "undo") return `took change ${write.undoes} back`;
  if (write.kind === "redo") return `brought change ${write.undoes} back`;
  if (write.kind === "correct") return "corrected";
  return write.because_of === null ? "labelled" : `labelled anew, because of change ${write.because_of}`;
}

function describeCorrection(said, outcome) {
  const became = outcome ? ` – ${OUTCOMES[outcome.outcome] ?? outcome.outcome}` : "";
  const why = outcome?.reason ? ` (${REASONS[outcome.reason] ?? outcome.reason})` : "";
  return describeSaid(said) + became + why;
}

function describeSaid(said) {
  const speaker = `Speaker ${said.speaker_id}`;
  if (said.kind === "same_voice") return `Speakers ${said.speaker_ids.join(" and ")} are one`;
  if (said.kind === "other_voice") return said.segment_ids.length === 1 ? "one segment is somebody else" : `${said.segment_ids.length} segments are somebody else`;
  if (said.kind === "segment_is") return `segment ${said.segment_id} is ${said.person_id ?? speaker}`;
  if (said.kind === "voice_is") return `${speaker} is ${said.person_id}`;
  return `${speaker} is not ${said.person_id}`;
}
