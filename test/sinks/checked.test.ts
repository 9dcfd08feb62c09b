/**
 * Input that changes no table gives no snapshot. Method: the real pipeline over corrections without effect, then over one with
 * an effect; and the comparison of manifests alone, each part of which a reader relies on.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readChecked, tellsNothingNew, writeChecked } from '../../sinks/checked.ts';
import { listSnapshots, type Manifest } from '../../sinks/gold/manifest.ts';
import { headerOf, lastJson, test } from '../support/harness.ts';

const basics = `${headerOf('title.basics')}tt0000001\tmovie\tA\tA\t0\t1994\t\\N\t90\tDrama\n`;
const rated = (rating: string) => `${headerOf('title.ratings')}tt0000001\t${rating}\t100\n`;
const both = (rating: string) => ({ 'title.basics.tsv': basics, 'title.ratings.tsv': rated(rating) });

test('the same rows again publish nothing, status says when that was checked, and another row publishes exactly', async ({
  place,
}) => {
  const data = place.files('data', both('5.7'));
  const { id } = await place.pipeline(data);
  const status = async () =>
    lastJson<{ snapshot: string; checked: { records: number } | null }>(
      await place.run(['status', '--gold', place.gold, '--state', place.state, '--json']),
    );
  expect(await status()).toMatchObject({ snapshot: id, checked: null });

  await place.replay(data, '--upsert');
  await place.process();
  const again = await place.run(place.args('sink', '--once'));
  expect(again, again.stderr).toMatchObject({ code: 0, stdout: 'Nothing changed: no snapshot.\n' });
  expect(again.stderr).toContain('every table equals the newest snapshot');
  expect(listSnapshots(place.gold)).toEqual([id]);
  expect(await status()).toMatchObject({ snapshot: id, checked: { records: 2 } });
  // What was checked is not computed again.
  const third = await place.run(place.args('sink', '--once'));
  expect(third.stderr).not.toContain('every table equals');

  // Without its state the sink continues from the positions of the snapshot.
  rmSync(place.state, { recursive: true });
  expect(await place.sink()).toMatchObject({ snapshot: null });
  const other = place.files('other', both('5.8'));
  await place.replay(other, '--upsert');
  await place.process();
  expect(await place.sink()).toMatchObject({ snapshot: expect.any(String) });
  expect(listSnapshots(place.gold)).toHaveLength(2);
  expect(await place.differences(other)).toEqual([]);
  expect(await status()).toMatchObject({ checked: null });
});

describe('a snapshot tells something new', () => {
  const counts = { applied: 1, duplicate: 0, rejected: 0, removed: 0 };
  const manifest = (): Manifest => ({
    id: '20260101_000000_000001',
    created: '2026-01-01T00:00:00.000Z',
    namespace: '',
    clusterId: 'c',
    tables: { decade_trends: { rows: 1, bytes: 1, sha256: 'a', contentHash: 'h' } },
    input: { t: { 0: [0, 5] } },
    accounting: { t: counts },
    deltas: { 0: 3 },
    shards: {
      0: {
        generation: 0,
        cubeSet: 'k',
        shards: 4,
        lastDelta: 2,
        sources: { t: { ...counts, next: 5, gaps: [] } },
      },
    },
    names: {},
    schemas: {},
    versions: { reelflow: '0', duckdb: '1', manifest: 1 },
  });
  const changed = (change: (of: Manifest) => void): Manifest => {
    const next = manifest();
    change(next);
    return next;
  };
  const shard = (of: Manifest) => of.shards[0] as Manifest['shards'][string];

  it('not by positions and by records without effect', () => {
    const next = changed((of) => {
      of.id = '20260101_000000_000002';
      of.input = { t: { 0: [0, 9] } };
      of.accounting = { t: { ...counts, applied: 2, duplicate: 3 } };
      shard(of).sources.t = { ...counts, duplicate: 3, next: 9, gaps: [] };
      shard(of).lastDelta = 7;
      of.deltas = { 0: 8 };
    });
    expect(tellsNothingNew(next, manifest())).toBe(true);
  });

  it.each<[string, (of: Manifest) => void]>([
    ['another table', (of) => Object.assign(of.tables.decade_trends as object, { contentHash: 'i' })],
    ['a further table', (of) => Object.assign(of.tables, { more: { contentHash: 'x' } })],
    ['another generation', (of) => Object.assign(shard(of), { generation: 1 })],
    ['other cubes', (of) => Object.assign(shard(of), { cubeSet: 'l' })],
    ['a further shard', (of) => Object.assign(of.shards, { 1: shard(of) })],
    ['a gap', (of) => Object.assign(shard(of).sources.t as object, { gaps: [[1, 2]] })],
    ['a base, at which the input starts', (of) => Object.assign(of.input, { t: { 0: [3, 5] } })],
    ['a rejected record', (of) => Object.assign(of.accounting, { t: { ...counts, rejected: 1 } })],
  ])('by %s', (_, change) => {
    expect(tellsNothingNew(changed(change), manifest())).toBe(false);
  });

  it('if it is the first', () => {
    expect(tellsNothingNew(manifest(), undefined)).toBe(false);
  });

  test('what was checked counts for its snapshot only, and a damaged file for none', ({ place }) => {
    const { id: snapshot, created: at, input, shards, accounting } = manifest();
    const checked = { snapshot, at, input, shards, accounting };
    expect(readChecked(place.folder, snapshot)).toBeUndefined();
    writeChecked(place.folder, checked);
    expect(readChecked(place.folder, snapshot)).toEqual(checked);
    expect(readChecked(place.folder, '20260101_000000_000002')).toBeUndefined();
    writeFileSync(join(place.folder, 'checked.json'), '{"snapshot":');
    expect(readChecked(place.folder, snapshot)).toBeUndefined();
  });
});
