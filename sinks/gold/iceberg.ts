/**
 * Gold as Iceberg tables: a folder per gold table, whose metadata names the Parquet files of the snapshots where they lie.
 * One snapshot of gold is one version of each table.
 *
 * A table changes when its `version-hint.text` is replaced by a rename: manifest, manifest list and metadata are written
 * before, and what no version needs any more is removed behind. So each table is of the old or of the new snapshot. Iceberg
 * without a catalogue service has no commit over several tables: after a crash tables may differ until the next attempt.
 */

import { randomUUID } from 'node:crypto';
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { withDatabase } from '../../database/duckdb.ts';
import { crashPoint } from '../../runtime/crash-points.ts';
import { messageOf, ReelflowError, systemCodeOf } from '../../runtime/errors.ts';
import { makeFolder, syncPath } from '../../runtime/files.ts';
import type { LakeChange, LakeContent } from './ducklake.ts';
import {
  type IcebergSchema,
  icebergSchema,
  manifestBytes,
  manifestListBytes,
  nameMapping,
} from './iceberg-files.ts';
import { type Manifest, readManifest, tableFile } from './manifest.ts';
import { readParquetTable } from './parquet-columns.ts';

interface IcebergSnapshot {
  readonly 'snapshot-id': number;
  readonly 'parent-snapshot-id'?: number;
  readonly 'sequence-number': number;
  readonly 'timestamp-ms': number;
  readonly 'manifest-list': string;
  readonly 'schema-id': number;
  readonly summary: Readonly<Record<string, string>>;
}

interface IcebergMetadata {
  readonly 'table-uuid': string;
  readonly 'last-sequence-number': number;
  readonly 'last-column-id': number;
  readonly schemas: readonly IcebergSchema[];
  readonly snapshots: readonly IcebergSnapshot[];
  readonly properties: Readonly<Record<string, string>>;
}

const snapshotKey = 'reelflow.snapshot';
const clusterKey = 'reelflow.cluster-id';
const namespaceKey = 'reelflow.namespace';
const goldKey = 'reelflow.gold';
const idsKey = 'reelflow.column-ids';

const snapshotOf = ({ summary }: IcebergSnapshot) => summary[snapshotKey] ?? '';

/** Makes the tables show exactly these snapshots. @throws ReelflowError foreignCluster, lakeUnusable; errors of files */
export async function writeIceberg(folder: string, content: LakeContent): Promise<LakeChange> {
  makeFolder(folder);
  const existing = readTables(folder, content);
  const manifests = content.snapshots.map((id) => readManifest(content.gold, id));
  const names = new Set([...existing.keys(), ...manifests.flatMap(({ tables }) => Object.keys(tables))]);
  const [added, expired] = [new Set<string>(), new Set<string>()];
  await withDatabase(async (connection) => {
    for (const name of names) {
      const old = existing.get(name);
      const shown = manifests.filter(({ tables }) => name in tables);
      const table = new IcebergTable(join(folder, name), name, content, connection);
      const change = await table.show(old?.metadata, old?.version ?? 0, shown);
      for (const id of change.added) added.add(id);
      for (const id of change.expired) expired.add(id);
    }
  });
  return {
    added: [...added].sort(),
    expired: [...expired].sort(),
    newest: content.snapshots.at(-1),
    isChanged: added.size + expired.size > 0,
  };
}

/** The newest snapshot that all tables show. @throws ReelflowError foreignCluster, lakeUnusable */
export function newestInIceberg(
  folder: string,
  owner: Pick<LakeContent, 'clusterId' | 'namespace'>,
): string | undefined {
  const newest = [...readTables(folder, owner).values()].map(({ metadata }) =>
    metadata.snapshots.map(snapshotOf).sort().at(-1),
  );
  return newest.sort()[0];
}

