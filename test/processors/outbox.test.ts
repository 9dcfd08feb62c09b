import { beforeEach, expect, test } from 'vitest';
import type { ShardContext } from '../../processors/shard-context.ts';
import { instance, Logs, type ShardOverLogs, shardOver } from '../support/shard-over-logs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

type Send = (record: { topic: string; messages: { value: Buffer }[] }) => Promise<unknown>;

let folder: string;
let logs: Logs;
let open: ShardOverLogs | undefined;

beforeEach(() => {
  open = undefined;
  folder = temporaryFolder();
  logs = new Logs();
});

/** Opens the shard in the place of the one that is open. @param send in the producer's place; default: onto the log */
async function start(send?: Send): Promise<ShardOverLogs> {
  await open?.shard.close(0);
  // One micro-batch for all that is there: no window ends in between.
  const window = { periodMs: 2 ** 30, recordsMax: 1_000, bytesMax: 1_000_000 };
  const producer = { send } as unknown as ShardContext['producer'];
  const started = shardOver(logs, folder, { window, ...(send && { producer }) });
  open = started;
  await started.shard.open(undefined);
  return started;
}

async function publishAll({ shard, until }: ShardOverLogs): Promise<void> {
  shard.aimAt(logs.ends);
  await until(logs.ends);
}

test('the next owner of a store publishes a committed delta once', async () => {
  logs.produceTitle(1);
  await publishAll(await start());
  const stopped = await start(async () => {
    throw new Error('power cut');
  });
  logs.produceTitle(2);
  stopped.shard.aimAt(logs.ends);
  await stopped.fetch();
  expect(await stopped.failed).toMatchObject({ message: 'power cut' });
  expect(logs.deltas).toHaveLength(1);
  expect(stopped.shard.appliedPosition).toEqual({ 'imdb.title.basics': 2, 'imdb.title.ratings': 2 });

  await start();
  expect(logs.deltas).toHaveLength(2);
  logs.expectExact();
  logs.produceTitle(3);
  await publishAll(await start());
  expect(logs.deltas).toHaveLength(3);
  logs.expectExact();
});

// Method: another connection to the store's database sees what is committed, and nothing else.
test('every published delta was committed first', async () => {
  const other = await instance.connect();
  const committed: number[] = [];
  const send: Send = async ({ topic, messages }) => {
    const stores = await other.runAndReadAll(
      `SELECT database_name FROM duckdb_tables() WHERE table_name = 'outbox'`,
    );
    for (const [store] of stores.getRows()) {
      const found = await other.runAndReadAll(
        `SELECT count(*)::INTEGER FROM "${store}".outbox WHERE md5(message) IN
          (${messages.map(({ value }) => `md5('\\x${value.toString('hex').match(/../g)?.join('\\x')}'::BLOB)`).join(', ')})`,
      );
      committed.push(Number(found.getRows()[0]?.[0]));
    }
    const baseOffset = String(logs.of(topic).length);
    logs.of(topic).push(...messages.map(({ value }) => value));
    return [{ topicName: topic, partition: 0, errorCode: 0, baseOffset }];
  };
  const started = await start(send);
  for (const title of [1, 2]) {
    logs.produceTitle(title);
    await publishAll(started);
  }
  other.closeSync();
  expect(committed).toEqual([1, 1]);
  logs.expectExact();
});
