/**
 * Refreshes on a real broker, each test in a namespace of its own. What the topics hold is folded by avsc, with the rule of
 * `replaces` written out once more; it must be the rows of the newest dump, whatever was replayed before.
 */
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it, vi } from 'vitest';
import { replayText } from '../../../cli/replay-text.ts';
import type { ReplayOptions } from '../../../producers/replay.ts';
import type { FailureKind } from '../../../runtime/errors.ts';
import { type DatasetName, datasetNames, idText } from '../../../topics/catalog.ts';
import {
  deleteTopics,
  dumpOf,
  fileOf,
  folder,
  many,
  DumpPlace as Place,
  ratings,
  shuffled,
  votesOf,
} from '../../support/dump-place.ts';
import { failureOf } from '../../support/failure.ts';

const a = many((id) => id);
/** Some rows changed, some vanished, some are new. */
const b = many((id) => (id % 400 === 7 ? undefined : id % 100 === 3 ? id + 1_000_000 : id), 2_010);
/** What a crash or an interrupted copy leaves in the middle of a file. */
const holeIn = (text: string) => Buffer.from(text).fill(0, 4_096, 8_192);
const c = many((id) => (id % 300 === 11 ? undefined : id % 50 === 3 ? id + 2_000_000 : id), 1_999);

