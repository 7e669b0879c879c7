// Saying who speaks: the dialogs, and what they send.

import { correct, sendPersonEvent, setWhoIAm, whoAmI } from "./api.js";
import { askInDialog } from "./dialog.js";
import { element, labelled } from "./element.js";
import { clock } from "./format.js";
import { whoIs } from "./names.js";

// As every correction: asked with the name of whoever makes it.
function ask(title, fields, read, send) {
  const who = element("input", { type: "text", id: "who-says", value: whoAmI() ?? "", maxlength: 100, autocomplete: "off" });
  const named = labelled("Your name, for the history (may stay empty)", who);
  const sendNamed = async (said) => {
    setWhoIAm(who.value);
    await send(said);
    return "Saved. The labels are being worked out.";
  };
  askInDialog(title, [...fields, named], read, sendNamed);
}

function personInput(people, words) {
  const input = element("input", { type: "text", id: "person", list: "people", maxlength: 200, autocomplete: "off" });
  const options = people.map(([id, name]) => element("option", { value: id }, name ?? id));
  const known = element("datalist", { id: "people" }, options);
  return [input, labelled(words, input, known)];
}

// Whom this may be, as [id, name]: who speaks here already, and whom the conversation's owner knows.
function peopleOf(voices, known) {
  const people = new Map(voices.map((voice) => [voice.person_id, null]).filter(([id]) => id));
  for (const person of known) people.set(person.person_id, person.name);
  return [...people];
}

// Corrects with the person who is meant by what was typed; somebody new is called so from then on.
async function correctWithPerson(conversation, people, correction) {
  const { id, name } = whoIs(correction.person_id, people);
  await correct(conversation.id, { ...correction, person_id: id });
  if (name) await sendPersonEvent(id, { type: "named", name, owner: conversation.owner });
}

export function nameVoice(conversation, voice, voices, known) {
  const people = peopleOf(voices, known);
  const [input, field] = personInput(people, "Who is it?");
  input.value = voice.person_id ?? "";
  const learned = element("p", { class: "quiet" },
    "The voice is learned under this name, to know it again in later conversations. People shows whom the bridge knows, and forgets them.");
  ask(`Name ${voice.name}`, [field, learned], () => input.value.trim() || null, (person) =>
    correctWithPerson(conversation, people, { kind: "voice_is", speaker_id: voice.speaker_id, person_id: person }),
  );
}

// Says whether a voice is the person whom it sounds like; a voice that is confirmed becomes a voiceprint.
export function confirmVoice(conversationId, voice) {
  const { mayBe: person, known } = voice;
  const isOdd = known.voiceprint === "asks";
  const [group, chosen] = choices(isOdd ? `It sounds unlike the other voiceprints of ${person}` : `Is it ${person}?`, [
    [isOdd ? "It is right: learn the voice as well" : `Yes, it is ${person}: learn the voice`, "voice_is"],
    [`No, it is not ${person}`, "voice_is_not"],
  ]);
  const heard = element("p", { class: "quiet" }, describeLikeness(known));
  ask(`Is ${voice.name} ${person}?`, [group, heard], chosen, (kind) =>
    correct(conversationId, {
      kind,
      speaker_id: voice.speaker_id,
      person_id: known.person_id,
      anyway: isOdd && kind === "voice_is",
    }),
  );
}

// How alike a voice sounds, what a match needs, and who comes next.
function describeLikeness(known) {
  const facts = [
    [known.similarity, "alike"],
    [known.needed, "needed"],
    [known.runner_up_similarity, `alike ${known.runner_up}, who comes next`],
  ];
  return facts.filter(([cosine]) => typeof cosine === "number").map(([cosine, what]) => `${cosine.toFixed(2)} ${what}`).join(", ");
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

export function correctSegment(conversation, segment, now, voices, known) {
  const people = peopleOf(voices, known);
  const others = voices.filter((voice) => voice.speaker_id !== segment.speaker_id);
  const [group, chosen] = choices("This is", [
    ...others.map((voice) => [voice.name, `voice ${voice.speaker_id}`]),
    ["somebody who is not in the list: a new voice", "other"],
    ["a person, by name:", "person"],
  ]);
  const [input, field] = personInput(people, "The person’s name");
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
  group.append(field);
  const said = element("p", { class: "quiet" }, `Given to ${now} now: “${segment.text.slice(0, 300)}”`);
  ask(`Who speaks at ${clock(segment.start_s)}?`, [said, group], read, (correction) =>
    correction.person_id
      ? correctWithPerson(conversation, people, correction)
      : correct(conversation.id, correction),
  );
}
