/** `reelflow monitor`: the page. */
import { randomBytes } from 'node:crypto';
import { Command } from 'commander';
import { type CommonFlags, commonOptions, integerOption, openContext, stopSignal } from './context.ts';
import { readShownLetter } from './dlq.ts';
import { pipelineGroups } from './lag.ts';

interface Flags extends CommonFlags {
  host: string;
  port: number;
}

export function monitorCommand(): Command {
  const command = new Command('monitor')
    .description('a web page that shows how the pipeline is, live; it changes nothing')
    .option('--host <address>', 'where to listen; beyond this machine the page wants a token', '127.0.0.1')
    .option('--port <port>', '0 for a free one', integerOption(0, 65_535), 19_095);
  return commonOptions(command).action(run);
}

async function run(flags: Flags): Promise<void> {
  const signal = stopSignal();
  const context = await openContext(flags, undefined, signal);
  const [
    { Overview },
    { isLoopback, servePage },
    { historyOf },
    { Looking },
    { goldTables },
    { listSnapshots },
  ] = await Promise.all([
    import('../monitor/overview.ts'),
    import('../monitor/server.ts'),
    import('../sinks/history.ts'),
    import('../sinks/look.ts'),
    import('../sinks/gold.ts'),
    import('../sinks/manifest.ts'),
  ]);
  const { broker, names, places, logger } = context;
  const [processors, sink] = await pipelineGroups(names);
  const overview = new Overview({
    broker,
    names,
    watched: [processors as NonNullable<typeof processors>, sink as NonNullable<typeof sink>],
    snapshots: () => historyOf(places.gold),
  });
  const asked = process.env.REELFLOW_MONITOR_TOKEN;
  const token = asked || (isLoopback(flags.host) ? undefined : randomBytes(18).toString('base64url'));
  let drawn: { id: string; plots: Promise<object> } | undefined;
  const draw = (id: string) =>
    Looking.at(places.gold, async (looking) => {
      const plots: object[] = [];
      for (const { name, plots: own } of goldTables) {
        for (const plot of own) {
          const { title, kind } = plot;
          plots.push({ table: name, title, kind, points: await looking.points(id, name, plot) });
        }
      }
      return { snapshot: id, plots };
    });
  const page = await servePage({
    host: flags.host,
    port: flags.port,
    token,
    look: (until) => overview.look(until),
    letter: (at) => readShownLetter(context, at, { bytes: 2_000, rows: 5 }),
    plots: async (id) => {
      if (!listSnapshots(places.gold).includes(id)) return undefined;
      // All viewers ask for the same one.
      if (drawn?.id !== id) drawn = { id, plots: draw(id) };
      const { plots } = drawn;
      plots.catch(() => {
        drawn = undefined;
      });
      return plots;
    },
    logger,
    signal,
  });
  process.stdout.write(flags.json ? `${JSON.stringify({ url: page.url })}\n` : `${page.url}\n`);
  await page.done;
}