describe('the topics hold exactly the newest dump', () => {
  it.each([
    ['from a spool', {}],
    ['from a second reading', { spoolBytesMax: -1 }],
  ])('rows change, vanish and return: %s', async (_, more) => {
    const place = new Place();
    for (const votes of [a, b, c, a]) {
      const report = await place.replay(place.dump(dumpOf(votes)), more);
      expect(report.interrupted).toBe(false);
      expect(report.read).toBe(report.unchanged + report.produced + report.rejected);
      expect(await votesOf(place)).toEqual(votes);
      expect((await place.keys('title.basics')).length).toBe(Object.keys(votes).length);
    }
  });

  it('a refresh of a few changed rows sends one message per dataset and partition, with their groups alone', async () => {
    const place = new Place();
    const dense: Record<number, number> = {};
    for (let id = 1; id <= 2_000; id++) dense[id] = id;
    await place.replay(place.dump(dumpOf(dense)));
    const before = await place.messages();
    const { 800: _, ...others } = dense;
    const votes = { ...others, 60: 1_000_060, 61: 1_000_061, 1700: 1_001_700 };
    const report = await place.replay(place.dump(dumpOf(votes)));
    // Three groups of ratings, and one of basics: each of 50 rows, of which one has vanished.
    expect(report.datasets['title.ratings']).toMatchObject({ chunks: 1, produced: 149 });
    expect(report.datasets['title.basics']).toMatchObject({ chunks: 1, produced: 49 });
    expect((await place.messages()) - before).toBe(2);
    expect(await votesOf(place)).toEqual(votes);
  });

  // Method: an exception where everything is sent leaves whatever follows undone.
  it('says once that everything is sent, before it writes the index', async () => {
    const place = new Place();
    for (const votes of [a, b]) {
      const directory = place.dump(dumpOf(votes));
      const fail = () => {
        throw new Error('sent');
      };
      await expect(place.replay(directory, { onSent: fail })).rejects.toThrow('sent');
      expect(await votesOf(place)).toEqual(votes);
      const onSent = vi.fn();
      const again = await place.replay(directory, { onSent });
      expect(again.produced).toBeGreaterThan(0);
      expect(onSent).toHaveBeenCalledTimes(1);
    }
  });

  // Method: an exception where everything is sent, before the last dataset is finished. Another host has no journal.
  it('finishes datasets before the last one is sent, when their messages reach the bound', async () => {
    const place = new Place();
    const episodes = (season: number) => {
      const rows = Array.from({ length: 300 }, (_, i) => `${idText('tt', i + 1)}\ttt0000001\t${season}\t1`);
      return { 'title.episode': fileOf('title.episode', rows) };
    };
    await place.replay(place.dump({ ...dumpOf(a), ...episodes(1) }));
    const sentAgain = async (unfinishedBytesMax: number, votes: Record<number, number>, season: number) => {
      const directory = place.dump({ ...dumpOf(votes), ...episodes(season) });
      const onSent = () => {
        throw new Error('sent');
      };
      await expect(place.replay(directory, { onSent, unfinishedBytesMax })).rejects.toThrow('sent');
      const { datasets } = await place.replay(directory, { state: folder() });
      expect(await votesOf(place)).toEqual(votes);
      return Object.entries(datasets).flatMap(([dataset, { produced }]) => (produced > 0 ? [dataset] : []));
    };
    expect(await sentAgain(1_000_000, b, 2)).toEqual(['title.ratings', 'title.basics', 'title.episode']);
    expect(await sentAgain(1, c, 3)).toEqual(['title.episode']);
  });

  it.each([
    ['from a spool', {}],
    ['from a second reading', { spoolBytesMax: -1 }],
  ])('rows in random order are sorted into a copy: %s', async (_, more) => {
    const place = new Place();
    for (const votes of [a, b, c]) {
      await place.replay(place.dump({ ...dumpOf(votes), 'title.ratings': shuffled(ratings(votes)) }), more);
      expect(await votesOf(place)).toEqual(votes);
    }
    const again = await place.replay(
      place.dump({ ...dumpOf(c), 'title.ratings': shuffled(ratings(c)) }),
      more,
    );
    expect(again).toMatchObject({ unchanged: 2 * Object.keys(c).length, produced: 0 });
    // The date, hash and lines of the copy are those of the file.
    const sorted = await place.replay(place.dump(dumpOf(c)), more);
    expect(sorted).toMatchObject({ unchanged: 2 * Object.keys(c).length, produced: 0 });
  });

  it('a first load of rows in random order leaves an index, unless they cannot be sorted', async () => {
    const place = new Place();
    const rows = shuffled(ratings(a));
    const files = { ...dumpOf(a), 'title.ratings': `${rows}tt0000005\tbad\t1\n` };
    await place.replay(place.dump(files));
    expect(await place.replay(place.dump(files))).toMatchObject({ unchanged: 4_000, rejected: 1, chunks: 0 });

    const other = new Place();
    await other.replay(other.dump({ ...dumpOf(a), 'title.ratings': rows.trimEnd() }));
    expect(await votesOf(other)).toEqual(a);
    expect(await other.replay(other.dump(dumpOf(a)))).toMatchObject({ unchanged: 2_000, produced: 2_000 });
  });

  it('of what did not change nothing is sent', async () => {
    const place = new Place();
    await place.replay(place.dump(dumpOf(a)));
    const messages = await place.messages();
    const report = await place.replay(place.dump(dumpOf(a)));
    expect(report).toMatchObject({ read: 4_000, unchanged: 4_000, produced: 0, rejected: 0, chunks: 0 });
    expect(report.plan?.['title.ratings']).toMatchObject({
      rows: 2_000,
      changed: { groups: 0, ids: 0 },
      new: { groups: 0, ids: 0 },
      vanished: { groups: 0, ids: 0 },
      unknown: { groups: 0, ids: 0 },
    });
    expect(await place.messages()).toBe(messages);
  });

  it('the plan counts what changes, vanishes and is new', async () => {
    const place = new Place();
    await place.replay(place.dump(dumpOf(a)));
    const report = await place.replay(place.dump(dumpOf(b)), { dryRun: true });
    const plan = report.plan?.['title.ratings'];
    expect(plan?.vanished.ids).toBe(5);
    expect(plan?.new.ids).toBe(9);
    expect(plan?.changed.ids).toBe(20);
    expect(await votesOf(place)).toEqual(a);
  });

  const nothing = { groups: 0, ids: 0 };
  const allNew = (rows: number) => ({
    ...{ rows, refused: 0, changed: nothing, vanished: nothing, unknown: nothing, isBase: false },
    new: { ids: rows, groups: rows },
  });

  it.each([
    ['sorted', ratings(a)],
    ['in random order', shuffled(ratings(a))],
  ])('before a first load, the plan has all rows as new: %s', async (_, rows) => {
    const place = new Place();
    const report = await place.replay(place.dump({ ...dumpOf(a), 'title.ratings': rows }), { dryRun: true });
    expect(report).toMatchObject({ produced: 0, interrupted: false });
    expect(report.plan).toEqual({ 'title.ratings': allNew(2_000), 'title.basics': allNew(2_000) });
    const { names } = place.options;
    const topics = [
      ...datasetNames.map((dataset) => names.source(dataset)),
      names.deadLetter,
      names.dumpIndex,
    ];
    expect(report.wouldCreate).toEqual(topics);
    expect(replayText(report)).toContain(`Topics to create: ${topics.join(', ')}.`);
    expect(await place.traces()).toEqual({ ends: [], subjects: [], files: [] });
  });

  it('a dry run changes nothing, also while some topics are missing', async () => {
    const place = new Place();
    await place.replay(place.dump(dumpOf(a)));
    const { names } = place.options;
    await deleteTopics(names.deadLetter, names.source('title.ratings'));
    const before = await place.traces();
    const dump = place.dump({ ...dumpOf(b), 'title.episode': fileOf('title.episode', []) });
    const report = await place.replay(dump, { dryRun: true });
    expect(report.wouldCreate).toEqual([names.source('title.ratings'), names.deadLetter]);
    expect(report.plan?.['title.ratings']).toEqual(allNew(Object.keys(b).length));
    expect(await place.traces()).toEqual(before);
  });

  it('what the index says of a topic that is gone does not change the plan of a load', async () => {
    const place = new Place();
    for (const votes of [a, b]) await place.replay(place.dump(dumpOf(votes)));
    await deleteTopics(place.options.names.source('title.ratings'));
    const report = await place.replay(place.dump(dumpOf(a)), { dryRun: true, baseAbove: 1, maxRemoved: 100 });
    expect(report.plan?.['title.ratings']).toEqual(allNew(2_000));
  });

  it('a dataset that the topics do not have yet is in the plan', async () => {
    const place = new Place();
    await place.replay(place.dump(dumpOf(a)));
    const episode = fileOf('title.episode', ['tt0000002\ttt0000001\t1\t1']);
    const dump = place.dump({ ...dumpOf(a), 'title.episode': episode });
    const report = await place.replay(dump, { dryRun: true });
    expect(report.plan?.['title.episode']).toEqual(allNew(1));
    expect(report.plan?.['title.ratings']).toMatchObject({ rows: 2_000, new: nothing });
    expect(await place.keys('title.episode')).toEqual([]);
  });

  it.each([
    ['before a first load', false],
    ['before a refresh', true],
  ])('a dry run hands over the plan that it refuses, %s', async (_, isRefresh) => {
    const place = new Place();
    if (isRefresh) await place.replay(place.dump(dumpOf(a)));
    const bad = ratings(b).replaceAll('\t5.0\t1', '\tfive\t1');
    const onRefused = vi.fn();
    const replayed = place.replay(place.dump({ ...dumpOf(b), 'title.ratings': bad }), {
      ...{ dryRun: true, onRefused },
    });
    expect(await failureOf(replayed)).toMatchObject({ kind: 'rowsRejected' });
    const [report] = onRefused.mock.calls[0] ?? [];
    const refused = bad.split('five').length - 1;
    expect(report.plan['title.ratings']).toMatchObject({ rows: Object.keys(b).length, refused });
  });

  it('rows that others wrote are gone, also in groups of no dump', async () => {
    const place = new Place();
    await place.replay(place.dump(dumpOf(a)));
    await place.replay(place.dump(dumpOf({ 5: 1, 9973: 77, 9000000: 1 })), { mode: 'upsert' });
    expect(await votesOf(place)).toEqual({ ...a, 5: 1, 9973: 77, 9000000: 1 });
    await place.replay(place.dump(dumpOf(a)), { maxRemoved: 100 });
    expect(await votesOf(place)).toEqual(a);
  });

  it.each([
    ['the topic of the index is deleted', 'index'],
    ['a source topic is recreated', 'source'],
  ])('%s', async (_, what) => {
    const place = new Place();
    const { names } = place.options;
    await place.replay(place.dump(dumpOf(a)));
    const topic = what === 'index' ? names.dumpIndex : names.source('title.ratings');
    await deleteTopics(topic);
    await place.replay(place.dump(dumpOf(b)));
    expect(await votesOf(place)).toEqual(b);
    const again = await place.replay(place.dump(dumpOf(b)));
    expect(again).toMatchObject({ unchanged: 2 * Object.keys(b).length, produced: 0 });
  });

  it('a row that becomes malformed removes its good predecessor, and is a dead letter once', async () => {
    const place = new Place();
    const good = many((id) => id, 300);
    await place.replay(place.dump(dumpOf(good)));
    const broken = {
      ...dumpOf(good),
      'title.ratings': ratings(good).replace(/\t5\.0\t7\n/, '\tfive\t7\n'),
    };
    const report = await place.replay(place.dump(broken));
    expect(report.datasets['title.ratings']).toMatchObject({ rejected: 1, read: 300 });
    expect(report.plan?.['title.ratings']).toMatchObject({ refused: 1, vanished: { ids: 1 } });
    const { [7 * 9_973]: _gone, ...left } = good;
    expect(await votesOf(place)).toEqual(left);
    const again = await place.replay(place.dump(broken));
    expect(again).toMatchObject({ produced: 0, rejected: 1 });
    expect(again.datasets['title.ratings']?.rejections).toMatchObject({ rating: { rows: 1 } });
    expect(await place.deadLetters()).toBe(1);
  });

  it.each([
    ['after a first load', false],
    ['after a refresh', true],
  ])('refused rows that are still in the file count again and refuse the dump, %s', async (_, isRefresh) => {
    const place = new Place();
    const good = many((id) => id, 300);
    const strays = 'tconst\taverageRating\tnumVotes\n'.repeat(4);
    const files = {
      ...dumpOf(good),
      'title.ratings': `${ratings(good).replaceAll(/\t5\.0\t(7|8|9)\n/g, '\tfive\t$1\n')}${strays}`,
    };
    if (isRefresh) await place.replay(place.dump(dumpOf(good)));
    const { rejected } = await place.replay(place.dump(files), { maxRejected: 100, maxRemoved: 100 });
    const again = await place.replay(place.dump(files), { maxRejected: 100 });
    expect(again).toMatchObject({ rejected, produced: 0, read: 604 });
    expect(again.plan?.['title.ratings']).toMatchObject({ refused: rejected });
    expect(await failureOf(place.replay(place.dump(files)))).toMatchObject({
      kind: 'rowsRejected',
      detail: expect.stringContaining(`${rejected} of 304 rows rejected`),
    });
    expect(await place.deadLetters()).toBe(rejected);
  });

  it('a line of megabytes is refused with its size, in a group and without an id', async () => {
    const place = new Place();
    await place.replay(place.dump(dumpOf(a)));
    const line = (id: number, votes: string) => `${idText('tt', id)}\t5.0\t${votes}\n`;
    const rows = [line(1, '9'.repeat(3_000_000)), line(2, '9'.repeat(2_000_000)), line(3, '7')];
    const refusedWith = async (...lines: string[]) => {
      const files = { ...dumpOf(a), 'title.ratings': fileOf('title.ratings', []) + lines.join('') };
      const replayed = place.replay(place.dump(files), { dryRun: true, maxRejected: 0 });
      return (await failureOf(replayed)).detail;
    };
    expect(await refusedWith(...rows)).toContain(`2: ${(rows[0]?.length ?? 0) - 1} bytes exceed`);
    expect(await refusedWith(line(0, '7'), `x${rows[1]}`)).toContain(`3: ${rows[1]?.length} bytes exceed`);
  });

  // Method: the values are quoted, so no line begins with its id.
  it('rejected rows of a quoted file are dead letters, and their ids count as absent', async () => {
    const place = new Place();
    const quoted = (...rows: string[][]) =>
      [['tconst', 'averageRating', 'numVotes'], ...rows]
        .map((row) => `${row.map((value) => `"${value}"`).join('\t')}\n`)
        .join('');
    const good = many((id) => id, 200);
    const rows = Object.entries(good).map(([id, votes]) => [idText('tt', Number(id)), '5.0', String(votes)]);
    const sorted = (...more: string[][]) =>
      quoted(...[...rows, ...more].sort(([x = ''], [y = '']) => (x < y ? -1 : 1)));
    const replay = (file: string) =>
      place.replay(place.dump({ ...dumpOf(good), 'title.ratings': file }), { maxRejected: 5 });
    const bad = (id: number) => [idText('tt', id), 'five', '1'];
    expect((await replay(sorted(bad(1), bad(2)))).rejected).toBe(2);
    // One of the refused ids is gone, another one has come: neither had a valid row.
    const report = await replay(sorted(bad(2), bad(3)));
    expect(report.plan?.['title.ratings']).toMatchObject({
      refused: 2,
      vanished: { ids: 0 },
      new: { ids: 0 },
    });
    expect(report.rejected).toBe(2);
    expect(await place.deadLetters()).toBe(4);
    expect(await votesOf(place)).toEqual(good);
  });

  it('a dataset that the dump lacks stays until it is dropped', async () => {
    const place = new Place();
    const episode = fileOf('title.episode', ['tt0000002\ttt0000001\t1\t1']);
    await place.replay(place.dump({ ...dumpOf(a), 'title.episode': episode }));
    const without = place.dump(dumpOf(a));
    expect(await failureOf(place.replay(without))).toMatchObject({ kind: 'datasetAbsent' });
    expect(await place.keys('title.episode')).toHaveLength(1);
    const report = await place.replay(without, { drop: ['title.episode'] });
    expect(report.dropped).toEqual(['title.episode']);
    expect(replayText(report)).toContain('Dropped, with all rows: title.episode.');
    expect(replayText(report)).not.toContain('Nothing changed');
    expect(await place.keys('title.episode')).toEqual([]);
    const again = await place.replay(place.dump(dumpOf(a)), { drop: ['title.episode'] });
    expect(again.dropped).toBeUndefined();
    expect(replayText(again)).toContain('Nothing changed');
  });

  it('what the dump has, or may lack because it is no directory, is not dropped', async () => {
    const place = new Place();
    const whole = place.dump(dumpOf(a));
    const drops = [
      () => place.replay(whole, { drop: ['title.ratings'] }),
      () => place.replay(join(whole, 'title.ratings.tsv'), { drop: ['title.episode'] }),
      () => place.replay(whole, { datasets: ['title.ratings'], drop: ['title.episode'] }),
    ];
    for (const drop of drops) {
      expect(await failureOf(drop())).toMatchObject({
        kind: 'usage',
        message: expect.stringContaining('removes nothing'),
      });
    }
  });

  it('a first load that was broken off is not a loss: the next dump leaves only its own rows', async () => {
    const place = new Place();
    const gzip = gzipSync(ratings(a));
    const damaged = place.dump({ ...dumpOf(a), 'title.ratings': gzip.subarray(0, gzip.length - 200) });
    expect(await failureOf(place.replay(damaged))).toMatchObject({ kind: 'input' });
    await place.replay(place.dump(dumpOf(c)), { maxRemoved: 100 });
    expect(await votesOf(place)).toEqual(c);
  });
});

