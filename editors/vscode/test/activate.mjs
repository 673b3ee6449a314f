// The packaged client without an editor: what it tells its user. In (JSON on stdin): { extension: FILE, settings: {...} }.
// Out (JSON): { warnings: [...], commands: [...] }.
import { readFileSync } from "node:fs";
import Module, { createRequire } from "node:module";

const { extension, settings } = JSON.parse(readFileSync(0, "utf8"));
const warnings = [];
const commands = [];
const disposable = { dispose() {} };
class EventEmitter {
  event = () => disposable;
  fire() {}
  dispose() {}
}
const channel = new Proxy({}, { get: () => () => {} });
const api = {
  version: "1.91.0",
  EventEmitter,
  workspace: {
    textDocuments: [],
    workspaceFolders: undefined,
    getConfiguration: () => ({ get: (name, otherwise) => settings[name] ?? otherwise, update: async () => {} }),
    onDidChangeConfiguration: () => disposable,
  },
  window: {
    createOutputChannel: () => channel,
    showErrorMessage: async () => {},
    showWarningMessage: async (text) => void warnings.push(text),
  },
  commands: { registerCommand: (name) => (commands.push(name), disposable), executeCommand: async () => {} },
};
// What the client library asks for besides: events and registrations that never fire, and classes that it derives its own from.
const filled = (known, other) =>
  new Proxy(known, { get: (target, name) => (name in target ? target[name] : (target[name] = other(name))) });
const inert = () => () => disposable;
const classOrSpace = (name) => filled(/^[a-z]/.test(String(name)) ? {} : class {}, inert);
for (const name of ["workspace", "window", "commands"]) api[name] = filled(api[name], inert);

const load = Module._load;
Module._load = (request, ...rest) => (request === "vscode" ? filled(api, classOrSpace) : load(request, ...rest));
const client = createRequire(import.meta.url)(extension);
await client.activate({ subscriptions: [] });
await client.deactivate();
process.stdout.write(JSON.stringify({ warnings, commands }));
