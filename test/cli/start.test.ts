/** What a command line loads before it knows what to do: most of the time that `--help` takes. Counted, not timed. */
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { expect } from 'vitest';
import { program, servicesEnv, test } from '../support/harness.ts';

const root = new URL('../..', import.meta.url).href;

/** Writes the address of each module that is loaded after it to standard error. */
const tellLoads = `
  import { writeSync } from 'node:fs';
  import { registerHooks } from 'node:module';
  registerHooks({ load(url, context, next) { writeSync(2, url + '\\n'); return next(url, context); } });
  process.on('exit', () => writeSync(2, process.moduleLoadList.join('\\n') + '\\n'));`;

async function loadedBy(folder: string, ...args: string[]): Promise<{ stdout: string; stderr: string }> {
  const hook = `${folder}/loads.mjs`;
  writeFileSync(hook, tellLoads);
  return promisify(execFile)(process.execPath, ['--import', hook, program, ...args], {
    env: {
      ...process.env,
      ...servicesEnv,
    },
    maxBuffer: 64 * 1024 * 1024,
  });
}

/** Packages, and what Node itself loads late, that a short command has no use for. */
const heavy =
  /node_modules\/(@duckdb|zod|yaml|avsc|prom-client|lz4js|snappyjs|@aws-sdk|@kafkajs)\/|^NativeModule (tls|https|internal\/deps\/undici\/undici)$/gm;

test('--help loads the command line and its parser, and neither Kafka nor DuckDB nor a server', async ({
  place,
}) => {
  const { stdout, stderr } = await loadedBy(place.folder, '--help');
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
    'runtime/counted.ts',
    'runtime/errors.ts',
    'runtime/package.ts',
    'runtime/terminal.ts',
    'topics/catalog.ts',
    'topics/day.ts',
    'topics/record-counts.ts',
  ]);
  expect(stderr).not.toMatch(/^node:(http|net|tls|worker_threads|zlib)$/m);
});

test.each(['--help', '-h'])('%s is shown whatever values options and their variables have', async (help) => {
  const wrong = { REELFLOW_NAMESPACE: 'Not Allowed', KAFKA_SECURITY_PROTOCOL: 'none' };
  const run = promisify(execFile);
  const { stdout } = await run(process.execPath, [program, 'replay', '--rate', 'x', help], {
    env: { ...process.env, ...wrong },
  });
  expect(stdout).toContain('Usage: reelflow replay');
});

test('lag loads a client of Kafka, and neither a package nor a command that others need', async ({
  place,
}) => {
  const args = ['lag', '--namespace', place.namespace, '--json'];
  // The first command of a checkout reads the declarations from YAML.
  await loadedBy(place.folder, ...args);
  const { stdout, stderr } = await loadedBy(place.folder, ...args);
  expect(stdout).toBe('[]\n');
  expect(stderr).toMatch(/cli\/lag\.ts$/m);
  expect(stderr).not.toMatch(/cli\/(demo|process|replay|sink|verify)\.ts$/m);
  expect([...new Set(stderr.match(heavy))]).toEqual([]);
});

test('process without work loads DuckDB, and neither TLS nor a parser of YAML nor the package of the registry', async ({
  place,
}) => {
  const args = ['--namespace', place.namespace, '--state', `${place.folder}/state`];
  const run = () => loadedBy(place.folder, 'process', '--until-caught-up', ...args);
  await run();
  const { stderr } = await run();
  expect([...new Set(stderr.match(heavy))]).toEqual(['node_modules/@duckdb/']);
});
