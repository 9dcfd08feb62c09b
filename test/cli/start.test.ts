/** What a command line loads before it knows what to do: most of the time that `--help` takes. Counted, not timed. */
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect } from 'vitest';
import { test } from '../support/harness.ts';

const root = new URL('../..', import.meta.url).href;
const program = fileURLToPath(new URL('../../cli/reelflow.js', import.meta.url));

/** Writes the address of each module that is loaded after it to standard error. */
const tellLoads = `
  import { registerHooks } from 'node:module';
  registerHooks({ load(url, context, next) { process.stderr.write(url + '\\n'); return next(url, context); } });`;

test('--help loads the command line and its parser, and neither Kafka nor DuckDB nor a server', async ({
  place,
}) => {
  const hook = `${place.folder}/loads.mjs`;
  writeFileSync(hook, tellLoads);
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [
    '--import',
    hook,
    program,
    '--help',
  ]);
  expect(stdout).toContain('Usage: reelflow');
  const loaded = stderr
    .split('\n')
    .filter((line) => line.startsWith(root))
    .map((url) => url.slice(root.length));
  const rooms = new Set(
    loaded.map((path) => path.replace(/^node_modules\/(.*?)\/.*/, '$1').replace(/^cli\/.*/, 'cli')),
  );
  expect([...rooms].sort()).toEqual([
    'cli',
    'commander',
    'producers/rejection-limit.ts',
    'runtime/errors.ts',
    'runtime/package.ts',
    'topics/catalog.ts',
    'topics/day.ts',
    'topics/record-counts.ts',
  ]);
  expect(stderr).not.toMatch(/^node:(http|net|tls|worker_threads|zlib)$/m);
});
