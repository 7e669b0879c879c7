// Calls of the bridge. Everything the page knows and does goes through these paths, which any program may use.

export class SignedOut extends Error {}

async function ask(path, options) {
  const answer = await fetch(path, { ...options, credentials: "same-origin", cache: "no-store" });
  if (answer.status === 401) throw new SignedOut("sign in first");
  if (answer.status === 204) return null;
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.message ?? `the bridge answered ${answer.status}`);
  return body;
}

export function read(path, query = {}) {
  const named = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const search = new URLSearchParams(named).toString();
  return ask(search ? `${path}?${search}` : path, {});
}

export function post(path, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  return ask(path, { method: "POST", headers, body: body === undefined ? undefined : JSON.stringify(body) });
}

export function conversationPath(id) {
  return `/v1/conversations/${encodeURIComponent(id)}`;
}

function sendEvent(id, fields) {
  const random = crypto.getRandomValues(new Uint8Array(12));
  const eventId = `e-${Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
  const event = { schema: "conversation-event", version: "1.1", event_id: eventId, by: whoAmI(), ...fields };
  return post(`${conversationPath(id)}/events`, event);
}

export function correct(id, correction) {
  return sendEvent(id, { type: "corrected", corrections: [correction] });
}

export function undo(id, write) {
  return sendEvent(id, { type: "undone", target_write: write });
}

export function redo(id, write) {
  return sendEvent(id, { type: "redone", target_write: write });
}

const NAME = "omi-page-name";

// Who the history says made a change.
export function whoAmI() {
  return localStorage.getItem(NAME) || "page";
}

export function setWhoIAm(name) {
  localStorage.setItem(NAME, name.trim().slice(0, 100));
}
