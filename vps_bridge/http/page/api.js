// Calls of the bridge. Everything the page knows and does goes through these paths, which any program may use.

export class SignedOut extends Error {}
export class Missing extends Error {}
export class Unanswered extends Error {}

const SILENT = "The bridge does not answer: is it running (omi-bridge status), and is this computer connected to it?";

async function ask(path, options) {
  const asked = fetch(path, { ...options, credentials: "same-origin", cache: "no-store" });
  const answer = await asked.catch(() => { throw new Unanswered(SILENT); });
  if (answer.status === 401) throw new SignedOut("sign in first");
  if (answer.status === 204) return null;
  const body = await answer.json();
  if (!answer.ok) throw new (answer.status === 404 ? Missing : Error)(body.message ?? `the bridge answered ${answer.status}`);
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

export function erase(path, query) {
  return ask(`${path}?${new URLSearchParams(query)}`, { method: "DELETE" });
}

export function sendFile(path, query, file) {
  const headers = { "Content-Type": /^(audio|video)\//.test(file.type) ? file.type : "application/octet-stream" };
  return ask(`${path}?${new URLSearchParams(query)}`, { method: "POST", headers, body: file });
}

export function conversationPath(id) {
  return `/v1/conversations/${encodeURIComponent(id)}`;
}

export function personPath(id) {
  return `/v1/people/${encodeURIComponent(id)}`;
}

export function newId(kind) {
  const random = crypto.getRandomValues(new Uint8Array(12));
  return `${kind}-${Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

export function sendEvent(id, fields) {
  const event = { schema: "conversation-event", version: "1.2", event_id: newId("e"), by: whoAmI() ?? "somebody on the page", ...fields };
  return post(`${conversationPath(id)}/events`, event);
}

export function sendPersonEvent(id, fields) {
  return post(`${personPath(id)}/events`, { schema: "person-event", version: "1.0", event_id: newId("e"), ...fields });
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

// Who the history says made a change; null where nobody has said.
export function whoAmI() {
  return localStorage.getItem(NAME) || null;
}

export function setWhoIAm(name) {
  localStorage.setItem(NAME, name.trim().slice(0, 100));
}
