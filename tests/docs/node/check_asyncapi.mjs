// Reads AsyncAPI documents with the official parser and prints a line of JSON for each: its channels, and what is wrong.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";

const [modules, ...files] = process.argv.slice(2);
const { Parser } = createRequire(`${modules}/`)("@asyncapi/parser");
for (const file of files) {
  const { document, diagnostics } = await new Parser().parse(await readFile(file, "utf8"), { source: file });
  const said = diagnostics.map(({ severity, code, path, message }) => ({ severity, code, path: path.join("."), message }));
  const channels = document ? document.channels().all().map((channel) => channel.address()) : [];
  console.log(JSON.stringify({ channels, said }));
}
