/**
 * Gold in a bucket of a real S3 server on this machine. Snapshots are published from a sink's store that the test fills, so
 * that no broker is needed but for the one test of the sink itself. Objects are read with plain requests of the AWS SDK.
 */
import { once } from 'node:events';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import * as S3 from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { freePorts } from '../../../kafka/local/probe.ts';
import type { ReelflowError } from '../../../runtime/errors.ts';
import { CubeStore } from '../../../sinks/cube-store.ts';
import { Bucket, bucketPlaceOf } from '../../../sinks/gold/bucket.ts';
import type { LakeChange } from '../../../sinks/gold/ducklake.ts';
import { Lake, lakePlaceOf } from '../../../sinks/gold/lake.ts';
import {
  currentSnapshot,
  filesOf,
  listSnapshots,
  type Manifest,
  readManifest,
  snapshotFolder,
  tableFile,
} from '../../../sinks/gold/manifest.ts';
import { pullGold, pushGold } from '../../../sinks/gold/push.ts';
import { pinSnapshot } from '../../../sinks/gold/retention.ts';
import { publishSnapshot } from '../../../sinks/gold/snapshot.ts';
import { nullInt } from '../../../topics/row-plan.ts';
import { cubeNamed, rowOf } from '../../support/cube-rows.ts';
import { expectFailure } from '../../support/damage.ts';
import { failureOf } from '../../support/failure.ts';
import { Place, smallDataset } from '../../support/harness.ts';
import { hasPackages } from '../../support/python.ts';
import { pythonDuckdb } from '../../support/python-duckdb.ts';
import { type S3Server, startS3 } from '../../support/s3/server.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

vi.setConfig({ testTimeout: 240_000 });

const folder = temporaryFolder();
const [port] = (await freePorts(1)) as [number];
const server: S3Server | undefined = await startS3(folder, port);
const bucket = 'reelflow-gold';
let client: S3.S3Client;
let prefixes = 0;

beforeAll(async () => {
  if (server === undefined) return;
  Object.assign(process.env, server.env);
  client = new S3.S3Client({ forcePathStyle: true, requestChecksumCalculation: 'WHEN_REQUIRED' });
  await client.send(new S3.CreateBucketCommand({ Bucket: bucket }));
}, 240_000);

afterAll(async () => {
  client?.destroy();
  await server?.stop();
});

/** A prefix, a gold folder and a store of its own. */
class Pipeline {
  readonly prefix = `run-${++prefixes}`;
  readonly url = `s3://${bucket}/${this.prefix}`;
  readonly gold = join(folder, this.prefix, 'gold');
  readonly #clusterId: string;
  #store: CubeStore | undefined;
  #titles = 0;

  constructor(clusterId = 'a-cluster') {
    this.#clusterId = clusterId;
    mkdirSync(this.gold, { recursive: true });
  }

