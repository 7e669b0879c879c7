// What is alive, what waits, and what failed.

import { post, read } from "./api.js";
import { button, element, notify, replaceKeepingFocus, table } from "./element.js";
import { ago, bytes, duration, inPageWords, percent } from "./format.js";

const DAY_S = 86400;
const STATE_WORDS = {
  ready: "waits for an agent",
  leased: "is worked on",
  turns_stored: "has turns, labels to come",
  done: "done",
  failed: "failed",
  cancelled: "cancelled",
};

export class NowView {
  title = "Now";

  constructor() {
    this.agents = element("section", { "aria-labelledby": "agents-title" });
    this.attention = element("section", { "aria-label": "Is anything stuck", role: "status" });
    this.queue = element("section", { "aria-labelledby": "queue-title" });
    this.webhook = element("section", { "aria-labelledby": "webhook-title" });
    this.failures = element("section", { "aria-labelledby": "failures-title" });
    this.root = element("div", {}, element("h1", {}, "Now"), this.attention, this.agents, this.failures, this.queue,
      this.webhook);
  }

  async refresh() {
    const [agents, status, leased, ready, webhook] = await Promise.all([
      read("/v1/agents"),
      read("/v1/status"),
      read("/v1/jobs", { state: "leased" }),
      read("/v1/jobs", { state: "ready", limit: 20 }),
      read("/v1/webhook"),
    ]);
    this.showAttention(findStuck(agents.agents, status, webhook));
    this.showAgents(agents.agents);
    this.showFailures(status.failures);
    this.showQueue(status, leased, ready);
    this.showWebhook(webhook);
  }

  // A screen reader says it when it becomes different, and not with every beat.
  showAttention(stuck) {
    const words = stuck.join("\n");
    if (words === this.said) return;
    this.said = words;
    this.attention.replaceChildren(
      stuck.length
        ? element("ul", { class: "cards" }, stuck.map((line) => element("li", { class: "card failed" }, line)))
        : element("p", { class: "state final" }, "Nothing is stuck."),
    );
  }

  close() {}

  showAgents(agents) {
    const rows = agents.map((agent) => [
      agent.agent_id,
      describeAgent(agent),
      [agent.engine, agent.model].filter(Boolean).join(" · ") || "–",
      agent.device ?? "–",
      agent.speed_x_real_time ? `${agent.speed_x_real_time.toFixed(1)} × real time` : "–",
      bytes(agent.memory_bytes) + (agent.device_bytes ? ` + ${bytes(agent.device_bytes)} on the device` : ""),
      `${agent.jobs} now, ${agent.jobs_done} done, ${agent.jobs_failed} failed`,
      ago(agent.last_seen_at),
    ]);
    const columns = ["Agent", "State", "Engine", "Device", "Speed", "Memory", "Jobs", "Last beat"];
    const found = rows.length
      ? table("Agents", columns, rows)
      : element("p", {}, "No agent was ever heard of. Start one on the Mac: omi-agent run");
    replaceKeepingFocus(this.agents, element("h2", { id: "agents-title" }, "Agents"), found);
  }

  showFailures(failures) {
    const items = failures.map((failure) => this.describeFailure(failure));
    const found = items.length ? element("ul", { class: "cards" }, items) : element("p", {}, "Nothing has failed.");
    replaceKeepingFocus(this.failures, element("h2", { id: "failures-title" }, "Failures"), found);
  }

  describeFailure(failure) {
    const what = { job: `Job ${failure.job_id}`, conversation: "Labels", audio: "Audio that was refused" }[failure.kind];
    const tries = failure.attempts ? `, ${failure.attempts} ${failure.attempts === 1 ? "time" : "times"}` : "";
    const who = failure.agent_id ? `, on ${failure.agent_id}` : "";
    const actions = [];
    if (failure.can_retry) {
      const path = failure.job_id ? `/v1/jobs/${failure.job_id}` : `/v1/conversations/${failure.conversation_id}`;
      actions.push(this.action("Try again", `${path}/retry`, what));
    }
    if (failure.can_cancel) actions.push(this.action("Give up", `/v1/jobs/${failure.job_id}/cancel`, what));
    return element(
      "li",
      { class: "card failed" },
      element(
        "h3",
        {},
        `${what} of `,
        element("a", { href: `#/conversations/${encodeURIComponent(failure.conversation_id)}` }, failure.conversation_id),
      ),
      element("p", {}, failure.code ? element("code", {}, failure.code) : null, ` ${failure.message}`),
      element("p", { class: "quiet" }, `${failure.at ? ago(failure.at) : "lately"}${tries}${who}`),
      element("p", {}, "What to do: ", inPageWords(failure.remedy, failure.job_id)),
      actions.length ? element("p", { class: "row" }, actions) : null,
    );
  }

