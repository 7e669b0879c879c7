// Teaching a voice from a recording, which is sent as any audio, diarized, and thrown away.

import { conversationPath, newId, personPath, read, sendEvent, sendFile, sendPersonEvent } from "./api.js";
import { element, labelled } from "./element.js";
import { duration } from "./format.js";
import { makeId } from "./names.js";

const NEW = "";
const WHY = {
  two_voices: "more than one person speaks: use a recording of this person alone",
  little_speech: "too little clean speech: use a longer or a clearer recording",
  asks: "it sounds unlike this person’s other voiceprints: is it the right person?",
  no_voice: "no voice was found in it: listen to it",
};

export class Enrolment {
  // `context` returns the owner and the people; `changed` is called when people may have changed.
  constructor(context, changed) {
    this.context = context;
    this.changed = changed;
    this.underWay = null;
    this.who = element("select", { id: "enrol-who", onchange: () => this.showFields() });
    this.name = element("input", { type: "text", id: "enrol-name", maxlength: 200, autocomplete: "off" });
    this.agreed = element("input", { type: "date", id: "enrol-agreed" });
    this.file = element("input", { type: "file", id: "enrol-file", accept: "audio/*,video/*", required: true });
    this.submit = element("button", { type: "submit" }, "Learn the voice");
    this.state = element("p", { role: "status" });
    this.newcomer = element("div", {}, labelled("Name", this.name), labelled("Agreed on", this.agreed));
    this.root = element(
      "section",
      { "aria-labelledby": "enrol-title", class: "narrow" },
      element("h2", { id: "enrol-title" }, "Teach a voice"),
      element("p", {}, "To name a voice in a conversation teaches it. Or send a recording of one person alone, half a minute or longer: it is thrown away afterwards."),
      element(
        "form",
        { onsubmit: (event) => this.send(event) },
        labelled("Who speaks", this.who),
        this.newcomer,
        labelled("Recording", this.file),
        element("p", { class: "row" }, this.submit),
      ),
      this.state,
    );
    this.update([]);
  }

  update(people) {
    const chosen = this.who.value;
    this.who.replaceChildren(
      element("option", { value: NEW }, "somebody new"),
      ...people.map((person) => element("option", { value: person.person_id }, person.name ?? person.person_id)),
    );
    this.who.value = people.some((person) => person.person_id === chosen) ? chosen : NEW;
    this.showFields();
  }

  showFields() {
    const isNew = this.who.value === NEW;
    this.newcomer.hidden = !isNew;
    this.name.required = isNew;
  }

  async send(event) {
    event.preventDefault();
    const { owner, people } = this.context();
    const name = this.name.value.trim();
    const [file] = this.file.files;
    if (!file || this.underWay) return;
    const person = this.who.value || makeId(name, people.map((one) => one.person_id));
    const under = { id: newId("enrolment"), person, owner: owner || null, name: this.who.selectedOptions[0].text };
    this.begin(under, `Sending ${file.name} …`);
    try {
      if (!this.who.value) await this.introduce(under, name);
      const started = { type: "started", started_at: new Date().toISOString(), owner: under.owner, enrols: person };
      await sendEvent(under.id, started);
      await sendFile(`${conversationPath(under.id)}/audio`, { chunk_id: newId("c"), sequence: 0 }, file);
      await sendEvent(under.id, { type: "completed", chunks: 1 });
      this.state.textContent = "Sent. An agent listens to it; you may leave this page, it goes on.";
      await this.look();
    } catch (error) {
      this.end(`Not learned: ${error.message}`);
    }
  }

  // First who it is and since when they agreed: whatever becomes of the recording, and of this page.
  async introduce(under, name) {
    under.name = name;
    await sendPersonEvent(under.person, { type: "named", name, owner: under.owner });
    const agreed = this.agreed.value;
    if (agreed) await sendPersonEvent(under.person, { type: "consented", consent_date: agreed, owner: under.owner });
    await this.changed();
    this.who.value = under.person;
    this.showFields();
  }

  begin(underWay, words) {
    this.underWay = underWay;
    this.submit.disabled = true;
    this.state.textContent = words;
  }

  end(words) {
    this.underWay = null;
    this.submit.disabled = false;
    this.state.textContent = words;
  }

  async refresh(notice) {
    const under = this.underWay;
    if (under && (notice.all || notice.many || notice.conversations?.includes(under.id))) await this.look();
  }

  // A backend that hears of the outcome too may have had the recording thrown away by now: the voiceprint tells then.
  async look() {
    const under = this.underWay;
    if (!under) return;
    const found = await read(conversationPath(under.id)).catch(() => null);
    const told = found?.enrolment ?? null;
    if (under !== this.underWay || (found && !told && found.state !== "failed" && !found.failures.length)) return;
    const prints = told ? [] : await printsOf(under);
    const isLearned = told?.outcome === "learned" || prints.some((print) => print.conversation_id === under.id);
    this.end(isLearned ? `The voice of ${under.name} is learned.` : `Not learned: ${describeFailure(found, told)}`);
    if (isLearned) this.file.value = "";
    if (told) await sendEvent(under.id, { type: "applied", updated_version: found.updated_version }).catch(() => null);
    await this.changed();
  }
}

async function printsOf(under) {
  const known = await read(personPath(under.person), { owner: under.owner }).catch(() => null);
  return known?.prints ?? [];
}

function describeFailure(found, told) {
  if (told) {
    const heard = `${duration(told.clean_s)} of clean speech, ${duration(told.other_clean_s)} of others`;
    return `${WHY[told.outcome] ?? told.outcome} (${heard}).`;
  }
  const [failure] = found?.failures ?? [];
  return failure ? `${failure.message}. What to do: ${failure.remedy}` : (found?.reason ?? "see omi-bridge failed");
}
