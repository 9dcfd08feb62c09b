/**
 * Members come, leave, die, sleep and come back with old stores while records arrive. Whatever happens, each shard ends
 * with one owner, and gold equals the batch computation with every record accounted for once.
 */
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, vi } from 'vitest';
import { datasetNames } from '../../topics/catalog.ts';
import {
  type LogLine,
  type Place,
  type Running,
  recordsOnTopic,
  smallDataset,
  test,
  textOf,
  until,
  writeDatasets,
} from '../support/harness.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

vi.setConfig({ testTimeout: 600_000 });

const shards = [0, 1, 2, 3];
/** Many small micro-batches, so that there is always one to be interrupted. */
const small = ['--json', '--verbose', '--max-records', '500', '--window', '50ms'];

const folder = temporaryFolder();
let first: string;
/** Every third row of the first dump with another rating, region or person. */
let second: string;
let both: string;

beforeAll(async () => {
  first = await smallDataset(join(folder, 'first'), 2_000, 31);
  const texts = datasetNames.map((dataset) => {
    const text = textOf(first, dataset);
    const [header = '', ...rows] = text.trimEnd().split('\n');
    const later = rows
      .filter((_, n) => n % 3 === 0)
      .map((row, n) => {
        const columns = row.split('\t');
        if (dataset === 'title.ratings') columns[1] = `${1 + (n % 9)}.${n % 10}`;
        if (dataset === 'title.akas') columns[3] = n % 2 === 0 ? 'XWW' : '\\N';
        if (dataset === 'title.principals') columns[2] = 'nm0000001';
        return columns.join('\t');
      });
    return { dataset, text, header, later };
  });
  second = writeDatasets(
    join(folder, 'second'),
    Object.fromEntries(
      texts.map(({ dataset, header, later }) => [dataset, `${[header, ...later].join('\n')}\n`]),
    ),
  );
  both = writeDatasets(
    join(folder, 'both'),
    Object.fromEntries(
      texts.map(({ dataset, text, later }) => [dataset, `${text.trimEnd()}\n${later.join('\n')}\n`]),
    ),
  );
});

/** A member with a state folder of its own. */
const member = (place: Place, state: string): Running =>
  place.start(place.args('process', ...small, '--state', join(place.folder, state)));

const isMessage = (text: string) => (line: LogLine) => line.msg === text;

/** The shards that a member was given last. */
function assigned({ log }: Running): number[] {
  return (log.findLast(isMessage('shards assigned'))?.shards ?? []) as number[];
}

/** The shards that a member was given last and has opened since it was given them. */
function opened(running: Running): number[] {
  const { log } = running;
  const last = log.findLastIndex(isMessage('shards assigned'));
  return assigned(running).filter((shard) => {
    const at = log.findLastIndex((line) => line.msg === 'shard opened' && line.shard === shard);
    const lost = log.findLastIndex(
      (line) => line.msg === 'shards assigned' && !(line.shards as number[]).includes(shard),
    );
    return at > lost && last >= 0;
  });
}

/** Waits until the shards lie with these members, each with one, evenly, and open. */
async function settled(members: readonly Running[]): Promise<void> {
  await until(`${members.length} members own all shards, each once`, () => {
    for (const { isDone } of members) if (isDone) throw new Error('a member has ended');
    const owned = members.map(opened);
    const most = Math.ceil(shards.length / members.length);
    return owned.flat().sort().join() === shards.join() && owned.every(({ length }) => length <= most);
  });
}

async function ended(running: Running): Promise<void> {
  const end = await running.terminate();
  expect(end, end.stderr.slice(-3_000)).toMatchObject({ code: 0 });
}

async function expectExact(place: Place, data: string): Promise<void> {
  expect(await place.differences(data)).toEqual([]);
  for (const dataset of datasetNames) {
    const topic = place.names.source(dataset);
    const { applied, duplicate, rejected } = place.manifest.accounting[topic] ?? {};
    const counted = Number(applied) + Number(duplicate) + Number(rejected);
    expect(counted, topic).toBe(await recordsOnTopic(place.names, dataset));
  }
}

describe('members', () => {
  // Method: records come slowly all the while. Two members share a state folder, where a shard's new owner waits for the
  // lock of the old one, which goes on meanwhile; to the third a shard comes without its store. The last to go is killed,
  // its shards are taken over.
  test('own each shard once while they go from 1 to 3, 2 and 1 under load, and lose or double nothing', async ({
    place,
  }) => {
    const replay = place.start(place.args('replay', '--upsert', first, '--rate', '3000'));
    const one = member(place, 'shared');
    await one.logged('a micro-batch', isMessage('micro-batch'));
    await settled([one]);
    const two = member(place, 'shared');
    const three = member(place, 'own');
    await settled([one, two, three]);
    await three.logged('a silent start', isMessage('catching up silently to the published position'));
    await ended(two);
    await settled([one, three]);
    const killed = Date.now();
    one.kill('SIGKILL');
    await settled([three]);
    process.stderr.write(`takeover after SIGKILL: ${((Date.now() - killed) / 1000).toFixed(1)} s\n`);
    expect(await replay.done).toMatchObject({ code: 0 });
    await until('the group has committed the end offsets', () => place.hasCaughtUp());
    await ended(three);
    expect(await place.sink()).toMatchObject({ refused: 0 });
    await expectExact(place, first);
  });
});

describe('a shard', () => {
  // Method: the state folder is copied between two dumps. Later a member begins without a store, then one with the copy.
  test('that moves to a member with no store or an old one catches up silently', async ({ place }) => {
    const silently = async (state: string) => {
      const args = ['process', ...small, '--until-caught-up', '--state', join(place.folder, state)];
      const finished = place.start(place.args('process', ...args.slice(1)));
      const end = await finished.done;
      expect(end, end.stderr.slice(-3_000)).toMatchObject({ code: 0 });
      return finished.log.filter(isMessage('catching up silently to the published position')).length;
    };
    await place.upsert(first);
    expect(await silently('a')).toBe(0);
    cpSync(join(place.folder, 'a'), join(place.folder, 'yesterday'), { recursive: true });
    await place.upsert(second);
    expect(await silently('a')).toBe(0);
    expect(await silently('b'), 'shards without a store').toBe(shards.length);
    expect(await silently('yesterday'), 'shards with an old store').toBe(shards.length);
    await place.upsert(second);
    expect(await silently('yesterday')).toBe(0);
    expect(await silently('b'), 'shards that another has moved on').toBe(shards.length);
    expect(await place.sink()).toMatchObject({ refused: 0 });
    await expectExact(place, both);
  });

  // Method: a member is put to sleep in the middle of its work until the group has given its shards to another; while
  // that one works, it wakes up and goes on where it was, until it notices. Then both share the shards.
  test('with two owners, one suspended past its session, stays exact', async ({ place }) => {
    await place.upsert(first);
    const zombie = member(place, 'zombie');
    await zombie.logged('a micro-batch', isMessage('micro-batch'));
    zombie.kill('SIGSTOP');
    const heir = member(place, 'heir');
    await until('the heir owns all shards', () => opened(heir).length === shards.length);
    await place.upsert(second);
    zombie.kill('SIGCONT');
    await settled([zombie, heir]);
    await until('the group has committed the end offsets', () => place.hasCaughtUp());
    await Promise.all([ended(zombie), ended(heir)]);
    await place.process('--state', join(place.folder, 'heir'));
    const { refused } = await place.sink();
    process.stderr.write(`deltas of the zombie that were refused: ${refused}\n`);
    await expectExact(place, both);
  });
});
