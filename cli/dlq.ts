/** `reelflow dlq list|show|replay`: what was refused, why, and once more. */
import { Command, InvalidArgumentError } from 'commander';
import type { LetterFilter, LetterGroup, Letters } from '../monitor/dead-letters.ts';
import type { Opened } from '../producers/redelivery/letter-opener.ts';
import type { RedeliveryReport } from '../producers/redelivery/redelivery.ts';
import { ReelflowError } from '../runtime/errors.ts';
import type { FoundLetter } from '../topics/dead-letter.ts';
import {
  type CommonFlags,
  type Context,
  commonOptions,
  integerOption,
  openContext,
  stopSignal,
} from './context.ts';

interface Filters extends CommonFlags {
  reason?: string;
  stage?: string;
  topic?: string;
}

interface Position {
  readonly partition: number;
  readonly offset: number;
}

export function dlqCommand(): Command {
  const command = new Command('dlq').description(
    'dead letters: look at them, and replay them after a repair',
  );
  const filtered = (name: string, description: string) =>
    commonOptions(command.command(name).description(description))
      .option('--reason <code>', 'only letters of this reason')
      .option('--stage <name>', 'only letters of producer, processor or sink')
      .option('--topic <name>', 'only letters from this source topic, or this file');
  filtered('list', 'how many letters of what kind, and what became of them')
    .option('--limit <n>', 'single letters instead of kinds: the newest n', integerOption(1, 10_000))
    .action(list);
  commonOptions(command.command('show').description('one letter, decoded as far as possible'))
    .argument('<partition:offset>', 'its place on the dead-letter topic, as `list` shows it', position)
    .option('--bytes <n>', 'of the original, at most so many', integerOption(1, 256_000), 512)
    .option('--rows <n>', 'of the rows in it, at most so many', integerOption(1, 20_000), 3)
    .action(show);
  filtered('replay', 'send the rows of letters again; older rows never replace newer ones')
    .option('--dry-run', 'say what would be sent, and send nothing')
    .action(replay);
  return command;
}

function position(text: string): Position {
  const [, partition, offset] = /^(\d{1,6}):(\d{1,15})$/.exec(text) ?? [];
  if (partition === undefined) throw new InvalidArgumentError('partition:offset is expected, such as 0:17.');
  return { partition: Number(partition), offset: Number(offset) };
}

function filterOf({ reason, stage, topic }: Filters): LetterFilter {
  return {
    ...(reason !== undefined && { reason }),
    ...(stage !== undefined && { stage }),
    ...(topic !== undefined && { source: topic }),
  };
}

async function list(flags: Filters & { limit?: number }): Promise<void> {
  const { broker, names } = await openContext(flags);
  const { DeadLetterView } = await import('../monitor/dead-letters.ts');
  const view = new DeadLetterView(broker, names, { filter: filterOf(flags), latestMax: flags.limit ?? 1 });
  const letters = await view.read(stopSignal());
  const shown = flags.limit === undefined ? letters.groups : letters.latest.map(lineOf);
  if (flags.json) return print(JSON.stringify(shown));
  if (letters.groups.length === 0) return print('There are no dead letters.');
  print(flags.limit === undefined ? await groupsText(letters) : await lettersText(letters));
  if (letters.foreign > 0) print(`${letters.foreign} messages of the topic are no dead letters.`);
}

const lineOf = ({ value: _, timeMs, ...letter }: Letters['latest'][number]) => ({
  ...letter,
  time: new Date(timeMs).toISOString(),
});

async function groupsText({ groups }: Letters): Promise<string> {
  const table = await tableOf(
    ['stage', 'reason', 'from', 'letters', 'open', 'replayed', 'superseded', 'newest', 'at'],
    3,
    7,
  );
  const cells = ({ stage, reason, source, newestMs, newest, ...counts }: LetterGroup) => [
    stage,
    printable(reason),
    printable(source),
    ...[counts.letters, counts.open, counts.replayed, counts.superseded].map((count) =>
      count.toLocaleString('en-US'),
    ),
    timeText(newestMs),
    newest,
  ];
  table.push(...groups.map(cells));
  return `${table.toString()}\nOne letter: reelflow dlq show ${groups[0]?.newest}`;
}

