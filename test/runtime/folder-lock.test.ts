/** The lock of a folder between real processes, also in another PID namespace, where process ids mean nothing. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { withFolderLock } from '../../runtime/folder-lock.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

let folder: string;
const children: ChildProcess[] = [];

beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

/** Runs `code` in another process, which has `withFolderLock` and `folder`. Resolves with its output once `until` holds. */
async function run(code: string, wrapper: readonly string[] = [], until?: string): Promise<string> {
  const url = new URL('../../runtime/folder-lock.ts', import.meta.url);
  const program = `import { withFolderLock } from ${JSON.stringify(fileURLToPath(url))};
    const folder = ${JSON.stringify(folder)};\n${code}`;
  const [command = '', ...args] = [...wrapper, process.execPath, '--input-type=module', '-e', program];
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  let output = '';
  return new Promise((resolve) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        output += text;
        if (until !== undefined && output.includes(until)) resolve(output);
      });
    }
    child.once('close', () => resolve(output));
  });
}

const holdForever = `await withFolderLock(folder, { patienceMs: 0 }, async () => {
  console.log('held');
  await new Promise((resolve) => setTimeout(resolve, 600_000));
});`;
const tryOnce = `await withFolderLock(folder, { patienceMs: 0 }, async () => console.log('free'))
  .catch((error) => console.log(error.kind, error.detail));`;

const ownNamespace = ['unshare', '--pid', '--fork', '--kill-child'];
const canUnshare = (() => {
  try {
    execFileSync('unshare', ['--pid', '--fork', 'true'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

test('only one caller of a process holds the lock', async () => {
  await withFolderLock(folder, { patienceMs: 0 }, async () => {
    const second = withFolderLock(folder, { patienceMs: 0 }, async () => undefined);
    await expect(second).rejects.toMatchObject({
      kind: 'busy',
      detail: expect.stringContaining(`${process.pid}`),
    });
  });
  await withFolderLock(folder, { patienceMs: 0 }, async () => undefined);
});

test('another process waits for the holder, and gets the lock once the holder is killed', async () => {
  expect(await run(holdForever, [], 'held')).toContain('held');
  const owners: string[] = [];
  const waiting = withFolderLock(
    folder,
    { patienceMs: 60_000, onWait: (owner) => owners.push(owner) },
    async () => 'mine',
  );
  await expect.poll(() => owners).toHaveLength(1);
  expect(owners[0]).toContain(`process ${children[0]?.pid} on `);
  children[0]?.kill('SIGKILL');
  expect(await waiting).toBe('mine');
});

test.skipIf(!canUnshare)(
  'a process of another PID namespace neither steals the lock nor loses it',
  async () => {
    await withFolderLock(folder, { patienceMs: 0 }, async () => {
      expect(await run(tryOnce, ownNamespace)).toContain('busy');
      // The lock is still held.
      expect(await run(tryOnce)).toContain('busy');
    });
    expect(await run(holdForever, ownNamespace, 'held')).toContain('held');
    await expect(withFolderLock(folder, { patienceMs: 0 }, async () => undefined)).rejects.toMatchObject({
      kind: 'busy',
    });
  },
);

test('a folder that cannot be written is an error of its kind', async () => {
  const path = join(folder, 'file');
  writeFileSync(path, '');
  await expect(withFolderLock(path, { patienceMs: 0 }, async () => undefined)).rejects.toMatchObject({
    kind: 'stateUnusable',
  });
  await expect(
    withFolderLock(path, { patienceMs: 0, kind: 'gold' }, async () => undefined),
  ).rejects.toMatchObject({ kind: 'goldUnusable' });
});
