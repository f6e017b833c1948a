// Bundles the unit tests with esbuild (Node 20 does not read TypeScript) and
// runs them with Node's test runner.
import { spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const out = `${here}../node_modules/.cache/podlab-tests`;
rmSync(out, { recursive: true, force: true });
const files = readdirSync(here).filter((f) => f.endsWith(".test.ts"));
if (files.length === 0) throw new Error("no unit tests were found");
await esbuild.build({
  entryPoints: files.map((f) => here + f),
  outdir: out,
  outExtension: { ".js": ".mjs" },
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node20",
  jsx: "automatic",
  jsxImportSource: "preact",
  external: ["elkjs/*"],
  sourcemap: "inline",
  logLevel: "warning",
});
const built = readdirSync(out).map((f) => `${out}/${f}`);
process.exit(spawnSync(process.execPath, ["--enable-source-maps", "--test", ...built], { stdio: "inherit" }).status ?? 1);
