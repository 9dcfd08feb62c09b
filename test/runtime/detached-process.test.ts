/** A detached process is always named by its pid file. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { startDetached } from '../../runtime/detached-process.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const folder = temporaryFolder();

// Method: a pid file below a missing folder stands for one that a full disk refuses.
test.runIf(existsSync('/proc'))(
  'a program whose pid file cannot be written does not continue to run',
  async () => {
    const seconds = `600.${process.pid}`;
    const running = () =>
      spawnSync('pgrep', ['-fx', `sleep ${seconds}`], { encoding: 'utf8' })
        .stdout.split('\n')
        .filter(Boolean);
    onTestFinished(() => {
      for (const pid of running()) process.kill(Number(pid));
    });
    const program = {
      ...{ command: 'sleep', args: [seconds], cwd: folder, env: process.env },
      log: join(folder, 'sleep.log'),
    };
    await expect(startDetached(program, join(folder, 'missing', 'sleep.pid'), 0)).rejects.toThrow('ENOENT');
    await expect.poll(running, { timeout: 5_000 }).toEqual([]);
  },
);
