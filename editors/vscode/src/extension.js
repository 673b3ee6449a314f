// The client: starts `dagc lsp` and hands it the open specs. What the language means is the server's alone.
// @ts-check
"use strict";

const vscode = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");
const { found } = require("./command");

const LANGUAGE = "moe";
/** @type {LanguageClient | undefined} */
let client;
/** Starts and stops follow one another: two servers never run at once. */
let turn = Promise.resolve();

/** @param {vscode.ExtensionContext} context */
async function activate(context) {
  context.subscriptions.push(
    vscode.commands.registerCommand("dagc.restart", restart),
    vscode.workspace.onDidChangeConfiguration((change) => {
      if (["dagc.path", "dagc.arguments", "dagc.server"].some((name) => change.affectsConfiguration(name))) restart();
    }),
  );
  await restart();
}

function deactivate() {
  turn = turn.then(stop);
  return turn;
}

function restart() {
  turn = turn.then(stop).then(start).catch((error) => void tell(error));
  return turn;
}

async function start() {
  const settings = vscode.workspace.getConfiguration("dagc");
  if (!settings.get("server")) return;
  const command = settings.get("path", "dagc");
  if (!found(command)) {
    tell(`There is no command \`${command}\`. Highlighting works without it.`);
    return;
  }
  client = new LanguageClient(
    "dagc",
    "dagc",
    { command, args: settings.get("arguments", ["lsp"]) }, // over its standard input and output, without an option that says so
    { documentSelector: [{ scheme: "file", language: LANGUAGE }, { scheme: "untitled", language: LANGUAGE }] },
  );
  await client.start();
}

async function stop() {
  const running = client;
  client = undefined;
  // One that never came up cannot be stopped in order.
  await running?.dispose().catch(() => undefined);
}

/** @param {unknown} what */
async function tell(what) {
  const settings = "Open Settings";
  const off = "Do Not Start It";
  const because = what instanceof Error ? `The language server did not start: ${what.message}` : String(what);
  const install = "`pip install 'dagc-moe[lsp]'` brings the language server; `dagc.path` says where it is.";
  const chosen = await vscode.window.showWarningMessage(`${because} ${install}`, settings, off);
  if (chosen === settings) await vscode.commands.executeCommand("workbench.action.openSettings", "dagc.path");
  if (chosen === off) await vscode.workspace.getConfiguration("dagc").update("server", false, true);
}

module.exports = { activate, deactivate };
