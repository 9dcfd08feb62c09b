/** `reelflow demo`: runs the whole pipeline over one input, then shows the gold tables and their folder. */
import { existsSync, realpathSync, renameSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Command } from 'commander';
import { counted } from '../runtime/counted.ts';
import { filled } from '../runtime/terminal.ts';
import type { GoldTable } from '../tables/gold-table.ts';
import { namespaceFolder } from '../topics/catalog.ts';
import { type Context, openContext, servicesHere } from './context.ts';
import { declarationsOf } from './declared.ts';
import { whole } from './figures.ts';
import { viewText } from './gold-text.ts';
import {
  type CommonFlags,
  commonOptions,
  describeDefault,
  integerIn,
  localFolder,
  type TablesFlags,
  tablesArguments,
  tablesOptions,
} from './options.ts';
import { print, printJson } from './output.ts';
import type { PipelineReport } from './pipeline.ts';
import { stopSignal } from './stop.ts';

interface Flags extends CommonFlags, TablesFlags {
  data?: string;
  titles: number;
  seed: number;
}

const rowsShown = 5;

export function demoCommand(): Command {
  const command = new Command('demo')
    .description('run the whole pipeline once: services, replay, process, sink; then show gold tables')
    .option('--data <dir>', 'folder of IMDb datasets; default a synthetic dataset')
    .option('--titles <n>', 'titles of the synthetic dataset', integerIn(1, 30_000_000), 10_000)
    .option('--seed <s>', 'seed of the synthetic dataset', integerIn(0, 2 ** 31 - 1), 1);
  commonOptions(tablesOptions(command));
  describeDefault(command, '--gold', join(localFolder, 'demo', '<namespace>'));
  describeDefault(command, '--namespace', 'one per dataset');
  return command.action(run);
}

async function run(flags: Flags, command: Command): Promise<void> {
  const say = (line: string) => {
    if (!flags.json) print(line);
  };
  const { tables } = await declarationsOf(flags);
  const services = await servicesHere();
  for (const reason of services.why) say(reason);
  say(`Broker ${services.endpoints.brokers.join(', ')} (${services.how})`);

  const data = flags.data === undefined ? await syntheticData(flags, say) : flags.data;
  const isNamespaceChosen = command.getOptionValueSource('namespace') === 'cli';
  const namespace = isNamespaceChosen ? flags.namespace : await demoNamespace(flags);
  const isGoldChosen = command.getOptionValueSource('gold') === 'cli';
  const places = { ...flags, namespace };
  const context = await openContext(places, { endpoints: services.endpoints });
  const gold = isGoldChosen ? flags.gold : await demoGold(context);
  // Hints read the options of the command.
  command.setOptionValue('namespace', namespace).setOptionValue('gold', gold);
  const report = await pipeline({ ...context, places: { ...context.places, gold } }, data, flags);

  const { currentSnapshot, snapshotFolder } = await import('../sinks/gold/manifest.ts');
  const snapshot = report.sink.snapshot ?? currentSnapshot(gold) ?? null;
  const folder = snapshot === null ? gold : snapshotFolder(gold, snapshot);
  if (flags.json) {
    const { read, unchanged, produced, rejected, chunks, bytes, runId, absent } = report.replay;
    const { seconds, secondsUntil } = report;
    const recordsPerSecond = Math.round(read / seconds);
    const line = {
      read,
      unchanged,
      produced,
      rejected,
      seconds,
      recordsPerSecond,
      chunks,
      bytes,
      runId,
      absent,
    };
    const places = { gold: resolve(gold), folder: resolve(folder), namespace };
    return printJson({ ...line, secondsUntil, snapshot, ...places });
  }
  const { replayText } = await import('./replay-text.ts');
  say(replayText(report.replay));
  if (snapshot !== null) say(await tablesText(gold, snapshot, tables));
  const { read } = report.replay;
  const rate = whole(read / report.seconds);
  say(`${counted(read, 'record')} from file to gold in ${report.seconds.toFixed(1)} s: ${rate} records/s`);
  say(report.sink.snapshot === null ? 'Nothing changed since the last snapshot.' : `Snapshot ${snapshot}`);
  say(`Gold     ${folder}`);
  say(`Show     npx reelflow gold show titles --gold ${gold}`);
  say(`Verify   npx reelflow verify --namespace ${namespace} --gold ${gold} --data ${data}`);
  if (services.how !== 'environment') say('Broker and registry stay up until: npx reelflow services down');
}

