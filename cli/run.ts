/**
 * `reelflow run`: the pipeline of one machine in the foreground. It finds or starts broker and registry, starts processors
 * and sink as child processes, loads a dump if one is named, and serves the page itself. After SIGINT or SIGTERM all of them
 * leave; the end of one ends the others.
 */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { Command } from 'commander';
import { counted } from '../runtime/counted.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { openContext, servicesHere } from './context.ts';
import { declarationsOf } from './declared.ts';
import { whole } from './figures.ts';
import type { MemberEnd, MemberProcess } from './member.ts';
import { openPage } from './monitor.ts';
import {
  type CommonFlags,
  commonOptions,
  integerIn,
  type ListenAddress,
  maxRemovedOption,
  memoryOption,
  pageOption,
  periodOption,
  type TablesFlags,
  tablesArguments,
  tablesOptions,
} from './options.ts';
import { print, printJson } from './output.ts';
import { memberPorts } from './ports.ts';
import { stopReason, stopSignal } from './stop.ts';

interface Flags extends CommonFlags, TablesFlags {
  processors: number;
  interval: number;
  listen: ListenAddress;
  metrics?: string;
  memory: string;
  maxRemoved?: number;
  allowOlder?: true;
}

export function runCommand(): Command {
  const command = new Command('run')
    .description('run the pipeline in the foreground: services, processors, sink and page, until Ctrl-C')
    .argument('[dir]', 'folder of datasets to load: the topics then hold exactly this dump')
    .option('--processors <n>', 'number of processor members', integerIn(1, 9), 1)
    .addOption(periodOption('--interval <period>', 'time between two snapshots', '10s'))
    .addOption(pageOption())
    .option(
      '--metrics <host>',
      `serve health and metrics of the sink on port ${memberPorts.sink} of this address, of processors on ${memberPorts.processor(1)} and up`,
    )
    .addOption(memoryOption("limit of DuckDB's memory, for each processor and for the sink"))
    .addOption(maxRemovedOption())
    .option('--allow-older', 'accept a dump that is older than the topics');
  return commonOptions(tablesOptions(command)).action(run);
}

async function run(dir: string | undefined, flags: Flags): Promise<void> {
  const signal = stopSignal();
  requireFolder(dir);
  const { tables } = await declarationsOf(flags);
  const services = await servicesHere();
  const { endpoints } = services;
  const context = await openContext(flags, { endpoints, signal, component: 'run' });
  const { clusterIdOf } = await import('../kafka/client.ts');
  await clusterIdOf(context.broker);
  await requireFreeGold(flags.gold);
  const closed = new AbortController();
  const page = await openPage(
    context,
    { tables, listen: flags.listen },
    AbortSignal.any([signal, closed.signal]),
  );

  const { brokers, registryUrl } = endpoints;
  const { gold, state, namespace } = context.places;
  if (flags.json) printJson({ url: page.url, brokers, registryUrl, gold: resolve(gold), state, namespace });
  else {
    print(`Broker  ${brokers.join(', ')}`);
    print(`Page    ${page.url}`);
    print(`Gold    ${gold}`);
    print('Stop with Ctrl-C.');
  }
  const { MemberProcess } = await import('./member.ts');
  const members = startMembers(flags, dir, (name, args) => new MemberProcess(name, args, endpoints));
  let ends: MemberEnd[];
  try {
    await untilOver(members, signal, flags);
  } finally {
    closed.abort();
    ends = await Promise.all(members.map((member) => member.stop()));
    await page.done;
  }
  for (const end of ends) if (!hasLeft(end)) throw end.member.failure(end);
  if (flags.json) return;
  print(`Stopped by ${stopReason()}: all members have left.`);
  if (services.how !== 'environment') print('Broker and registry stay up until: npx reelflow services down');
}

/**
 * Whether a member ended in order. A replay that is stopped ends with the code of its signal, and the next run sends what is
 * missing. A member that has not begun when it is stopped ends by the signal itself.
 */
const hasLeft = ({ member, code, signal }: MemberEnd) =>
  code === 0 || signal === 'SIGTERM' || (member.name === 'replay' && code === 143);

/** Runs before anything starts. @throws ReelflowError input */
function requireFolder(dir: string | undefined): void {
  if (dir === undefined || existsSync(dir)) return;
  throw new ReelflowError('input', `There is no folder ${dir}`, {
    detail: resolve(dir),
    hint: 'Run `reelflow download --out imdb` or `reelflow generate --titles 2000 --out imdb` to make one.',
  });
}

/** Runs before the page: otherwise the second of two runs in one folder would name only the port. @throws ReelflowError busy */
export async function requireFreeGold(gold: string, patienceMs = 2_000): Promise<void> {
  const { hasGoldLock, withGoldLock } = await import('../sinks/gold/gold-lock.ts');
  if (hasGoldLock(gold)) await withGoldLock(gold, { patienceMs }, async () => undefined);
}

function startMembers(
  flags: Flags,
  dir: string | undefined,
  start: (name: string, args: string[]) => MemberProcess,
): MemberProcess[] {
  const { processors, interval, memory, metrics, gold, state, namespace, verbose } = flags;
  const common = ['--gold', gold, '--state', state, '--namespace', namespace, '--json'];
  if (verbose) common.push('--verbose');
  const observed = (port: number) => (metrics === undefined ? [] : ['--listen', `${metrics}:${port}`]);
  const members: MemberProcess[] = [];
  for (let n = 1; n <= processors; n++) {
    const more = [...tablesArguments(flags), '--memory', memory, ...observed(memberPorts.processor(n))];
    members.push(start(`processor-${n}`, ['process', ...common, ...more]));
  }
  const sinkFlags = [
    ...tablesArguments(flags),
    '--interval',
    `${interval}ms`,
    '--memory',
    memory,
    ...observed(memberPorts.sink),
  ];
  members.push(start('sink', ['sink', ...common, ...sinkFlags]));
  if (dir !== undefined) {
    const { maxRemoved, allowOlder } = flags;
    const guards = [
      ...(maxRemoved === undefined ? [] : ['--max-removed', `${maxRemoved}`]),
      ...(allowOlder === true ? ['--allow-older'] : []),
    ];
    members.push(start('replay', ['replay', dir, ...common, ...guards]));
  }
  return members;
}

/** Waits until the signal, or until a member fails. The replay is expected to end. @throws ReelflowError of that member */
async function untilOver(
  members: readonly MemberProcess[],
  signal: AbortSignal,
  { json }: Flags,
): Promise<void> {
  const stopped = new Promise<undefined>((over) => {
    if (signal.aborted) over(undefined);
    signal.addEventListener('abort', () => over(undefined), { once: true });
  });
  const running = new Map(members.map((member) => [member, member.ended]));
  for (;;) {
    const end = await Promise.race([stopped, ...running.values()]);
    if (end === undefined) return;
    running.delete(end.member);
    if (end.member.name !== 'replay' || end.code !== 0) {
      if (signal.aborted) return;
      throw end.member.failure(end);
    }
    if (json !== true) print(loadedText(end));
  }
}

/** @param end of the replay, with its report as JSON */
function loadedText({ output }: MemberEnd): string {
  const { read, produced, rejected } = JSON.parse(output.trim().split('\n').at(-1) ?? '{}');
  return `Loaded  ${counted(read, 'row')} read, ${whole(produced)} sent, ${whole(rejected)} rejected`;
}
