// Names that people type: whom they mean, and ids for somebody new.

import { newId } from "./api.js";

const ID = /^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/; // as the messages have it

// A name as it is compared: however it was typed, with capitals or without.
function plainly(name) {
  return name.normalize("NFC").trim().replace(/\s+/g, " ").toLowerCase();
}

// Returns who is meant among people, as [id, name], as {id}; of somebody new {id, name}.
export function whoIs(typed, people) {
  const exact = people.find(([id]) => id === typed);
  const alike = people.filter(([id, name]) => [id, name ?? id].some((word) => plainly(word) === plainly(typed)));
  if (!exact && alike.length > 1) throw new Error(`Several people are called ${typed}: choose one of the list.`);
  const [found] = exact ?? alike[0] ?? [null];
  if (found || ID.test(typed)) return { id: found ?? typed };
  return { id: makeId(typed, people.map(([id]) => id)), name: typed };
}

// An id that labels can carry: the name in plain letters, or a random one; never that of somebody else.
export function makeId(name, taken) {
  const plain = name.normalize("NFD").replace(/\p{M}/gu, "").replace(/[^A-Za-z0-9]+/g, "-").replace(/^-+|-+$/g, "").toLowerCase().slice(0, 100);
  return plain && !taken.includes(plain) ? plain : newId(plain || "person");
}
