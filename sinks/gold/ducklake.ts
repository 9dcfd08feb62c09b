/**
 * A DuckLake catalogue of gold: one version per snapshot, whose tables are the Parquet files of the snapshot, where they lie.
 * It is written as its specification says, in plain SQL, because DuckDB's extension of that name is a download of its own.
 *
 * A catalogue is built new from the one before, so a reader has the old or the new one, and never a mix:
 *
 * 1. copy the tables of the old one;
 * 2. append a version for each snapshot behind its newest: end the files of the version before, begin those of the snapshot;
 * 3. expire the versions of snapshots that are gone or go next, and what only they held.
 *
 * The files carry their own statistics and there is one per table, so the catalogue has none: DuckLake's are not kept per
 * version, and would have to hold for all of them.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import { rowsOf, withDatabase } from '../../database/duckdb.ts';
import { sqlPath, sqlText } from '../../database/sql.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { type LakeColumn, lakeColumns, lakeFormat, lakeTables } from './ducklake-tables.ts';
import { type Manifest, readManifest, tableFile } from './manifest.ts';
import { readParquetTable } from './parquet-columns.ts';

export interface LakeContent {
  /** The folder with the snapshots that become versions. */
  readonly gold: string;
  /** Where readers find that folder, ending in `/`. */
  readonly dataPath: string;
  readonly clusterId: string;
  readonly namespace: string;
  /** Ids of the snapshots that the catalogue is to show, oldest first. */
  readonly snapshots: readonly string[];
}

export interface LakeChange {
  /** Snapshots that became versions, oldest first. */
  readonly added: readonly string[];
  /** Snapshots whose versions expired. */
  readonly expired: readonly string[];
  /** The snapshot of the newest version. */
  readonly newest: string | undefined;
  /** Whether the new catalogue says anything that the old one does not. */
  readonly isChanged: boolean;
}

const author = 'reelflow';
const clusterKey = 'reelflow_cluster_id';
const namespaceKey = 'reelflow_namespace';

interface Version {
  readonly version: number;
  readonly snapshot: string;
}

/**
 * Builds the catalogue that follows `old`.
 * @param old a closed catalogue of this namespace, or undefined for the first one
 * @param built path of the file to create
 * @throws ReelflowError foreignCluster, if the old one is of another cluster or namespace; lakeUnusable, if it is no
 *   catalogue of gold, or others have written to it
 */
export async function buildLake(
  old: string | undefined,
  built: string,
  content: LakeContent,
): Promise<LakeChange> {
  return withDatabase(async (connection) => {
    // Small blocks: most tables of a catalogue hold a few rows.
    await connection.run(`ATTACH ${sqlPath(built)} AS lake (BLOCK_SIZE 16384)`);
    const lake = new LakeWriter(connection);
    if (old === undefined) await lake.create(content);
    else await lake.copy(old, content);
    await connection.run('BEGIN');
    const before = await lake.versions();
    const known = new Set(before.map(({ snapshot }) => snapshot));
    const last = before.at(-1)?.snapshot ?? '';
    const added = content.snapshots.filter((id) => id > last);
    for (const id of added) await lake.append(readManifest(content.gold, id), content.gold);
    const expired = [...known].filter((id) => !content.snapshots.includes(id));
    await lake.expire(expired);
    const moved = await lake.move(content.dataPath);
    const newest = (await lake.versions()).at(-1)?.snapshot;
    await connection.run('COMMIT');
    await connection.run('USE memory');
    await connection.run('DETACH lake');
    return { added, expired, newest, isChanged: added.length + expired.length > 0 || moved };
  });
}

/** The snapshot of the newest version of a catalogue of this namespace. @throws ReelflowError as `buildLake` */
export async function newestInLake(
  path: string,
  owner: Pick<LakeContent, 'clusterId' | 'namespace'>,
): Promise<string | undefined> {
  return withDatabase(async (connection) => {
    const lake = new LakeWriter(connection);
    await lake.attachOld(path, owner);
    return (await lake.versions()).at(-1)?.snapshot;
  });
}

/** The SQL of the specification. */
class LakeWriter {
  readonly #connection: DuckDBConnection;

  constructor(connection: DuckDBConnection) {
    this.#connection = connection;
  }

