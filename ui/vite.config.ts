/* Builds the page into src/bioproxy/page, from where the program serves it: relative addresses, names with a hash, and
 * beside each text file what brotli and gzip make of it, so that nothing is compressed while somebody waits. */
import { readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vitest/config";

const OUT = fileURLToPath(new URL("../src/bioproxy/page", import.meta.url));
const SMALL = 1024; // bytes below which a compressed copy saves nothing

function precompressed(): Plugin {
  return {
    name: "precompressed",
    apply: "build",
    async closeBundle() {
      for (const entry of await readdir(OUT, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile() || !/\.(js|css|html|svg)$/.test(entry.name)) continue;
        const path = join(entry.parentPath, entry.name);
        const bytes = await readFile(path);
        if (bytes.length < SMALL) continue;
        const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length };
        await writeFile(`${path}.br`, brotliCompressSync(bytes, { params }));
        await writeFile(`${path}.gz`, gzipSync(bytes, { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  base: "./",
  plugins: [svelte(), precompressed()],
  resolve: process.env.VITEST ? { conditions: ["browser"] } : undefined,
  build: {
    outDir: OUT,
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    chunkSizeWarningLimit: 700,
    rolldownOptions: { checks: { bundlerTimings: false } }, // compressing takes most of the time, and may
  },
  server: {
    // `npm run dev` beside a program that runs: BIOPROXY=http://localhost:8089 npm run dev, then /ui/ of what it prints
    proxy: process.env.BIOPROXY ? { "^/(?!ui/)": process.env.BIOPROXY } : undefined,
  },
  test: { environment: "jsdom", isolate: false, include: ["src/**/*.test.ts"], testTimeout: 60_000 }, // busy machines
});
