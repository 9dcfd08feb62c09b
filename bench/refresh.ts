/**
 * A new dump on top of the one before: what is sent, how long it takes until gold is published, and what DuckDB takes to
 * compute gold from the files of the new dump alone.
 */
import {
  createReadStream,
  createWriteStream,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  utimesSync,
} from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { finished } from 'node:stream/promises';
import type { Context } from '../cli/context.ts';
import type { CommonFlags } from '../cli/options.ts';
import { scanTopic } from '../kafka/scan.ts';
import type { ReplayReport } from '../producers/replay-report.ts';
import { type DatasetName, datasets } from '../topics/catalog.ts';
import type { Say } from './data.ts';
import type { Measured } from './measure.ts';
import { duckdbRun, stage, type WholeRun, wholePipeline } from './stages.ts';
import type { Workload } from './workload.ts';

/** A number below 2,000 for each id, in no order. */
const lotOf = (id: string) => (Math.imul(Number(id.slice(2)), 0x9e3779b1) >>> 0) % 2_000;

/** 0.05 % of the titles vanish; of the others 0.1 % get another year and 10 % of the ratings another number of votes. */
function rowOfNextDay(dataset: DatasetName, row: string): string | undefined {
  const end = row.indexOf('\t');
  const lot = lotOf(row.slice(0, end));
  if (datasets[dataset].idPrefix === 'nm') return row;
  if (lot === 0) return undefined;
  if (dataset === 'title.ratings' && lot >= 100 && lot < 300) {
    const at = row.lastIndexOf('\t') + 1;
    return `${row.slice(0, at)}${Number(row.slice(at)) + 1}`;
  }
  if (dataset === 'title.basics' && lot >= 2 && lot < 4) {
    return withOtherYear(row);
  }
  return row;
}

/** A row of title.basics with another start year. */
export function withOtherYear(row: string): string {
  const values = row.split('\t');
  values[5] = values[5] === '1999' ? '2000' : '1999';
  return values.join('\t');
}

/** The folder of the dump that comes after the one in `data`; it is made if it is not there yet. */
export async function nextDump(data: string, of: readonly DatasetName[], say: Say): Promise<string> {
  const folder = `${data}-next`;
  if (existsSync(folder)) return folder;
  say(`writing the next dump to ${folder}`);
  const part = `${folder}.part`;
  rmSync(part, { recursive: true, force: true });
  mkdirSync(part);
  for (const dataset of of) {
    const out = createWriteStream(join(part, `${dataset}.tsv`));
    let lines: string[] = [];
    const write = async () => {
      if (!out.write(`${lines.join('\n')}\n`))
        await new Promise<void>((resolve) => out.once('drain', resolve));
      lines = [];
    };
    let isHeader = true;
    for await (const row of createInterface({ input: createReadStream(join(data, `${dataset}.tsv`)) })) {
      const next = isHeader ? row : rowOfNextDay(dataset, row);
      isHeader = false;
      if (next !== undefined) lines.push(next);
      if (lines.length === 10_000) await write();
    }
    if (lines.length > 0) await write();
    out.end();
    await finished(out);
  }
  renameSync(part, folder);
  return folder;
}

export interface RefreshRun {
  readonly firstLoad: WholeRun;
  /** The next dump, while processor and sink start. */
  readonly fromStopped: WholeRun;
  /** The first dump as the one after that, with processor and sink running. */
  readonly refresh: WholeRun;
  /** Replay alone, of the same dump again. */
  readonly unchanged: Measured;
  readonly duckdb: Measured;
  /** Values of the index's messages, the newest of each key. */
  readonly indexBytes: number;
}

/** @throws Error when the same dump again sends something */
export async function refreshRun(options: {
  context: Context;
  places: CommonFlags;
  folder: string;
  data: string;
  next: string;
  workload: Workload;
  shards: number;
  signal: AbortSignal;
}): Promise<RefreshRun> {
  const { context, places, folder, data, next, workload, shards, signal } = options;
  const { only } = workload;
  const whole = (files: string, whenReady = false) => {
    // Each dump is newer than the one before.
    for (const name of readdirSync(files)) utimesSync(join(files, name), new Date(), new Date());
    return wholePipeline({ context, data: files, folder, shards, only, whenReady, signal });
  };
  const firstLoad = await whole(data);
  const fromStopped = await whole(next);
  const refresh = await whole(data, true);
  const unchanged = await stage('replay', context, places, [data], { logs: folder, signal });
  const { produced } = JSON.parse(unchanged.lastLine) as ReplayReport;
  if (produced > 0) throw new Error(`the same dump again sent ${produced} records`);
  const duckdb = await duckdbRun({ context, folder, data, workload, signal });
  return { firstLoad, fromStopped, refresh, unchanged, duckdb, indexBytes: await indexBytesOf(context) };
}

async function indexBytesOf({ broker, names }: Context): Promise<number> {
  const bytes = new Map<string, number>();
  for await (const { messages } of scanTopic(broker, names.dumpIndex)) {
    for (const { key, value } of messages) bytes.set(String(key), value?.length ?? 0);
  }
  return [...bytes.values()].reduce((sum, each) => sum + each, 0);
}