  action(words, path, what) {
    const act = async () => {
      try {
        const done = await post(path);
        notify(`${what}: ${done.message}`);
        await this.refresh();
      } catch (error) {
        notify(`${what}: ${error.message}`);
      }
    };
    return button(words, act, { "data-key": path, "aria-label": `${words}: ${what}` });
  }

  showQueue(status, leased, ready) {
    const facts = [
      ["Pieces of audio not yet in a job", status.chunks_waiting],
      ["Jobs that wait", status.jobs_ready],
      ["Jobs that are worked on", status.jobs_leased],
      ["The oldest of these came", status.oldest_at ? ago(status.oldest_at) : "nothing waits"],
      [`Audio labelled in the last ${duration(status.recent.span_s)}`, duration(status.recent.labelled_audio_s)],
      ["From audio to labels", describeLatency(status.recent)],
      ["Audio kept here", bytes(status.audio_bytes)],
      ["Room on the disk", bytes(status.disk_free_bytes)],
      ...(status.omi ? [["Of OMI, until its conversation is reported", bytes(status.omi.kept_bytes)]] : []),
    ];
    const list = element(
      "dl",
      { class: "facts" },
      facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, String(value)))),
    );
    const rows = [...leased.jobs, ...ready.jobs].map((job) => [
      job.job_id,
      element("a", { href: `#/conversations/${encodeURIComponent(job.conversation_id)}` }, job.conversation_id),
      STATE_WORDS[job.state] ?? job.state,
      describeProgress(job),
      job.audio_s ? `${job.audio_estimated ? "about " : ""}${duration(job.audio_s)}` : "?",
      job.agent_id ?? "–",
      ago(job.created_at),
      this.action("Give up", `/v1/jobs/${job.job_id}/cancel`, `Job ${job.job_id}`),
    ]);
    const columns = ["Job", "Conversation", "State", "Progress", "Audio", "Agent", "Made", "Action"];
    replaceKeepingFocus(
      this.queue,
      element("h2", { id: "queue-title" }, "Queue"),
      list,
      rows.length ? table("Jobs that wait or are worked on", columns, rows) : element("p", {}, "No job waits."),
    );
  }

  showWebhook(webhook) {
    replaceKeepingFocus(
      this.webhook,
      element("h2", { id: "webhook-title" }, "Webhook"),
      element("p", {}, describeWebhook(webhook)),
      webhook.last_error
        ? element("p", { class: "problem" }, `Tried last ${ago(webhook.last_error_at)}: ${webhook.last_error}`)
        : "",
    );
  }
}

// What keeps labels or messages from coming, each with what to do.
function findStuck(agents, status, webhook) {
  const stuck = agents.filter((agent) => !agent.allowed)
    .map((agent) => `${agent.agent_id} asks for work and is not allowed. To allow it: omi-bridge agents allow ${agent.agent_id}`);
  if (!agents.some((agent) => agent.allowed && agent.is_live)) {
    const waiting = status.chunks_waiting + status.jobs_ready ? " and what waits below stays there" : "";
    stuck.push(`No agent is online: nothing is labelled${waiting}. Start one on the Mac: omi-agent run`);
  }
  const failed = status.failures.length;
  if (failed) stuck.push(`${failed} ${failed === 1 ? "failure needs" : "failures need"} a decision: see Failures below.`);
  if (status.omi?.turned_away_at > Date.now() / 1000 - DAY_S) {
    const posts = `${status.omi.turned_away} ${status.omi.turned_away === 1 ? "POST" : "POSTs"}`;
    stuck.push(`OMI’s webhooks: ${posts} turned away since the start; OMI drops what they held. ${status.omi.reason}`);
  }
  if (webhook.last_error) stuck.push("The webhook’s receiver does not take its messages: see Webhook below.");
  return stuck;
}

function describeWebhook(webhook) {
  if (!webhook.is_on) return "Off. OMI_WEBHOOK_URL turns it on.";
  if (!webhook.waiting) return "On. Its receiver has taken everything.";
  const words = `${webhook.waiting} ${webhook.waiting === 1 ? "message waits" : "messages wait"}`;
  return `On. ${words}, the oldest since ${ago(webhook.oldest_at)}.`;
}

function describeAgent(agent) {
  if (!agent.allowed) return `not allowed: omi-bridge agents allow ${agent.agent_id}`;
  const isEnded = ["stopped", "offline"].includes(agent.state);
  const words = agent.is_live || isEnded ? agent.state : `silent (last: ${agent.state ?? "nothing"})`;
  return agent.last_error ? `${words}; last error: ${agent.last_error}` : words;
}

function describeLatency(recent) {
  if (recent.median_latency_s === null) return "–";
  return `half within ${duration(recent.median_latency_s)}, 95 % within ${duration(recent.slow_latency_s)}`;
}

function describeProgress(job) {
  if (job.progress === null) return "–";
  const bar = element("progress", { max: 1, value: job.progress, "aria-label": `Progress of ${job.job_id}` });
  return [bar, ` ${percent(job.progress)}`];
}
