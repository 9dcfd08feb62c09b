/**
 * The manifest of a snapshot: exactly which input its tables hold, and the hashes to check their bytes and content. Readers
 * find snapshots through CURRENT. A folder without a manifest is not a snapshot.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { messageOf, ReelflowError } from '../../runtime/errors.ts';

const idPattern = /^\d{8}_\d{6}_\d{6}$/;
const sha256 = z.string();
const offsets = z.tuple([z.int(), z.int()]).describe('[start, end) of a partition');
const gaps = z
  .array(offsets)
  .describe(
    'offsets before the next one that the log had lost before they were applied, and whose loss was accepted',
  );
const counts = z.object({
  applied: z.int().describe('records that changed the state'),
  duplicate: z.int().describe('records that changed nothing'),
  rejected: z.int().describe('records that became dead letters'),
  removed: z
    .int()
    .default(0)
    .describe('rows that left the tables because a later dump lacks them; not records'),
});

const scales = z
  .record(
    z.string(),
    z.object({
      known: z.int().describe('values that are not null'),
      mean: z.number().nullable(),
      deviation: z
        .number()
        .nullable()
        .describe('sample standard deviation; null if there are too few values'),
    }),
  )
  .describe('by name, for the columns that the table standardises');

export type Scales = z.infer<typeof scales>;

/** Published as `manifest.schema.json` beside this file. */
export const manifestSchema = z
  .object({
    id: z.string().regex(idPattern).describe('YYYYMMDD_HHMMSS (UTC) and a counter that never repeats'),
    created: z.iso.datetime(),
    namespace: z.string().describe("prefix of the topic names; '' for none"),
    clusterId: z.string().describe('of the Kafka cluster'),
    tables: z
      .record(
        z.string(),
        z.object({
          rows: z.int(),
          bytes: z.int().describe('of <table>.parquet beside the manifest'),
          sha256: sha256.describe('of the file'),
          contentHash: sha256.describe('over keys and integer measures: equal for equal input'),
          scales: scales.optional(),
          constants: z
            .record(z.string(), z.number().nullable())
            .optional()
            .describe(
              'by name, what the formulas of the table use: of weighted_rating m, a number of votes, and C, the mean of all ratings; null without rows',
            ),
          declaration: z
            .string()
            .optional()
            .describe('fingerprint of the declaration. Snapshots of earlier versions lack it.'),
        }),
      )
      .describe('by name'),
    leftOut: z
      .record(z.string(), z.string())
      .optional()
      .describe("by name: the user's tables that the snapshot lacks, with the reason"),
    cubes: z
      .record(
        z.string(),
        z.object({
          bytes: z.int().describe('of cubes/<name>.parquet beside the manifest'),
          sha256: sha256.describe('of the file'),
        }),
      )
      .optional()
      .describe(
        'by name of its file: all cubes that the sink holds, from which one that has lost its state restores. `<cube>` has the sums, `<cube>.1` and so on the rows that came later. Snapshots of earlier versions lack it.',
      ),
    input: z
      .record(z.string(), z.record(z.string(), offsets))
      .describe('topic → partition → [start, end): the input of the tables, except for gaps after the start'),
    dumps: z
      .record(
        z.string(),
        z.object({
          asOf: z.iso.datetime().describe('date of the dump: of its file'),
          run: z.string().describe('the replay that sent it'),
          complete: z
            .boolean()
            .describe('whether the input holds all messages of the dump, and none that came later'),
        }),
      )
      .optional()
      .describe(
        'dataset → its newest dump when the snapshot was published. Snapshots of earlier versions lack it, and datasets that were never refreshed.',
      ),
    accounting: z
      .record(z.string(), counts)
      .describe('topic → number of records by outcome; their sum is the number of records in the input'),
    deltas: z.record(z.string(), z.int()).describe('partition of the delta topic → next offset'),
    shards: z
      .record(
        z.string(),
        z.object({
          generation: z.int().describe('raised by a reset'),
          cubeSet: z.string().describe('the cubes, each with the fingerprint of its declaration'),
          shards: z.int().describe('partitions of each source topic'),
          lastDelta: z
            .int()
            .describe('first offset of the last applied delta: the delta topic is kept from this offset on'),
          sources: z.record(
            z.string(),
            counts.extend({ next: z.int().describe('next offset'), gaps: gaps.default([]) }),
          ),
        }),
      )
      .describe('shard → position of its chain of deltas'),
    names: z.record(z.string(), counts).describe('partition of the names → number of its records by outcome'),
    history: z
      .object({
        days: z.int().describe('length of the history before the newest dump, in days'),
        newest: z.iso.date().nullable().describe('date of the newest dump of title.ratings in the input'),
        gaps: z
          .record(z.string(), gaps)
          .describe('partition of title.ratings → offsets of the input that the history lacks'),
      })
      .optional()
      .describe('the history of ratings, of exactly the input. Snapshots of earlier versions lack it.'),
    titleNames: z
      .object({
        gaps: z
          .record(z.string(), gaps)
          .describe(
            'partition of title.basics → offsets of the input whose names of titles the snapshot lacks',
          ),
      })
      .optional()
      .describe('the names of titles, of exactly the input. Snapshots without such names lack it.'),
    schemas: z.record(z.string(), z.int()).describe('subject → id in the Schema Registry'),
    versions: z.object({
      reelflow: z.string(),
      duckdb: z.string(),
      contentHash: z
        .int()
        .optional()
        .describe('of the rule that gives the content hashes. Snapshots of earlier versions lack it: 1.'),
      manifest: z
        .int()
        .describe('of this schema; a reader refuses a version that is higher than the one it knows'),
    }),
  })
  .describe('What a gold snapshot holds, and how to check it.');

