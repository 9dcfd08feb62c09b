/** `reelflow monitor`: a page that shows the pipeline live. */
import { Command } from 'commander';
import type { RunningPage } from '../monitor/server.ts';
import type { GoldTable } from '../tables/gold-table.ts';
import { type Context, openContext } from './context.ts';
import { declarationsOf } from './declared.ts';
import { placesText } from './hint.ts';
import { letterJson, openLetter } from './letter.ts';
import {
  type CommonFlags,
  commonOptions,
  type ListenAddress,
  pageOption,
  periodOption,
  severalOption,
  type TablesFlags,
  tablesOption,
} from './options.ts';
import { print } from './output.ts';
import { pipelineGroups } from './pipeline-groups.ts';
import { stopSignal } from './stop.ts';

interface Flags extends CommonFlags, Pick<TablesFlags, 'tables'> {
  listen: ListenAddress;
  group: string[];
  over?: number;
}

const endWithinMs = 100;
/** Limits of the dead letter that the page shows. */
const letterLimits = { bytes: 2_000, rows: 5 };

export function monitorCommand(): Command {
  const command = new Command('monitor')
    .description('serve a web page that shows the pipeline live, and changes nothing')
    .addOption(pageOption())
    .addOption(
      severalOption(
        '--group <name>',
        'show this group of the cluster too, or all that match a pattern such as "pay*"',
        'none',
      ),
    )
    .addOption(
      periodOption('--over <period>', 'judge groups by the observations of this period, default 60s'),
    );
  return commonOptions(tablesOption(command)).action(run);
}

async function run({ listen, group, over, ...flags }: Flags): Promise<void> {
  const { tables } = await declarationsOf(flags);
  const signal = stopSignal();
  const page = await openPage(await openContext(flags, { signal }), { tables, listen, group, over }, signal);
  print(flags.json ? JSON.stringify({ url: page.url }) : page.url);
  await page.done;
  // A request that still waits for a broker changes nothing.
  setTimeout(() => process.exit(), endWithinMs).unref();
}

/** Serves the page until the signal. @throws ReelflowError usage, if it cannot listen */
export async function openPage(
  context: Context,
  {
    tables,
    listen,
    group = [],
    over,
  }: {
    tables: readonly GoldTable[];
    listen: ListenAddress;
    group?: readonly string[];
    over?: number | undefined;
  },
  signal: AbortSignal,
): Promise<RunningPage> {
  const [
    { Overview },
    { isLoopback, servePage },
    { registerLagMetrics },
    { processRegistry },
    { historyOf },
    { LocalState },
  ] = await Promise.all([
    import('../monitor/overview.ts'),
    import('../monitor/server.ts'),
    import('../monitor/lag-metrics.ts'),
    import('./observe.ts'),
    import('../sinks/gold/history.ts'),
    import('./stage-notes.ts'),
  ]);
  const { broker, names, places, logger } = context;
  const pipeline = await pipelineGroups(names);
  const others = [...new Set(group)].filter((name) => pipeline.every((own) => own.group !== name));
  const local = await new LocalState(broker, places).find();
  const overview = new Overview({
    broker,
    names,
    places: placesText(places),
    watched: [...pipeline, ...others.map((name) => ({ group: name, topics: [] }))],
    ...(over !== undefined && { spanMs: over }),
    snapshots: () => historyOf(places.gold),
    hasStateHere: (stage) => local.has(stage),
  });
  const registry = processRegistry();
  registerLagMetrics(registry, () => overview.newest);
  const { randomBytes } = await import('node:crypto');
  const asked = process.env.REELFLOW_MONITOR_TOKEN;
  return servePage({
    ...listen,
    token: asked || (isLoopback(listen.host) ? undefined : randomBytes(18).toString('base64url')),
    look: (until) => overview.look(until),
    letter: async (at) => {
      const found = await openLetter(context, at);
      return found && letterJson(found, letterLimits);
    },
    plots: plotsOf(places.gold, tables),
    metrics: async () => ({ type: registry.contentType, text: await registry.metrics() }),
    logger,
    signal,
  });
}

/** The plots of a snapshot, computed once: all viewers request the newest one, and a snapshot never changes. */
function plotsOf(gold: string, tables: readonly GoldTable[]): (id: string) => Promise<object | undefined> {
  let drawn: { id: string; plots: Promise<object> } | undefined;
  return async (id) => {
    const { listSnapshots } = await import('../sinks/gold/manifest.ts');
    if (!listSnapshots(gold).includes(id)) return undefined;
    if (drawn?.id !== id) drawn = { id, plots: draw(gold, id, tables) };
    const { plots } = drawn;
    plots.catch(() => {
      drawn = undefined;
    });
    return plots;
  };
}

async function draw(gold: string, id: string, tables: readonly GoldTable[]): Promise<object> {
  const [{ GoldReader }, { readManifest }] = await Promise.all([
    import('../sinks/gold/gold-reader.ts'),
    import('../sinks/gold/manifest.ts'),
  ]);
  const held = readManifest(gold, id).tables;
  return GoldReader.open(
    gold,
    async (reader) => {
      const plots: object[] = [];
      for (const { name, plots: own } of tables.filter((table) => table.name in held)) {
        for (const plot of own) {
          const { title, kind } = plot;
          plots.push({ table: name, title, kind, points: await reader.points(id, name, plot) });
        }
      }
      return { snapshot: id, plots };
    },
    tables,
  );
}
