// Publish a recorded conversation to omi-diarization over MQTT, and print who spoke when.
//
//   OMI_BROKER_URL=mqtts://vps.example:8883 OMI_BROKER_USERNAME=backend OMI_BROKER_PASSWORD=… OMI_BROKER_CA_FILE=ca.pem \
//     node publish.mjs call-1 call.wav [segments.json]
//
// That the broker took a message is no delivery: everything is sent again until the bridge has answered `accepted`.
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { encode } from "@msgpack/msgpack";
import mqtt from "mqtt";

const ROOT = process.env.OMI_TOPIC_ROOT ?? "omi/v1";
const RETRY_MS = 5_000;
const FRESH_MS = 30_000;
const TIMEOUT_MS = 3_600_000;
const WHOLE_BYTES = 1_000_000; // larger audio goes in parts
const PART_BYTES = 262_144;
const SEGMENTS_PER_EVENT = 500;
// With these the same audio or event, sent again later, may be accepted.
const RETRYABLE = new Set([
  "payload.incomplete", "payload.sha256_mismatch", "engine.crashed", "engine.failed", "engine.timeout",
  "engine.over_limit", "ingest.full", "disk.full", "spool.unavailable",
]);

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
const pack = (message) => Buffer.from(encode(message, { ignoreUndefined: true }));
const newId = (kind) => `${kind}-${randomBytes(12).toString("hex")}`;

class Bridge {
  constructor(client, conversationId) {
    this.client = client;
    this.topic = (leaf) => `${ROOT}/conversations/${conversationId}/${leaf}`;
    this.conversationId = conversationId;
    this.waiting = new Set(); // of functions that are called with every message
    client.on("message", (topic, payload, packet) => {
      const message = JSON.parse(payload.toString());
      for (const look of [...this.waiting]) look(topic, message, packet.retain);
    });
  }

  async listen() {
    await this.client.subscribeAsync([this.topic("accepted"), this.topic("updated")], { qos: 1 });
    // A retained heartbeat may be the last word of a dead bridge: it counts only if it is fresh.
    const alive = this.hear((topic, message, retained) => {
      const age = Math.abs(Date.now() - Date.parse(message.sent_at));
      return topic.endsWith("/heartbeat") && message.state === "online" && message.accepting !== false
        && (!retained || age < FRESH_MS);
    }, FRESH_MS);
    await this.client.subscribeAsync(`${ROOT}/bridge/+/heartbeat`, { qos: 0 });
    if ((await alive) === null) throw new Error("no live bridge that takes audio: start `omi-bridge run` on the VPS");
  }

  /** Resolves with the first message that is wanted, or with null where none comes in time. */
  hear(isWanted, timeoutMs) {
    return new Promise((resolve) => {
      const end = (message) => {
        clearTimeout(timer);
        this.waiting.delete(look);
        resolve(message);
      };
      const look = (topic, message, retained) => isWanted(topic, message, retained) && end(message);
      const timer = setTimeout(() => end(null), timeoutMs);
      this.waiting.add(look);
    });
  }

  /** Sends payloads until the receipt with this id comes. */
  async send(leaf, id, payloads) {
    for (const deadline = Date.now() + TIMEOUT_MS; Date.now() < deadline; ) {
      const isMine = (topic, message) =>
        topic === this.topic("accepted") && (message.event_id === id || message.chunk_id === id);
      const heard = this.hear(isMine, RETRY_MS + 100 * payloads.length);
      for (const payload of payloads) this.client.publish(this.topic(leaf), payload, { qos: 1 });
      const receipt = await heard;
      if (receipt === null) continue;
      if (["accepted", "duplicate"].includes(receipt.verdict)) return;
      const code = receipt.reason ?? receipt.verdict;
      if (!RETRYABLE.has(code)) throw new Error(`${code}: ${receipt.message ?? "see `omi-bridge failed`"}`);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
    throw new Error("no receipt: is `omi-bridge run` alive, and may this user publish?");
  }

  async say(type, fields = {}) {
    const event = { schema: "conversation-event", version: "1.2", event_id: newId("e"), type, ...fields };
    await this.send("events", event.event_id, [JSON.stringify(event)]);
  }

  async sendAudio(audio, facts = {}) {
    const chunk = {
      schema: "audio-payload", version: "1.0", chunk_id: newId("c"), conversation_id: this.conversationId,
      sha256: sha256(audio), ...facts,
    };
    const payloads = [];
    if (audio.length <= WHOLE_BYTES) payloads.push(pack({ ...chunk, audio }));
    else {
      for (let offset = 0; offset < audio.length; offset += PART_BYTES) {
        const part = audio.subarray(offset, offset + PART_BYTES);
        const place = { byte_offset: offset, total_bytes: audio.length, part_sha256: sha256(part) };
        payloads.push(pack({ ...chunk, ...place, audio: part }));
      }
    }
    await this.send("audio", chunk.chunk_id, payloads);
  }

  async waitFinal() {
    const isFinal = (topic, message) => topic === this.topic("updated") && message.state === "final";
    const update = await this.hear(isFinal, TIMEOUT_MS);
    if (update === null) throw new Error("no labels: is an agent live and allowed? See `omi-bridge agents` on the VPS");
    await this.say("applied", { updated_version: update.updated_version });
    return update;
  }
}

const [conversationId, audioFile, segmentsFile] = process.argv.slice(2);
if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/.test(conversationId ?? "") || !audioFile) {
  console.error("usage: node publish.mjs CONVERSATION AUDIO [SEGMENTS.json]; an id is 1 to 128 of A-Z a-z 0-9 _ -");
  process.exit(2);
}
const caFile = process.env.OMI_BROKER_CA_FILE;
let client;
try {
  client = await mqtt.connectAsync(
    process.env.OMI_BROKER_URL ?? "mqtt://127.0.0.1:1883",
    {
      clientId: newId("backend"),
      protocolVersion: process.env.OMI_MQTT_VERSION === "3.1.1" ? 4 : 5,
      clean: true,
      username: process.env.OMI_BROKER_USERNAME,
      password: process.env.OMI_BROKER_PASSWORD,
      ca: caFile ? readFileSync(caFile) : undefined,
    },
    false, // a wrong password is told at once
  );
  client.on("error", (error) => console.error(`publish.mjs: ${error.message}: connecting again`)); // else Node would end
  const bridge = new Bridge(client, conversationId);
  await bridge.listen();
  await bridge.say("started", { started_at: process.env.OMI_STARTED_AT });
  const segments = segmentsFile ? JSON.parse(readFileSync(segmentsFile, "utf8")) : [];
  for (let place = 0; place < segments.length; place += SEGMENTS_PER_EVENT) {
    await bridge.say("segments", { segments: segments.slice(place, place + SEGMENTS_PER_EVENT) });
  }
  await bridge.sendAudio(readFileSync(audioFile), { captured_at: process.env.OMI_STARTED_AT });
  // The final labels may come right after the receipt of `completed`.
  const final = bridge.waitFinal();
  await bridge.say("completed", { chunks: 1 });
  console.log(JSON.stringify(await final));
} catch (error) {
  console.error(`publish.mjs: ${error.message}`);
  process.exitCode = 1;
} finally {
  client?.end(true);
}
