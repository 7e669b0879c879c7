// One conversation: its timeline, its transcript, and what can be corrected.

import { Missing, conversationPath, read } from "./api.js";
import { confirmVoice, correctSegment, mergeVoice, nameVoice } from "./corrections.js";
import { button, element, replaceKeepingFocus } from "./element.js";
import { duration, inPageWords, stateClass } from "./format.js";
import { History } from "./history.js";
import { Player } from "./player.js";
import { Timeline } from "./timeline.js";
import { Transcript, swatch } from "./transcript.js";
import { namer, voiceName } from "./voices.js";

const STATE_WORDS = {
  waiting: "waiting",
  dirty: "labels are being worked out",
  assigned: "labelled so far",
  final: "final",
  failed: "failed",
};

const DOWNLOADS = [
  ["vtt", "subtitles, VTT", "subtitles of web pages, with speakers"],
  ["srt", "subtitles, SRT", "subtitles that every player takes"],
  ["rttm", "who speaks when, RTTM", "for tools that measure it"],
  ["json", "everything, JSON", "for programs"],
];

export class ConversationView {
  constructor(id) {
    this.id = id;
    this.title = id;
    this.owner = null;
    this.voices = [];
    this.people = []; // whom its owner knows
    this.state = element("p", { class: "row" });
    this.faults = element("div", {});
    this.lanes = element("ul", { class: "lanes", "aria-label": "Voices" });
    this.timeline = new Timeline((segment) => this.choose(segment));
    this.transcript = new Transcript({
      onChoose: (segment) => this.timeline.choose(segment),
      onCorrect: (segment) => correctSegment(this, segment, this.nameOf(segment), this.voices, this.people),
      onPlay: (segment) => this.player.play(segment),
    });
    this.history = new History(id);
    this.player = new Player(id);
    this.doubtful = element("p", { class: "row" });
    this.heard = element(
      "section",
      { "aria-labelledby": "timeline-title" },
      element("h2", { id: "timeline-title" }, "Who speaks when"),
      this.timeline.tools,
      element("div", { class: "timeline" }, this.lanes, this.timeline.track),
    );
    this.without = element("p", {});
    this.said = element(
      "section",
      { "aria-labelledby": "transcript-title" },
      element("h2", { id: "transcript-title" }, "Transcript"),
      this.without,
      element("div", { class: "row" }, this.history.tools, this.doubtful, this.player.root),
      this.transcript.root,
    );
    this.found = [this.state, showDownloads(id), this.faults, this.heard, this.said, this.history.root];
    this.root = element("div", {}, element("h1", {}, id), element("p", { class: "quiet" }, "Reading …"));
  }

  async refresh(notice) {
    const isConcerned = notice.all || notice.many || notice.people || notice.conversations?.includes(this.id);
    if (!isConcerned && !notice.jobs && !(notice.agents && this.waits)) return;
    const [found, history] = await this.readAll();
    if (!found) return;
    if (!this.state.isConnected) this.root.replaceChildren(this.root.firstChild, ...this.found);
    if (notice.all || notice.many || notice.people) {
      this.people = (await read("/v1/people", { owner: found.owner })).people;
    }
    this.owner = found.owner;
    this.waits = found.state !== "final";
    const called = new Map(this.people.filter((person) => person.name).map((person) => [person.person_id, person.name]));
    this.voices = found.voices.map((voice) => ({
      ...voice,
      name: voiceName(voice, called),
      mayBe: voice.known && (called.get(voice.known.person_id) ?? voice.known.person_id),
    }));
    this.nameOf = namer(this.voices, called);
    this.showState(found);
    this.showLanes();
    this.heard.hidden = !found.voices.length && !found.segments.length;
    this.transcript.root.hidden = !found.segments.length;
    this.without.textContent = found.segments.length ? "" : describeNothing(found);
    this.timeline.update(this.voices, found.segments, found.turns);
    this.transcript.update(this.voices, found.segments, found.turns, this.nameOf);
    this.showDoubtful();
    this.history.update(history.writes, found.segments);
  }

