// Whom an owner knows: how well, since when they agreed, where they were heard; and teaching, changing, forgetting.

import { erase, personPath, read, sendPersonEvent } from "./api.js";
import { askInDialog } from "./dialog.js";
import { button, element, labelled, replaceKeepingFocus, table } from "./element.js";
import { Enrolment } from "./enrolment.js";
import { ago, duration } from "./format.js";

const OWNER = "omi-page-owner";
const WHAT = {
  named: "was named",
  consented: "agreed to be recognised",
  owner: "is the owner, or is not any more",
  confirmed: "a person confirmed the voice",
  learned: "the voice was learned",
  unlearned: "the voice was unlearned",
  asked_again: "a voiceprint was taken back: who spoke here was asked again",
  asks: "the voice sounded unlike the others, and was not learned",
  little_speech: "too little clean speech to learn the voice",
  two_voices: "more than one voice in the recording",
  no_voice: "no voice in the recording",
};

export class PeopleView {
  title = "People";

  constructor() {
    this.people = [];
    this.shown = null; // the id of the person whose details are shown
    this.owner = element("select", { id: "owner", onchange: () => this.chooseOwner() });
    this.owners = element("p", { class: "row" }, element("label", { for: "owner" }, "Whose people"), this.owner);
    this.found = element("section", { "aria-label": "People" });
    this.details = element("section", { "aria-live": "polite", "aria-label": "One person" });
    this.enrolment = new Enrolment(() => ({ owner: this.owner.value, people: this.people }), () => this.readPeople());
    this.root = element(
      "div",
      {},
      element("h1", {}, "People"),
      this.owners,
      this.found,
      this.details,
      this.enrolment.root,
    );
  }

  close() {}

  async refresh(notice) {
    await this.enrolment.refresh(notice);
    if (!notice.all && !notice.many && !notice.people) return;
    const { owners } = await read("/v1/owners");
    this.showOwners(owners.length ? owners : [null]);
    await this.readPeople();
  }

  showOwners(owners) {
    const wanted = this.owner.value || localStorage.getItem(OWNER) || "";
    this.owner.replaceChildren(
      ...owners.map((owner) => element("option", { value: owner ?? "" }, owner ?? "conversations without an owner")),
    );
    const chosen = owners.map((owner) => owner ?? "").includes(wanted) ? wanted : owners[owners.length - 1] ?? "";
    this.owner.value = chosen;
    this.owners.hidden = owners.length < 2 && chosen === "";
  }

  chooseOwner() {
    localStorage.setItem(OWNER, this.owner.value);
    this.shown = null;
    return this.readPeople();
  }

  async readPeople() {
    const owner = this.owner.value;
    const { people } = await read("/v1/people", { owner });
    if (owner !== this.owner.value) return;
    this.people = people;
    this.showPeople();
    this.enrolment.update(people);
    await this.readDetails();
  }

  showPeople() {
    const rows = this.people.map((person) => [
      [element("strong", {}, nameOf(person)), person.is_owner ? " the owner" : ""],
      person.consent_date
        ? `agreed on ${person.consent_date}`
        : element("span", { class: "problem" }, "no consent date (Change… sets it)"),
      describePrints(person.prints),
      element(
        "span",
        { class: "row" },
        this.action("Show", person, () => this.showDetails(person.person_id),
          { "aria-expanded": String(this.shown === person.person_id) }),
        this.action("Change…", person, () => change(person, this.owner.value)),
        this.action("Forget…", person, () => forget(person, this.owner.value)),
      ),
    ]);
    replaceKeepingFocus(
      this.found,
      rows.length
        ? table("People", ["Person", "Consent", "Voiceprints", "Actions"], rows)
        : element("p", {}, "Nobody is known yet. Name a voice in a conversation, or teach one below."),
    );
  }

  action(words, person, act, more = {}) {
    const label = `${words.replace("…", "")} ${nameOf(person)}`;
    return button(words, act, { "data-key": `${words}-${person.person_id}`, "aria-label": label, ...more });
  }

