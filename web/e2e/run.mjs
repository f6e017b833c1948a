// Runs the browser tests with Node's test runner, one file after another.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const only = process.argv.slice(2);
const files = readdirSync(here).filter((f) => f.endsWith(".test.mjs") && (only.length === 0 || only.some((o) => f.includes(o))));
if (files.length === 0) throw new Error("no browser tests were found");
const { status } = spawnSync(process.execPath, ["--test", "--test-concurrency=1", ...(process.env.ONLY ? ["--test-name-pattern", process.env.ONLY] : []), ...files.map((f) => here + f)], { stdio: "inherit" });
process.exit(status ?? 1);