  // Where there is nothing to show, the reason stands in its place, and stays; null for a conversation that is not there.
  async readAll() {
    const path = conversationPath(this.id);
    try {
      return await Promise.all([read(path), read(`${path}/history`)]);
    } catch (error) {
      const isMissing = error instanceof Missing;
      if (isMissing || !this.state.isConnected) {
        const why = isMissing ? "There is no such conversation: it was never heard of, or it is deleted." : error.message;
        const others = element("a", { href: "#/conversations" }, "All conversations");
        this.root.replaceChildren(this.root.firstChild, element("p", {}, why), element("p", {}, others));
      }
      if (!isMissing) throw error;
      return [null, null];
    }
  }

  showDoubtful() {
    const count = this.transcript.findDoubtful().length;
    const words = count === 1 ? "1 line to check: show it" : `${count} lines to check: show the next`;
    const next = () => this.transcript.chooseNextDoubtful();
    replaceKeepingFocus(this.doubtful, count ? button(words, next, { "data-key": "doubtful" }) : "");
  }

  close() {
    this.timeline.close();
    this.transcript.close();
    this.player.stop();
  }

  choose(segment) {
    if (!segment) return;
    this.timeline.choose(segment);
    this.transcript.choose(segment);
  }

  showState(found) {
    const leftAlone = found.segments.filter((segment) => segment.left_alone && !segment.by_person).length;
    const facts = [
      `${found.voices.length} ${found.voices.length === 1 ? "voice" : "voices"}`,
      `${found.segments.length} ${found.segments.length === 1 ? "line" : "lines"}`,
      leftAlone ? `${leftAlone} left as it was` : null,
      found.audio_s ? `${duration(found.audio_s)} of audio` : null,
    ].filter(Boolean);
    replaceKeepingFocus(
      this.state,
      element("span", { class: stateClass(found) }, STATE_WORDS[found.state] ?? found.state),
      element("span", {}, [found.reason, facts.join(", ")].filter(Boolean).join(" – ")),
    );
    const failures = found.failures.map((failure) =>
      element("li", { class: "card failed" },
        element("p", {}, `No labels from ${duration(failure.audio_s)} of audio: ${failure.code}, ${failure.message}`),
        element("p", {}, `What to do: ${inPageWords(failure.remedy, failure.job_id)}`),
        element("p", {}, element("a", { href: "#/now" }, "Try again or give up: Now"))),
    );
    const warnings = found.warnings.map((warning) => element("li", { class: "card" }, warning));
    replaceKeepingFocus(
      this.faults,
      failures.length ? element("ul", { class: "cards", "aria-label": "Failures" }, failures) : "",
      warnings.length ? element("ul", { class: "cards", "aria-label": "Warnings" }, warnings) : "",
    );
  }

  showLanes() {
    const lanes = this.voices.map((voice) =>
      element(
        "li",
        {},
        swatch(voice.speaker_id),
        element("strong", { title: voice.name }, voice.name),
        element("span", { class: "quiet" }, duration(voice.speech_s)),
        mayBeConfirmed(voice)
          ? button(`${voice.mayBe}?`, () => confirmVoice(this.id, voice),
            { "data-key": `confirm-${voice.speaker_id}`, "aria-label": `Is ${voice.name} ${voice.mayBe}?` })
          : null,
        button("Name…", () => nameVoice(this, voice, this.voices, this.people),
          { "data-key": `name-${voice.speaker_id}`, "aria-label": `Name ${voice.name}` }),
        button("Same as…", () => mergeVoice(this.id, voice, this.voices),
          { "data-key": `merge-${voice.speaker_id}`, "aria-label": `${voice.name} is the same as…`,
            disabled: this.voices.length < 2 }),
      ),
    );
    replaceKeepingFocus(this.lanes, element("li", { class: "axis" }), element("li", {}, "Transcript"), ...lanes);
  }
}

function describeNothing(found) {
  if (found.voices.length) return "No transcript came. The timeline shows who speaks when.";
  return found.state === "final" ? "There is none, and nobody was heard." : "Nothing of it is here yet.";
}

// Links, not scripts: the browser saves what it is sent under the name that comes with it.
function showDownloads(id) {
  const links = DOWNLOADS.map(([format, words, use]) =>
    element("a", { href: `${conversationPath(id)}/export?format=${format}`, download: true, title: use }, words),
  );
  return element("nav", { class: "row", "aria-label": "Download this conversation" }, "Download:", links);
}

// Whether a person has to say something: the voice was recognised, or it sounds unlike the others of who it is.
function mayBeConfirmed(voice) {
  return voice.known && (voice.known.identity !== "confirmed" || voice.known.voiceprint === "asks");
}
