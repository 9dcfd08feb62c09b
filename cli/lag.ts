/** `reelflow lag`: how far consumer groups are behind. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { ReelflowError } from '../errors.ts';
import type { LagReport, LagRow, Watched } from '../monitor/lag.ts';
import { type CommonFlags, commonOptions, openContext, stopSignal } from './context.ts';

interface Flags extends CommonFlags {
  group: string[];
  watch?: true;
}

const redrawMs = 1_000;

export function lagCommand(): Command {
  const command = new Command('lag')
    .description('how far consumer groups are behind, by topic and partition')
    .option(
      '--group <name>',
      'any group on the cluster, may be given again; default those of the pipeline',
      (name: string, before: string[]) => [...before, name],
      [],
    )
    .option('--watch', 'redraw every second until SIGINT');
  return commonOptions(command).action(run);
}

async function run(flags: Flags): Promise<void> {
  if (flags.watch === true && flags.json === true) {
    throw new ReelflowError('usage', '--watch and --json exclude each other', {
      detail: '--json writes one line and ends.',
      hint: 'Leave one of them out.',
    });
  }
  const { broker, names } = await openContext(flags);
  const [{ readLag }, { cubes }] = await Promise.all([
    import('../monitor/lag.ts'),
    import('../processors/cubes/cube.ts'),
  ]);
  const own = new Map([
    [names.processorGroup, datasetsOf(cubes).map((dataset) => names.source(dataset))],
    [names.sinkGroup, [names.deltas, names.source('name.basics')]],
  ]);
  const groups = flags.group.length > 0 ? new Set(flags.group) : own.keys();
  const watched: Watched[] = [...groups].map((group) => ({ group, topics: own.get(group) ?? [] }));

  if (flags.watch === true) {
    await watch(async () => lagText(await readLag(broker, watched)));
    return;
  }
  const report = await readLag(broker, watched);
  process.stdout.write(`${flags.json === true ? JSON.stringify(report.rows) : await lagText(report)}\n`);
}

const datasetsOf = <Name extends string>(
  cubes: readonly { reads: Readonly<Partial<Record<Name, unknown>>> }[],
) => [...new Set(cubes.flatMap(({ reads }) => Object.keys(reads)))] as Name[];

/** The lag as text for people: a table per group with its total. */
export async function lagText({ rows, absent }: LagReport): Promise<string> {
  const { default: Table } = await import('cli-table3');
  const parts: string[] = [];
  for (const group of new Set(rows.map((row) => row.group))) {
    const own = rows.filter((row) => row.group === group);
    const table = new Table({
      head: ['topic', 'partition', 'start', 'end', 'next', 'lag'],
      colAligns: ['left', 'right', 'right', 'right', 'right', 'right'],
      style: { head: [], border: [], compact: true },
    });
    for (const { topic, partition, startOffset, endOffset, nextOffset, lag } of own) {
      table.push([topic, partition, ...[startOffset, endOffset, nextOffset, lag].map(figure)]);
    }
    table.push(['total', '', '', '', '', totalOf(own)]);
    parts.push(`Group ${group}, in messages`, table.toString());
  }
  for (const group of absent) parts.push(`Group ${group} does not exist (yet): nothing is committed.`);
  return parts.length > 0 ? parts.join('\n') : 'Nothing is committed.';
}

const figure = (value: number | null) => (value === null ? 'unknown' : value.toLocaleString('en-US'));

/** The sum, and of how many partitions it does not know; one that never held a message adds nothing. */
function totalOf(rows: readonly LagRow[]): string {
  const known = rows.flatMap(({ lag }) => (lag === null ? [] : [lag]));
  const unknown = rows.filter(({ lag, endOffset }) => lag === null && endOffset !== 0).length;
  if (known.length === 0 && unknown > 0) return 'unknown';
  const sum = figure(known.reduce((total, lag) => total + lag, 0));
  return unknown === 0 ? sum : `${sum} + ${unknown} unknown`;
}

/** Draws what `text` gives every second until a signal. A broker that is away for a while is said, and waited for. */
async function watch(text: () => Promise<string>): Promise<void> {
  const signal = stopSignal();
  const isTerminal = process.stdout.isTTY === true;
  if (isTerminal) process.stdout.write('\x1b[2J');
  while (!signal.aborted) {
    let now: string;
    try {
      now = await text();
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
    await sleep(redrawMs, undefined, { signal }).catch(() => undefined);
  }
}
