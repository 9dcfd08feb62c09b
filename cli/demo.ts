/** `reelflow demo`: the whole pipeline over one input, then the gold tables and their folder. */
import { createHash } from 'node:crypto';
import { existsSync, realpathSync, renameSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Command } from 'commander';
import { type Context, openContext } from './context.ts';
import { whole } from './figures.ts';
import { viewText } from './gold-text.ts';
import { type CommonFlags, commonOptions, integerIn, localFolder } from './options.ts';
import { print, printJson } from './output.ts';
import type { PipelineReport } from './pipeline.ts';
import { stopSignal } from './stop.ts';

interface Flags extends CommonFlags {
  data?: string;
  titles: number;
  seed: number;
}

const rowsShown = 5;

export function demoCommand(): Command {
  const command = new Command('demo')
    .description('run the whole pipeline once: services, replay, process, sink; then show the gold tables')
    .option('--data <dir>', 'folder of IMDb datasets; default a synthetic dataset')
    .option('--titles <n>', 'titles of the synthetic dataset', integerIn(1, 30_000_000), 10_000)
    .option('--seed <s>', 'seed of the synthetic dataset', integerIn(0, 2 ** 31 - 1), 1);
  return commonOptions(command).action(run);
}

async function run(flags: Flags, command: Command): Promise<void> {
  const say = (line: string) => {
    if (!flags.json) print(line);
  };
  const { findServices, portsFrom } = await import('../kafka/local/services.ts');
  const services = await findServices({
    env: process.env,
    folder: localFolder,
    ports: portsFrom(process.env),
    onProgress: (line) => process.stderr.write(`${line}\n`),
  });
  for (const reason of services.why) say(reason);
  say(`Broker ${services.endpoints.brokers.join(', ')} (${services.how})`);

  const data = flags.data === undefined ? await syntheticData(flags, say) : flags.data;
  const namespace = flags.namespace === '' ? demoNamespace(flags) : flags.namespace;
  const isGoldChosen = command.getOptionValueSource('gold') === 'cli';
  const places = { ...flags, namespace };
  const context = await openContext(places, services.endpoints);
  const gold = isGoldChosen ? flags.gold : await freeGold(flags.gold, context);
  const report = await pipeline({ ...context, places: { ...context.places, gold } }, data, flags);

  const { currentSnapshot, snapshotFolder } = await import('../sinks/gold/manifest.ts');
  const snapshot = report.sink.snapshot ?? currentSnapshot(gold) ?? null;
  const folder = snapshot === null ? gold : snapshotFolder(gold, snapshot);
  if (flags.json) {
    const { read, produced, rejected, chunks, bytes, runId, absent } = report.replay;
    const { seconds, secondsUntil } = report;
    const recordsPerSecond = Math.round(read / seconds);
    const line = { read, produced, rejected, seconds, recordsPerSecond, chunks, bytes, runId, absent };
    const places = { gold: resolve(gold), folder: resolve(folder), namespace };
    return printJson({ ...line, secondsUntil, snapshot, ...places });
  }
  const { replayText } = await import('./replay.ts');
  say(replayText(report.replay));
  if (snapshot !== null) say(await tablesText(gold, snapshot));
  const { read } = report.replay;
  const rate = whole(read / report.seconds);
  say(`${whole(read)} records from file to gold in ${report.seconds.toFixed(1)} s: ${rate} records/s`);
  say(report.sink.snapshot === null ? 'Nothing changed since the last snapshot.' : `Snapshot ${snapshot}`);
  say(`Gold     ${folder}`);
  say(`Verify   npx reelflow verify --namespace ${namespace} --gold ${gold} --data ${data}`);
  if (services.how !== 'environment') say('Broker and registry stay up until: npx reelflow services down');
}

/** A namespace per input, so that demos of different inputs never mix. */
function demoNamespace({ data, titles, seed }: Flags): string {
  if (data === undefined) return `demo-t${titles}-s${seed}`;
  const path = existsSync(data) ? realpathSync(data) : resolve(data);
  return `demo-${createHash('sha256').update(path).digest('hex').slice(0, 10)}`;
}

/** The default gold folder, or one beside it when that holds snapshots of another pipeline. */
async function freeGold(gold: string, { broker, names }: Context): Promise<string> {
  const [{ currentSnapshot, readManifest }, { clusterIdOf }] = await Promise.all([
    import('../sinks/gold/manifest.ts'),
    import('../kafka/client.ts'),
  ]);
  const current = currentSnapshot(gold);
  if (current === undefined) return gold;
  const { clusterId, namespace } = readManifest(gold, current);
  const mine = await clusterIdOf(broker);
  if (clusterId === mine && namespace === names.namespace) return gold;
  return `${gold}-${names.namespace}-${mine.slice(0, 6).replaceAll(/\W/g, '_')}`;
}

async function syntheticData({ titles, seed }: Flags, say: (line: string) => void): Promise<string> {
  const folder = join(localFolder, 'data', `titles-${titles}-seed-${seed}`);
  if (existsSync(folder)) return folder;
  say(`Writing a synthetic dataset of ${whole(titles)} titles to ${folder}`);
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
  try {
    return await runPipeline({
      context,
      data,
      logs: join(localFolder, 'logs', namespace === '' ? '_' : namespace),
      processArguments: flags.verbose ? ['--verbose'] : [],
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

/** The first rows of each gold table. */
async function tablesText(gold: string, snapshot: string): Promise<string> {
  const [{ GoldReader }, { goldTables }] = await Promise.all([
    import('../sinks/gold/gold-reader.ts'),
    import('../tables/gold-tables.ts'),
  ]);
  return GoldReader.open(gold, async (reader) => {
    const texts: string[] = [];
    for (const { name } of goldTables) {
      texts.push(`\n${viewText(await reader.rows(snapshot, name, rowsShown))}`);
    }
    return texts.join('\n');
  });
}
