/** Checks the claims of a manifest: files, content of the tables, accounting, and positions. */

import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { counted } from '../../runtime/counted.ts';
import { fileSha256 } from '../../runtime/files.ts';
import { contentHash } from '../../tables/content-hash.ts';
import type { GoldTable } from '../../tables/gold-table.ts';
import { startAfter } from '../../topics/position.ts';
import { filesOf, type Manifest, type Scales, snapshotFolder } from '../gold/manifest.ts';
import { exactTable } from './declared-gold.ts';
import type { InputCount } from './topic-rows.ts';

/** A difference between the snapshot and its input. */
export interface Finding {
  /** A table, `cubes/<cube>`, a topic, or `manifest`. */
  readonly about: string;
  readonly text: string;
}

/** The records of a topic: those in the log, and those that the manifest accounts for. */
export interface TopicAccounting {
  readonly records: number;
  readonly applied: number;
  readonly duplicate: number;
  readonly rejected: number;
}

/** Tables of the manifest without a declaration here. */
export function undeclaredTables({ tables }: Manifest, declared: readonly GoldTable[]): string[] {
  const names = new Set(declared.map(({ name }) => name));
  return Object.keys(tables).filter((name) => !names.has(name));
}

/** The manifest names exactly the declared tables. */
export function checkTableNames(manifest: Manifest, declared: readonly GoldTable[]): Finding[] {
  return [
    ...declared
      .filter(({ name }) => manifest.tables[name] === undefined)
      .map(({ name }) => ({ about: name, text: 'the manifest does not name it' })),
    ...undeclaredTables(manifest, declared).map((name) => ({
      about: 'manifest',
      text: `it names an unknown table ${name}`,
    })),
  ];
}

/** Length and hash of each file. `compareTables` reports a missing or unreadable table. */
export async function checkFiles(gold: string, manifest: Manifest): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const { path, bytes, sha256 } of filesOf(manifest)) {
    const about = path.replace('.parquet', '');
    const file = join(snapshotFolder(gold, manifest.id), path);
    if (!existsSync(file)) {
      if (!(about in manifest.tables)) findings.push({ about, text: `${path} is missing` });
      continue;
    }
    const { size } = statSync(file);
    if (size !== bytes) {
      findings.push({ about, text: `${path} has ${size} bytes, the manifest says ${bytes}` });
    }
    const actual = await fileSha256(file);
    if (actual === sha256) continue;
    const text = `${path} was altered: its SHA-256 is ${actual}, the manifest says ${sha256}`;
    findings.push({ about, text });
  }
  return findings;
}

/**
 * The manifest's claims about the content of a table, against the recomputed table.
 * @param schema holds the recomputed tables
 * @param rows of the recomputed table
 */
export async function checkContent(
  connection: DuckDBConnection,
  schema: string,
  manifest: Manifest,
  table: GoldTable,
  rows: number,
): Promise<Finding[]> {
  const about = table.name;
  const claimed = manifest.tables[about];
  if (claimed === undefined) return [];
  const findings: Finding[] = [];
  if (claimed.rows !== rows) {
    findings.push({
      about,
      text: `the manifest says ${counted(claimed.rows, 'row')}, the input gives ${rows}`,
    });
  }
  const { contentHash: version = 1 } = manifest.versions;
  const hash = await contentHash(connection, table, `"${schema}"."${exactTable(about)}"`, version);
  if (hash !== claimed.contentHash) {
    findings.push({
      about,
      text: `the manifest's content hash is ${claimed.contentHash}, the input gives ${hash}`,
    });
  }
  return [
    ...findings,
    ...(await checkScales(connection, schema, table, claimed.scales ?? {})),
    ...(await checkConstants(connection, schema, table, claimed.constants ?? {})),
  ];
}

const isSame = (a: number | null | undefined, b: number | null | undefined) =>
  a === b || (a != null && b != null && Math.abs(a - b) <= 1e-9 * Math.max(1, Math.abs(b)));

/** The constants of a table, from the exact sums of the recomputed one. */
async function checkConstants(
  connection: DuckDBConnection,
  schema: string,
  { name, constants = {} }: GoldTable,
  claimed: Readonly<Record<string, number | null>>,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const [constant, sql] of Object.entries(constants)) {
    const rows = await connection.runAndReadAll(
      `SELECT (${sql})::DOUBLE, count(*) FROM "${schema}"."${exactTable(name)}"`,
    );
    const expected = rows.getRows()[0]?.[0] as number | null;
    if (isSame(claimed[constant], expected)) continue;
    const text = `${constant}: the manifest says ${claimed[constant]}; the input gives ${expected}`;
    findings.push({ about: name, text });
  }
  return findings;
}

/** Mean and deviation of the columns that a table standardises, recomputed as plain averages over doubles. */
async function checkScales(
  connection: DuckDBConnection,
  schema: string,
  { name, standardised = [] }: GoldTable,
  claimed: Scales,
): Promise<Finding[]> {
  const words = (known: unknown, mean: unknown, deviation: unknown) =>
    `${known} known values, mean ${mean}, deviation ${deviation}`;
  const findings: Finding[] = [];
  for (const column of standardised) {
    const rows = await connection.runAndReadAll(
      `SELECT count("${column}")::INTEGER, avg("${column}"), stddev_samp("${column}") FROM "${schema}"."${name}"`,
    );
    const [known, mean, deviation] = rows.getRows()[0] as (number | null)[];
    const claim = claimed[column];
    if (claim?.known === known && isSame(claim?.mean, mean) && isSame(claim?.deviation, deviation)) continue;
    const says = claim === undefined ? 'nothing' : words(claim.known, claim.mean, claim.deviation);
    const text = `${column}: the manifest says ${says}; the input gives ${words(known, mean, deviation)}`;
    findings.push({ about: name, text });
  }
  return findings;
}

/** Records in the log = applied + duplicate + rejected, for each topic. */
export function checkAccounting(
  manifest: Manifest,
  counts: ReadonlyMap<string, InputCount>,
): { accounting: Record<string, TopicAccounting>; findings: Finding[] } {
  const accounting: Record<string, TopicAccounting> = {};
  const findings: Finding[] = [];
  for (const topic of new Set([...counts.keys(), ...Object.keys(manifest.accounting)])) {
    const records = counts.get(topic)?.records ?? 0;
    const claimed = manifest.accounting[topic] ?? { applied: 0, duplicate: 0, rejected: 0 };
    const { applied, duplicate, rejected } = claimed;
    accounting[topic] = { records, applied, duplicate, rejected };
    if (records === applied + duplicate + rejected) continue;
    findings.push({
      about: topic,
      text: `its range holds ${counted(records, 'record')}, the manifest accounts for ${applied} applied + ${duplicate} duplicate + ${rejected} rejected`,
    });
  }
  return { accounting, findings };
}

/** The input equals the positions of the shards after their gaps: a sink restores from these positions. */
export function checkPositions({ input, shards }: Manifest): Finding[] {
  return Object.entries(shards).flatMap(([shard, { sources }]) =>
    Object.entries(sources).flatMap(([topic, { next, gaps }]) => {
      const [start, end] = input[topic]?.[shard] ?? [0, 0];
      const first = startAfter(gaps);
      const findings: string[] = [];
      if (start !== first) {
        findings.push(`shard ${shard} starts at offset ${first}, the manifest's input at ${start}`);
      }
      if (end !== next) {
        findings.push(`the next offset of shard ${shard} is ${next}, the manifest's input ends at ${end}`);
      }
      return findings.map((text) => ({ about: topic, text }));
    }),
  );
}
