// Scopes that the editor's own TextMate engine gives to texts. In (JSON on stdin): { grammar: FILE, texts: [TEXT, ...] }.
// Out (JSON): for each text a list of [start, end, innermost scope], offsets in UTF-16 units as the editor counts.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.env.DAGC_NODE_MODULES ?? path.join(import.meta.dirname, "../node_modules"), "x"));
const oniguruma = require("vscode-oniguruma");
const { INITIAL, Registry, parseRawGrammar } = require("vscode-textmate");

const { grammar: file, texts } = JSON.parse(readFileSync(0, "utf8"));
await oniguruma.loadWASM(readFileSync(require.resolve("vscode-oniguruma/release/onig.wasm")).buffer);
const registry = new Registry({
  onigLib: Promise.resolve({
    createOnigScanner: (patterns) => new oniguruma.OnigScanner(patterns),
    createOnigString: (text) => new oniguruma.OnigString(text),
  }),
  loadGrammar: async () => parseRawGrammar(readFileSync(file, "utf8"), file),
});
const grammar = await registry.loadGrammar("source.moe");

function scoped(text) {
  const found = [];
  let state = INITIAL;
  let offset = 0;
  for (const line of text.split("\n")) {
    const { tokens, ruleStack } = grammar.tokenizeLine(line, state);
    for (const { startIndex, endIndex, scopes } of tokens) {
      const end = Math.min(endIndex, line.length); // the engine counts the newline too
      if (scopes.length > 1 && end > startIndex) found.push([offset + startIndex, offset + end, scopes.at(-1)]);
    }
    state = ruleStack;
    offset += line.length + 1;
  }
  return found;
}

process.stdout.write(JSON.stringify(texts.map(scoped)));
