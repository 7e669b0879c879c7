// Saying who speaks: the dialogs, and what they send.

import { correct, setWhoIAm, whoAmI } from "./api.js";
import { button, element, notify } from "./element.js";
import { clock } from "./format.js";

// Shows a form in a dialog. `read` returns what it says, or null where it says nothing yet.
function ask(title, fields, read, send) {
  const who = element("input", { type: "text", id: "who-says", value: whoAmI(), maxlength: 100, autocomplete: "off" });
  const problem = element("p", { class: "problem", role: "alert" });
  const dialog = element("dialog", { "aria-labelledby": "dialog-title" });
  const submit = async (event) => {
    event.preventDefault();
    const said = read();
    if (said === null) {
      problem.textContent = "Choose or type something first.";
      return;
    }
    setWhoIAm(who.value);
    try {
      await send(said);
      dialog.close();
      notify("Taken. The labels are being worked out.");
    } catch (error) {
      problem.textContent = error.message;
    }
  };
  const form = element(
    "form",
    { onsubmit: submit },
    element("h2", { id: "dialog-title" }, title),
    ...fields,
    element("p", {}, element("label", { for: "who-says" }, "Your name, for the history"), who),
    problem,
    element("p", { class: "row" }, element("button", { type: "submit" }, "Save"), button("Cancel", () => dialog.close())),
  );
  const before = document.activeElement;
  dialog.append(form);
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (before?.isConnected) before.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
}

function personInput(people, words) {
  const input = element("input", { type: "text", id: "person", list: "people", maxlength: 200, autocomplete: "off" });
  const known = element("datalist", { id: "people" }, people.map((person) => element("option", { value: person })));
  return [input, element("p", {}, element("label", { for: "person" }, words), input, known)];
}

function peopleOf(voices) {
  return [...new Set(voices.map((voice) => voice.person_id).filter(Boolean))];
}

export function nameVoice(conversationId, voice, voices) {
  const [input, field] = personInput(peopleOf(voices), "Who is it?");
  input.value = voice.person_id ?? "";
  ask(`Name ${voice.name}`, [field], () => input.value.trim() || null, (person) =>
    correct(conversationId, { kind: "voice_is", speaker_id: voice.speaker_id, person_id: person }),
  );
}

function choices(legend, options) {
  const inputs = options.map(([words, value], place) => {
    const input = element("input", { type: "radio", name: "choice", id: `choice-${place}`, value });
    return element("p", { class: "choice" }, input, element("label", { for: `choice-${place}` }, words));
  });
  const group = element("fieldset", {}, element("legend", {}, legend), inputs);
  return [group, () => group.querySelector("input:checked")?.value ?? null];
}

export function mergeVoice(conversationId, voice, voices) {
  const others = voices.filter((other) => other.speaker_id !== voice.speaker_id);
  const [group, chosen] = choices("It is the same voice as", others.map((other) => [other.name, other.speaker_id]));
  ask(`${voice.name} is somebody we have already`, [group], chosen, (other) =>
    correct(conversationId, { kind: "same_voice", speaker_ids: [voice.speaker_id, Number(other)] }),
  );
}

export function correctSegment(conversationId, segment, voices) {
  const known = voices.filter((voice) => voice.speaker_id !== segment.speaker_id);
  const [group, chosen] = choices("This is", [
    ...known.map((voice) => [voice.name, `voice ${voice.speaker_id}`]),
    ["somebody else, who has no voice here yet", "other"],
    ["a person whom I name", "person"],
  ]);
  const [input, field] = personInput(peopleOf(voices), "The person’s name");
  input.addEventListener("input", () => {
    group.querySelector("input[value=person]").checked = true;
  });
  const read = () => {
    const choice = chosen();
    if (choice === "other") return { kind: "other_voice", segment_ids: [segment.id] };
    if (choice === "person") {
      const person = input.value.trim();
      return person ? { kind: "segment_is", segment_id: segment.id, person_id: person } : null;
    }
    const number = choice === null ? null : Number(choice.slice("voice ".length));
    return number === null ? null : { kind: "segment_is", segment_id: segment.id, speaker_id: number };
  };
  const said = element("p", { class: "quiet" }, segment.text.slice(0, 300));
  ask(`Who speaks at ${clock(segment.start_s)}?`, [said, group, field], read, (correction) =>
    correct(conversationId, correction),
  );
}
