// Bundles the client into ../static/app: content-hashed names, a manifest from
// logical names to files, and .br and .gz twins of what is worth it.
//
//   node build.mjs [--watch]
import * as esbuild from "esbuild";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const out = join(here, "../static/app");
const watch = process.argv.includes("--watch");

/** Logical name in the manifest, by entry point. */
const entries = {
  "src/site.ts": "site.js",
  "src/lab.tsx": "lab.js",
  "src/css/site.css": "site.css",
  "src/css/lab.css": "lab.css",
  "node_modules/elkjs/lib/elk-worker.min.js": "layout-worker.js",
};

const common = {
  absWorkingDir: here,
  bundle: true,
  outdir: out,
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  assetNames: "[name]-[hash]",
  metafile: true,
  minify: !watch,
  target: ["chrome120", "firefox121", "safari17"],
  loader: { ".woff2": "file" },
  legalComments: "linked",
  logLevel: "warning",
  write: false,
};

const builds = [
  {
    ...common,
    entryPoints: Object.keys(entries).filter((e) => e.startsWith("src/")),
    format: "esm",
    splitting: true,
    jsx: "automatic",
    jsxImportSource: "preact",
  },
  // A classic worker: ELK's own file, which exports nothing to a module.
  { ...common, entryPoints: ["node_modules/elkjs/lib/elk-worker.min.js"], format: "iife" },
];

/** Writes what was built, and the manifest last. */
function write(results) {
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out, { recursive: true });
  const manifest = {};
  for (const result of results) {
    for (const file of result.outputFiles) {
      writeFileSync(file.path, file.contents);
      if (!watch && /\.(js|css|svg|txt)$/.test(file.path) && file.contents.length > 1024) {
        const quality = { [constants.BROTLI_PARAM_QUALITY]: file.contents.length > 500_000 ? 9 : 11 };
        writeFileSync(file.path + ".br", brotliCompressSync(file.contents, { params: quality }));
        writeFileSync(file.path + ".gz", gzipSync(file.contents, { level: 9 }));
      }
    }
    for (const [file, info] of Object.entries(result.metafile.outputs)) {
      const name = info.entryPoint && entries[info.entryPoint];
      if (name) manifest[name] = basename(file);
    }
  }
  for (const name of Object.values(entries)) {
    if (!manifest[name]) throw new Error(`${name} was not built`);
  }
  writeFileSync(join(out, "manifest.json"), JSON.stringify(manifest, null, 2) + "\n");
}

async function once() {
  write(await Promise.all(builds.map((b) => esbuild.build(b))));
}

if (watch) {
  const contexts = await Promise.all(builds.map((b) => esbuild.context(b)));
  const { watch: watchFiles } = await import("node:fs");
  const run = async () => {
    try {
      write(await Promise.all(contexts.map((c) => c.rebuild())));
      console.log("built");
    } catch (e) {
      console.error(String(e));
    }
  };
  let timer;
  watchFiles(join(here, "src"), { recursive: true }, () => {
    clearTimeout(timer);
    timer = setTimeout(run, 50);
  });
  await run();
} else {
  await once();
}
