/**
 * Backups: which one may stand in for a store, by a table; shards that start from one, with real stores
 * over logs in memory; and a takeover through the command line.
 */
import {
  appendFileSync,
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { Backups } from '../../processors/backup.ts';
import { type BackupCard, planRestore, type StoreKind } from '../../processors/restore-plan.ts';
import { decodeDeltaHeader, toOf } from '../../topics/delta-wire.ts';
import type { Position } from '../../topics/position.ts';
import { aka, basics, principal, rating } from '../support/chunks.ts';
import { shards, storesBelow } from '../support/damage.ts';
import { test as placeTest, smallDataset } from '../support/harness.ts';
import { deltaSchemaId, instance, Logs, type ShardOverLogs, shardOver } from '../support/shard-over-logs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

describe('backups that a shard may restore', () => {
  const kind: StoreKind = {
    format: 3,
    clusterId: 'cluster',
    namespace: 'ours',
    shard: 1,
    shards: 4,
    generation: 2,
  };
  const card = (change: Partial<BackupCard> = {}): BackupCard => ({
    ...kind,
    position: { a: 5, b: 2 },
    records: 50,
    ...change,
  });
  const published: Position = { a: 9, b: 2 };
  const plan = (cards: Record<string, BackupCard | undefined>, storeMessages?: number, starts?: Position) =>
    planRestore(new Map(Object.entries(cards)), kind, published, storeMessages, starts);

  test('are those ahead of the store, the newest first', () => {
    // A store that began at a base has counted fewer records than an earlier one.
    const cards = {
      old: card({ position: { a: 1 }, records: 90 }),
      new: card(),
      mid: card({ position: { a: 2, b: 2 } }),
    };
    expect(plan(cards)).toEqual({ restore: ['new', 'mid', 'old'], ignored: new Map() });
    expect(plan(cards, 1).restore).toEqual(['new', 'mid']);
    expect(plan(cards, 6).restore).toEqual(['new']);
    expect(plan(cards, 7).restore).toEqual([]);
    expect(plan({ empty: card({ position: {} }) }).restore).toEqual([]);
    expect(plan({}).restore).toEqual([]);
  });

  test('are not those before the start of a log', () => {
    expect(plan({ new: card() }, undefined, { a: 5, b: 2 }).restore).toEqual(['new']);
    const { restore, ignored } = plan({ old: card() }, undefined, { a: 0, b: 3 });
    expect(restore).toEqual([]);
    expect([...ignored.values()]).toEqual(['b starts at offset 3, the backup ends at 2']);
  });

  const others: [string, Partial<BackupCard>, string][] = [
    ['of another cluster', { clusterId: 'another' }, 'its clusterId is another, not cluster'],
    ['of another namespace', { namespace: 'theirs' }, 'its namespace is theirs, not ours'],
    ['of another shard', { shard: 2 }, 'its shard is 2, not 1'],
    ['of another shard count', { shards: 8 }, 'its shards is 8, not 4'],
    ['of a generation before a reset', { generation: 1 }, 'its generation is 1, not 2'],
    ['of a later generation', { generation: 3 }, 'its generation is 3, not 2'],
    ['of an older version', { format: 2 }, 'its format is 2, not 3'],
    ['of a newer version', { format: 4 }, 'a newer version wrote it (format 4)'],
    ['past the published position', { position: { a: 10 } }, 'it is at a 10, past the published position'],
    ['of a topic that is not published', { position: { c: 1 } }, 'it is at c 1, past the published position'],
  ];
  test.for(others)('one %s is ignored, and the reason said', ([, change, why]) => {
    const cards = { other: card({ ...change, records: 90 }), own: card() };
    expect(plan(cards)).toEqual({ restore: ['own'], ignored: new Map([['other', why]]) });
  });

  test('a backup without a description is ignored', () => {
    expect(plan({ broken: undefined, own: card() })).toEqual({
      restore: ['own'],
      ignored: new Map([['broken', 'its description is missing or damaged']]),
    });
  });
});

describe('a shard', () => {
  const folder = temporaryFolder();
  let logs: Logs;
  let said: string[];

  beforeEach(() => {
    logs = new Logs();
    said = [];
    for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true, force: true });
  });

  const backupsOfShard = () => join(folder, 'backups', 'shard-0');
  const backups = () => readdirSync(backupsOfShard()).sort();
  const storeIn = (id: string) => join(backupsOfShard(), id, 'store.duckdb');
  const cardIn = (id: string) => join(backupsOfShard(), id, 'backup.json');

  let produced = 0;
  /** Puts rows of a few titles on every topic, other ones each time. */
  function produce(): void {
    produced += 1;
    const [a, b] = [(produced % 3) + 1, (produced % 2) + 1];
    logs.produce(
      { dataset: 'title.basics', records: [basics(a, produced % 2 === 0 ? 'Drama' : 'Comedy')], deletes: [] },
      { dataset: 'title.ratings', records: [rating(a, (produced % 10) + 1), rating(b, 5)], deletes: [] },
      { dataset: 'title.principals', records: [principal(a, 1, produced)], deletes: [] },
      { dataset: 'title.akas', records: [aka(b, 1, produced % 2 === 0 ? 'DE' : 'FR')], deletes: [] },
    );
  }

  /** A member opens the shard, with the stores of this state folder. */
  async function start(state: string): Promise<ShardOverLogs> {
    const backups = new Backups(instance, join(folder, 'backups'));
    const started = shardOver(logs, join(folder, state), { backups }, said);
    await started.shard.open(logs.ends);
    return started;
  }

  const end = ({ shard }: ShardOverLogs) => shard.close(0);

  /** Produces, publishes and backs up, so often; a member with this state. */
  async function live(state: string, times: number): Promise<ShardOverLogs> {
    const member = await start(state);
    for (let i = 0; i < times; i++) {
      produce();
      member.shard.aimAt(logs.ends);
      await member.until(logs.ends);
      await member.shard.backUp();
    }
    return member;
  }

  /** The position at the ends of the logs. Topics without messages are not in it. */
  const whole = () => Object.fromEntries(Object.entries(logs.ends).filter(([, end]) => end > 0));

  /** The fold of what was published is the cubes of all that was produced, and no delta of it is refused. */
  function expectExact(): void {
    logs.expectExact();
    const last = logs.deltas.at(-1) ?? null;
    expect(toOf(decodeDeltaHeader(last, deltaSchemaId).header)).toEqual(whole());
  }

  /** Goes on for a while with what a member has opened: to the ends, then with something new. */
  async function goOn(member: ShardOverLogs): Promise<void> {
    member.shard.aimAt(logs.ends);
    await member.until(logs.ends);
    produce();
    member.shard.aimAt(logs.ends);
    await member.until(logs.ends);
    expectExact();
  }

  const restored = () => said.filter((line) => line.startsWith('restored from backup'));
  const firstOffset = ({ shard }: ShardOverLogs) => Math.min(...shard.wants().map(({ next }) => next));

  test('without a store restores the backup, catches up silently and continues', async () => {
    await end(await live('one', 3));
    const before = logs.deltas.length;
    const one = await start('one');
    produce();
    one.shard.aimAt(logs.ends);
    await one.until(logs.ends);
    await end(one);
    const two = await start('two');
    expect(restored()).toHaveLength(1);
    // Of three messages of each topic the last is read again as the proof, the fourth is to be caught up with.
    expect(two.shard.appliedPosition).toMatchObject({ 'imdb.title.ratings': 3 });
    expect(firstOffset(two)).toBe(2);
    two.shard.aimAt(logs.ends);
    await two.until(logs.ends);
    expect(logs.deltas.length).toBe(before + 1);
    await goOn(two);
  });

  test('with a store older than the backup replaces it by the backup', async () => {
    await end(await live('one', 1));
    cpSync(join(folder, 'one'), join(folder, 'yesterday'), { recursive: true });
    await end(await live('one', 2));
    const old = await start('yesterday');
    expect(restored()).toHaveLength(1);
    expect(old.shard.appliedPosition).toEqual(whole());
    expect(storesBelow(join(folder, 'yesterday'))).toHaveLength(1);
    await goOn(old);
  });

  test("keeps its store when the backup is yesterday's", async () => {
    await end(await live('one', 2));
    cpSync(join(folder, 'backups'), join(folder, 'yesterday'), { recursive: true });
    await end(await live('one', 1));
    rmSync(join(folder, 'backups'), { recursive: true });
    cpSync(join(folder, 'yesterday'), join(folder, 'backups'), { recursive: true });
    const one = await start('one');
    expect(restored()).toEqual([]);
    expect(one.shard.appliedPosition).toEqual(whole());
    await goOn(one);
    // Without the store, yesterday's backup is a long way ahead of nothing.
    await end(one);
    const two = await start('two');
    expect(restored()).toHaveLength(1);
    await goOn(two);
  });

  // Method: the deltas after the first are lost with the tail of their log, so the backups lie past the published position.
  test('ignores a backup past the published position', async () => {
    await end(await live('one', 3));
    logs.deltas.length = 1;
    const two = await start('two');
    expect(restored()).toEqual([]);
    expect(said.filter((line) => line.includes('past the published position'))).toHaveLength(2);
    expect(firstOffset(two)).toBe(0);
    await goOn(two);
  });

  const damages: [string, (id: string) => void][] = [
    [
      'whose middle is overwritten',
      (id) => {
        const file = openSync(storeIn(id), 'r+');
        writeSync(file, Buffer.alloc(4_096, 0xa5), 0, undefined, Math.floor(statSync(storeIn(id)).size / 2));
        closeSync(file);
      },
    ],
    ['that was cut off', (id) => writeFileSync(storeIn(id), readFileSync(storeIn(id)).subarray(0, 5_000))],
    ['to which something was appended', (id) => appendFileSync(storeIn(id), 'x')],
    ['whose store is gone', (id) => rmSync(storeIn(id), { force: true })],
    ['whose card is gone', (id) => rmSync(cardIn(id), { force: true })],
    ['whose card is not a card', (id) => writeFileSync(cardIn(id), '{"records": 1e9}')],
    ['whose card is cut off', (id) => writeFileSync(cardIn(id), '{"format": 1, "clus')],
  ];
  test.for(damages)('takes the one before a backup %s, and without one its topics', async ([, damage]) => {
    await end(await live('one', 2));
    const [older, newer] = backups() as [string, string];
    damage(newer);
    const two = await start('two');
    expect(restored()).toEqual([`restored from backup ${join(backupsOfShard(), older)}`]);
    expect(said.some((line) => line.includes(newer))).toBe(true);
    await goOn(two);
    await end(two);
    for (const id of backups()) damage(id);
    said.length = 0;
    const three = await start('three');
    expect(restored()).toEqual([]);
    expect(firstOffset(three)).toBe(0);
    await goOn(three);
  });

  test('keeps two backups, writes none without new messages, and removes what a crash left behind', async () => {
    const one = await live('one', 1);
    const [first] = backups();
    mkdirSync(join(backupsOfShard(), '.20200101000000000-00000000'));
    await one.shard.backUp();
    expect(backups()).toEqual(['.20200101000000000-00000000', first]);
    produce();
    one.shard.aimAt(logs.ends);
    await one.until(logs.ends);
    await one.shard.backUp();
    expect(backups()).toHaveLength(2);
    produce();
    one.shard.aimAt(logs.ends);
    await one.until(logs.ends);
    await one.shard.backUp();
    expect(backups()).toHaveLength(2);
    expect(backups()).not.toContain(first);
  });

  // Method: what a member that woke up late would write lies behind what the owner has backed up meanwhile.
  test('writes no backup older than the existing ones', async () => {
    await end(await live('one', 1));
    cpSync(join(folder, 'one'), join(folder, 'zombie'), { recursive: true });
    await end(await live('one', 2));
    const zombie = shardOver(logs, join(folder, 'zombie'), {
      backups: new Backups(instance, join(folder, 'backups')),
    });
    // It sees the log of the deltas as it was.
    const deltas = logs.deltas.splice(1);
    await zombie.shard.open({});
    logs.deltas.push(...deltas);
    const before = backups();
    await zombie.shard.backUp();
    expect(backups()).toEqual(before);
  });

  test('that closes stops its backup and leaves no file of it', async () => {
    const one = await live('one', 1);
    produce();
    one.shard.aimAt(logs.ends);
    await one.until(logs.ends);
    const before = backups();
    const backingUp = one.shard.backUp();
    await end(one);
    await backingUp;
    expect(backups()).toEqual(before);
    // The store is free again.
    const again = await start('one');
    await goOn(again);
  });

  test('continues when its backups cannot be written', async () => {
    writeFileSync(join(folder, 'backups'), 'a file where the folder should be');
    const one = await live('one', 1);
    expect(said.some((line) => line.includes('the backup failed'))).toBe(true);
    await goOn(one);
    expect(existsSync(join(folder, 'backups', 'shard-0'))).toBe(false);
  });
});

vi.setConfig({ testTimeout: 240_000 });

// Method: the second member has a state folder of its own, as on another machine; its topics hold more than the backup.
placeTest('a member without a store takes a shard over from the backups of another', async ({ place }) => {
  const data = await smallDataset(join(place.folder, 'data'), 300, 5);
  const shared = ['--backups', join(place.folder, 'backups')];
  await place.pipeline(data, { replay: ['--shards', String(shards)], process: shared });
  await place.upsert(data);
  await place.process();
  const other = join(place.folder, 'other-state');
  await place.upsert(data, '--datasets', 'title.ratings');
  const taken = await place.run(place.args('process', '--until-caught-up', ...shared, '--state', other));
  expect(taken, taken.stderr).toMatchObject({ code: 0 });
  expect(taken.stderr.match(/restored from backup/g)).toHaveLength(shards);
  expect(taken.stderr.match(/catching up silently/g)).toHaveLength(shards);
  expect(await place.sink()).toMatchObject({ refused: 0 });
  expect(await place.differences(data)).toEqual([]);
});
