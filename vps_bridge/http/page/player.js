// Playing what was said in a segment, while its audio is kept.

import { conversationPath, read } from "./api.js";
import { button, element, notify } from "./element.js";
import { clock } from "./format.js";

export class Player {
  constructor(conversationId) {
    this.conversationId = conversationId;
    this.playing = 0; // differs for each play: what an earlier one was about to do is not done
    this.audio = new Audio();
    this.words = element("span", {});
    this.root = element("p", { class: "row", hidden: true }, this.words, button("Stop", () => this.stop()));
  }

  stop() {
    this.playing += 1;
    this.audio.pause();
    this.root.hidden = true;
  }

  async play(segment) {
    this.stop();
    const mine = this.playing;
    try {
      const span = { from_s: segment.start_s, to_s: segment.end_s };
      const found = await read(`${conversationPath(this.conversationId)}/playback`, span);
      if (found.reason) notify(`${found.parts.length ? "Not all of it can be played" : "It cannot be played"}: ${found.reason}.`);
      this.words.textContent = `Playing ${clock(segment.start_s)}`;
      this.root.hidden = !found.parts.length;
      for (const part of found.parts) {
        if (mine === this.playing) await this.playPart(part);
      }
    } catch (error) {
      if (mine === this.playing) notify(`It cannot be played: ${error.message}`);
    }
    if (mine === this.playing) this.stop();
  }

  playPart(part) {
    const end_s = part.start_s + part.duration_s;
    return new Promise((resolve, reject) => {
      const audio = new Audio(part.path);
      this.audio = audio;
      audio.addEventListener("loadedmetadata", () => {
        if (part.start_s) audio.currentTime = part.start_s;
      }, { once: true });
      audio.addEventListener("timeupdate", () => {
        if (audio.currentTime >= end_s) audio.pause();
      });
      audio.addEventListener("pause", resolve, { once: true });
      audio.addEventListener("ended", resolve, { once: true });
      audio.addEventListener("error", () => reject(new Error("the browser does not play audio of this kind")), { once: true });
      audio.play().catch((error) => (error.name === "AbortError" ? resolve() : reject(error)));
    });
  }
}