async function lettersText({ latest }: Letters): Promise<string> {
  const table = await tableOf(['at', 'time', 'stage', 'reason', 'from', 'now', 'detail']);
  for (const letter of latest) {
    table.push([
      `${letter.partition}:${letter.offset}`,
      timeText(letter.timeMs),
      letter.stage,
      printable(letter.reason),
      placeOf(letter),
      letter.fate,
      printable(letter.detail).slice(0, 80),
    ]);
  }
  return table.toString();
}

async function show(at: Position, flags: CommonFlags & Bounds): Promise<void> {
  const found = await openLetter(await openContext(flags), at);
  if (found === undefined) {
    throw new ReelflowError('input', `There is no dead letter at ${at.partition}:${at.offset}`, {
      hint: 'reelflow dlq list --limit 20 shows the newest ones and where they are.',
    });
  }
  const { letter, opened } = found;
  print(flags.json ? JSON.stringify(shownLetter(letter, opened, flags)) : letterText(letter, opened, flags));
}

interface Bounds {
  /** Of the original. */
  readonly bytes: number;
  readonly rows: number;
}

/** One letter as JSON, bounded; undefined when there is none. */
export async function readShownLetter(
  context: Context,
  at: Position,
  bounds: Bounds,
): Promise<object | undefined> {
  const found = await openLetter(context, at);
  return found && shownLetter(found.letter, found.opened, bounds);
}

async function openLetter({ broker, names, registry }: Context, at: Position) {
  const [{ readLetter }, { LogReader }, { availableLogBounds }, { LetterOpener }, { datasetNames }] =
    await Promise.all([
      import('../monitor/dead-letters.ts'),
      import('../kafka/log.ts'),
      import('../kafka/bounds.ts'),
      import('../producers/redelivery/letter-opener.ts'),
      import('../topics/catalog.ts'),
    ]);
  const reader = new LogReader(broker);
  try {
    const letter = await readLetter(broker, reader, names, at);
    if (letter === undefined) return undefined;
    const bounds = await availableLogBounds(
      broker,
      datasetNames.map((dataset) => names.source(dataset)),
    );
    const opener = new LetterOpener({ purpose: 'looking', reader, registry, names, bounds });
    return { letter, opened: await opener.open(letter) };
  } finally {
    await reader.close();
  }
}

function shownLetter(letter: FoundLetter, opened: Opened, { bytes, rows }: Bounds) {
  const { value, timeMs, ...about } = letter;
  const beginning = value.subarray(0, bytes);
  const today =
    opened.kind === 'refused'
      ? { refused: opened.reason, detail: opened.detail }
      : {
          dataset: opened.dataset,
          records: opened.records.length,
          deletes: opened.deletes.length,
          rows: [...opened.records, ...opened.deletes].slice(0, rows),
        };
  return {
    ...about,
    time: new Date(timeMs).toISOString(),
    /** A row as it was, a message as a dump of its bytes. */
    original: 'file' in letter.source ? printable(beginning.toString('utf8')) : hexDump(beginning),
    today,
  };
}

function letterText(
  letter: FoundLetter,
  opened: Opened,
  { bytes, rows }: { bytes: number; rows: number },
): string {
  const { stage, reason, detail, value, originalBytes, columns, timeMs } = letter;
  const beginning = value.subarray(0, bytes);
  const lines = [
    ['stage', stage],
    ['reason', printable(reason)],
    ['detail', printable(detail)],
    ['from', placeOf(letter)],
    ['time', new Date(timeMs).toISOString()],
    [
      'bytes',
      `${originalBytes.toLocaleString('en-US')}${beginning.length < originalBytes ? `, the first ${beginning.length} below` : ''}`,
    ],
    ...(columns === undefined ? [] : [['columns', printable(columns.join(', '))]]),
  ].map(([name, text]) => `${`${name}:`.padEnd(9)} ${text}`);
  lines.push('', 'file' in letter.source ? printable(beginning.toString('utf8')) : hexDump(beginning), '');
  if (opened.kind === 'refused') {
    lines.push(`Today it would be refused: ${opened.reason}: ${printable(opened.detail)}`);
  } else {
    const { dataset, records, deletes } = opened;
    lines.push(
      `Today it can be used: ${records.length} records and ${deletes.length} deletes of ${dataset}.`,
    );
    for (const row of [...records, ...deletes].slice(0, rows))
      lines.push(printable(JSON.stringify(row)).slice(0, 2_000));
    if (records.length + deletes.length > rows) lines.push('…');
    lines.push('To send it again: reelflow dlq replay');
  }
  return lines.join('\n');
}

