/** `reelflow gold`: what there is in gold, as it is now and as it was. */
import { writeFileSync } from 'node:fs';
import { Command, InvalidArgumentError } from 'commander';
import { messageOf, ReelflowError } from '../runtime/errors.ts';
import type { SnapshotSummary } from '../sinks/gold/history.ts';
import type { Cell, Column, SnapshotDiff, TableView } from '../sinks/gold/look.ts';
import { columnsShown, integerOption, localFolder } from './context.ts';
import { drawPlot, figure } from './plot.ts';

interface Flags {
  gold: string;
  json?: true;
}

const plain = { head: [], border: [] };

export function goldCommand(): Command {
  const gold = new Command('gold').description('look into the snapshots, go back in time, keep, throw away');
  const add = (name: string, description: string) => {
    const command = new Command(name)
      .description(description)
      .option('--gold <dir>', 'gold folder', `${localFolder}/gold`)
      .option('--json', 'the result as one line of JSON')
      .option('--verbose', 'show stack traces');
    gold.addCommand(command);
    return command;
  };
  const at = 'id of a snapshot, or a time (UTC unless it has a zone): the newest snapshot of then';
  add('list', 'all snapshots, oldest first').action(list);
  add('show', 'the first rows of a table, and a picture')
    .argument('<table>', 'as `genre_analysis`')
    .option('--at <id|time>', at)
    .option('--rows <n>', 'rows to show', integerOption(0, 100_000), 20)
    .action(show);
  add('diff', 'what changed from one snapshot to another')
    .argument('<from>', at)
    .argument('[to]', 'the same; default the newest')
    .option('--rows <n>', 'changes to tell of each table', integerOption(0, 100_000), 5)
    .action(diff);
  add('report', 'a page with charts, and what changed since the snapshot before')
    .option('--at <id|time>', at)
    .option('--out <file>', 'where to write it; default reelflow-<id>.html')
    .action(report);
  add('export', 'a snapshot as Delta tables, one commit for each table that has changed')
    .argument('<format>', '`delta`', deltaOnly)
    .argument('<dir>', 'where the tables are, each in a folder of its own')
    .option('--at <id|time>', at)
    .option('--python <file>', 'a Python with deltalake and pyarrow; default REELFLOW_PYTHON, .venv, python3')
    .action(exportTables);
  add('push', 'make a bucket hold the newest snapshot')
    .argument('<url>', 's3://bucket/prefix')
    .option('--keep <n>', 'newest snapshots that stay in the bucket', integerOption(1, 100_000), 10)
    .action(push);
  add('pull', 'fetch the newest snapshot of a bucket').argument('<url>', 's3://bucket/prefix').action(pull);
  add('pin', 'keep a snapshot from every retention')
    .argument('[snapshot]', `${at}; default the newest`)
    .action((snapshot, flags) => pin(snapshot, flags, true));
  add('unpin', 'let retention remove a snapshot again')
    .argument('<snapshot>', at)
    .action((snapshot, flags) => pin(snapshot, flags, false));
  add('prune', 'remove old snapshots; what CURRENT or a pin names stays')
    .requiredOption('--keep <n>', 'newest snapshots that stay', integerOption(1, 100_000))
    .option('--dry-run', 'only say what would be removed')
    .action(prune);
  return gold;
}

async function list({ gold, json }: Flags): Promise<void> {
  const { historyOf } = await import('../sinks/gold/history.ts');
  const snapshots = historyOf(gold);
  if (json) return print(JSON.stringify(snapshots));
  if (snapshots.length === 0) return print(`No snapshot in ${gold} yet.`);
  const { default: Table } = await import('cli-table3');
  const head = ['snapshot', 'created', 'records', 'rows', 'bytes', ''];
  const table = new Table({
    head,
    colAligns: ['left', 'left', 'right', 'right', 'right', 'left'],
    style: plain,
  });
  for (const { id, created, records, rows, bytes, ...of } of snapshots) {
    const total = Object.values(rows).reduce((sum, n) => sum + n, 0);
    table.push([id, created, ...[records, total, bytes].map(figure), marksOf(of)]);
  }
  print(table.toString());
}

