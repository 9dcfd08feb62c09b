/**
 * `npm run bench`: replays, processes and sinks a synthetic dataset end to end and prints records/s of each stage and
 * of the whole, CPU seconds and peak memory of all our processes together, median of the runs.
 *
 * Figures of processes come from /proc (Linux): every 100 ms, for this process and its children.
 */
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import Table from 'cli-table3';
import { Command } from 'commander';
import { type CommonFlags, integerOption, localFolder, openContext } from '../cli/context.ts';
import { type PipelineReport, runPipeline } from '../cli/pipeline.ts';
import { findServices, portsFrom } from '../kafka/services.ts';
import { generate } from '../producers/synthetic.ts';

interface Flags {
  titles: number;
  runs: number;
  order: 'id' | 'random';
  shards: number;
  maxRecords?: string;
  memory?: string;
  replayTwice?: true;
  keep?: true;
  json?: true;
}

interface Run {
  readonly report: PipelineReport;
  readonly cpuSeconds: {
    readonly replay: number;
    readonly process: number;
    readonly sink: number;
    readonly broker: number;
  };
  /** All our processes together, without the broker, bytes. */
  readonly peakBytes: number;
  readonly stateBytes: number;
}

const ticksPerSecond = 100;

await new Command('bench')
  .option(
    '--titles <n>',
    'titles of the synthetic dataset; 1.15 M give 19 M records in seven datasets',
    integerOption(100),
    1_150_000,
  )
  .option('--runs <n>', 'runs, of which the median is quoted', integerOption(1, 50), 3)
  .option('--order <order>', 'id or random', 'id')
  .option('--shards <n>', 'partitions', integerOption(1, 64), 4)
  .option('--max-records <n>', 'records that close a micro-batch')
  .option('--memory <size>', "DuckDB's limit in the processor")
  .option('--replay-twice', 'replay the same files a second time into the same topics, and measure that')
  .option('--keep', 'leave topics, state and gold of the runs')
  .option('--json', 'one line of JSON')
  .action(bench)
  .parseAsync();

async function bench(flags: Flags): Promise<void> {
  const say = (line: string) => process.stderr.write(`${line}\n`);
  const { endpoints } = await findServices({
    env: process.env,
    folder: localFolder,
    ports: portsFrom(process.env),
    onProgress: say,
  });
  const data = await dataset(flags, say);
  const runs: Run[] = [];
  for (let number = 1; number <= flags.runs; number++) {
    const namespace = `bench-${process.pid}-${number}`;
    const folder = join(localFolder, 'bench', namespace);
    const places: CommonFlags = { gold: join(folder, 'gold'), state: join(folder, 'state'), namespace };
    const context = await openContext(places, endpoints);
    context.logger.level = 'warn';
    const once = () =>
      measured(folder, () =>
        runPipeline({
          context,
          data,
          shards: flags.shards,
          logs: join(folder, 'logs'),
          signal: new AbortController().signal,
          processArguments: [
            '--verbose',
            ...(flags.maxRecords === undefined ? [] : ['--max-records', flags.maxRecords]),
            ...(flags.memory === undefined ? [] : ['--memory', flags.memory]),
          ],
        }),
      );
    let run = await once();
    if (flags.replayTwice) run = await once();
    runs.push(run);
    say(
      `run ${number}: ${Math.round(run.report.replay.read / run.report.seconds).toLocaleString('en-US')} records/s`,
    );
    if (!flags.keep) {
      await removeTopics(context, namespace);
      rmSync(folder, { recursive: true, force: true });
    }
  }
  print(flags, runs);
}

async function dataset({ titles, order }: Flags, say: (line: string) => void): Promise<string> {
  const folder = join(localFolder, 'data', `titles-${titles}-seed-1${order === 'random' ? '-random' : ''}`);
  if (existsSync(folder)) return folder;
  say(`Writing ${titles.toLocaleString('en-US')} titles to ${folder}`);
  rmSync(`${folder}.part`, { recursive: true, force: true });
  await generate({ titles, seed: 1, out: `${folder}.part`, gzip: false, order });
  renameSync(`${folder}.part`, folder);
  return folder;
}

async function removeTopics(
  context: Awaited<ReturnType<typeof openContext>>,
  namespace: string,
): Promise<void> {
  const { withAdmin } = await import('../kafka/client.ts');
  await withAdmin(context.broker, async (admin) => {
    const topics = (await admin.listTopics()).filter((name) => name.startsWith(`${namespace}.`));
    if (topics.length > 0) await admin.deleteTopics({ topics });
  });
}

