/** What a shard has to see of its logs before it says that it has caught up; real stores, logs in memory. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { LogInterrupted } from '../../kafka/failures.ts';
import type { LogReader } from '../../kafka/log.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { basics, rating } from '../support/chunks.ts';
import { Logs, shardOver } from '../support/shard-over-logs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const folder = temporaryFolder();

/** Logs of two topics, and a folder with the store of a shard that has published all of them. */
async function applied(name: string): Promise<{ logs: Logs; stores: string }> {
  const logs = new Logs();
  const stores = join(folder, name);
  logs.produce(
    { dataset: 'title.basics', records: [basics(1, 'Drama')], deletes: [] },
    { dataset: 'title.ratings', records: [rating(1, 5)], deletes: [] },
  );
  const first = shardOver(logs, stores);
  await first.shard.open(logs.ends);
  await first.until(logs.ends);
  await first.shard.close(0);
  return { logs, stores };
}

// Method: nothing has come since, so all that is left to do is to read the last message of each topic once more. The
// fetch is held back, as on a machine that is busy.
test('a shard without new messages is caught up only after it has read the last message of each topic again', async () => {
  const { logs, stores } = await applied('same');
  const { shard } = shardOver(logs, stores);
  await shard.open(logs.ends);
  expect(shard.hasPublished(logs.ends)).toBe(false);
  const wants = shard.wants();
  expect(wants.map(({ next }) => next)).toEqual(shard.topics.map(() => 0));
  const unproven = wants.filter(({ topic }) => logs.of(topic).length > 0);
  for (const { topic, next } of unproven) {
    expect(shard.hasPublished(logs.ends)).toBe(false);
    await shard.receive({ topic, partition: 0, next, highWatermark: 1, messages: logs.read(topic, next) });
  }
  expect(shard.hasPublished(logs.ends)).toBe(true);
  shard.distrust();
  expect(shard.hasPublished(logs.ends)).toBe(false);
});

test('a topic that was recreated with the same number of messages is refused', async () => {
  const { logs, stores } = await applied('refilled');
  logs.of('imdb.title.ratings').length = 0;
  logs.produce({ dataset: 'title.ratings', records: [rating(1, 9)], deletes: [] });
  const { shard, fetch } = shardOver(logs, stores);
  await shard.open(logs.ends);
  expect(shard.hasPublished(logs.ends)).toBe(false);
  await expect(fetch()).rejects.toMatchObject({ kind: 'sourceReplaced' });
  expect(shard.hasPublished(logs.ends)).toBe(false);
});

// Method: the connection breaks a few times while the published deltas are read; then it stays broken until the member stops.
test('opening a shard waits until its published deltas can be read or the member stops', async () => {
  const { logs, stores } = await applied('interrupted');
  let interruptionsLeft = 3;
  const reader = {
    fetch: async ([want]: Parameters<LogReader['fetch']>[0]) => {
      if (interruptionsLeft-- > 0) {
        throw new LogInterrupted(new ReelflowError('brokerUnreachable', 'No Kafka broker answers'));
      }
      return [{ ...want, end: 0, messages: logs.read(want?.topic ?? '', want?.next ?? 0) }];
    },
  } as unknown as LogReader;
  const back = shardOver(logs, stores, { reader });
  await back.shard.open(logs.ends);
  await back.until(logs.ends);
  await back.shard.close(0);
  interruptionsLeft = Number.POSITIVE_INFINITY;
  const stop = new AbortController();
  const away = shardOver(logs, stores, { reader, signal: stop.signal });
  setTimeout(() => stop.abort(), 500);
  await expect(away.shard.open(logs.ends)).rejects.toMatchObject({ kind: 'brokerUnreachable' });
  await away.shard.close(0);
});
