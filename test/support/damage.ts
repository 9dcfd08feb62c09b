/** What tests of losses share: looks at state and gold that change nothing, and topics that are spoilt on purpose. */

import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { withDatabase } from '../../database/duckdb.ts';
import { logBounds } from '../../kafka/bounds.ts';
import { withAdmin } from '../../kafka/client.ts';
import { ensureRetainedTopics } from '../../kafka/topics.ts';
import { exitCodes, type FailureKind } from '../../runtime/errors.ts';
import { broker, type Finished, type Place, spoken, until } from './harness.ts';

/** Partitions of the topics of these tests: few, because a test is about one of them. */
export const shards = 2;
export const few = ['--shards', String(shards)];
export const ratings = ['--datasets', 'title.ratings'];

/** SHA-256 of each file below a folder, by path. Reading a lock that this process holds would free it: locks are left out. */
export function hashesBelow(folder: string): Record<string, string> {
  if (!existsSync(folder)) return {};
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => !/\block\.(db|owner)$/.test(name) && statSync(join(folder, name)).isFile())
    .sort();
  return Object.fromEntries(
    files.map((name) => [
      name,
      createHash('sha256')
        .update(readFileSync(join(folder, name)))
        .digest('hex'),
    ]),
  );
}

/** The shard stores below a state folder. */
export function storesBelow(state: string): string[] {
  return readdirSync(state, { recursive: true, encoding: 'utf8' })
    .filter((name) => /shard-\d+\.[0-9a-f]+\.duckdb$/.test(name))
    .map((name) => join(state, name))
    .sort();
}

/** Runs statements on a database file. @returns the rows of the last one */
export async function onDatabase(path: string, ...statements: string[]): Promise<unknown[][]> {
  return withDatabase(async (connection) => {
    let rows: unknown[][] = [];
    for (const statement of statements) rows = (await connection.runAndReadAll(statement)).getRows();
    return rows;
  }, path);
}

/** The position of every store, and all of gold: a command that fails must change neither. */
export async function standOf(place: Place): Promise<unknown> {
  const stores: Record<string, unknown> = {};
  for (const path of storesBelow(place.state)) {
    const rows = await onDatabase(path, 'SELECT * FROM source ORDER BY topic');
    // A store at offset 0 is as good as none.
    if (rows.length > 0) stores[path] = rows.map((row) => row.map(String));
  }
  const { CURRENT: current, ...files } = hashesBelow(place.gold);
  return { stores, current, files };
}

/** That a command ends with the exit code of this kind and says what, the detail and a hint. @returns its text */
export function expectFailure(finished: Finished, kind: FailureKind): string {
  expect(finished.code, finished.stderr.slice(-4_000)).toBe(exitCodes[kind]);
  const text = spoken(finished);
  expect(text).toMatch(/^Error: \S.*\n(.*\n)*?Detail: \S.*\n(.*\n)*?Hint: \S/m);
  return text;
}

/** That a command fails so, and neither state nor gold is another one after it. @returns its text */
export async function expectRefusal(place: Place, kind: FailureKind, args: string[]): Promise<string> {
  const before = await standOf(place);
  const text = expectFailure(await place.run(args), kind);
  expect(await standOf(place)).toEqual(before);
  return text;
}

export const processOnce = (place: Place, ...more: string[]) =>
  place.args('process', '--until-caught-up', '--json', ...more);
export const sinkOnce = (place: Place, ...more: string[]) => place.args('sink', '--once', '--json', ...more);

export async function deleteTopic(topic: string): Promise<void> {
  await withAdmin(broker, (admin) => admin.deleteTopics({ topics: [topic] }));
  await until(`${topic} is gone`, async () =>
    withAdmin(broker, async (admin) => !(await admin.listTopics()).includes(topic)),
  );
}

/** The same name, another topic. */
export async function recreateTopic(topic: string, partitions = shards): Promise<void> {
  await deleteTopic(topic);
  await ensureRetainedTopics(broker, [{ topic, partitions }]);
}

/** End offset of each partition of a topic. */
export async function endsOf(topic: string): Promise<number[]> {
  const bounds = (await logBounds(broker, [topic])).get(topic) ?? new Map();
  return [...bounds].sort(([a], [b]) => a - b).map(([, { end }]) => end);
}

/** Sends values to a partition, in one record batch. */
export async function sendTo(
  topic: string,
  partition: number,
  values: readonly (Buffer | null)[],
  compression = 0,
): Promise<void> {
  const producer = broker.kafka.producer({ allowAutoTopicCreation: false });
  await producer.connect();
  await producer.send({
    topic,
    compression,
    messages: values.map((value) => ({ key: null, value, partition })),
  });
  await producer.disconnect();
}