const marksOf = ({ isCurrent, isPinned }: Pick<SnapshotSummary, 'isCurrent' | 'isPinned'>) =>
  [isCurrent ? 'CURRENT' : '', isPinned ? 'pinned' : ''].filter((mark) => mark !== '').join(', ');

async function show(table: string, flags: Flags & { at?: string; rows: number }): Promise<void> {
  const [{ snapshotAt }, { Looking }, { goldTables }] = await Promise.all([
    import('../sinks/gold/history.ts'),
    import('../sinks/gold/look.ts'),
    import('../tables/gold-tables.ts'),
  ]);
  const id = snapshotAt(flags.gold, flags.at);
  const plot = goldTables.find(({ name }) => name === table)?.plots[0];
  await Looking.at(flags.gold, async (looking) => {
    const view = await looking.rows(id, table, flags.rows);
    if (flags.json) return print(JSON.stringify(view));
    const points = plot === undefined ? [] : await looking.points(id, table, plot);
    const picture = plot === undefined ? '' : await drawPlot(plot, points, process.stdout.columns ?? 80);
    print([await tableText(view), picture].filter((part) => part !== '').join('\n\n'));
  });
}

/** The rows as a table, with the units under the names of the columns. */
async function tableText({ snapshot, table, about, columns, rows, rowsTotal }: TableView): Promise<string> {
  const { default: Table } = await import('cli-table3');
  const shown = columns.slice(0, columnsShown);
  const drawn = new Table({
    head: shown.map(({ name, unit }) => (unit === undefined ? name : `${name}\n${unit}`)),
    colAligns: shown.map(({ type }) => (/^(VARCHAR|BOOLEAN)|\[\]$/.test(type) ? 'left' : 'right')),
    style: plain,
  });
  for (const row of rows) drawn.push(shown.map((column, c) => cellText(row[c], column)));
  const left = columns.length > shown.length ? `, ${shown.length} of ${columns.length} columns` : '';
  return `${drawn.toString()}\n${table}: ${about} ${figure(rows.length)} of ${figure(rowsTotal)} rows${left}, snapshot ${snapshot}`;
}

function cellText(cell: Cell | undefined, column?: Column): string {
  if (cell === null || cell === undefined) return '';
  if (Array.isArray(cell)) return cell.map((inner) => cellText(inner)).join(', ');
  if (typeof cell !== 'number') return String(cell);
  // A year is a name, not an amount.
  if (column?.unit === 'year') return column.type === 'INTEGER' ? String(cell) : cell.toFixed(1);
  return column?.type === 'DOUBLE'
    ? cell.toLocaleString('en-US', { minimumFractionDigits: 2, maximumFractionDigits: 2 })
    : figure(cell);
}

async function diff(from: string, to: string | undefined, flags: Flags & { rows: number }): Promise<void> {
  const [{ snapshotAt }, { Looking }] = await Promise.all([
    import('../sinks/gold/history.ts'),
    import('../sinks/gold/look.ts'),
  ]);
  const [before, after] = [snapshotAt(flags.gold, from), snapshotAt(flags.gold, to)];
  const found = await Looking.at(flags.gold, (looking) => looking.diff(before, after, flags.rows));
  print(flags.json ? JSON.stringify(found) : await diffText(found));
}

async function diffText({ from, to, tables }: SnapshotDiff): Promise<string> {
  const { default: Table } = await import('cli-table3');
  const head = ['table', 'rows before', 'rows after', 'added', 'removed', 'changed'];
  const drawn = new Table({
    head,
    colAligns: ['left', ...head.slice(1).map(() => 'right' as const)],
    style: plain,
  });
  const lines: string[] = [];
  for (const [name, { rows, added, removed, changed, first }] of Object.entries(tables)) {
    const [before, after] = rows.map((n) => (n === null ? 'no table' : figure(n)));
    drawn.push([name, before, after, ...[added, removed, changed].map(figure)]);
    for (const { kind, key, columns } of first) {
      const figures = Object.entries(columns).map(([c, [b, a]]) => `${c} ${cellText(b)} → ${cellText(a)}`);
      lines.push(`${name}: ${key}: ${kind === 'changed' ? figures.join(', ') : kind}`);
    }
    const left = added + removed + changed - first.length;
    if (first.length > 0 && left > 0) lines.push(`${name}: and ${figure(left)} more`);
  }
  return [drawn.toString(), ...lines, `From ${from} to ${to}`].join('\n');
}

