/**
 * `npm run bench`: what reelflow takes for a synthetic dataset, seed 1; one measurement a call, the median of its runs. Before
 * each run nothing is there; after it nothing is left but the dataset.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Argument, Command, InvalidArgumentError, Option } from 'commander';
import { type Context, openContext } from '../cli/context.ts';
import { type CommonFlags, integerIn, localFolder, periodOf } from '../cli/options.ts';
import { stopSignal } from '../cli/stop.ts';
import { findServices } from '../kafka/local/services.ts';
import type { RowOrder } from '../producers/synthetic/synthetic.ts';
import type { Endpoints } from '../runtime/config.ts';
import { removeTopics, syntheticData } from './data.ts';
import { freshnessOf } from './freshness.ts';
import { benchFolder, type Measured, median, sizeOf } from './measure.ts';
import { nextDump, type RefreshRun, refreshRun } from './refresh.ts';
import { type Line, report, resultOf } from './report.ts';
import { type SnapshotRun, snapshotRun } from './snapshots.ts';
import { duckdbRun, stage, type WholeRun, wholePipeline } from './stages.ts';
import { load, startsOf } from './starts.ts';
import { type Workload, workloads } from './workload.ts';

interface Flags {
  titles: readonly number[];
  runs: number;
  order: RowOrder;
  shards: number;
  window?: string;
  maxRecords?: string;
  memory?: string;
  again?: true;
  gzip?: true;
  rate: number;
  for: number;
  tables: readonly Workload[];
  json?: true;
  save?: true;
}

const say = (line: string) => process.stderr.write(`${line}\n`);
const whole = (value: number) => Math.round(value).toLocaleString('en-US');
const signal = stopSignal();

const measurements: Readonly<Record<string, (flags: Flags, endpoints: Endpoints) => Promise<Line[]>>> = {
  pipeline,
  stages,
  variations,
  refresh,
  snapshots,
  freshness,
  starts: (flags, endpoints) => startsOf(endpoints, flags.runs),
};
const notes: Readonly<Record<string, string>> = {
  pipeline:
    'Replay, process and sink run together, from the first byte read to CURRENT swapped. `five`: five datasets and the five tables that other engines compute too; `all`: all datasets and tables. × DuckDB: against DuckDB, which computes the same tables from the same files (of `all` not those of history, which one dump does not determine). CPU µs a record with the broker; peak memory is that of our three processes together, state the bytes on disk at the end.',
  stages:
    'The work of `five` above; each stage alone, one after the other, its start included; what it reads is complete before. On one core: pinned to it with `taskset`, beside the broker, which may use both.',
  variations: 'The work of `five` above; each line differs from the first in what it is called.',
  refresh:
    'A dump on top of the one before: 0.05 % of the titles vanish, 0.1 % change, 10 % of the ratings change. From the first byte read to CURRENT swapped, while processor and sink run (`refresh`), or from their start on (`from stopped`, of the dump before); DuckDB computes the same tables from the files of the new dump (`five` and `all` as in the first table). CPU seconds with those of the broker, but for the sink and for the unchanged dump: the replay of the same dump again, its start included.',
  snapshots:
    'CPU seconds of `sink --once`, each in a process of its own: with nothing to publish, after a change of 1 % of the titles, and of the whole state without earlier snapshots. % of a whole one: both without what a sink takes with nothing to publish. Idle: a sink with `--interval 60s` over two minutes without messages.',
  freshness:
    'From the time stamp of a message of the title topics (set when it is sent, before it is acknowledged) to the commit of the transaction with which the sink added it to its cube; messages count alike.',
  starts:
    'Wall and CPU seconds of a command with all that it starts, run by node itself, with services running; each has run once before. The demo runs for the first time in an empty folder, and then again on the same topics.',
};

await new Command('bench')
  .description('measure reelflow')
  .addArgument(
    new Argument('[measurement]', 'what to measure').choices(Object.keys(measurements)).default('pipeline'),
  )
  .option(
    '--titles <list>',
    'titles of the synthetic datasets; 811,000 give 13 M records, 11,000,000 give 182 M',
    numberList,
    [811_000],
  )
  .option('--runs <n>', 'runs, of which the median counts', integerIn(1, 50), 3)
  .addOption(new Option('--order <order>', 'order of the rows').choices(['id', 'random']).default('id'))
  .option('--shards <n>', 'partitions', integerIn(1, 64), 4)
  .option('--window <period>', 'period that closes a micro-batch')
  .option('--max-records <n>', 'records that close a micro-batch')
  .option('--memory <size>', "DuckDB's limit in the processor")
  .option('--gzip', 'files are .tsv.gz')
  .option('--again', 'pipeline: replay the same files a second time into the same topics, and measure that')
  .option(
    '--tables <list>',
    'five: the job that other engines do too; all: all tables, from all datasets, at the first of the sizes',
    workloadList,
    [workloads.five, workloads.all],
  )
  .option('--rate <records>', 'freshness: records per second', integerIn(1), 100_000)
  .option('--for <period>', 'freshness: how long', periodOf, 60_000)
  .option('--json', 'one line of JSON')
  .option('--save', 'keep the result in docs/results/, for `npm run bench:docs`')
  .action(async (name: string, flags: Flags) => {
    const { endpoints } = await findServices({ env: process.env, folder: localFolder, onProgress: say });
    const lines = (await measurements[name]?.(flags, endpoints)) ?? [];
    report(
      resultOf(
        name,
        lines,
        [notes[name] ?? '', `Median of ${flags.runs}.`, name === 'starts' ? load() : ''].filter(Boolean),
      ),
      flags,
    );
  })
  .parseAsync();

function numberList(text: string): number[] {
  const numbers = text.split(',').map(Number);
  if (!numbers.every((number) => Number.isInteger(number) && number >= 100)) {
    throw new InvalidArgumentError('Whole numbers from 100, separated by commas, are expected.');
  }
  return numbers;
}

function workloadList(text: string): Workload[] {
  return text.split(',').map((name) => {
    if (name === 'five' || name === 'all') return workloads[name];
    throw new InvalidArgumentError('five or all, or both separated by a comma, are expected.');
  });
}

/** A namespace with its folders; topics and folders are gone after `work`. */
async function inPlace<T>(
  endpoints: Endpoints,
  number: number,
  work: (context: Context, places: CommonFlags, folder: string) => Promise<T>,
): Promise<T> {
  signal.throwIfAborted();
  const namespace = `bench-${process.pid}-${number}`;
  const folder = resolve(benchFolder, namespace);
  mkdirSync(folder, { recursive: true });
  const places: CommonFlags = { gold: join(folder, 'gold'), state: join(folder, 'state'), namespace };
  const context = await openContext(places, { endpoints });
  context.logger.level = 'warn';
  try {
    return await work(context, places, folder);
  } finally {
    await removeTopics(context.broker, `${namespace}.`);
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Runs `work` as often as the flags say, each time in a place of its own. @param said about a run */
async function runsOf<T>(
  count: number,
  endpoints: Endpoints,
  work: (context: Context, places: CommonFlags, folder: string) => Promise<T>,
  said: (run: T) => string,
): Promise<T[]> {
  const runs: T[] = [];
  for (let number = 1; number <= count; number++) {
    const run = await inPlace(endpoints, number, work);
    say(`run ${number} of ${count}: ${said(run)}`);
    runs.push(run);
  }
  return runs;
}

interface FullRun extends WholeRun {
  readonly stateBytes: number;
  /** DuckDB's, straight from the same files. */
  readonly duckdbSeconds: number;
}

/** What is measured of each size. */
function workloadsOf({ tables, titles }: Flags, size: number): readonly Workload[] {
  return titles[0] === size ? tables : tables.filter((one) => one.tables === 'five');
}

/** The whole pipeline, `runs` times. */
async function wholeRuns(
  flags: Flags,
  endpoints: Endpoints,
  titles: number,
  workload: Workload,
): Promise<FullRun[]> {
  const { order, gzip, runs: count, shards, window, maxRecords, memory, again } = flags;
  const { datasets, only } = workload;
  const data = await syntheticData({ titles, order, gzip: gzip === true, datasets }, say);
  const processArguments = [
    ...(window === undefined ? [] : ['--window', window]),
    ...(maxRecords === undefined ? [] : ['--max-records', maxRecords]),
    ...(memory === undefined ? [] : ['--memory', memory]),
  ];
  const said = ({ records, seconds }: FullRun) =>
    `${whole(records)} records, ${whole(records / seconds)} records/s`;
  const work = async (context: Context, { state }: CommonFlags, folder: string): Promise<FullRun> => {
    const once = () => wholePipeline({ context, data, folder, shards, only, processArguments, signal });
    let run = await once();
    if (again) run = await once();
    const duckdb = gzip ? undefined : await duckdbRun({ context, folder, data, workload, signal });
    return { ...run, stateBytes: sizeOf(state), duckdbSeconds: duckdb?.seconds ?? Number.NaN };
  };
  return runsOf(count, endpoints, work, said);
}

function lineOf(runs: readonly FullRun[]): Line {
  const middle = (of: (run: FullRun) => number) => median(runs.map(of));
  const records = middle(({ records }) => records);
  const seconds = middle(({ seconds }) => seconds);
  const cpuSeconds = middle((run) => run.cpuSeconds + run.brokerCpuSeconds);
  return {
    records,
    seconds,
    '× DuckDB': seconds / middle(({ duckdbSeconds }) => duckdbSeconds),
    'CPU µs/record': (cpuSeconds / records) * 1e6,
    'records/s': Math.round(records / seconds),
    'CPU s replay': middle(({ cpuSecondsOf }) => cpuSecondsOf.replay),
    'CPU s process': middle(({ cpuSecondsOf }) => cpuSecondsOf.process),
    'CPU s sink': middle(({ cpuSecondsOf }) => cpuSecondsOf.sink),
    'CPU s broker': middle(({ brokerCpuSeconds }) => brokerCpuSeconds),
    'peak MiB': Math.round(middle(({ peakBytes }) => peakBytes) / 2 ** 20),
    'state bytes/record': middle(({ stateBytes, records }) => stateBytes / records),
  };
}

async function pipeline(flags: Flags, endpoints: Endpoints): Promise<Line[]> {
  const lines: Line[] = [];
  for (const titles of flags.titles) {
    for (const workload of workloadsOf(flags, titles)) {
      const { tables } = workload;
      lines.push({ titles, tables, ...lineOf(await wholeRuns(flags, endpoints, titles, workload)) });
    }
  }
  return lines;
}

/** One thing changed at a time, at the first of the sizes. */
async function variations(flags: Flags, endpoints: Endpoints): Promise<Line[]> {
  const [titles = 0] = flags.titles;
  const changes: readonly [string, Partial<Flags>][] = [
    ['as it is: 4 shards, window 1 s or 1,000,000 records', {}],
    ['the same files again, unchanged', { again: true }],
    ['rows in random order', { order: 'random' }],
    ['files .tsv.gz', { gzip: true }],
    ['1 shard', { shards: 1 }],
    ['2 shards', { shards: 2 }],
    ['8 shards', { shards: 8 }],
    ['window 100 ms', { window: '100ms' }],
    ['window 10 s', { window: '10s' }],
    ['window at most 100,000 records', { maxRecords: '100000' }],
    ['DuckDB with 500 MB', { memory: '500MB' }],
  ];
  const lines: Line[] = [];
  for (const [name, change] of changes) {
    say(name);
    const runs = await wholeRuns({ ...flags, ...change }, endpoints, titles, workloads.five);
    lines.push({ variation: name, ...lineOf(runs) });
  }
  return lines;
}

async function refresh(flags: Flags, endpoints: Endpoints): Promise<Line[]> {
  const lines: Line[] = [];
  for (const titles of flags.titles) {
    for (const workload of workloadsOf(flags, titles)) {
      const { tables } = workload;
      lines.push({ titles, tables, ...refreshLine(await refreshRuns(flags, endpoints, titles, workload)) });
    }
  }
  return lines;
}

/** A first load and a new dump on top of it, `runs` times. */
async function refreshRuns(
  { order, runs: count, shards }: Flags,
  endpoints: Endpoints,
  titles: number,
  workload: Workload,
): Promise<RefreshRun[]> {
  const data = await syntheticData({ titles, order, datasets: workload.datasets }, say);
  const next = await nextDump(data, workload.datasets, say);
  const said = ({ firstLoad, fromStopped, refresh, duckdb }: RefreshRun) =>
    `first load ${firstLoad.seconds}, refresh ${refresh.seconds}, from stopped ${fromStopped.seconds}, DuckDB ${duckdb.seconds} s`;
  const work = (context: Context, places: CommonFlags, folder: string) =>
    refreshRun({ context, places, folder, data, next, workload, shards, signal });
  return runsOf(count, endpoints, work, said);
}

function refreshLine(runs: readonly RefreshRun[]): Line {
  const middle = (of: (run: RefreshRun) => number) => median(runs.map(of));
  const cpu = ({ cpuSeconds, brokerCpuSeconds }: WholeRun) => cpuSeconds + brokerCpuSeconds;
  const [seconds, duckdb] = [middle((run) => run.refresh.seconds), middle((run) => run.duckdb.seconds)];
  return {
    records: middle((run) => run.refresh.records),
    'records sent': middle((run) => run.refresh.report.replay.produced),
    'first load s': middle((run) => run.firstLoad.seconds),
    'refresh s': seconds,
    'DuckDB s': duckdb,
    '× DuckDB': seconds / duckdb,
    'from stopped s': middle((run) => run.fromStopped.seconds),
    'CPU s first load': middle((run) => cpu(run.firstLoad)),
    'CPU s refresh': middle((run) => cpu(run.refresh)),
    'CPU s sink': middle((run) => run.refresh.cpuSecondsOf.sink),
    'CPU s unchanged': middle((run) => run.unchanged.cpuSeconds),
    'CPU s DuckDB': middle((run) => run.duckdb.cpuSeconds),
    'index MiB': middle((run) => run.indexBytes) / 2 ** 20,
    'peak MiB unchanged': Math.round(middle((run) => run.unchanged.peakBytes) / 2 ** 20),
  };
}

async function snapshots(flags: Flags, endpoints: Endpoints): Promise<Line[]> {
  const [titles = 0] = flags.titles;
  const lines: Line[] = [];
  for (const { tables, datasets, only } of flags.tables) {
    const data = await syntheticData({ titles, datasets }, say);
    const runs = await runsOf(
      flags.runs,
      endpoints,
      (context, places, folder) =>
        snapshotRun({ context, places, folder, data, only, shards: flags.shards, signal }),
      () => tables,
    );
    const middle = (of: (run: SnapshotRun) => number) => median(runs.map(of));
    const [nothing, change, all] = [
      middle((run) => run.nothing),
      middle((run) => run.afterChange),
      middle((run) => run.whole),
    ];
    lines.push({
      titles,
      tables,
      'titles changed': middle((run) => run.titles),
      'CPU s nothing': nothing,
      'CPU s 1 %': change,
      'CPU s whole': all,
      '% of a whole one': (100 * (change - nothing)) / (all - nothing),
      'idle, % of a core': 100 * middle(({ idle }) => idle),
    });
  }
  return lines;
}

async function stages(flags: Flags, endpoints: Endpoints): Promise<Line[]> {
  const [titles = 0] = flags.titles;
  const { datasets, only } = workloads.five;
  const data = await syntheticData({ titles, order: flags.order, datasets }, say);
  const runs: Record<'replay' | 'replay on one core' | 'process' | 'sink', Measured>[] = [];
  for (let number = 1; number <= flags.runs; number++) {
    const replayed = ['replay', data, '--shards', String(flags.shards)] as const;
    const onOneCore = await inPlace(endpoints, number, (context, places, folder) => {
      const [name, ...more] = replayed;
      return stage(name, context, places, more, { logs: folder, signal, onOneCore: true });
    });
    runs.push(
      await inPlace(endpoints, number, async (context, places, folder) => {
        const run = (name: 'replay' | 'process' | 'sink', ...more: string[]) => {
          say(`run ${number} of ${flags.runs}: ${name}`);
          return stage(name, context, places, more, { logs: folder, signal });
        };
        return {
          replay: await run(...replayed),
          'replay on one core': onOneCore,
          process: await run('process', '--until-caught-up', ...only),
          sink: await run('sink', '--once', ...only),
        };
      }),
    );
  }
  const records = median(runs.map(({ replay }) => (JSON.parse(replay.lastLine) as { read: number }).read));
  return (['replay', 'replay on one core', 'process', 'sink'] as const).map((name) => {
    const middle = (of: (measured: Measured) => number) => median(runs.map((run) => of(run[name])));
    const seconds = middle((of) => of.seconds);
    return {
      stage: name,
      records,
      seconds,
      'records/s': Math.round(records / seconds),
      'CPU s': middle(({ cpuSeconds }) => cpuSeconds),
      'CPU s broker': middle(({ brokerCpuSeconds }) => brokerCpuSeconds),
      'peak MiB': Math.round(middle(({ peakBytes }) => peakBytes) / 2 ** 20),
    };
  });
}

async function freshness(flags: Flags, endpoints: Endpoints): Promise<Line[]> {
  // A title has some 16.5 records; the replay ends when it was long enough.
  const titles = Math.ceil((flags.rate * flags.for) / 1000 / 16.4);
  const data = await syntheticData({ titles, order: flags.order }, say);
  const { rate, shards } = flags;
  const runs = await runsOf(
    flags.runs,
    endpoints,
    (context, _, folder) => freshnessOf({ context, data, folder, rate, shards, signal }),
    ({ p50, p99 }) => `p50 ${p50.toFixed(2)} s, p99 ${p99.toFixed(2)} s`,
  );
  const middle = (of: (run: (typeof runs)[number]) => number) => median(runs.map(of));
  return [
    {
      'records/s': flags.rate,
      records: middle(({ records }) => records),
      messages: middle(({ messages }) => messages),
      'p50 s': middle(({ p50 }) => p50),
      'p99 s': middle(({ p99 }) => p99),
      'max s': middle(({ max }) => max),
    },
  ];
}