  async showDetails(id) {
    this.shown = this.shown === id ? null : id;
    this.showPeople();
    await this.readDetails();
    if (this.shown) this.details.scrollIntoView({ block: "nearest" });
  }

  async readDetails() {
    const id = this.people.some((person) => person.person_id === this.shown) ? this.shown : null;
    if (id === null) {
      this.details.replaceChildren();
      return;
    }
    const person = await read(personPath(id), { owner: this.owner.value });
    if (id === this.shown) replaceKeepingFocus(this.details, ...describePerson(person));
  }
}

function describePerson(person) {
  const prints = person.prints.map((print) =>
    element("li", { class: "card" }, `${duration(print.clean_s)} of clean speech, `,
      print.source === "enrolment" ? "from a recording that was thrown away" : ["from ", linkTo(print.conversation_id)],
      element("p", { class: "quiet" }, print.embedding_space)),
  );
  const heard = person.heard_in.map((place) =>
    element("li", { class: "card" }, linkTo(place.conversation_id), ` as Speaker ${place.speaker_id}, ${place.identity}`),
  );
  const decisions = [...person.decisions].reverse().map((made) =>
    element("li", {}, `${ago(made.at_s)}: ${WHAT[made.what] ?? made.what}`,
      made.similarity === null ? "" : `, ${made.similarity.toFixed(2)} alike`),
  );
  return [
    element("h2", {}, nameOf(person) === person.person_id ? nameOf(person) : `${nameOf(person)} (${person.person_id})`),
    element("h3", {}, "Voiceprints"),
    prints.length ? element("ul", { class: "cards" }, prints) : element("p", {}, "None: the voice is not recognised."),
    element("h3", {}, "Heard in"),
    heard.length ? element("ul", { class: "cards" }, heard) : element("p", {}, "No conversation that is kept."),
    element("h3", {}, "What was decided"),
    decisions.length ? element("ul", {}, decisions) : element("p", {}, "Nothing."),
  ];
}

function linkTo(conversation) {
  return element("a", { href: `#/conversations/${encodeURIComponent(conversation)}` }, conversation);
}

export function nameOf(person) {
  return person.name ?? person.person_id;
}

function describePrints(prints) {
  if (!prints.length) return "none: not recognised";
  const seconds = prints.reduce((sum, print) => sum + print.clean_s, 0);
  return `${prints.length}, ${duration(seconds)} of clean speech`;
}

function field(words, properties) {
  const input = element("input", { autocomplete: "off", ...properties });
  return [input, labelled(words, input)];
}

function change(person, owner) {
  const [name, named] = field("Name", { type: "text", id: "person-name", maxlength: 200, value: nameOf(person) });
  const [agreed, consented] = field("Agreed on", { type: "date", id: "person-agreed", value: person.consent_date ?? "" });
  const [isOwner, owned] = field("Is the owner", { type: "checkbox", id: "person-owner", checked: person.is_owner });
  const about = { owner: owner || null, revision: person.revision };
  const read = () => {
    const events = [];
    if (name.value.trim() && name.value.trim() !== nameOf(person)) events.push({ type: "named", name: name.value.trim() });
    if (agreed.value && agreed.value !== person.consent_date) {
      events.push({ type: "consented", consent_date: agreed.value });
    }
    if (isOwner.checked !== person.is_owner) events.push({ type: "owner", is_owner: isOwner.checked });
    return events.length ? events : null;
  };
  const send = async (events) => {
    for (const event of events) await sendPersonEvent(person.person_id, { ...event, ...about });
    return `${nameOf(person)}: changed.`;
  };
  askInDialog(`Change ${nameOf(person)}`, [named, consented, owned], read, send);
}

function forget(person, owner) {
  const words =
    "The voice is not recognised any more: this erases the voiceprints, and how the voice sounds in every conversation. " +
    "It cannot be undone. Where somebody wrote the name into a conversation it stays, and is corrected there.";
  const send = async () => {
    await erase(personPath(person.person_id), owner ? { owner } : {});
    return `${nameOf(person)} is forgotten.`;
  };
  askInDialog(`Forget ${nameOf(person)} for good?`, [element("p", {}, words)], () => true, send, "Forget");
}
