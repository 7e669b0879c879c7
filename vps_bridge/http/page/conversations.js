// The list of conversations, with search.

import { read } from "./api.js";
import { button, element, labelled, replaceKeepingFocus, table } from "./element.js";
import { ago, stateClass } from "./format.js";

const STATES = ["", "waiting", "dirty", "assigned", "final", "failed"];
const STATE_WORDS = {
  waiting: "waiting",
  dirty: "labels being worked out",
  assigned: "labelled so far",
  final: "final",
  failed: "failed",
};
const PAGE = 50;
const PARTS = 10; // a search looks through so many parts of the list, and on when that is asked for
const TYPING_MS = 250;

export class ConversationsView {
  title = "Conversations";

  constructor() {
    this.limit = PAGE;
    this.parts = PARTS;
    this.typing = 0;
    this.search = element("input", { type: "search", id: "search", autocomplete: "off", oninput: () => this.soon() });
    this.state = element(
      "select",
      { id: "state", onchange: () => this.again() },
      STATES.map((state) => element("option", { value: state }, STATE_WORDS[state] ?? "any")),
    );
    this.why = element("input",
      { type: "search", id: "why", autocomplete: "off", placeholder: "no agent, audio …", oninput: () => this.soon() });
    this.found = element("section", { "aria-label": "Conversations" });
    this.root = element(
      "div",
      {},
      element("h1", {}, "Conversations"),
      element(
        "form",
        { class: "row", role: "search", onsubmit: (event) => event.preventDefault() },
        labelled("Search (id or person)", this.search),
        labelled("State", this.state),
        labelled("Waits for", this.why),
      ),
      this.found,
    );
  }

  soon() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.again(), TYPING_MS);
  }

  again() {
    this.limit = PAGE;
    this.parts = PARTS;
    return this.refresh();
  }

  async refresh(notice) {
    const isElsewhere = notice && !notice.all && !notice.many && !notice.jobs && !notice.conversations?.length;
    if (isElsewhere && !(notice.agents && this.hasWaiting)) return;
    const wanted = this.filter();
    const [found, next] = await this.readPages(wanted);
    if (JSON.stringify(wanted) === JSON.stringify(this.filter())) this.show(found, next);
  }

  filter() {
    return { search: this.search.value.trim(), state: this.state.value, waits_for: this.why.value.trim() };
  }

  async readPages(wanted) {
    const found = [];
    let next = 0;
    for (let part = 0; next !== null && found.length < this.limit && part < this.parts; part += 1) {
      const page = await read("/v1/conversations", { ...wanted, offset: next, limit: PAGE });
      found.push(...page.conversations);
      next = page.next_offset;
    }
    return [found, next];
  }

  close() {
    clearTimeout(this.typing);
  }

  show(found, next) {
    this.hasWaiting = found.some((item) => item.state === "waiting");
    const rows = found.map((item) => [
      element("a", { href: `#/conversations/${encodeURIComponent(item.conversation_id)}`, "data-key": item.conversation_id },
        item.conversation_id),
      element("span", { class: stateClass(item) }, STATE_WORDS[item.state] ?? item.state),
      item.reason ?? "",
      item.people.length ? `${item.speakers}: ${item.people.join(", ")}` : String(item.speakers),
      ago(item.last_activity_at),
    ]);
    const columns = ["Conversation", "State", "Waits for, or why it failed", "Voices", "Last activity"];
    const more = () => {
      this.limit += PAGE;
      this.parts += PARTS;
      return this.refresh();
    };
    replaceKeepingFocus(
      this.found,
      rows.length ? table("Conversations", columns, rows) : element("p", {}, this.describeNone(next !== null)),
      next === null ? "" : button("Show more", more, { "data-key": "more" }),
    );
  }

  describeNone(isMore) {
    if (isMore) return "None of the latest conversations is like that: Show more looks further.";
    const isNarrowed = Object.values(this.filter()).some((wanted) => wanted !== "");
    return isNarrowed ? "No conversation is like that." : "No conversation yet: each appears with its first audio or event.";
  }
}