  async create({ clusterId, namespace, dataPath }: LakeContent): Promise<void> {
    await this.#connection.run('USE lake');
    for (const table of lakeTables) await this.#connection.run(`CREATE TABLE ${table}`);
    const metadata = {
      version: lakeFormat,
      created_by: author,
      data_path: dataPath,
      encrypted: 'false',
      [clusterKey]: clusterId,
      [namespaceKey]: namespace,
    };
    const rows = Object.entries(metadata).map(([key, value]) => [key, value, null, null]);
    await this.#insert('ducklake_metadata', ...rows);
  }

  /** Copies the tables of the old catalogue. @throws ReelflowError foreignCluster, lakeUnusable */
  async copy(old: string, owner: LakeContent): Promise<void> {
    await this.attachOld(old, owner);
    await this.#connection.run('USE lake');
    await this.#connection.run('COPY FROM DATABASE old TO lake');
    await this.#connection.run('DETACH old');
  }

  /** Attaches and uses a catalogue of this namespace. @throws ReelflowError foreignCluster, lakeUnusable */
  async attachOld(
    path: string,
    { clusterId, namespace }: Pick<LakeContent, 'clusterId' | 'namespace'>,
  ): Promise<void> {
    const connection = this.#connection;
    try {
      await connection.run(`ATTACH ${sqlPath(path)} AS old (READ_ONLY)`);
      await connection.run('USE old');
    } catch (thrown) {
      throw unusable('the file is not a DuckDB database', thrown);
    }
    const hasMetadata = await this.#rows(
      "SELECT 1 FROM duckdb_tables() WHERE database_name = 'old' AND table_name = 'ducklake_metadata'",
    );
    if (hasMetadata.length === 0) throw unusable('the database is not a DuckLake catalogue');
    const rows = await this.#rows('SELECT key, value FROM ducklake_metadata WHERE scope IS NULL');
    const metadata = new Map(rows.map(([key, value]) => [String(key), String(value)]));
    const format = metadata.get('version');
    if (format !== lakeFormat) throw unusable(`its format is ${format}, this program writes ${lakeFormat}`);
    const owner = metadata.get(clusterKey);
    if (owner === undefined) throw unusable('another program made it');
    if (owner !== clusterId || metadata.get(namespaceKey) !== namespace) {
      throw new ReelflowError('foreignCluster', 'The lake belongs to another cluster or namespace', {
        detail: `It is of cluster ${owner}, namespace '${metadata.get(namespaceKey)}'; this is ${clusterId}, '${namespace}'.`,
        hint: 'Use another file with --lake.',
      });
    }
    const others = await this.#rows(
      `SELECT snapshot_id FROM ducklake_snapshot LEFT JOIN ducklake_snapshot_changes USING (snapshot_id)
       WHERE author IS DISTINCT FROM '${author}' LIMIT 1`,
    );
    if (others.length > 0) throw unusable(`another program has added version ${others[0]?.[0]}`);
  }

  /** All versions, oldest first. */
  async versions(): Promise<Version[]> {
    const rows = await this.#rows(
      'SELECT snapshot_id, commit_extra_info FROM ducklake_snapshot_changes ORDER BY snapshot_id',
    );
    return rows.map(([version, info]) => ({
      version: Number(version),
      snapshot: (JSON.parse(String(info)) as { snapshot: string }).snapshot,
    }));
  }

  /** Sets where readers find gold. @returns whether that was another place before */
  async move(dataPath: string): Promise<boolean> {
    const changed = await this.#rows(
      `UPDATE ducklake_metadata SET value = ${sqlText(dataPath)}
       WHERE key = 'data_path' AND value <> ${sqlText(dataPath)} RETURNING key`,
    );
    return changed.length > 0;
  }

  /** Appends a version: the tables of the snapshot instead of those of the version before. */
  async append(manifest: Manifest, gold: string): Promise<void> {
    const [last = [0, 0, 1, 0]] = await this.#rows(
      `SELECT snapshot_id, schema_version, next_catalog_id, next_file_id
       FROM ducklake_snapshot ORDER BY snapshot_id DESC LIMIT 1`,
    );
    let [lastVersion = 0, schemaVersion = 0, nextTable = 1, nextFile = 0] = last.map(Number);
    // The counter of the snapshot, so that both are easily matched. A new gold folder counts from 1 again.
    const version = Math.max(Number(manifest.id.split('_')[2]), lastVersion + 1);
    const changes: string[] = [];
    const main = await this.#rows('SELECT 1 FROM ducklake_schema');
    if (main.length === 0) {
      await this.#connection.run(
        `INSERT INTO ducklake_schema VALUES (0, uuid(), ${version}, NULL, 'main', '', true)`,
      );
      changes.push('created_schema:"main"');
    }
    const live = new Map(
      (await this.#rows('SELECT table_name, table_id FROM ducklake_table WHERE end_snapshot IS NULL')).map(
        ([name, id]) => [String(name), Number(id)],
      ),
    );
    for (const [name, id] of live) {
      if (name in manifest.tables) continue;
      await this.#endTable(id, version);
      changes.push(`dropped_table:${id}`);
      schemaVersion += 1;
    }
    await this.#connection.run(
      `UPDATE ducklake_data_file SET end_snapshot = ${version} WHERE end_snapshot IS NULL`,
    );
    for (const [name, { rows, bytes }] of Object.entries(manifest.tables)) {
      const definition = await this.#definitionOf(tableFile(gold, manifest.id, name));
      let table = live.get(name);
      if (table !== undefined && !(await this.#isDefined(table, definition))) {
        // Columns are not altered: what a table was in earlier versions stays readable as it was.
        await this.#endTable(table, version);
        changes.push(`dropped_table:${table}`);
        table = undefined;
      }
      if (table === undefined) {
        table = nextTable++;
        schemaVersion += 1;
        await this.#createTable(table, name, definition, { version, schemaVersion, mapping: nextFile++ });
        changes.push(`created_table:"main"."${name.replaceAll('"', '""')}"`);
      } else {
        changes.push(`deleted_from_table:${table}`);
      }
      changes.push(`inserted_into_table:${table}`);
      const [[mapping, firstRow] = []] = await this.#rows(
        `SELECT mapping_id, next_row_id FROM ducklake_column_mapping JOIN ducklake_table_stats USING (table_id)
         WHERE table_id = ${table}`,
      );
      const path = `snapshots/${manifest.id}/${name}.parquet`;
      await this.#insert('ducklake_data_file', [
        ...[nextFile++, table, version, null, null, path, true, 'parquet', rows, bytes, null],
        ...[Number(firstRow), null, null, Number(mapping), null],
      ]);
      await this.#connection.run(
        `UPDATE ducklake_table_stats
         SET record_count = ${rows}, next_row_id = next_row_id + ${rows}, file_size_bytes = ${bytes}
         WHERE table_id = ${table}`,
      );
    }
    await this.#connection.run(
      `INSERT INTO ducklake_snapshot
       VALUES (${version}, ${sqlText(manifest.created)}, ${schemaVersion}, ${nextTable}, ${nextFile})`,
    );
    const { id: snapshot, clusterId, namespace, input, tables } = manifest;
    const contentHash = Object.fromEntries(
      Object.entries(tables).map(([name, of]) => [name, of.contentHash]),
    );
    const info = JSON.stringify({ snapshot, clusterId, namespace, input, contentHash });
    await this.#insert('ducklake_snapshot_changes', [
      version,
      changes.join(','),
      author,
      `Snapshot ${snapshot}`,
      info,
    ]);
  }

  /** Removes the versions of these snapshots, and all that no other version holds. */
  async expire(snapshots: readonly string[]): Promise<void> {
    const gone = (await this.versions()).filter(({ snapshot }) => snapshots.includes(snapshot));
    if (gone.length === 0) return;
    const ids = gone.map(({ version }) => version).join(', ');
    for (const table of ['ducklake_snapshot', 'ducklake_snapshot_changes']) {
      await this.#connection.run(`DELETE FROM ${table} WHERE snapshot_id IN (${ids})`);
    }
    for (const table of ['ducklake_data_file', 'ducklake_table', 'ducklake_tag', 'ducklake_column_tag']) {
      await this.#connection.run(
        `DELETE FROM ${table} WHERE NOT EXISTS (
           SELECT 1 FROM ducklake_snapshot
           WHERE snapshot_id >= begin_snapshot AND (end_snapshot IS NULL OR snapshot_id < end_snapshot))`,
      );
    }
    for (const table of ['column', 'column_mapping', 'schema_versions', 'table_stats']) {
      await this.#connection.run(
        `DELETE FROM ducklake_${table} WHERE table_id NOT IN (SELECT table_id FROM ducklake_table)`,
      );
    }
    await this.#connection.run(
      'DELETE FROM ducklake_name_mapping WHERE mapping_id NOT IN (SELECT mapping_id FROM ducklake_column_mapping)',
    );
  }

  async #definitionOf(file: string): Promise<TableDefinition> {
    const { about, columns } = await readParquetTable(this.#connection, file);
    return {
      columns: lakeColumns(columns.map(({ name, type }) => [name, type])),
      about,
      comments: columns.map(({ name, comment }) => [name, comment]),
    };
  }

  async #isDefined(table: number, { columns, about, comments }: TableDefinition): Promise<boolean> {
    const found = await this.#rows(
      `SELECT column_id, parent_column, column_name, column_type FROM ducklake_column
       WHERE table_id = ${table} ORDER BY column_id`,
    );
    const [[text] = []] = await this.#rows(`SELECT value FROM ducklake_tag WHERE object_id = ${table}`);
    const tags = await this.#rows(
      `SELECT column_name, value FROM ducklake_column_tag JOIN ducklake_column USING (table_id, column_id)
       WHERE table_id = ${table} ORDER BY column_id`,
    );
    const wanted = columns.map(({ id, parent, name, type }) => [id, parent, name, type]);
    return JSON.stringify([found, text, tags]) === JSON.stringify([wanted, about, comments]);
  }

  async #createTable(
    table: number,
    name: string,
    { columns, about, comments }: TableDefinition,
    { version, schemaVersion, mapping }: { version: number; schemaVersion: number; mapping: number },
  ): Promise<void> {
    await this.#connection.run(
      `INSERT INTO ducklake_table VALUES (${table}, uuid(), ${version}, NULL, 0, ${sqlText(name)}, '', true)`,
    );
    await this.#insert('ducklake_schema_versions', [version, schemaVersion, table]);
    await this.#insert('ducklake_table_stats', [table, 0, 0, 0]);
    await this.#insert('ducklake_tag', [table, version, null, 'comment', about]);
    await this.#insert('ducklake_column_mapping', [mapping, table, 'map_by_name']);
    await this.#insert(
      'ducklake_column',
      ...columns.map(({ id, parent, name: column, type }) => {
        const defaults = [null, 'NULL', true, parent, type === 'list' ? '' : 'literal', 'duckdb'];
        return [id, version, null, table, id, column, type, ...defaults];
      }),
    );
    // Mappings count columns from 0.
    await this.#insert(
      'ducklake_name_mapping',
      ...columns.map(({ id, parent, source }) => {
        const above = parent === null ? null : parent - 1;
        return [mapping, id - 1, source, id, above, false];
      }),
    );
    const idOf = new Map(columns.flatMap(({ id, parent, name: of }) => (parent === null ? [[of, id]] : [])));
    await this.#insert(
      'ducklake_column_tag',
      ...comments.map(([column, comment]) => [
        table,
        idOf.get(column) ?? null,
        version,
        null,
        'comment',
        comment,
      ]),
    );
  }

  async #endTable(table: number, version: number): Promise<void> {
    for (const [of, id] of [
      ['table', 'table_id'],
      ['column', 'table_id'],
      ['tag', 'object_id'],
      ['column_tag', 'table_id'],
    ]) {
      await this.#connection.run(
        `UPDATE ducklake_${of} SET end_snapshot = ${version} WHERE ${id} = ${table} AND end_snapshot IS NULL`,
      );
    }
  }

  async #insert(table: string, ...rows: readonly (readonly (string | number | boolean | null)[])[]) {
    const texts = rows.map((row) => row.map((value) => (typeof value === 'string' ? sqlText(value) : value)));
    const values = texts.map((row) => `(${row.map(String).join(', ')})`).join(', ');
    if (rows.length > 0) await this.#connection.run(`INSERT INTO ${table} VALUES ${values}`);
  }

  /** Rows, with whole numbers as numbers. */
  async #rows(sql: string): Promise<unknown[][]> {
    const rows = await rowsOf(this.#connection, sql);
    return rows.map((row) => row.map((value) => (typeof value === 'bigint' ? Number(value) : value)));
  }
}

interface TableDefinition {
  readonly columns: readonly LakeColumn[];
  /** What a row is. */
  readonly about: string;
  /** By column, in the order of the columns. */
  readonly comments: readonly (readonly [column: string, comment: string])[];
}

const unusable = (detail: string, cause?: unknown) =>
  new ReelflowError('lakeUnusable', 'The file is not the catalogue of this gold', {
    detail,
    hint: 'Nothing was changed. Use another file with --lake, or remove it: it is built again from the snapshots.',
    cause,
  });
