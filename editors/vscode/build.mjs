// Makes out/: the client in one file with the licences of what is bundled, and the grammar, of which the only source is
// grammar/textmate/.
import { copyFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { build } from "esbuild";

await mkdir("out", { recursive: true });
await copyFile("../../grammar/textmate/moe.tmLanguage.json", "out/moe.tmLanguage.json");
await copyFile("../../LICENSE", "LICENSE");

const { metafile } = await build({
  entryPoints: ["src/extension.js"],
  outfile: "out/extension.js",
  bundle: true,
  minify: true,
  platform: "node",
  format: "cjs",
  target: "node20",
  external: ["vscode"], // the editor itself provides it
  metafile: true,
});
await writeFile("out/THIRD_PARTY.txt", await licences(Object.keys(metafile.inputs)));

/** Name, version and licence text of every package that one of the files is of. */
async function licences(files) {
  const bundled = files.map((file) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file)?.[0]);
  const told = [];
  for (const folder of [...new Set(bundled)].filter(Boolean).sort()) {
    const { name, version, license } = JSON.parse(await readFile(path.join(folder, "package.json"), "utf8"));
    const texts = (await readdir(folder)).filter((entry) => /^licen[cs]e/i.test(entry));
    if (!texts.length) throw new Error(`${name} comes without the text of its licence`);
    told.push(`${name} ${version} (${license})\n\n${await readFile(path.join(folder, texts[0]), "utf8")}`);
  }
  return told.join(`\n${"-".repeat(80)}\n`);
}
