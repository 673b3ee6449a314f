// Prints grammar.js as the JSON that tree-sitter's generator makes of it, for machines where the generator cannot be had.
// Only the functions that grammar.js uses are known here.
import { createRequire } from "node:module";

const rule = (value) => {
  if (typeof value === "string") return { type: "STRING", value };
  if (value instanceof RegExp) return { type: "PATTERN", value: value.source };
  if (value?.type) return value;
  throw new TypeError(`not a rule: ${String(value)}`);
};
const BLANK = { type: "BLANK" };
const symbols = new Proxy({}, { get: (_, name) => ({ type: "SYMBOL", name }) });

Object.assign(globalThis, {
  seq: (...members) => ({ type: "SEQ", members: members.map(rule) }),
  choice: (...members) => ({ type: "CHOICE", members: members.map(rule) }),
  optional: (content) => ({ type: "CHOICE", members: [rule(content), BLANK] }),
  repeat: (content) => ({ type: "REPEAT", content: rule(content) }),
  repeat1: (content) => ({ type: "REPEAT1", content: rule(content) }),
  token: { immediate: (content) => ({ type: "IMMEDIATE_TOKEN", content: rule(content) }) },
  reserved: (context_name, content) => ({ type: "RESERVED", context_name, content: rule(content) }),
  alias: (content, name) => {
    const named = name.type === "SYMBOL";
    return { type: "ALIAS", content: rule(content), named, value: named ? name.name : name };
  },
  grammar: ({ name, extras, word, reserved, rules }) => ({
    name,
    word: word(symbols).name,
    rules: Object.fromEntries(Object.entries(rules).map(([key, made]) => [key, rule(made(symbols))])),
    extras: extras(symbols).map(rule),
    reserved: Object.fromEntries(Object.entries(reserved).map(([key, made]) => [key, made(symbols).map(rule)])),
  }),
});

process.stdout.write(JSON.stringify(createRequire(import.meta.url)("../grammar.js"), undefined, 1) + "\n");