/** The tables of a folder by name, with the number of their metadata. */
function readTables(
  folder: string,
  { clusterId, namespace }: Pick<LakeContent, 'clusterId' | 'namespace'>,
): Map<string, { metadata: IcebergMetadata; version: number }> {
  const tables = new Map<string, { metadata: IcebergMetadata; version: number }>();
  for (const name of entriesOf(folder)) {
    const path = join(folder, name, 'metadata');
    if (!entriesOf(path).includes('version-hint.text')) continue;
    let metadata: IcebergMetadata;
    const version = Number(readFileSync(join(path, 'version-hint.text'), 'utf8'));
    try {
      metadata = JSON.parse(readFileSync(join(path, `v${version}.metadata.json`), 'utf8')) as IcebergMetadata;
    } catch (thrown) {
      throw unusable(`${path}: ${messageOf(thrown)}`, thrown);
    }
    const { [clusterKey]: cluster, [namespaceKey]: space } = metadata.properties ?? {};
    if (cluster === undefined) throw unusable(`${path}: another program made the table`);
    if (cluster !== clusterId || space !== namespace) {
      throw new ReelflowError('foreignCluster', 'The lake belongs to another cluster or namespace', {
        detail: `${path} is of cluster ${cluster}, namespace '${space}'; this is ${clusterId}, '${namespace}'.`,
        hint: 'Use another folder with --lake.',
      });
    }
    tables.set(name, { metadata, version });
  }
  return tables;
}

class IcebergTable {
  readonly #folder: string;
  readonly #name: string;
  readonly #content: LakeContent;
  readonly #connection: DuckDBConnection;

  constructor(folder: string, name: string, content: LakeContent, connection: DuckDBConnection) {
    this.#folder = folder;
    this.#name = name;
    this.#content = content;
    this.#connection = connection;
  }