/** A namespace per input, so that demos of different inputs never mix, with each other or with the user's own pipeline. */
async function demoNamespace({ data, titles, seed, namespace }: Flags): Promise<string> {
  const prefix = namespace === '' ? 'demo' : `${namespace}-demo`;
  if (data === undefined) return `${prefix}-t${titles}-s${seed}`;
  const path = existsSync(data) ? realpathSync(data) : resolve(data);
  const { createHash } = await import('node:crypto');
  return `${prefix}-${createHash('sha256').update(path).digest('hex').slice(0, 10)}`;
}

/** A gold folder per demo, so that the default one stays free for the user's own pipeline. */
async function demoGold({ broker, names }: Context): Promise<string> {
  const [{ currentSnapshot, readManifest }, { clusterIdOf }] = await Promise.all([
    import('../sinks/gold/manifest.ts'),
    import('../kafka/client.ts'),
  ]);
  const gold = join(localFolder, 'demo', names.namespace);
  const current = currentSnapshot(gold);
  const cluster = await clusterIdOf(broker);
  // Other brokers, or a local one that lost its data: snapshots of two clusters cannot share a folder.
  if (current === undefined || readManifest(gold, current).clusterId === cluster) return gold;
  return `${gold}-${cluster.slice(0, 6).replaceAll(/\W/g, '_')}`;
}

async function syntheticData({ titles, seed }: Flags, say: (line: string) => void): Promise<string> {
  const folder = join(localFolder, 'data', `titles-${titles}-seed-${seed}`);
  if (existsSync(folder)) return folder;
  say(`Writing a synthetic dataset of ${counted(titles, 'title')} to ${folder}`);
  const { generate } = await import('../producers/synthetic/synthetic.ts');
  const building = `${folder}.part`;
  rmSync(building, { recursive: true, force: true });
  await generate({ titles, seed, out: building, gzip: false, order: 'id' });
  renameSync(building, folder);
  return folder;
}

async function pipeline(context: Context, data: string, flags: Flags): Promise<PipelineReport> {
  const { runPipeline } = await import('./pipeline.ts');
  const { replayProgress } = await import('./replay.ts');
  const progress = await replayProgress(context.logger);
  const { namespace } = context.places;
  const declared = tablesArguments(flags);
  try {
    return await runPipeline({
      context,
      data,
      logs: join(localFolder, 'logs', namespaceFolder(namespace)),
      processArguments: [...(flags.verbose ? ['--verbose'] : []), ...declared],
      sinkArguments: declared,
      signal: stopSignal(),
      onProgress: progress.show,
      onStage: (stage) => {
        progress.end();
        context.logger.info({ stage }, 'finishing');
      },
    });
  } finally {
    progress.end();
  }
}

/** The built-in tables of which the demo shows rows. */
const shownTables = ['genre_analysis', 'decade_trends', 'contributor_analysis', 'series', 'top_titles'];

/** The first rows of some tables, those of a user among them, and the names of the others. */
async function tablesText(gold: string, snapshot: string, tables: readonly GoldTable[]): Promise<string> {
  const [{ GoldReader }, { readManifest }] = await Promise.all([
    import('../sinks/gold/gold-reader.ts'),
    import('../sinks/gold/manifest.ts'),
  ]);
  const held = readManifest(gold, snapshot).tables;
  return GoldReader.open(
    gold,
    async (reader) => {
      const texts: string[] = [];
      const others: string[] = [];
      for (const { name, file } of tables.filter((table) => table.name in held)) {
        if (file === undefined && !shownTables.includes(name))
          others.push(`${name} (${whole(held[name]?.rows ?? 0)})`);
        else texts.push(`\n${viewText(await reader.rows(snapshot, name, rowsShown))}`);
      }
      if (others.length > 0)
        texts.push(`\n${filled(`Other tables, with their rows: ${others.join(', ')}.`)}`);
      return texts.join('\n');
    },
    tables,
  );
}
