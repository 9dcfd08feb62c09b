/** Folders are made where they can be, and elsewhere an error says why. */
import { execFileSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { isFileError } from '../../runtime/errors.ts';
import { makeFolder } from '../../runtime/files.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const folder = temporaryFolder();

test('a folder is made with those above it, and one that exists stays', () => {
  const path = join(folder, 'a', 'b', 'c');
  makeFolder(path);
  makeFolder(path);
  makeFolder('/');
  expect(existsSync(path)).toBe(true);
});

// Method: another process, which can be killed: a recursive mkdir of Node never returns from the first path.
test.for([
  ['/proc does not have', '/proc/nope/state', 'ENOENT'],
  ['lies below a file', join(folder, 'file', 'state'), 'ENOTDIR'],
  ['is a file', join(folder, 'file'), 'EEXIST'],
  ['has a name that is too long', join(folder, 'x'.repeat(300), 'state'), 'ENAMETOOLONG'],
] as const)('a folder that %s is an error of a file', ([, path, code]) => {
  writeFileSync(join(folder, 'file'), '');
  const url = new URL('../../runtime/files.ts', import.meta.url);
  const program = `import { makeFolder } from ${JSON.stringify(fileURLToPath(url))};
    try { makeFolder(${JSON.stringify(path)}); } catch ({ code }) { console.log(code); }`;
  const args = ['--input-type=module', '-e', program];
  const said = execFileSync(process.execPath, args, { encoding: 'utf8', timeout: 30_000 });
  expect(said.trim()).toBe(code);
  expect(isFileError(Object.assign(new Error(code), { code }))).toBe(true);
});