async function report(flags: Flags & { at?: string; out?: string }): Promise<void> {
  const [{ snapshotAt }, { reportPage }] = await Promise.all([
    import('../sinks/gold/history.ts'),
    import('../sinks/gold/report.ts'),
  ]);
  const id = snapshotAt(flags.gold, flags.at);
  const file = flags.out ?? `reelflow-${id}.html`;
  const page = await reportPage(flags.gold, id);
  try {
    writeFileSync(file, page);
  } catch (thrown) {
    throw new ReelflowError('usage', 'The page cannot be written', {
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
  if (json) return print(JSON.stringify(exported));
  for (const [table, { version, rows, written }] of Object.entries(exported.tables)) {
    print(`${table}: version ${version}, ${figure(rows)} rows${written ? '' : ', as it was'}`);
  }
  print(`Snapshot ${exported.snapshot} in ${exported.folder}`);
}

async function push(url: string, { gold, json, keep }: Flags & { keep: number }): Promise<void> {
  const { pushGold } = await import('../sinks/gold/bucket.ts');
  const report = await pushGold(gold, url, keep);
  if (json) return print(JSON.stringify(report));
  const { snapshot, pushed, bytes, removed } = report;
  print(
    pushed ? `Snapshot ${snapshot} is in ${url}, ${figure(bytes)} bytes.` : `${url} has ${snapshot} already.`,
  );
  for (const id of removed) print(`${id} is removed from it.`);
}

async function pull(url: string, { gold, json }: Flags): Promise<void> {
  const [{ pullGold }, { withGoldLock }] = await Promise.all([
    import('../sinks/gold/bucket.ts'),
    import('../sinks/gold/retention.ts'),
  ]);
  const report = await withGoldLock(gold, { patienceMs: 2_000 }, () => pullGold(gold, url));
  if (json) return print(JSON.stringify(report));
  const { snapshot, pulled } = report;
  print(pulled ? `Snapshot ${snapshot} is in ${gold}.` : `${gold} has ${snapshot} already.`);
}

async function pin(at: string | undefined, { gold, json }: Flags, wanted: boolean): Promise<void> {
  const [{ snapshotAt }, { pinSnapshot, unpinSnapshot }] = await Promise.all([
    import('../sinks/gold/history.ts'),
    import('../sinks/gold/retention.ts'),
  ]);
  const id = snapshotAt(gold, at);
  const changed = wanted ? pinSnapshot(gold, id) : unpinSnapshot(gold, id);
  if (json) return print(JSON.stringify({ snapshot: id, isPinned: wanted, changed }));
  print(`Snapshot ${id} ${changed ? 'is now' : 'was already'} ${wanted ? 'pinned' : 'unpinned'}.`);
}

async function prune({ gold, json, keep, dryRun = false }: Flags & { keep: number; dryRun?: boolean }) {
  const [{ historyOf }, { planRetention, retain, withGoldLock }] = await Promise.all([
    import('../sinks/gold/history.ts'),
    import('../sinks/gold/retention.ts'),
  ]);
  // Snapshots that this program does not understand are not its to remove.
  const isEmpty = historyOf(gold).length === 0;
  const { remove, stay } = planRetention(gold, keep);
  const removed =
    dryRun || isEmpty
      ? remove
      : await withGoldLock(gold, { patienceMs: 2_000 }, async () => retain(gold, keep));
  if (json) return print(JSON.stringify({ dryRun, removed, stay }));
  for (const { id, because } of stay) {
    print(`${id} stays: ${because === 'current' ? 'CURRENT names it' : 'it is pinned'}.`);
  }
  for (const id of removed) print(`${id} ${dryRun ? 'would be' : 'is'} removed.`);
  if (removed.length === 0) print('Nothing to remove.');
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}
