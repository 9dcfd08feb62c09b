#!/usr/bin/env -S node --initial-old-space-size=256 --single-threaded-gc
// Starts the command line: the built files where there are no sources (in the package and in the image), the sources in a
// checkout, where Node runs TypeScript as it is.
import { existsSync } from 'node:fs';

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 22 || (major === 22 && minor < 22)) {
  process.stderr.write(
    `reelflow needs Node 22.22 or newer, this is ${process.versions.node}.\n` +
      'In a checkout use `npx reelflow`, which takes the Node of node_modules.\n',
  );
  process.exit(2);
}
const isInstalled = !existsSync(`${import.meta.dirname}/main.ts`);
// Compiling is a large part of a short command's time, in a checkout also taking the types out of the sources. Node keeps the
// result in the package's folder, which no other user can write, and does without where it may not write there.
const { enableCompileCache } = await import('node:module');
enableCompileCache(`${import.meta.dirname}/../node_modules/.cache/compiled`);
const { main } = await import(isInstalled ? '../dist/cli/main.js' : './main.ts');
await main(process.argv);