  /** @param old metadata number `version`, undefined for a new table. @param shown the snapshots with this table */
  async show(
    old: IcebergMetadata | undefined,
    version: number,
    shown: readonly Manifest[],
  ): Promise<{ added: string[]; expired: string[] }> {
    const { clusterId, namespace, dataPath } = this.#content;
    const folder = join(this.#folder, 'metadata');
    const ids = shown.map(({ id }) => id);
    // Paths of files are absolute: where gold has moved, all of them are written again.
    const isMoved = old !== undefined && old.properties[goldKey] !== dataPath;
    const known = isMoved ? [] : (old?.snapshots ?? []);
    const kept = known.filter((one) => ids.includes(snapshotOf(one)));
    const expired = known.map(snapshotOf).filter((id) => !ids.includes(id));
    const last = known.map(snapshotOf).sort().at(-1) ?? '';
    const fresh = shown.filter(({ id }) => id > last);
    if (fresh.length + expired.length === 0 && old !== undefined && !isMoved) return { added: [], expired };
    const added = fresh.map(({ id }) => id);
    if (kept.length + fresh.length === 0) {
      rmSync(join(folder, 'version-hint.text'));
      rmSync(this.#folder, { recursive: true });
      return { added, expired };
    }
    makeFolder(folder);
    const columnIds = new Map(
      Object.entries(JSON.parse(old?.properties[idsKey] ?? '{}') as Record<string, number>),
    );
    const schemas = [...(old?.schemas ?? [])];
    const snapshots = [...kept];
    let sequence = old?.['last-sequence-number'] ?? 0;
    let about = old?.properties.comment ?? '';
    for (const manifest of fresh) {
      const file = tableFile(this.#content.gold, manifest.id, this.#name);
      const table = await readParquetTable(this.#connection, file);
      about = table.about;
      const idOf = (column: string) => {
        if (!columnIds.has(column)) columnIds.set(column, columnIds.size + 1);
        return columnIds.get(column) as number;
      };
      const wanted = icebergSchema(table, schemas.length, idOf);
      const same = schemas.find(({ fields }) => JSON.stringify(fields) === JSON.stringify(wanted.fields));
      if (same === undefined) schemas.push(wanted);
      sequence = Math.max(Number(manifest.id.split('_')[2]), sequence + 1);
      const parent = snapshots.at(-1)?.['snapshot-id'];
      snapshots.push(await this.#write(manifest, sequence, same ?? wanted, parent));
    }
    snapshots.sort((a, b) => a['snapshot-id'] - b['snapshot-id']);
    const newest = snapshots.at(-1) as IcebergSnapshot;
    const used = schemas.filter((schema) =>
      snapshots.some((one) => one['schema-id'] === schema['schema-id']),
    );
    const log = snapshots.map((one) => ({
      'snapshot-id': one['snapshot-id'],
      'timestamp-ms': one['timestamp-ms'],
    }));
    const metadata = {
      'format-version': 2,
      'table-uuid': old?.['table-uuid'] ?? randomUUID(),
      location: locationOf(this.#folder),
      'last-sequence-number': sequence,
      'last-updated-ms': newest['timestamp-ms'],
      'last-column-id': columnIds.size,
      'current-schema-id': newest['schema-id'],
      schemas,
      'default-spec-id': 0,
      'partition-specs': [{ 'spec-id': 0, fields: [] }],
      'last-partition-id': 999,
      'default-sort-order-id': 0,
      'sort-orders': [{ 'order-id': 0, fields: [] }],
      properties: {
        comment: about,
        'schema.name-mapping.default': nameMapping(used),
        [clusterKey]: clusterId,
        [namespaceKey]: namespace,
        [goldKey]: dataPath,
        [idsKey]: JSON.stringify(Object.fromEntries(columnIds)),
      },
      'current-snapshot-id': newest['snapshot-id'],
      refs: { main: { 'snapshot-id': newest['snapshot-id'], type: 'branch' } },
      snapshots,
      'snapshot-log': log,
      'metadata-log': [],
    };
    const next = version + 1;
    this.#put(`v${next}.metadata.json`, JSON.stringify(metadata, undefined, 2));
    crashPoint('before-iceberg-hint');
    this.#put('version-hint.text', String(next));
    this.#sweep(next, snapshots);
    return { added, expired };
  }

  /** Writes manifest and manifest list of a snapshot's file. */
  async #write(
    manifest: Manifest,
    version: number,
    schema: IcebergSchema,
    parent: number | undefined,
  ): Promise<IcebergSnapshot> {
    const { id, created, tables, input } = manifest;
    const { rows = 0, bytes = 0, contentHash = '' } = tables[this.#name] ?? {};
    const path = locationOf(`${this.#content.dataPath}snapshots/${id}/${this.#name}.parquet`);
    const file = await manifestBytes(version, { path, rows, bytes }, schema);
    const filePath = this.#put(`${version}-manifest.avro`, file);
    const list = await manifestListBytes(version, { path: filePath, bytes: file.length, rows });
    return {
      'snapshot-id': version,
      ...(parent !== undefined && { 'parent-snapshot-id': parent }),
      'sequence-number': version,
      'timestamp-ms': Date.parse(created),
      'manifest-list': this.#put(`${version}-list.avro`, list),
      'schema-id': schema['schema-id'],
      summary: {
        operation: parent === undefined ? 'append' : 'overwrite',
        'total-records': String(rows),
        'total-data-files': '1',
        [snapshotKey]: id,
        'reelflow.content-hash': contentHash,
        'reelflow.input': JSON.stringify(input),
      },
    };
  }

  /** Writes a file whole or not at all. @returns its location */
  #put(name: string, bytes: string | Buffer): string {
    const path = join(this.#folder, 'metadata', name);
    const building = join(this.#folder, 'metadata', `.${name}`);
    writeFileSync(building, bytes);
    syncPath(building);
    renameSync(building, path);
    syncPath(join(this.#folder, 'metadata'));
    return locationOf(path);
  }

  /** Removes what no reader needs; the metadata before stays for one that has just read the hint. */
  #sweep(version: number, snapshots: readonly IcebergSnapshot[]): void {
    const lives = new Set(snapshots.map((one) => String(one['snapshot-id'])));
    for (const name of entriesOf(join(this.#folder, 'metadata'))) {
      const [, metadata] = /^v(\d+)\.metadata\.json$/.exec(name) ?? [];
      const [, avro] = /^(\d+)-(?:manifest|list)\.avro$/.exec(name) ?? [];
      const isOld = metadata !== undefined && (Number(metadata) < version - 1 || Number(metadata) > version);
      const isDead = avro !== undefined && !lives.has(avro);
      if (isOld || isDead || name.startsWith('.')) rmSync(join(this.#folder, 'metadata', name));
    }
  }
}

/** Readers take paths as they are, without percent-encoding. */
const locationOf = (path: string) => `file://${path}`;

function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (thrown) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCodeOf(thrown) ?? '')) return [];
    throw thrown;
  }
}

const unusable = (detail: string, cause?: unknown) =>
  new ReelflowError('lakeUnusable', 'The folder does not hold the tables of this gold', {
    detail,
    hint: 'Nothing was changed. Use another folder with --lake, or remove it: it is built again from the snapshots.',
    cause,
  });
