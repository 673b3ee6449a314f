// Whether a command can be started, so that a missing one is named instead of failing somewhere inside the client.
// @ts-check
"use strict";

const { accessSync, constants, statSync } = require("node:fs");
const path = require("node:path");

/**
 * @param {string} command a name on PATH, or a path
 * @param {NodeJS.ProcessEnv} [env]
 */
function found(command, env = process.env) {
  const folders = path.basename(command) === command ? (env.PATH ?? "").split(path.delimiter) : [""];
  const endings = process.platform === "win32" ? (env.PATHEXT ?? ".EXE;.CMD").split(";").concat("") : [""];
  return folders.some((folder) => endings.some((ending) => runs(path.join(folder, command + ending))));
}

/** @param {string} file */
function runs(file) {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

module.exports = { found };
