// The packaged client without an editor: what it tells its user. In (JSON on stdin): { extension: FILE, settings: {...} }.
// Out (JSON): { warnings: [...], commands: [...] }.
import { readFileSync } from "node:fs";
import Module, { createRequire } from "node:module";

const { extension, settings } = JSON.parse(readFileSync(0, "utf8"));
const warnings = [];
const commands = [];
const disposable = { dispose() {} };
const api = {
  workspace: {
    getConfiguration: () => ({ get: (name, otherwise) => settings[name] ?? otherwise, update: async () => {} }),
    onDidChangeConfiguration: () => disposable,
  },
  window: { showWarningMessage: async (text) => void warnings.push(text) },
  commands: { registerCommand: (name) => (commands.push(name), disposable), executeCommand: async () => {} },
};
// What the bundled library derives classes from, and never meets here.
const any = (known) =>
  new Proxy(known, { get: (target, name) => (name in target ? target[name] : (target[name] = any(class {}))) });

const load = Module._load;
Module._load = (request, ...rest) => (request === "vscode" ? any(api) : load(request, ...rest));
const client = createRequire(import.meta.url)(extension);
await client.activate({ subscriptions: [] });
await client.deactivate();
process.stdout.write(JSON.stringify({ warnings, commands }));
