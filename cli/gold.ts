/** `reelflow gold`: list, show, compare, pin, export and prune snapshots. */
import { writeFileSync } from 'node:fs';
import { Command, InvalidArgumentError } from 'commander';
import { counted } from '../runtime/counted.ts';
import { messageOf, ReelflowError } from '../runtime/errors.ts';
import type { Keep, RetentionPlan } from '../sinks/gold/retention.ts';
import { declarationsOf } from './declared.ts';
import { figure } from './figures.ts';
import { diffText, snapshotsText, viewText } from './gold-text.ts';
import {
  goldOption,
  integerIn,
  type KeepFlags,
  keepOf,
  keepOptions,
  type OutputFlags,
  outputOptions,
  type TablesFlags,
  tablesOption,
} from './options.ts';
import { print, printFilled, printJson } from './output.ts';
import { drawPlot } from './plot.ts';
import { historyRowsMax, titlePlots } from './title-plots.ts';

interface Flags extends OutputFlags {
  gold: string;
}

type TableFlags = Flags & Pick<TablesFlags, 'tables'>;

export function goldCommand(): Command {
  const gold = new Command('gold').description('list, show, compare, pin, export and prune snapshots');
  const add = (name: string, description: string) => {
    const command = new Command(name).description(description);
    gold.addCommand(outputOptions(goldOption(command)));
    return command;
  };
  const at = 'id of a snapshot, or a time (UTC unless it has a zone): the newest snapshot at that time';
  add('list', 'list all snapshots, oldest first').action(list);
  tablesOption(add('show', 'show the first rows of a table, and a plot'))
    .argument('<table>', 'name of the table, such as `genre_analysis`')
    .option('--at <id|time>', at)
    .option('--rows <n>', 'number of rows', integerIn(0, 100_000), 20)
    .option('--title <tconst>', 'show the rows of this title only, and draw its history', titleId)
    .action(show);
  tablesOption(add('diff', 'show what changed between two snapshots'))
    .argument('<from>', at)
    .argument('[to]', 'the same; default the newest')
    .option('--rows <n>', 'number of changes shown per table', integerIn(0, 100_000), 5)
    .action(diff);
  tablesOption(add('report', 'write a page with charts and the changes since the previous snapshot'))
    .option('--at <id|time>', at)
    .option('--out <file>', 'file to write; default reelflow-<id>.html')
    .action(report);
  add('export', 'export a snapshot as Delta tables, one commit per changed table')
    .argument('<format>', '`delta`', deltaOnly)
    .argument('<dir>', 'folder of the tables, each in a folder of its own')
    .option('--at <id|time>', at)
    .option('--python <file>', 'a Python with deltalake and pyarrow; default REELFLOW_PYTHON, .venv, python3')
    .action(exportTables);
  keepOptions(
    add('push', 'copy the newest snapshot to a bucket')
      .argument('<url>', 's3://bucket/prefix')
      .option('--keep <n>', 'number of snapshots to keep in the bucket', integerIn(1, 100_000), 10),
  ).action(push);
  tablesOption(add('pull', 'copy the newest snapshot of a bucket into the gold folder'))
    .argument('<url>', 's3://bucket/prefix')
    .action(pull);
  add('pin', 'exclude a snapshot from retention')
    .argument('[snapshot]', `${at}; default the newest`)
    .action((snapshot, flags) => pin(snapshot, flags, true));
  add('unpin', 'subject a snapshot to retention again')
    .argument('<snapshot>', at)
    .action((snapshot, flags) => pin(snapshot, flags, false));
  const prune = add('prune', 'remove old snapshots; CURRENT and pinned ones stay').requiredOption(
    '--keep <n>',
    'number of snapshots to keep',
    integerIn(1, 100_000),
  );
  keepOptions(prune, { daily: 0, monthly: 0 })
    .option('--dry-run', 'print what would be removed, and remove nothing')
    .option(
      '--lake <url>',
      "the sink's lake, whose versions expire first, given as ducklake:FILE or iceberg:DIR",
    )
    .action(removeOld);
  return gold;
}

async function list({ gold, json }: Flags): Promise<void> {
  const { historyOf } = await import('../sinks/gold/history.ts');
  const snapshots = historyOf(gold);
  if (json) return printJson(snapshots);
  if (snapshots.length === 0) return print(`No snapshot in ${gold} yet.`);
  print(snapshotsText(snapshots));
}

function titleId(text: string): string {
  if (/^tt\d{7,9}$/.test(text)) return text;
  throw new InvalidArgumentError('Use an id of a title, such as tt0111161.');
}

