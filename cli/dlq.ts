/** `reelflow dlq list|show|replay`: dead letters. */
import { Command } from 'commander';
import type { LetterFilter, LetterGroup, Letters } from '../monitor/dead-letters.ts';
import type { RedeliveryReport } from '../producers/redelivery/redelivery.ts';
import { counted } from '../runtime/counted.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { filled, terminalWidth, widthOf } from '../runtime/terminal.ts';
import { openContext } from './context.ts';
import { printable, timeText, whole } from './figures.ts';
import { type LetterLimits, letterJson, letterText, openLetter, sourceText } from './letter.ts';
import {
  type CommonFlags,
  commonOptions,
  integerIn,
  type LetterPosition,
  letterPositionOf,
} from './options.ts';
import { print, printFilled, printJson } from './output.ts';
import { openProgress } from './progress.ts';
import { stopSignal } from './stop.ts';
import { type TableColumn, tableText, wholeColumn } from './table.ts';

interface Filters extends CommonFlags {
  reason?: string;
  stage?: string;
  topic?: string;
}

export function dlqCommand(): Command {
  const command = new Command('dlq').description('show dead letters, and replay them after a repair');
  const filtered = (name: string, description: string) =>
    commonOptions(command.command(name).description(description))
      .option('--reason <code>', 'only letters of this reason')
      .option('--stage <name>', 'only letters of producer, processor or sink')
      .option('--topic <name>', 'only letters from this source topic or file');
  filtered('list', 'count dead letters by stage, reason and source, open and replayed')
    .option('--limit <n>', 'list the newest n letters instead', integerIn(1, 10_000))
    .action(list);
  commonOptions(
    command.command('show').description('show one dead letter and whether it would be accepted now'),
  )
    .argument('<partition:offset>', 'its position on the dead-letter topic, from `list`', letterPositionOf)
    .option('--bytes <n>', 'limit of bytes of the original', integerIn(1, 256_000), 512)
    .option('--rows <n>', 'limit of decoded rows', integerIn(1, 20_000), 3)
    .action(show);
  filtered('replay', 'send the rows of dead letters again; an older row never replaces a newer one')
    .option('--dry-run', 'print what would be sent, and send nothing')
    .action(replay);
  return command;
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
  if (flags.json) return printJson(flags.limit === undefined ? letters.groups : letters.latest.map(lineOf));
  if (letters.groups.length === 0) return print('There are no dead letters.');
  print(flags.limit === undefined ? groupsText(letters) : lettersText(letters));
  if (letters.foreign > 0)
    printFilled(`Not dead letters: ${counted(letters.foreign, 'message')} of the topic.`);
}

const lineOf = ({ value: _, timeMs, ...letter }: Letters['latest'][number]) => ({
  ...letter,
  time: new Date(timeMs).toISOString(),
});

function groupsText({ groups }: Letters): string {
  const counts = ['letters', 'open', 'replayed', 'superseded'] as const;
  const table = tableText(
    [
      { head: 'stage', cell: ({ stage }) => stage, drop: 1 },
      { head: 'reason', cell: ({ reason }) => printable(reason) },
      { head: 'from', keep: 'end' as const, cell: ({ source }) => printable(source) },
      ...counts.map((head) =>
        wholeColumn<LetterGroup>(
          head,
          (group) => group[head],
          head === 'replayed' || head === 'superseded' ? 2 : 0,
        ),
      ),
      { head: 'newest', cell: ({ newestMs }) => timeText(newestMs), drop: 3 },
      { head: 'at', cell: ({ newest }) => newest },
    ],
    groups,
  );
  return `${table}\nTo show one letter: reelflow dlq show ${groups[0]?.newest}`;
}

/** A line per letter. Where the details make it too long for the terminal, they go below it, and break between words. */
export function lettersText({ latest }: Pick<Letters, 'latest'>, width = terminalWidth()): string {
  type Letter = Letters['latest'][number];
  const columns: TableColumn<Letter>[] = [
    { head: 'at', cell: ({ partition, offset }) => `${partition}:${offset}` },
    { head: 'time', cell: ({ timeMs }) => timeText(timeMs), drop: 2 },
    { head: 'stage', cell: ({ stage }) => stage, drop: 1 },
    { head: 'reason', cell: ({ reason }) => printable(reason) },
    { head: 'from', keep: 'end', cell: sourceText },
    { head: 'now', cell: ({ fate }) => fate },
  ];
  const detailOf = ({ detail }: Letter) => printable(detail).replaceAll(/\s+/g, ' ');
  const whole = tableText([...columns, { head: 'detail', cell: detailOf }], latest, Number.POSITIVE_INFINITY);
  if (whole.split('\n').every((line) => widthOf(line) <= width)) return whole;
  const [head, rule, ...lines] = tableText(columns, latest, width).split('\n');
  const below = (letter: Letter) => filled(`  ${detailOf(letter)}`, width, 2);
  return [head, rule, ...latest.flatMap((letter, at) => [lines[at], below(letter)])].join('\n');
}

async function show(at: LetterPosition, flags: CommonFlags & LetterLimits): Promise<void> {
  const found = await openLetter(await openContext(flags), at);
  if (found === undefined) {
    throw new ReelflowError('input', `There is no dead letter at ${at.partition}:${at.offset}`, {
      hint: 'Run `reelflow dlq list --limit 20` for the newest ones and their positions.',
    });
  }
  print(flags.json ? JSON.stringify(letterJson(found, flags)) : letterText(found, flags));
}

async function replay(flags: Filters & { dryRun?: true }): Promise<void> {
  const signal = stopSignal();
  const { broker, registry, names, places, logger } = await openContext(flags, { signal });
  const [{ redeliver }, { matches }] = await Promise.all([
    import('../producers/redelivery/redelivery.ts'),
    import('../monitor/dead-letters.ts'),
  ]);
  const filter = filterOf(flags);
  const progress = await openProgress(
    ({ done, letters }: { done: number; letters: number }) => ({
      name: '',
      done,
      total: letters,
      text: `${whole(done)} of ${counted(letters, 'letter')}`,
    }),
    (now) => logger.info(now, 'redelivering'),
  );
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
  if (flags.json) printJson(report);
  else printFilled(redeliveryText(report));
}

function redeliveryText(report: RedeliveryReport): string {
  const { letters, replayed, superseded, refused, before, rowsSent, rowsSuperseded, dryRun } = report;
  if (letters + before === 0) return 'There are no dead letters.';
  return [
    `${counted(letters, 'open letter')}${before > 0 ? `, ${whole(before)} handled earlier` : ''}.`,
    `${whole(replayed)} ${dryRun ? 'would be ' : ''}replayed: ${counted(rowsSent, 'row')} ${dryRun ? 'would be ' : ''}sent.`,
    superseded > 0 && `${whole(superseded)} superseded: newer rows of the same keys exist.`,
    rowsSuperseded > 0 && `${counted(rowsSuperseded, 'row')} not sent: newer rows of the same keys exist.`,
    ...Object.entries(refused).map(
      ([reason, count]) => `${whole(count)} would be refused again and stay open: ${printable(reason)}.`,
    ),
  ]
    .filter((line) => line !== false)
    .join('\n');
}