/** Runs `work` and watches this process, its children and the broker meanwhile. */
async function measured(folder: string, work: () => Promise<PipelineReport>): Promise<Run> {
  const last = new Map<number, { command: string; ticks: number }>();
  const broker = brokerPid();
  const brokerBefore = broker === undefined ? 0 : (statOf(broker)?.ticks ?? 0);
  const ownBefore = statOf(process.pid)?.ticks ?? 0;
  let peakBytes = 0;
  const look = () => {
    let bytes = 0;
    for (const pid of [process.pid, ...childrenOf(process.pid)]) {
      const stat = statOf(pid);
      // An ended child is a zombie without a command until it is waited for: its last figures stand.
      if (stat === undefined || stat.command === '') continue;
      bytes += stat.residentBytes;
      last.set(pid, stat);
    }
    peakBytes = Math.max(peakBytes, bytes);
  };
  const timer = setInterval(look, 100);
  try {
    const report = await work();
    const ticks = (name: string) =>
      [...last.values()]
        .filter(({ command }) => command.includes(`reelflow.js\0${name}`))
        .reduce((sum, of) => sum + of.ticks, 0);
    return {
      report,
      peakBytes,
      stateBytes: sizeOf(join(folder, 'state')),
      cpuSeconds: {
        replay: ((statOf(process.pid)?.ticks ?? 0) - ownBefore) / ticksPerSecond,
        process: ticks('process') / ticksPerSecond,
        sink: ticks('sink') / ticksPerSecond,
        broker:
          broker === undefined ? Number.NaN : ((statOf(broker)?.ticks ?? 0) - brokerBefore) / ticksPerSecond,
      },
    };
  } finally {
    clearInterval(timer);
  }
}

function statOf(pid: number): { command: string; ticks: number; residentBytes: number } | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ');
    return {
      command: readFileSync(`/proc/${pid}/cmdline`, 'utf8'),
      ticks: Number(fields[11]) + Number(fields[12]),
      residentBytes: Number(fields[21]) * 4096,
    };
  } catch {
    return undefined;
  }
}

function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
    );
  } catch {
    return [];
  }
}

function brokerPid(): number | undefined {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .find((pid) => {
      const command = statOf(pid)?.command ?? '';
      return command.includes('kafka.Kafka') && command.includes(`${localFolder}/services`);
    });
}

function sizeOf(folder: string): number {
  if (!existsSync(folder)) return 0;
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
}

function print(flags: Flags, runs: readonly Run[]): void {
  const middle = (of: (run: Run) => number) =>
    runs.map(of).sort((a, b) => a - b)[Math.floor((runs.length - 1) / 2)] ?? Number.NaN;
  const records = runs[0]?.report.replay.read ?? 0;
  const processed = middle(
    ({ report }) => report.process.applied + report.process.duplicate + report.process.rejected,
  );
  const result = {
    titles: flags.titles,
    order: flags.order,
    shards: flags.shards,
    runs: runs.length,
    records,
    recordsProcessed: processed,
    seconds: middle(({ report }) => report.seconds),
    recordsPerSecond: Math.round(records / middle(({ report }) => report.seconds)),
    secondsUntil: {
      replay: middle(({ report }) => report.secondsUntil.replay),
      process: middle(({ report }) => report.secondsUntil.process),
      sink: middle(({ report }) => report.secondsUntil.sink),
    },
    cpuSeconds: {
      replay: middle(({ cpuSeconds }) => cpuSeconds.replay),
      process: middle(({ cpuSeconds }) => cpuSeconds.process),
      sink: middle(({ cpuSeconds }) => cpuSeconds.sink),
      broker: middle(({ cpuSeconds }) => cpuSeconds.broker),
    },
    peakMiB: Math.round(middle(({ peakBytes }) => peakBytes) / 2 ** 20),
    stateBytesPerRecord: middle(({ stateBytes }) => stateBytes) / processed,
  };
  if (flags.json) {
    process.stdout.write(`${JSON.stringify(result)}\n`);
    return;
  }
  const table = new Table({
    head: ['stage', 'records', 'done after s', 'records/s', 'CPU s'],
    colAligns: ['left', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [] },
  });
  const whole = (value: number) => Math.round(value).toLocaleString('en-US');
  const row = (name: string, count: number, seconds: number, cpu: number) =>
    table.push([name, whole(count), seconds.toFixed(1), whole(count / seconds), cpu.toFixed(1)]);
  const { secondsUntil: until, cpuSeconds: cpu } = result;
  row('replay', records, until.replay, cpu.replay);
  row('process', processed, until.process, cpu.process);
  row('sink', records, until.sink, cpu.sink);
  row('end to end', records, result.seconds, cpu.replay + cpu.process + cpu.sink);
  table.push(['broker', '', '', '', cpu.broker.toFixed(1)]);
  process.stdout.write(`${table.toString()}\n`);
  process.stdout.write(
    `${flags.titles.toLocaleString('en-US')} titles, rows in ${flags.order} order, ${flags.shards} shards, median of ${runs.length}; ` +
      `peak memory ${result.peakMiB} MiB, state ${result.stateBytesPerRecord.toFixed(1)} bytes a record\n` +
      `${availableParallelism()} × ${cpus()[0]?.model ?? 'CPU'}, ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.versions.node}\n`,
  );
}