  /** Publishes a snapshot with one title more than the one before. */
  async publish(): Promise<Manifest> {
    const identity = { clusterId: this.#clusterId, namespace: '' };
    this.#store ??= await CubeStore.open(join(folder, this.prefix, 'state'), identity, '200MB');
    this.#titles += 1;
    const rows = rowOf(cubeNamed('title'), 1900 + this.#titles, nullInt, 70, 1, 100, 90, 1);
    const store = this.#store;
    await store.transaction(() => store.addCubeRows(0, rows));
    const source = {
      ...identity,
      schemas: {},
      peopleTopic: 'names',
      reelflowVersion: 'test',
      historyDays: 400,
    };
    return publishSnapshot(this.#store, { gold: this.gold, ...source });
  }

  close(): void {
    this.#store?.close();
  }

  async keys(): Promise<string[]> {
    const { Contents = [] } = await client.send(
      new S3.ListObjectsV2Command({ Bucket: bucket, Prefix: `${this.prefix}/` }),
    );
    return Contents.map(({ Key }) => String(Key).slice(this.prefix.length + 1)).sort();
  }

  async text(key: string): Promise<string> {
    const { Body } = await client.send(
      new S3.GetObjectCommand({ Bucket: bucket, Key: `${this.prefix}/${key}` }),
    );
    return String(await Body?.transformToString('latin1'));
  }

  async put(key: string, Body: string): Promise<void> {
    await client.send(new S3.PutObjectCommand({ Bucket: bucket, Key: `${this.prefix}/${key}`, Body }));
  }
}

async function within(work: (pipeline: Pipeline) => Promise<void>, clusterId?: string): Promise<void> {
  const pipeline = new Pipeline(clusterId);
  try {
    await work(pipeline);
  } finally {
    pipeline.close();
  }
}

it('gives a store up that accepts connections and never answers', async () => {
  const silent = createServer((socket) => socket.on('error', () => undefined).resume());
  await once(silent.listen(0, '127.0.0.1'), 'listening');
  const { port: silentPort } = silent.address() as AddressInfo;
  vi.stubEnv('AWS_ENDPOINT_URL_S3', `http://127.0.0.1:${silentPort}`);
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'key');
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'secret');
  const place = new Bucket(bucketPlaceOf(`s3://${bucket}`), 300);
  try {
    expect((await failureOf(place.current(), 'bucketUnusable')).detail).toContain('300 ms of inactivity');
  } finally {
    place.close();
    silent.close();
    vi.unstubAllEnvs();
  }
});

describe.skipIf(server === undefined)('a bucket (Java and Maven)', () => {
  it('contains the files of the snapshot that CURRENT names, byte for byte', () =>
    within(async (run) => {
      const { id, tables } = await run.publish();
      const report = await pushGold(run.gold, run.url, { newest: 10 });
      expect(report).toMatchObject({ snapshot: id, pushed: true, removed: [] });
      expect(await run.text('CURRENT')).toBe(`${id}\n`);
      for (const table of Object.keys(tables)) {
        const local = readFileSync(tableFile(run.gold, id, table), 'latin1');
        expect((await run.text(`snapshots/${id}/${table}.parquet`)) === local, table).toBe(true);
      }
      expect(await pushGold(run.gold, run.url, { newest: 10 })).toMatchObject({ pushed: false, bytes: 0 });
    }));

  it('copies the files that have not changed, unless one of them was altered in the bucket', () =>
    within(async (run) => {
      const push = () => pushGold(run.gold, run.url, { newest: 10 });
      const sizeOf = (manifest: Manifest, isSent: (path: string) => boolean) =>
        filesOf(manifest)
          .filter(({ path }) => isSent(path))
          .reduce((sum, { bytes }) => sum + bytes, statSync(manifestFile(manifest)).size);
      const manifestFile = ({ id }: Manifest) => join(snapshotFolder(run.gold, id), 'manifest.json');
      const first = await run.publish();
      expect((await push()).bytes).toBe(sizeOf(first, () => true));
      const second = await run.publish();
      const changesOf = (manifest: Manifest, before: Manifest) => {
        const hashes = new Map(filesOf(before).map(({ path, sha256 }) => [path, sha256]));
        return filesOf(manifest).filter(({ path, sha256 }) => hashes.get(path) !== sha256);
      };
      const changed = changesOf(second, first);
      expect(changed.map(({ path }) => path)).toContain('cubes/title.1.parquet');
      expect(changed.length).toBeLessThan(filesOf(second).length / 2);
      const isIn = (files: typeof changed) => (path: string) => files.some((each) => each.path === path);
      expect((await push()).bytes).toBe(sizeOf(second, isIn(changed)));
      expect((await run.keys()).filter((key) => key.includes(second.id))).toHaveLength(
        filesOf(second).length + 1,
      );

      await run.put(`snapshots/${second.id}/region_analysis.parquet`, 'altered');
      const third = await run.publish();
      const isNew = isIn(changesOf(third, second));
      expect((await push()).bytes).toBe(
        sizeOf(third, (path) => isNew(path) || path === 'region_analysis.parquet'),
      );
      await pullGold(join(folder, `${run.prefix}-pulled`), run.url);
    }));

  it('keeps the newest snapshots and those that are pinned', () =>
    within(async (run) => {
      const ids: string[] = [];
      for (let i = 0; i < 4; i++) {
        ids.push((await run.publish()).id);
        if (i === 0) pinSnapshot(run.gold, ids[0] as string);
        await pushGold(run.gold, run.url, { newest: 2 });
      }
      const left = new Set(
        (await run.keys()).map((key) => key.split('/')[1]).filter((id) => id !== undefined),
      );
      expect([...left]).toEqual([ids[0], ids[2], ids[3]]);
    }));

  it('never shows a reader of CURRENT an incomplete or older snapshot', () =>
    within(async (run) => {
      await run.publish();
      await pushGold(run.gold, run.url, { newest: 2 });
      let isOver = false;
      const pushing = (async () => {
        for (let i = 0; i < 6; i++) {
          await run.publish();
          await pushGold(run.gold, run.url, { newest: 2 });
        }
        isOver = true;
      })();
      let [last, looks] = ['', 0];
      while (!isOver) {
        const id = (await run.text('CURRENT')).trim();
        expect(id >= last).toBe(true);
        const manifest = JSON.parse(await run.text(`snapshots/${id}/manifest.json`)) as Manifest;
        for (const [table, { bytes }] of Object.entries(manifest.tables)) {
          expect((await run.text(`snapshots/${id}/${table}.parquet`)).length).toBe(bytes);
        }
        [last, looks] = [id, looks + 1];
      }
      await pushing;
      expect(looks).toBeGreaterThan(0);
    }));

  it('refuses one of two concurrent pushes, and CURRENT names a complete snapshot', () =>
    within(async (run) => {
      await run.publish();
      await pushGold(run.gold, run.url, { newest: 10 });
      await run.publish();
      const other = `${run.gold}-other`;
      cpSync(run.gold, other, { recursive: true });
      const results = await Promise.allSettled([
        pushGold(run.gold, run.url, { newest: 10 }),
        pushGold(other, run.url, { newest: 10 }),
      ]);
      const lost = results.filter(({ status }) => status === 'rejected') as PromiseRejectedResult[];
      // One may also have come after the other was done, and found nothing to do.
      const idle = results.filter((result) => result.status === 'fulfilled' && !result.value.pushed);
      // This server compares and then writes: now and then it lets both win, with the same CURRENT. That a stale one is
      // refused is the next test.
      expect(lost.length + idle.length).toBeLessThanOrEqual(1);
      for (const { reason } of lost) expect((reason as ReelflowError).kind).toBe('busy');
      expect((await run.text('CURRENT')).trim()).toBe(currentSnapshot(run.gold));
    }));

  it('refuses to replace a CURRENT that is not the one that was read', () =>
    within(async (run) => {
      await run.publish();
      await pushGold(run.gold, run.url, { newest: 10 });
      await run.publish();
      const stale = new Bucket(bucketPlaceOf(run.url));
      const read = await stale.current();
      await pushGold(run.gold, run.url, { newest: 10 });
      await failureOf(stale.replaceCurrent('20200101_000000_000001', read?.tag), 'busy');
      await failureOf(stale.replaceCurrent('20200101_000000_000001', undefined), 'busy');
      stale.close();
      expect((await run.text('CURRENT')).trim()).toBe(currentSnapshot(run.gold));
    }));

  it('keeps its CURRENT when a push is killed before it is replaced; the next push completes it', async () => {
    const place = new Place();
    await within(async (run) => {
      const { id } = await run.publish();
      await pushGold(run.gold, run.url, { newest: 10 });
      const { id: next } = await run.publish();
      const args = ['gold', 'push', run.url, '--gold', run.gold, '--json'];
      const killed = await place.run(args, { REELFLOW_CRASH_AT: 'after-objects-before-bucket-current' });
      expect(killed.signal).toBe('SIGKILL');
      expect((await run.text('CURRENT')).trim()).toBe(id);
      expect(await place.run(args)).toMatchObject({ code: 0 });
      expect((await run.text('CURRENT')).trim()).toBe(next);
    });
    await place.close(false);
  });

  it('gives an empty folder the newest snapshot, and a folder that has it nothing', () =>
    within(async (run) => {
      const { id, tables } = await run.publish();
      await pushGold(run.gold, run.url, { newest: 10 });
      const pulled = join(folder, `${run.prefix}-pulled`);
      mkdirSync(join(pulled, 'snapshots'), { recursive: true });
      await run.put(`snapshots/${id}/../../outside.json`, 'outside').catch(() => undefined);
      expect(await pullGold(pulled, run.url)).toEqual({ snapshot: id, pulled: true });
      expect(currentSnapshot(pulled)).toBe(id);
      expect(readManifest(pulled, id)).toEqual(readManifest(run.gold, id));
      for (const table of Object.keys(tables)) {
        expect(
          readFileSync(tableFile(pulled, id, table)).equals(readFileSync(tableFile(run.gold, id, table))),
        ).toBe(true);
      }
      // What a sink restores from.
      expect(existsSync(join(pulled, 'snapshots', id, 'cubes', 'title.parquet'))).toBe(true);
      expect(existsSync(join(pulled, 'gold.duckdb'))).toBe(true);
      expect(await pullGold(pulled, run.url)).toEqual({ snapshot: id, pulled: false });
    }));

  it.each(['decade_trends.parquet', 'cubes/title.parquet'])(
    'with an altered object is not taken, and nothing of it is left: %s',
    (name) =>
      within(async (run) => {
        const { id } = await run.publish();
        await pushGold(run.gold, run.url, { newest: 10 });
        await run.put(`snapshots/${id}/${name}`, 'something else');
        const pulled = join(folder, `${run.prefix}-pulled`);
        mkdirSync(join(pulled, 'snapshots'), { recursive: true });
        expect((await failureOf(pullGold(pulled, run.url), 'goldUnusable')).detail).toContain(name);
        expect(listSnapshots(pulled)).toEqual([]);
        expect(existsSync(join(pulled, 'CURRENT'))).toBe(false);
      }),
  );

  it('of another cluster, a newer state or a newer version is refused and stays as it is', () =>
    within(async (run) => {
      const { id } = await run.publish();
      await pushGold(run.gold, run.url, { newest: 10 });
      await within(async (foreign) => {
        await foreign.publish();
        await failureOf(pushGold(foreign.gold, run.url, { newest: 10 }), 'foreignCluster');
      }, 'another-cluster');
      const behind = `${run.gold}-behind`;
      cpSync(run.gold, behind, { recursive: true });
      const { id: newest } = await run.publish();
      await pushGold(run.gold, run.url, { newest: 10 });
      expect((await failureOf(pushGold(behind, run.url, { newest: 10 }), 'goldUnusable')).message).toContain(
        'newer',
      );
      const manifest = JSON.parse(await run.text(`snapshots/${newest}/manifest.json`));
      manifest.versions.manifest += 1;
      await run.put(`snapshots/${newest}/manifest.json`, JSON.stringify(manifest));
      await run.publish();
      expect(
        (await failureOf(pushGold(run.gold, run.url, { newest: 10 }), 'goldUnusable')).message,
      ).toContain('newer version');
      expect((await run.text('CURRENT')).trim()).toBe(newest);
      await run.put('CURRENT', '../../etc');
      await failureOf(pushGold(run.gold, run.url, { newest: 10 }), 'goldUnusable');
      expect(id < newest).toBe(true);
    }));

  it('shows its snapshots in a lake beside them; a version expires before its files go', ({ skip }) =>
    within(async (run) => {
      const place = lakePlaceOf(`ducklake:${run.url}/lake.ducklake`);
      const of = { clusterId: 'a-cluster', namespace: '', gold: run.gold, bucket: run.url };
      const lake = new Lake(place, of);
      const shown: { change: LakeChange; keys: string[] }[] = [];
      const push = (newest: number) =>
        pushGold(run.gold, run.url, { newest }, async (staying) => {
          shown.push({ change: await lake.show(staying), keys: await run.keys() });
          return lake.newest;
        });
      const [first, second] = [await run.publish(), (await push(1)) && (await run.publish())];
      expect((await push(1)).removed).toEqual([first.id]);
      expect(shown[1]?.change).toMatchObject({ added: [second.id], expired: [first.id] });
      const manifest = `snapshots/${first.id}/manifest.json`;
      expect(shown.map(({ keys }) => keys.includes(manifest))).toEqual([true, true]);
      expect(await run.keys()).not.toContain(manifest);

      const name = `${run.prefix}/lake.ducklake`;
      expect(await run.keys()).toContain('lake.ducklake');
      const stale = new Bucket(bucketPlaceOf(run.url));
      const failed = stale.replaceFile('lake.ducklake', join(run.gold, 'CURRENT'), '"another"');
      expect((await failureOf(failed, 'busy')).detail).toContain('lake.ducklake');
      stale.close();
      await failureOf(new Lake(place, { ...of, namespace: 'other' }).show([]), 'foreignCluster');

      if (!(await hasPackages('duckdb_extension_ducklake, duckdb_extension_httpfs'))) {
        return skip('no Python with test/support/lake-requirements.txt');
      }
      const env = server?.env ?? {};
      const found = await pythonDuckdb(
        ['httpfs', 'ducklake'],
        [
          `CREATE SECRET (TYPE s3, KEY_ID '${env.AWS_ACCESS_KEY_ID}', SECRET '${env.AWS_SECRET_ACCESS_KEY}',
            ENDPOINT '127.0.0.1:${port}', URL_STYLE 'path', USE_SSL false, REGION '${env.AWS_REGION}')`,
          `ATTACH 'ducklake:s3://${bucket}/${name}' AS lake (READ_ONLY)`,
          'SELECT sum(total_titles) FROM lake.decade_trends',
          "SELECT commit_message FROM ducklake_snapshots('lake')",
        ],
      );
      expect(found.slice(2)).toEqual([[[2]], [[`Snapshot ${second.id}`]]]);
    }));

  it.each(['decade_trends.parquet', 'cubes/title.parquet'])(
    'does not get a file that was altered: %s',
    (name) =>
      within(async (run) => {
        const { id } = await run.publish();
        appendFileSync(join(snapshotFolder(run.gold, id), name), 'x');
        const { detail } = await failureOf(pushGold(run.gold, run.url, { newest: 10 }), 'goldUnusable');
        expect(detail).toContain(name);
        expect(await run.keys()).not.toContain('CURRENT');
      }),
  );

  it('that does not exist, or may not be used, is an error with its name', () =>
    within(async (run) => {
      await run.publish();
      const { detail } = await failureOf(
        pushGold(run.gold, 's3://no-such-bucket/x', { newest: 10 }),
        'bucketUnusable',
      );
      expect(detail).toContain('NoSuchBucket');
      const secret = process.env.AWS_SECRET_ACCESS_KEY;
      process.env.AWS_SECRET_ACCESS_KEY = 'wrong';
      try {
        const error = await failureOf(pushGold(run.gold, run.url, { newest: 10 }), 'bucketUnusable');
        expect(`${error.message} ${error.detail}`).not.toContain('wrong');
      } finally {
        process.env.AWS_SECRET_ACCESS_KEY = String(secret);
      }
    }));

  it('follows a sink; while it cannot be reached a sink that runs once says so, and later catches up', async () => {
    const place = new Place();
    const url = `s3://${bucket}/${place.namespace}`;
    const current = async () => {
      const key = `${place.namespace}/CURRENT`;
      const { Body } = await client.send(new S3.GetObjectCommand({ Bucket: bucket, Key: key }));
      return String(await Body?.transformToString()).trim();
    };
    const data = await smallDataset(join(place.folder, 'data'), 100, 17);
    await place.replay(data);
    await place.process();
    const [closed] = (await freePorts(1)) as [number];
    const sink = place.args('sink', '--once', '--json', '--push', url);
    const unreachable = { AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${closed}`, AWS_MAX_ATTEMPTS: '1' };
    expectFailure(await place.run(sink, unreachable), 'bucketUnusable');
    // Gold is there all the same.
    expect(place.manifest.id).toBe(currentSnapshot(place.gold));
    expect(await place.run(sink)).toMatchObject({ code: 0 });
    expect(await current()).toBe(place.manifest.id);
    await place.close(false);
  });
});

it.each(['http://bucket/x', 's3://', 's3://UPPER/x', 's3:/bucket', 'bucket'])(
  '%s is not the address of a bucket',
  (url) => {
    expect(() => bucketPlaceOf(url)).toThrow(/is not a bucket/);
  },
);

it('a folder without a snapshot has nothing to push', async () => {
  const empty = join(folder, 'empty');
  mkdirSync(empty);
  writeFileSync(join(empty, 'something'), '');
  await failureOf(pushGold(empty, 's3://some-bucket', { newest: 1 }), 'goldUnusable');
});
