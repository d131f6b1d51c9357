/** Prints the size of each entry point, minified and compressed with gzip. Fails if one exceeds its budget. */

import { gzipSync } from "node:zlib";

import { build } from "esbuild";

/** Bytes. Raise a budget only for a reason that users of the package would accept. */
const BUDGETS = { index: 7_000, react: 8_000, "token-source": 4_500 };

let isOver = false;
for (const [entry, budget] of Object.entries(BUDGETS)) {
  const { outputFiles } = await build({
    entryPoints: [new URL(`../dist/${entry}.js`, import.meta.url).pathname],
    bundle: true,
    minify: true,
    format: "esm",
    external: ["react"],
    write: false,
    logLevel: "warning",
  });
  const size = gzipSync(outputFiles[0].contents, { level: 9 }).length;
  isOver ||= size > budget;
  console.log(`${entry.padEnd(12)} ${String(size).padStart(5)} of ${budget} bytes${size > budget ? ": over the budget" : ""}`);
}
if (isOver) process.exit(1);