describe('nothing is sent and nothing removed', () => {
  const half = many((id) => (id <= 1_000 ? id : undefined));
  const gzip = gzipSync(ratings(b));
  const cases: [
    string,
    FailureKind,
    Partial<Record<DatasetName, string | Buffer>>,
    Partial<ReplayOptions>?,
  ][] = [
    ['a file that is cut in the middle', 'input', { 'title.ratings': gzip.subarray(0, gzip.length / 2) }],
    ['an empty file', 'input', { 'title.ratings': '' }],
    ['a header alone', 'cutFile', { 'title.ratings': fileOf('title.ratings', []) }],
    ['half of the ids', 'tooManyRemoved', dumpOf(many((id) => (id % 2 === 0 ? id : undefined)))],
    ['a file that ends early', 'cutFile', dumpOf(half)],
    ['a last line without its newline', 'cutFile', { 'title.ratings': ratings(b).slice(0, -1) }],
    ['a hole of zero bytes', 'input', { 'title.ratings': holeIn(ratings(b)) }],
    ['a hole of zero bytes in a packed file', 'input', { 'title.ratings': gzipSync(holeIn(ratings(b))) }],
    ['an HTML page', 'input', { 'title.ratings': gzipSync('<html><body>Not found</body></html>') }],
    [
      'more rejected rows than the limit',
      'rowsRejected',
      { 'title.ratings': ratings(b).replaceAll('\t5.0\t1', '\tfive\t1') },
      { maxRemoved: 100 },
    ],
  ];
  it.each(cases)('%s: %s', async (_, kind, files, more = {}) => {
    const place = new Place();
    await place.replay(place.dump(dumpOf(a)));
    const messages = await place.messages();
    const bad = place.dump({ ...dumpOf(b), ...files });
    expect(await failureOf(place.replay(bad, more))).toMatchObject({ kind });
    expect(await place.messages()).toBe(messages);
    expect(await votesOf(place)).toEqual(a);
    await place.replay(place.dump(dumpOf(b)));
    expect(await votesOf(place)).toEqual(b);
  });

  it.each([
    ['a file that is cut in the middle', 'input', gzip.subarray(0, gzip.length / 2)],
    ['a last line without its newline', 'cutFile', ratings(b).slice(0, -1)],
    ['a hole of zero bytes', 'input', holeIn(ratings(b))],
  ] as const)('by a dry run before a first load: %s', async (_, kind, file) => {
    const place = new Place();
    const bad = place.dump({ ...dumpOf(b), 'title.ratings': file });
    expect(await failureOf(place.replay(bad, { dryRun: true }))).toMatchObject({ kind });
    expect(await place.traces()).toEqual({ ends: [], subjects: [], files: [] });
  });

  it('a dump older than the one that the topics hold, unless it is allowed', async () => {
    const place = new Place();
    await place.replay(place.dump(dumpOf(a), 5));
    const older = place.dump(dumpOf(b), 4);
    expect(await failureOf(place.replay(older))).toMatchObject({ kind: 'olderDump' });
    expect(await votesOf(place)).toEqual(a);
    await place.replay(older, { allowOlder: true });
    expect(await votesOf(place)).toEqual(b);
  });

  // Method: the clock of this host says that the file is old; the broker's clock counts.
  it('a dump of the future, whatever the clock of this host says', async () => {
    const place = new Place();
    await place.replay(place.dump(dumpOf(a)));
    const future = place.dump(dumpOf(b), 36_500);
    vi.useFakeTimers({ toFake: ['Date'], now: Date.UTC(2200, 0, 1) });
    try {
      expect(await failureOf(place.replay(future))).toMatchObject({ kind: 'futureDump' });
    } finally {
      vi.useRealTimers();
    }
    expect(await votesOf(place)).toEqual(a);
  });
});
