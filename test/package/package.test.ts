/**
 * The package as users get it: packed, installed into an empty folder, and run there. Method: npm itself packs and installs;
 * the folder of the package is hashed before and after, and Node may not strip types.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, globSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, inject, test } from 'vitest';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { userFolder } from '../support/user-folder.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = temporaryFolder();
const installed = join(folder, 'node_modules', 'reelflow');
const namespace = `package-${Date.now().toString(36)}`;
const path = `${dirname(process.execPath)}:${process.env.PATH}`;
let files: string[] = [];

function npm(args: readonly string[], cwd: string): { stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync('npm', [...args], {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, PATH: path },
  });
  expect(status, `npm ${args.join(' ')}\n${stderr}`).toBe(0);
  return { stdout, stderr };
}

/** Runs the installed command in the empty folder. */
function reelflow(...args: string[]) {
  return spawnSync(join(folder, 'node_modules/.bin/reelflow'), args, {
    cwd: folder,
    encoding: 'utf8',
    env: {
      ...process.env,
      PATH: path,
      // A package that needs its types stripped cannot start.
      NODE_OPTIONS: '--no-experimental-strip-types',
      KAFKA_BROKERS: inject('brokers').join(','),
      SCHEMA_REGISTRY_URL: inject('registryUrl'),
    },
  });
}

function hashOfPackage(): string {
  const hash = createHash('sha256');
  for (const file of globSync('**', { cwd: installed }).sort()) {
    const full = join(installed, file);
    if (statSync(full).isFile()) hash.update(file).update(readFileSync(full));
  }
  return hash.digest('hex');
}

beforeAll(() => {
  const packed = npm(['pack', '--json', '--pack-destination', folder], root);
  const [{ filename, files: listed }] = JSON.parse(packed.stdout.slice(packed.stdout.indexOf('[\n')));
  files = listed.map(({ path: file }: { path: string }) => file);
  writeFileSync(join(folder, 'package.json'), '{"private": true}');
  const flags = ['--no-audit', '--no-fund', '--prefer-offline'];
  npm(['install', ...flags, join(folder, filename)], folder);
});

test('it has the licence, the documents, the deploy files and what the code reads, and no source or test', () => {
  expect(files).toEqual(
    expect.arrayContaining([
      'LICENSE',
      'README.md',
      'DESIGN.md',
      'CHANGELOG.md',
      'docs/operations.md',
      'deploy/systemd/reelflow-sink.service',
      'deploy/kubernetes/reelflow.yaml',
      'deploy/prometheus/alerts.yml',
      'docker-compose.yml',
      'dist/cli/main.js',
      'dist/monitor/page/page.js',
      'dist/topics/schemas/reelflow.deltas.avsc',
    ]),
  );
  expect(files.filter((file) => /\.ts$|^(test|bench|\.ci)\//.test(file))).toEqual([]);
});

test('links in its documents lead to files that it has, unless to sources', () => {
  const broken = files
    .filter((file) => /^(README|CHANGELOG|SECURITY)\.md$|^docs\/.*\.md$/.test(file))
    .flatMap((file) =>
      [...readFileSync(join(installed, file), 'utf8').matchAll(/\]\((?!https?:|#)([^)#]+)/g)]
        .map(([, link]) => join(dirname(file), link as string))
        .filter((link) => !/\.ts$|^bench\//.test(link) && !existsSync(join(installed, link)))
        .map((link) => `${file}: ${link}`),
    );
  expect(broken).toEqual([]);
});

test('in an empty folder it runs the demo and verifies it, changes nothing of itself, and compiles nothing', () => {
  const before = hashOfPackage();
  const demo = reelflow('demo', '--titles', '300', '--namespace', namespace, '--gold', 'gold', '--json');
  expect(demo, demo.stderr).toMatchObject({ status: 0 });
  const { snapshot } = JSON.parse(demo.stdout);
  expect(existsSync(join(folder, 'gold/snapshots', snapshot, 'genre_analysis.parquet'))).toBe(true);
  const verified = reelflow('verify', '--gold', 'gold', '--json');
  expect(verified, verified.stderr).toMatchObject({ status: 0 });
  expect(JSON.parse(verified.stdout)).toMatchObject({ snapshot, equal: true });
  expect(hashOfPackage()).toBe(before);
});

test("a user's folder of declarations works with it, in every command that takes one", () => {
  mkdirSync(join(folder, 'mine'));
  for (const [name, text] of Object.entries(userFolder)) writeFileSync(join(folder, 'mine', name), text);
  const run = (...args: string[]) => {
    const finished = reelflow(...args, '--tables', 'mine');
    expect(finished, `${args.join(' ')}\n${finished.stderr}`).toMatchObject({ status: 0 });
    return finished.stdout;
  };
  const inGold = ['--gold', 'own'];
  expect(reelflow('generate', '--titles', '300', '--out', 'data')).toMatchObject({ status: 0 });
  run('tables', 'check');
  run('demo', '--data', 'data', '--namespace', `${namespace}-own`, ...inGold);
  expect(JSON.parse(run('verify', '--data', 'data', ...inGold, '--json'))).toMatchObject({ equal: true });
  const rows = (text: string) => (JSON.parse(text) as { rows: unknown }).rows;
  const shown = rows(run('gold', 'show', 'category_analysis', ...inGold, '--json'));
  const [tried] = JSON.parse(
    run('tables', 'try', '--data', 'data', '--table', 'category_analysis', '--json'),
  );
  expect(tried.rows).toEqual(shown);
  run('gold', 'report', ...inGold, '--out', 'own.html');
  expect(readFileSync(join(folder, 'own.html'), 'utf8')).toContain('Titles by category');
  expect(run('flink', 'sql', '--namespace', `${namespace}-own`)).toContain('category_analysis');
});

test('what needs a package that is absent names it', () => {
  for (const name of ['@aws-sdk', '@observablehq', 'linkedom', '@duckdb/node-bindings-linux-x64']) {
    rmSync(join(folder, 'node_modules', name), { recursive: true, force: true });
  }
  const report = reelflow('gold', 'report', '--gold', 'gold');
  expect(report.status).toBe(2);
  expect(report.stderr).toMatch(
    /^Error: The package (@observablehq\/plot|linkedom) is not installed\nDetail: The report needs it\.\nHint: Run `npm install /,
  );
  const push = reelflow('sink', '--once', '--gold', 'gold', '--push', 's3://bucket/prefix');
  expect(push.status).toBe(2);
  expect(push.stderr).toContain('Error: The package @aws-sdk/client-s3 is not installed');
  const show = reelflow('gold', 'show', 'genre_analysis', '--gold', 'gold');
  expect(show.status).toBe(2);
  expect(show.stderr).toMatch(/^Error: The package @duckdb\/node-bindings-\S+ is not installed\n/);
});

test('npm publish has nothing to warn of but the absent login', () => {
  const { stderr } = npm(['publish', '--dry-run', '--ignore-scripts'], root);
  const warnings = stderr.split('\n').filter((line) => /npm (warn|error)/i.test(line));
  expect(warnings.filter((line) => !line.includes('requires you to be logged in'))).toEqual([]);
});

test('users of the package do not get the Node of a checkout', () => {
  expect(existsSync(join(folder, 'node_modules/kafkajs'))).toBe(true);
  expect(existsSync(join(folder, 'node_modules/node'))).toBe(false);
});