interface ShowFlags extends TableFlags {
  at?: string;
  rows: number;
  title?: string;
}

async function show(table: string, flags: ShowFlags): Promise<void> {
  const { tables } = await declarationsOf(flags);
  const [{ snapshotAt }, { GoldReader }] = await Promise.all([
    import('../sinks/gold/history.ts'),
    import('../sinks/gold/gold-reader.ts'),
  ]);
  const { gold, rows, title, json } = flags;
  const id = snapshotAt(gold, flags.at);
  await GoldReader.open(
    gold,
    async (reader) => {
      const view = await reader.rows(id, table, rows, title);
      if (json) return printJson(view);
      const width = process.stdout.columns ?? 80;
      const pictures: string[] = [];
      if (title !== undefined) {
        const { history } = (await import('../sinks/gold/manifest.ts')).readManifest(gold, id);
        const whole = await reader.rows(id, table, historyRowsMax, title);
        for (const [plot, points] of titlePlots(whole, history?.newest)) {
          pictures.push(await drawPlot(plot, points, width));
        }
      } else {
        const plot = tables.find(({ name }) => name === table)?.plots[0];
        if (plot !== undefined) {
          pictures.push(await drawPlot(plot, await reader.points(id, table, plot), width));
        }
      }
      const absent = title !== undefined && view.rows.length === 0;
      if (absent) return print(`${table} of snapshot ${id} has no title ${title}.`);
      print([viewText(view), ...pictures].join('\n\n'));
    },
    tables,
  );
}

async function diff(
  from: string,
  to: string | undefined,
  flags: TableFlags & { rows: number },
): Promise<void> {
  const { tables } = await declarationsOf(flags);
  const [{ snapshotAt }, { GoldReader }, { columnNotes }] = await Promise.all([
    import('../sinks/gold/history.ts'),
    import('../sinks/gold/gold-reader.ts'),
    import('../tables/column-notes.ts'),
  ]);
  const isYear = (column: string) => columnNotes[column]?.unit === 'year';
  const [before, after] = [snapshotAt(flags.gold, from), snapshotAt(flags.gold, to)];
  const found = await GoldReader.open(flags.gold, (reader) => reader.diff(before, after, flags.rows), tables);
  print(flags.json ? JSON.stringify(found) : diffText(found, isYear));
}

async function report(flags: TableFlags & { at?: string; out?: string }): Promise<void> {
  const { tables } = await declarationsOf(flags);
  const [{ snapshotAt }, { reportPage }] = await Promise.all([
    import('../sinks/gold/history.ts'),
    import('../sinks/gold/report.ts'),
  ]);
  const id = snapshotAt(flags.gold, flags.at);
  const file = flags.out ?? `reelflow-${id}.html`;
  const page = await reportPage(flags.gold, id, tables);
  try {
    writeFileSync(file, page);
  } catch (thrown) {
    throw new ReelflowError('usage', 'The report cannot be written', {
      detail: `${file}: ${messageOf(thrown)}`,
      hint: 'Name another file with --out.',
      cause: thrown,
    });
  }
  print(flags.json ? JSON.stringify({ snapshot: id, file, bytes: Buffer.byteLength(page) }) : file);
}

function deltaOnly(format: string): string {
  if (format !== 'delta') throw new InvalidArgumentError('Only delta is known.');
  return format;
}

async function exportTables(
  _: string,
  dir: string,
  { gold, json, at, python }: Flags & { at?: string; python?: string },
): Promise<void> {
  const [{ snapshotAt }, { defaultPython, exportDelta }] = await Promise.all([
    import('../sinks/gold/history.ts'),
    import('../sinks/gold/export.ts'),
  ]);
  const exported = await exportDelta(gold, snapshotAt(gold, at), dir, python ?? defaultPython(process.env));
  if (json) return printJson(exported);
  for (const [table, { version, rows, written }] of Object.entries(exported.tables)) {
    print(`${table}: version ${version}, ${counted(rows, 'row')}${written ? '' : ', as it was'}`);
  }
  printFilled(`Snapshot ${exported.snapshot} in ${exported.folder}`);
}

async function push(url: string, { gold, json, ...keep }: Flags & KeepFlags): Promise<void> {
  const { pushGold } = await import('../sinks/gold/push.ts');
  const report = await pushGold(gold, url, keepOf(keep));
  if (json) return printJson(report);
  const { snapshot, pushed, bytes, removed } = report;
  printFilled(
    pushed ? `Snapshot ${snapshot} is in ${url}, ${figure(bytes)} bytes.` : `${url} has ${snapshot} already.`,
  );
  for (const id of removed) print(`${id} is removed from it.`);
}