async function replay(flags: Filters & { dryRun?: true }): Promise<void> {
  const signal = stopSignal();
  const context = await openContext(flags, undefined, signal);
  const [{ redeliver }, { matches }] = await Promise.all([
    import('../producers/redelivery/redelivery.ts'),
    import('../monitor/dead-letters.ts'),
  ]);
  const filter = filterOf(flags);
  const { broker, registry, names, places } = context;
  const progress = await progressOf(context);
  let report: RedeliveryReport;
  try {
    report = await redeliver({
      broker,
      registry,
      names,
      state: places.state,
      select: (letter) => matches(letter, filter),
      dryRun: flags.dryRun === true,
      onProgress: progress.show,
      signal,
    });
  } finally {
    progress.end();
  }
  print(flags.json ? JSON.stringify(report) : redeliveryText(report));
}

function redeliveryText(report: RedeliveryReport): string {
  const { letters, replayed, superseded, refused, before, rowsSent, rowsSuperseded, dryRun } = report;
  const whole = (count: number) => count.toLocaleString('en-US');
  const left = Object.entries(refused);
  return [
    `${whole(letters)} letters were open${before > 0 ? `, ${whole(before)} had been taken up before` : ''}.`,
    `${whole(replayed)} ${dryRun ? 'would be' : 'are'} replayed: ${whole(rowsSent)} rows ${dryRun ? 'would be' : 'were'} sent.`,
    superseded > 0 && `${whole(superseded)} are superseded: newer rows of the same keys came since.`,
    rowsSuperseded > 0 &&
      `${whole(rowsSuperseded)} rows were left out, because newer ones of the same keys exist.`,
    ...left.map(
      ([reason, count]) => `${whole(count)} cannot be used today and stay as they are: ${printable(reason)}.`,
    ),
  ]
    .filter((line) => line !== false)
    .join('\n');
}

/** A bar on a terminal, log lines elsewhere. */
async function progressOf({ logger }: Context) {
  if (process.stderr.isTTY !== true) {
    return {
      show: (now: { done: number; letters: number }) => logger.info(now, 'redelivering'),
      end: () => undefined,
    };
  }
  const { default: cliProgress } = await import('cli-progress');
  const bar = new cliProgress.SingleBar({
    format: 'letters {bar} {value} of {total}',
    hideCursor: true,
    stream: process.stderr,
  });
  let started = false;
  return {
    show: ({ done, letters }: { done: number; letters: number }) => {
      if (!started) bar.start(letters, 0);
      started = true;
      bar.update(done);
    },
    end: () => bar.stop(),
  };
}

async function tableOf(head: string[], ...[from = head.length, to = head.length]: number[]) {
  const { default: Table } = await import('cli-table3');
  const colAligns = head.map((_, at) => (at >= from && at < to ? ('right' as const) : ('left' as const)));
  return new Table({ head, colAligns, style: { head: [], border: [], compact: true } });
}

function placeOf({ source }: FoundLetter): string {
  return 'file' in source
    ? `${printable(source.file)}, line ${source.line}`
    : `${printable(source.topic)}/${source.partition}, offset ${source.offset}`;
}

const timeText = (ms: number) => new Date(ms).toISOString().slice(0, 19).replace('T', ' ');

/** What came from outside must not move the cursor or change a terminal's colours. */
export function printable(text: string): string {
  return text.replace(/(?![\t\n])[\p{Cc}\p{Bidi_Control}\p{Zl}\p{Zp}]/gu, '\ufffd');
}

/** Offset, sixteen bytes, and the characters among them, a line each. */
function hexDump(bytes: Buffer): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const part = bytes.subarray(at, at + 16);
    const hex = (part.toString('hex').match(/../g) ?? []).join(' ').padEnd(47);
    lines.push(
      `${at.toString(16).padStart(6, '0')}  ${hex}  ${part.toString('latin1').replace(/[^ -~]/g, '.')}`,
    );
  }
  return lines.length > 0 ? lines.join('\n') : 'The message has no value.';
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
