/** `reelflow lag`: lag and health of consumer groups per partition. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, Option } from 'commander';
import type { State } from '../monitor/judge.ts';
import type { GroupLag, LagReport } from '../monitor/lag.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { terminalWidth } from '../runtime/terminal.ts';
import { openContext } from './context.ts';
import { lagText } from './lag-text.ts';
import { type CommonFlags, commonOptions, periodOption, severalOption } from './options.ts';
import { print } from './output.ts';
import { pipelineGroups, requireRights } from './pipeline-groups.ts';
import { stopSignal } from './stop.ts';

interface Flags extends CommonFlags {
  group: string[];
  watch?: true;
  over?: number;
  failOn?: keyof typeof failsOn;
}

/** The states that fail the check, by value of `--fail-on`: that state, and for WARN and ERR all worse ones. */
const failsOn = {
  WARN: ['WARN', 'ERR', 'STALL', 'STOP', 'LOST'],
  ERR: ['ERR', 'STALL', 'STOP', 'LOST'],
  STALL: ['STALL'],
  STOP: ['STOP'],
  LOST: ['LOST'],
} as const satisfies Record<string, readonly State[]>;

const lookEveryMs = 1_000;
/** Longer than a large micro-batch takes: its member commits nothing meanwhile, and would count as stalled. */
const failOnSpanMs = 30_000;

export function lagCommand(): Command {
  const command = new Command('lag')
    .description('show lag and health of consumer groups per partition')
    .addOption(
      severalOption(
        '--group <name>',
        'any group on the cluster, or a pattern such as "pay*" that also matches groups that appear later',
        'the groups of the pipeline',
      ),
    )
    .option('--watch', 'show them again every second until SIGINT')
    .addOption(
      periodOption(
        '--over <period>',
        'observe for this long before judging; default one observation, with --fail-on 30s, with --watch the last 60s',
      ),
    )
    .addOption(
      new Option(
        '--fail-on <state>',
        'end with exit code 22 when a partition is in this state or, for WARN and ERR, a worse one',
      ).choices(Object.keys(failsOn)),
    );
  return commonOptions(command).action(run);
}

async function run(flags: Flags): Promise<void> {
  const excluding = flags.json === true ? '--json' : flags.failOn === undefined ? undefined : '--fail-on';
  if (flags.watch === true && excluding !== undefined) {
    throw new ReelflowError('usage', `--watch and ${excluding} exclude each other`, {
      detail: `With ${excluding} the command ends after one result.`,
      hint: 'Leave one of them out.',
    });
  }
  const { broker, names, places } = await openContext(flags);
  const [{ LagWatch }, { LocalState, stageNote }] = await Promise.all([
    import('../monitor/lag-watch.ts'),
    import('./stage-notes.ts'),
  ]);
  const own = await pipelineGroups(names);
  const watched =
    flags.group.length === 0
      ? own
      : [...new Set(flags.group)].map(
          (group) => own.find((one) => one.group === group) ?? { group, topics: [] },
        );
  const local = new LocalState(broker, places);
  const noteOf = (group: GroupLag) => stageNote(names, group, local);
  const found = flags.json === true ? undefined : local.find();
  if (flags.watch === true) {
    await found;
    const watch = new LagWatch(broker, flags.over);
    await redraw(async (width) =>
      lagText(await watch.look(watched), { width, noteOf, trendOf: (row) => watch.trendOf(row) }),
    );
    return;
  }
  const overMs = flags.over ?? (flags.failOn === undefined ? 0 : failOnSpanMs);
  // A single observation starts a span of the usual length; a span of no length would be complete at once.
  const watch = overMs === 0 ? new LagWatch(broker) : new LagWatch(broker, overMs);
  const [report] = await Promise.all([lookFor(overMs, () => watch.look(watched)), found]);
  print(flags.json === true ? JSON.stringify(report.rows) : lagText(report, { noteOf }));
  if (flags.failOn !== undefined) refuse(report, flags.failOn, flags.group);
  requireRights(report);
}

/** Observes until the first observation is `overMs` old. @returns the last report */
async function lookFor(overMs: number, look: () => Promise<LagReport>): Promise<LagReport> {
  let report = await look();
  const startedMs = performance.now();
  while (performance.now() - startedMs < overMs) {
    await sleep(Math.min(lookEveryMs, overMs / 10));
    report = await look();
  }
  return report;
}

/** @throws ReelflowError lagging */
function refuse({ rows, groups }: LagReport, failOn: keyof typeof failsOn, named: readonly string[]): void {
  const bad: readonly State[] = failsOn[failOn];
  const found = rows.filter(({ state }) => state !== null && bad.includes(state));
  // The check must not pass for a misspelt group, nor for one that cannot be read.
  const absent = groups.filter(({ group, exists }) => !exists && named.includes(group));
  const unread = groups.filter(({ problem }) => problem !== null);
  if (found.length + absent.length + unread.length === 0) return;
  const all = [
    ...unread.map(({ group, problem }) => `group ${group} could not be read: ${problem}`),
    ...absent.map(({ group }) => `group ${group} does not exist`),
    ...found.map(({ group, topic, partition, state }) => `${group} ${topic}/${partition}: ${state}`),
  ];
  throw new ReelflowError('lagging', `Lag check failed (--fail-on ${failOn})`, {
    detail: all.length > 5 ? `${all.slice(0, 5).join('; ')}; and ${all.length - 5} more` : all.join('; '),
    hint: 'See docs/operations.md for each state and its remedy.',
  });
}

/**
 * The lines that fit a screen; the last one contains the number of the others.
 * @param room lines of the screen; a screen of unknown height has room for all
 */
export function firstLines(lines: readonly string[], room: number): readonly string[] {
  if (!(room >= 1) || lines.length <= room) return lines;
  const shown = lines.slice(0, room - 1);
  return [...shown, `… ${lines.length - shown.length} more lines: enlarge the window, or name a --group`];
}

/** Draws `text` every second until a signal. While no broker answers it shows the reason and tries again. */
async function redraw(text: (width: number) => Promise<string>): Promise<void> {
  const signal = stopSignal();
  const isTerminal = process.stdout.isTTY === true;
  if (isTerminal) process.stdout.write('\x1b[2J');
  while (!signal.aborted) {
    let now: string;
    try {
      now = await text(terminalWidth());
    } catch (thrown) {
      if (!(thrown instanceof ReelflowError) || thrown.kind !== 'brokerUnreachable') throw thrown;
      now = `${thrown.message}: ${thrown.detail}`;
    }
    const lines = `${new Date().toISOString()}\n${now}`.split('\n');
    // From the top, each line cleared to its end, then everything below: no flicker.
    if (isTerminal) {
      const shown = firstLines(lines, process.stdout.rows - 1);
      process.stdout.write(`\x1b[H${shown.map((line) => `${line}\x1b[K\n`).join('')}\x1b[J`);
    } else {
      print(`${lines.join('\n')}\n`);
    }
    await sleep(lookEveryMs, undefined, { signal }).catch(() => undefined);
  }
}