export type Manifest = z.infer<typeof manifestSchema>;

export const manifestVersion = 1;

export const snapshotsFolder = (gold: string) => join(gold, 'snapshots');
export const snapshotFolder = (gold: string, id: string) => join(gold, 'snapshots', id);
export const tableFile = (gold: string, id: string, table: string) =>
  join(snapshotFolder(gold, id), `${table}.parquet`);

/** The files of a manifest with their hashes, by their path in the folder of the snapshot. */
export const filesOf = ({ tables, cubes = {} }: Manifest) => [
  ...Object.entries(tables).map(([name, { bytes, sha256 }]) => ({ path: `${name}.parquet`, bytes, sha256 })),
  ...Object.entries(cubes).map(([name, of]) => ({ path: `cubes/${name}.parquet`, ...of })),
];

/** The newest snapshot's id, or undefined before the first. @throws ReelflowError goldUnusable */
export function currentSnapshot(gold: string): string | undefined {
  const path = join(gold, 'CURRENT');
  if (!existsSync(path)) {
    if (statSync(gold, { throwIfNoEntry: false })?.isDirectory() !== false) return undefined;
    throw new ReelflowError('goldUnusable', 'The gold folder is not a folder', {
      detail: gold,
      hint: 'Name another one with --gold.',
    });
  }
  return snapshotIdIn(readFileSync(path, 'utf8'), path);
}

/** The manifest of the newest snapshot, or undefined before the first. @throws ReelflowError goldUnusable */
export function currentManifest(gold: string): Manifest | undefined {
  const id = currentSnapshot(gold);
  return id === undefined ? undefined : readManifest(gold, id);
}

/** The id in a CURRENT file. @param where its path, for errors. @throws ReelflowError goldUnusable */
export function snapshotIdIn(text: string, where: string): string {
  const id = text.trim();
  if (idPattern.test(id)) return id;
  throw new ReelflowError('goldUnusable', 'CURRENT does not name a snapshot', {
    detail: `${where}: ${JSON.stringify(id.slice(0, 80))}`,
    hint: 'Write the id of a folder under snapshots/ into it.',
  });
}

/** Ids of all complete snapshots, oldest first. */
export function listSnapshots(gold: string): string[] {
  const folder = snapshotsFolder(gold);
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => idPattern.test(name) && existsSync(join(folder, name, 'manifest.json')))
    .sort();
}

/** @throws ReelflowError goldUnusable, if the snapshot does not exist, is damaged, or newer than this program */
export function readManifest(gold: string, id: string): Manifest {
  const path = join(snapshotFolder(gold, id), 'manifest.json');
  if (!idPattern.test(id) || !existsSync(path)) {
    throw new ReelflowError('goldUnusable', `There is no snapshot ${id}`, {
      detail: `${gold} has ${listSnapshots(gold).slice(-3).join(', ') || 'none'}.`,
      hint: 'List the snapshots with `reelflow gold list`.',
    });
  }
  return parseManifest(id, path, readFileSync(path, 'utf8'));
}

/** @param where its path, for errors. @throws ReelflowError goldUnusable, if it is damaged or newer than this program */
export function parseManifest(id: string, where: string, text: string): Manifest {
  try {
    const json = JSON.parse(text) as { versions?: { manifest?: number } };
    const version = json.versions?.manifest;
    if (typeof version === 'number' && version > manifestVersion) {
      throw new ReelflowError('goldUnusable', `Snapshot ${id} was written by a newer version`, {
        detail: `${where}: manifest version ${version}, this program knows ${manifestVersion}.`,
        hint: 'Use the newer reelflow, or another --gold folder.',
      });
    }
    const manifest = manifestSchema.parse(json);
    if (manifest.id !== id) throw new RangeError(`it is the manifest of ${manifest.id}`);
    return manifest;
  } catch (thrown) {
    if (thrown instanceof ReelflowError) throw thrown;
    throw new ReelflowError('goldUnusable', `The manifest of snapshot ${id} is damaged`, {
      detail: `${where}: ${thrown instanceof z.ZodError ? z.prettifyError(thrown) : messageOf(thrown)}`,
      hint: 'Write the id of another snapshot into CURRENT.',
      cause: thrown,
    });
  }
}

/**
 * The highest id that is in use: of CURRENT, and of every folder, also of one that is being built or removed. After a crash
 * between the rename of a folder and the swap of CURRENT, the folder is newer than CURRENT.
 */
export function newestId(gold: string): string | undefined {
  const folder = snapshotsFolder(gold);
  const names = existsSync(folder) ? readdirSync(folder).map((name) => name.replace(/^\./, '')) : [];
  const ids = names.filter((name) => idPattern.test(name));
  const current = currentSnapshot(gold);
  return [...ids, ...(current === undefined ? [] : [current])].sort().at(-1);
}

/**
 * The id of the next snapshot: time (UTC) and a counter. Both are never below those of the one before, even if the clock
 * steps back, so ids increase and never repeat.
 */
export function nextSnapshotId(previous: string | undefined, now: Date): string {
  const [date = '', time = ''] = now
    .toISOString()
    .replaceAll(/[-:]|\.\d+Z/g, '')
    .split('T');
  const stamp = `${date}_${time}`;
  const before = previous?.slice(0, stamp.length) ?? '';
  const counter = Number(previous?.slice(stamp.length + 1) ?? 0) + 1;
  return `${before > stamp ? before : stamp}_${String(counter).padStart(6, '0')}`;
}
