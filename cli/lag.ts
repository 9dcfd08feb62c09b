/** `reelflow lag`: how far consumer groups are behind, how they do, and when they will have caught up. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, Option } from 'commander';
import type { State } from '../monitor/judge.ts';
import type { GroupLag, LagReport, LagRow, Watched } from '../monitor/lag.ts';
import { ReelflowError } from '../runtime/errors.ts';
import type { TopicNames } from '../topics/catalog.ts';
import {
  type CommonFlags,
  commonOptions,
  durationOption,
  openContext,
  severalOption,
  stopSignal,
} from './context.ts';
import { lagText } from './lag-text.ts';

interface Flags extends CommonFlags {
  group: string[];
  watch?: true;
  over?: number;
  failOn?: keyof typeof failsOn;
}

/** What `--fail-on` a state means: the state itself, and with WARN and ERR whatever is worse. */
const failsOn = {
  WARN: ['WARN', 'ERR', 'STALL', 'STOP'],
  ERR: ['ERR', 'STALL', 'STOP'],
  STALL: ['STALL'],
  STOP: ['STOP'],
} as const satisfies Record<string, readonly State[]>;

const lookEveryMs = 1_000;
/** Longer than a large micro-batch takes, or a member that works would be taken for one that stands still. */
const failOnSpanMs = 30_000;

export function lagCommand(): Command {
  const command = new Command('lag')
    .description('how far consumer groups are behind, by topic and partition, and how they do')
    .option(
      '--group <name>',
      'any group on the cluster, may be given again; default those of the pipeline',
      severalOption,
      [],
    )
    .option('--watch', 'look again every second until SIGINT')
    .option(
      '--over <period>',
      'look for so long before judging; default one look, with --fail-on 30s, with --watch the last 60s count',
      durationOption,
    )
    .addOption(
      new Option(
        '--fail-on <state>',
        'exit code 22 when a partition is in this state or (WARN, ERR) a worse one',
      ).choices(Object.keys(failsOn)),
    );
  return commonOptions(command).action(run);
}

async function run(flags: Flags): Promise<void> {
  const excluding = flags.json === true ? '--json' : flags.failOn === undefined ? undefined : '--fail-on';
  if (flags.watch === true && excluding !== undefined) {
    throw new ReelflowError('usage', `--watch and ${excluding} exclude each other`, {
      detail: `${excluding} is for a command that ends.`,
      hint: 'Leave one of them out.',
    });
  }
  const { broker, names } = await openContext(flags);
  const { LagWatch } = await import('../monitor/lag.ts');
  const own = await pipelineGroups(names);
  const watched =
    flags.group.length === 0
      ? own
      : [...new Set(flags.group)].map(
          (group) => own.find((one) => one.group === group) ?? { group, topics: [] },
        );
  if (flags.watch === true) {
    const watch = new LagWatch(broker, flags.over);
    await redraw(async (columns) =>
      lagText(await watch.look(watched), { columns, trendOf: (row) => watch.trendOf(row) }),
    );
    return;
  }
  const overMs = flags.over ?? (flags.failOn === undefined ? 0 : failOnSpanMs);
  // One look is the beginning of a usual span: it does not fill one of no length.
  const watch = overMs === 0 ? new LagWatch(broker) : new LagWatch(broker, overMs);
  const report = await lookFor(overMs, () => watch.look(watched));
  process.stdout.write(`${flags.json === true ? JSON.stringify(report.rows) : await lagText(report)}\n`);
  if (flags.failOn !== undefined) refuse(report, flags.failOn, flags.group);
}

/** The consumer groups of the pipeline and what they read. */
export async function pipelineGroups(names: TopicNames): Promise<Watched[]> {
  const { cubes } = await import('../tables/cubes/cube.ts');
  const datasets = new Set(cubes.flatMap(({ reads }) => Object.keys(reads) as (keyof typeof reads)[]));
  return [
    { group: names.processorGroup, topics: [...datasets].map((dataset) => names.source(dataset)) },
    { group: names.sinkGroup, topics: [names.deltas, names.source('name.basics')] },
  ];
}

/** Looks until the first look is so long ago. @returns the last report */
async function lookFor(overMs: number, look: () => Promise<LagReport>): Promise<LagReport> {
  const first = await look();
  let report = first;
  while (report.atMs - first.atMs < overMs) {
    await sleep(Math.min(lookEveryMs, overMs / 10));
    report = await look();
  }
  return report;
}

/** @throws ReelflowError lagging */
function refuse({ rows, groups }: LagReport, failOn: keyof typeof failsOn, named: readonly string[]): void {
  const bad: readonly State[] = failsOn[failOn];
  const found = rows.filter(({ state }) => state !== null && bad.includes(state));
  // A check of a group that is misspelt would never fail.
  const absent = groups.filter(({ group, exists }) => !exists && named.includes(group));
  if (found.length + absent.length === 0) return;
  const all = [
    ...absent.map(({ group }: GroupLag) => `group ${group} does not exist`),
    ...found.map(({ group, topic, partition, state }: LagRow) => `${group} ${topic}/${partition}: ${state}`),
  ];
  throw new ReelflowError('lagging', `A consumer group is not well (--fail-on ${failOn})`, {
    detail: all.length > 5 ? `${all.slice(0, 5).join('; ')}; and ${all.length - 5} more` : all.join('; '),
    hint: 'docs/operations.md says what each state means and what to do.',
  });
}

/** Draws what `text` gives every second until a signal. A broker that is away for a while is said, and waited for. */
async function redraw(text: (columns: number) => Promise<string>): Promise<void> {
  const signal = stopSignal();
  const isTerminal = process.stdout.isTTY === true;
  if (isTerminal) process.stdout.write('\x1b[2J');
  while (!signal.aborted) {
    let now: string;
    try {
      now = await text(isTerminal ? process.stdout.columns : Number.POSITIVE_INFINITY);
    } catch (thrown) {
      if (!(thrown instanceof ReelflowError) || thrown.kind !== 'brokerUnreachable') throw thrown;
      now = `${thrown.message}: ${thrown.detail}`;
    }
    const lines = `${new Date().toISOString()}\n${now}`.split('\n');
    // To the top, each line cleared behind its end, then everything below: no flicker. What does not fit is left out.
    if (isTerminal) {
      const shown = lines.slice(0, Math.max(1, process.stdout.rows - 1));
      process.stdout.write(`\x1b[H${shown.map((line) => `${line}\x1b[K\n`).join('')}\x1b[J`);
    } else {
      process.stdout.write(`${lines.join('\n')}\n\n`);
    }
    await sleep(lookEveryMs, undefined, { signal }).catch(() => undefined);
  }
}
