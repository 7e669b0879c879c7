// The page: which view is shown, and when it reads again.

import { SignedOut, Unanswered, post, read } from "./api.js";
import { ConversationView } from "./conversation.js";
import { ConversationsView } from "./conversations.js";
import { element, notify } from "./element.js";
import { NowView } from "./now.js";
import { PeopleView } from "./people.js";

const RETRY_MS = 3000;
const REST_MS = 200;
const LOST_MS = 2500;
const main = document.getElementById("main");
const connection = document.getElementById("connection");
const signOut = document.getElementById("sign-out");
let view = null;
let stream = null;
let reading = null; // the read that is under way
let waiting = null; // what changed since it began
let againTimer = null;

function chooseView() {
  const [, name, id] = location.hash.split("/");
  if (name === "conversations" && id) return new ConversationView(decodeURIComponent(id));
  if (name === "conversations") return new ConversationsView();
  if (name === "people") return new PeopleView();
  return new NowView();
}

async function show() {
  view?.close();
  view = chooseView();
  document.title = `${view.title} – omi-diarization`;
  for (const link of document.querySelectorAll("nav a")) {
    const isHere = (location.hash || "#/now").startsWith(link.getAttribute("href"));
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  main.replaceChildren(view.root);
  notify(""); // what was told is about the view before
  await refresh({ all: true });
}

// One read at a time; what changes meanwhile is read after a rest, once: a page never takes most of the bridge's time.
async function refresh(notice) {
  if (reading) {
    waiting = merge(waiting, notice);
    return reading;
  }
  const began = performance.now();
  reading = readView(notice);
  await reading;
  const took = performance.now() - began;
  if (waiting) await new Promise((rested) => setTimeout(rested, Math.max(REST_MS, took)));
  reading = null;
  if (waiting) {
    const next = waiting;
    waiting = null;
    await refresh(next);
  }
  return undefined;
}

async function readView(notice) {
  const shown = view;
  try {
    await shown.refresh(notice);
    signOut.hidden = false;
    if (stream?.readyState === EventSource.OPEN) tellConnection("live");
  } catch (error) {
    if (error instanceof SignedOut) {
      askToSignIn();
      return;
    }
    if (error instanceof Unanswered) {
      tellLost();
      askAgain(); // the stream may be open all the same, and tells of nothing that it has told already
    } else if (shown === view) notify(error.message);
  }
  listen(); // which tells, too, when there is a bridge to ask again
}

function merge(before, after) {
  if (!before) return after;
  return {
    all: before.all || after.all,
    many: before.many || after.many,
    jobs: before.jobs || after.jobs,
    agents: before.agents || after.agents,
    people: before.people || after.people,
    webhook: before.webhook || after.webhook,
    conversations: [...(before.conversations ?? []), ...(after.conversations ?? [])],
  };
}

// Only a visible page listens: a browser opens few connections to one host, and pages in the background would use them.
function listen() {
  if (stream || document.hidden) return;
  stream = new EventSource("/v1/changes");
  const opened = stream;
  // Its first notice says that everything may have changed, so that nothing is missed between two connections.
  opened.addEventListener("open", () => tellConnection("live"));
  opened.addEventListener("changed", (event) => refresh(JSON.parse(event.data)));
  opened.addEventListener("error", () => {
    // A stream ends after some minutes, and the next one is there within a second: that is no news.
    setTimeout(() => {
      if (stream === opened && opened.readyState !== EventSource.OPEN) tellLost();
    }, LOST_MS);
    if (opened.readyState !== EventSource.CLOSED || opened !== stream) return;
    stopListening();
    askAgain();
  });
}

function askAgain() {
  againTimer ??= setTimeout(() => {
    againTimer = null;
    if (!document.hidden) refresh({ all: true });
  }, RETRY_MS);
}

function tellConnection(words, kind = "") {
  connection.textContent = words;
  connection.className = kind;
}

function tellLost() {
  tellConnection("not connected: this is how it was; trying again", "problem");
}

function stopListening() {
  stream?.close();
  stream = null;
}

function askToSignIn() {
  stopListening();
  tellConnection("");
  signOut.hidden = true;
  main.replaceChildren(
    element(
      "section",
      { class: "card narrow" },
      element("h1", {}, "Sign in"),
      element("p", {}, "On the machine where the bridge runs, type"),
      element("p", {}, element("code", {}, "omi-bridge page")),
      element("p", {}, "and open the link that it prints. It works once, within ten minutes, and lasts twelve hours."),
    ),
  );
}

signOut.addEventListener("click", async () => {
  try {
    await post("/sign-out");
  } catch (error) {
    notify(error.message);
    return;
  }
  askToSignIn();
});
document.getElementById("skip").addEventListener("click", () => main.focus());
window.addEventListener("hashchange", () => {
  show();
  main.focus({ preventScroll: true }); // at once: once it has been read, a person may be somewhere else already
  window.scrollTo(0, 0);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh({ all: true });
  else if (stream) {
    stopListening();
    tellConnection("paused");
  }
});
read("/v1/agents").then(show, (error) => (error instanceof SignedOut ? askToSignIn() : show()));