async function pull(url: string, flags: TableFlags): Promise<void> {
  const { gold, json } = flags;
  const { tables } = await declarationsOf(flags);
  const [{ pullGold }, { withGoldLock }] = await Promise.all([
    import('../sinks/gold/push.ts'),
    import('../sinks/gold/gold-lock.ts'),
  ]);
  const report = await withGoldLock(gold, { patienceMs: 2_000 }, () => pullGold(gold, url, tables));
  if (json) return printJson(report);
  const { snapshot, pulled } = report;
  printFilled(pulled ? `Snapshot ${snapshot} is in ${gold}.` : `${gold} has ${snapshot} already.`);
}

async function pin(at: string | undefined, { gold, json }: Flags, wanted: boolean): Promise<void> {
  const [{ snapshotAt }, { pinSnapshot, unpinSnapshot }] = await Promise.all([
    import('../sinks/gold/history.ts'),
    import('../sinks/gold/retention.ts'),
  ]);
  const id = snapshotAt(gold, at);
  const changed = wanted ? pinSnapshot(gold, id) : unpinSnapshot(gold, id);
  if (json) return printJson({ snapshot: id, isPinned: wanted, changed });
  printFilled(`Snapshot ${id} ${changed ? 'is now' : 'was already'} ${wanted ? 'pinned' : 'unpinned'}.`);
}

interface PruneFlags extends Flags, KeepFlags {
  dryRun?: boolean;
  lake?: string;
}

async function removeOld({ gold, json, dryRun = false, lake, ...flags }: PruneFlags): Promise<void> {
  const keep = keepOf(flags);
  const [{ historyOf }, { planRetention, retain }, { withGoldLock }] = await Promise.all([
    import('../sinks/gold/history.ts'),
    import('../sinks/gold/retention.ts'),
    import('../sinks/gold/gold-lock.ts'),
  ]);
  // Throws for a snapshot that this version cannot read, which it must not remove.
  const isEmpty = historyOf(gold).length === 0;
  const { remove, stay } = planRetention(gold, keep);
  const { removed, failed } =
    dryRun || isEmpty
      ? { removed: remove, failed: [] }
      : await withGoldLock(gold, { patienceMs: 2_000 }, async () => {
          if (lake !== undefined) await expireFirst(gold, keep, lake);
          return retain(gold, keep);
        });
  if (json) printJson({ dryRun, removed, stay, failed });
  else printPruned(dryRun, removed, stay);
  if (failed.length === 0) return;
  throw new ReelflowError('goldUnusable', 'Some snapshots cannot be removed', {
    detail: failed.map(({ id, reason }) => `${id}: ${reason}`).join('; '),
    hint: 'Check the permissions under snapshots/, and whether another program has their files open.',
  });
}

/** @throws ReelflowError usage, lakeUnusable, foreignCluster: then nothing is removed */
async function expireFirst(gold: string, keep: Keep, url: string): Promise<void> {
  const [{ Lake, lakePlaceOf }, { currentSnapshot, readManifest }, { stayingSnapshots }] = await Promise.all([
    import('../sinks/gold/lake.ts'),
    import('../sinks/gold/manifest.ts'),
    import('../sinks/gold/retention.ts'),
  ]);
  const place = lakePlaceOf(url);
  if (place.kind === 'object') {
    throw new ReelflowError('usage', 'Pruning a folder does not change a bucket', {
      detail: url,
      hint: 'Omit --lake: its versions expire with the next push.',
    });
  }
  const { clusterId, namespace } = readManifest(gold, currentSnapshot(gold) ?? 'none');
  await new Lake(place, { gold, clusterId, namespace }).show(stayingSnapshots(gold, keep));
}

const stayTexts = {
  current: 'CURRENT names it',
  pinned: 'it is pinned',
  lake: 'the lake shows it',
  daily: 'it is the last of its day',
  monthly: 'it is the last of its month',
} as const;

function printPruned(dryRun: boolean, removed: readonly string[], stay: RetentionPlan['stay']): void {
  for (const { id, because } of stay) printFilled(`${id} stays: ${stayTexts[because]}.`);
  for (const id of removed) print(`${id} ${dryRun ? 'would be' : 'is'} removed.`);
  if (removed.length === 0) print('Nothing to remove.');
}
