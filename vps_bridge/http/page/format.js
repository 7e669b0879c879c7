// Numbers as people read them.

export function clock(seconds) {
  const sign = seconds < 0 ? "-" : "";
  const tenths = Math.round(Math.abs(seconds) * 10);
  const [hours, minutes, rest] = [Math.floor(tenths / 36000), Math.floor(tenths / 600) % 60, (tenths % 600) / 10];
  const padded = rest.toFixed(1).padStart(4, "0");
  return hours ? `${sign}${hours}:${String(minutes).padStart(2, "0")}:${padded}` : `${sign}${minutes}:${padded}`;
}

export function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1).replace(".0", "")} h`;
}

export function ago(unixSeconds) {
  if (unixSeconds === null || unixSeconds === undefined) return "never";
  const passed = Math.max(0, Date.now() / 1000 - unixSeconds);
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (passed >= size) return `${Math.floor(passed / size)} ${unit} ago`;
  }
  return `${Math.floor(passed)} s ago`;
}

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  for (const [size, unit] of [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
    if (count >= size) return `${(count / size).toFixed(1)} ${unit}`;
  }
  return `${count} B`;
}

// How a conversation's state is coloured: what is final without all of its audio is not as it should be.
export function stateClass({ state, reason }) {
  return `state ${state === "final" && reason ? "failed" : state}`;
}

// A remedy names commands; where the page has a button for one, that is named.
export function inPageWords(remedy, job) {
  return remedy.replace(`omi-bridge cancel ${job}`, "“Give up”").replace(`omi-bridge retry ${job}`, "“Try again”");
}

export function percent(ratio) {
  return `${Math.round(ratio * 100)} %`;
}
