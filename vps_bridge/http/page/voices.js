// Voices: what they are called and which colour they have.

const COLOURS = 10; // as many as style.css names

// `called` maps the ids of people to what they are called.
export function voiceName(voice, called) {
  return called.get(voice.person_id) ?? voice.person_id ?? `Speaker ${voice.speaker_id}`;
}

export function colourNumber(speakerId) {
  return speakerId === null || speakerId === undefined ? "none" : speakerId % COLOURS;
}

// Returns a function that names the speaker of a segment or a piece.
export function namer(voices, called) {
  const names = new Map(voices.map((voice) => [voice.speaker_id, voiceName(voice, called)]));
  return (spoken) => {
    if (spoken.is_user) return "you";
    if (spoken.person_id) return called.get(spoken.person_id) ?? spoken.person_id;
    if (spoken.speaker_id === null || spoken.speaker_id === undefined) return spoken.speaker ?? "unknown";
    return names.get(spoken.speaker_id) ?? `Speaker ${spoken.speaker_id}`;
  };
}
