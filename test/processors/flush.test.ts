/** A target closes the open micro-batch once. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { Logs, shardOver } from '../support/shard-over-logs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

test('what comes after the target waits for the end of its window', async () => {
  const logs = new Logs();
  const window = { periodMs: 2 ** 30, recordsMax: 1_000, bytesMax: 1_000_000 };
  const { shard, fetch, until } = shardOver(logs, temporaryFolder(), { window });
  await shard.open(undefined);
  logs.produceTitle(1);
  const target = logs.ends;
  shard.aimAt(target);
  await until(target);
  logs.produceTitle(2);
  await fetch();
  await sleep(300);
  expect(target).toMatchObject(shard.appliedPosition);
  await shard.close(0);
});
