/**
 * Standard output that closes or is full: no stack trace, an exit code, and an end of commands that would run on. A shell
 * connects the command to the reader, as a person would.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { expect } from 'vitest';
import { exitCodes } from '../../runtime/errors.ts';
import { type Place, program, servicesEnv, test } from '../support/harness.ts';

/** Runs a line of bash in which `$R` is the command line. @returns the exit code of the first command, and all texts */
async function bash(place: Place, line: string) {
  const child = spawn('bash', ['-c', `${line}\nexit \${PIPESTATUS[0]}`], {
    cwd: place.folder,
    env: {
      ...process.env,
      R: `${process.execPath} ${program}`,
      ...servicesEnv,
    },
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const code = await new Promise((resolve) => child.once('close', resolve));
  return { code, stdout, stderr };
}

test('`lag --watch | head` ends as other tools do, without a word', async ({ place }) => {
  const { code, stdout, stderr } = await bash(
    place,
    `$R lag --watch --namespace ${place.namespace} | head -3`,
  );
  expect(stdout.split('\n')).toHaveLength(4);
  expect({ code, stderr }).toEqual({ code: 141, stderr: '' });
});

test('a reader that takes nothing ends a short command without a word', async ({ place }) => {
  expect(await bash(place, '$R gold list | exec true')).toMatchObject({ code: 141, stderr: '' });
});

test('a command whose standard output is closed works', async ({ place }) => {
  expect(await bash(place, '$R gold list >&-')).toMatchObject({ code: 0, stderr: '' });
});

const full = '/dev/full';

for (const command of ['--help', 'gold list --json', 'sink --once --json', 'lag --watch']) {
  test.skipIf(!existsSync(full))(`\`${command}\` on a full device fails with a hint`, async ({ place }) => {
    const takesNamespace = /^(?:sink|lag)/.test(command);
    const options = takesNamespace ? ` --namespace ${place.namespace}` : '';
    const { code, stderr } = await bash(place, `$R ${command}${options} > ${full}`);
    expect(code, stderr).toBe(exitCodes.diskFull);
    expect(stderr).toMatch(/^Error: Standard output cannot be written\nDetail: ENOSPC.*\nHint: \w/m);
    expect(stderr).not.toMatch(/^\s+at /m);
  });
}

test.skipIf(!existsSync(full))('a full standard error does not stop the work', async ({ place }) => {
  const { code, stdout } = await bash(place, `$R gold list 2> ${full}`);
  expect({ code, stdout }).toEqual({ code: 0, stdout: 'No snapshot in .reelflow/gold yet.\n' });
});
