/** One dead letter as JSON and as text: its origin, its bytes, and whether its rows would be accepted now. */
import type { Opened } from '../producers/redelivery/letter-opener.ts';
import { counted } from '../runtime/counted.ts';
import type { FoundLetter } from '../topics/dead-letter.ts';
import type { Context } from './context.ts';
import { printable, whole } from './figures.ts';
import type { LetterPosition } from './options.ts';

export interface LetterLimits {
  /** Maximum of the original. */
  readonly bytes: number;
  readonly rows: number;
}

interface OpenedLetter {
  readonly letter: FoundLetter;
  readonly opened: Opened;
}

/** @returns undefined when there is no letter at this position */
export async function openLetter(
  { broker, names, registry }: Context,
  at: LetterPosition,
): Promise<OpenedLetter | undefined> {
  const [{ readLetter }, { LogReader }, { existingLogBounds }, { LetterOpener }, { datasetNames }] =
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
    const bounds = await existingLogBounds(
      broker,
      datasetNames.map((dataset) => names.source(dataset)),
    );
    const opener = new LetterOpener({ purpose: 'looking', reader, registry, names, bounds });
    return { letter, opened: await opener.open(letter) };
  } finally {
    await reader.close();
  }
}

/** A letter as JSON, bounded. */
export function letterJson({ letter, opened }: OpenedLetter, { bytes, rows }: LetterLimits): object {
  const { value, timeMs, ...about } = letter;
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
    original: originalText(letter, value.subarray(0, bytes)),
    today,
  };
}

/** A letter as text for people, bounded. */
export function letterText({ letter, opened }: OpenedLetter, { bytes, rows }: LetterLimits): string {
  const { stage, reason, detail, value, originalBytes, columns, timeMs } = letter;
  const beginning = value.subarray(0, bytes);
  const cutAt = beginning.length < originalBytes ? `, the first ${beginning.length} below` : '';
  const lines = [
    ['stage', stage],
    ['reason', printable(reason)],
    ['detail', printable(detail)],
    ['from', sourceText(letter)],
    ['time', new Date(timeMs).toISOString()],
    ['bytes', `${whole(originalBytes)}${cutAt}`],
    ...(columns === undefined ? [] : [['columns', printable(columns.join(', '))]]),
  ].map(([name, text]) => `${`${name}:`.padEnd(9)} ${text}`);
  lines.push('', originalText(letter, beginning), '');
  if (opened.kind === 'refused') {
    lines.push(`It would be refused again: ${opened.reason}: ${printable(opened.detail)}`);
  } else {
    const { dataset, records, deletes } = opened;
    const all = [...records, ...deletes];
    lines.push(
      `It would be accepted now: ${counted(records.length, 'record')} and ${counted(deletes.length, 'delete')} of ${dataset}.`,
      ...all.slice(0, rows).map((row) => printable(JSON.stringify(row)).slice(0, 2_000)),
    );
    if (all.length > rows) lines.push('…');
    lines.push('To send it again: reelflow dlq replay');
  }
  return lines.join('\n');
}

/** A row as text, a message as a dump of its bytes. */
const originalText = ({ source }: FoundLetter, bytes: Buffer) =>
  'file' in source ? printable(bytes.toString('utf8')) : hexDump(bytes);

/** The position of a refused row or message, as text. */
export function sourceText({ source }: Pick<FoundLetter, 'source'>): string {
  return 'file' in source
    ? `${printable(source.file)}, line ${source.line}`
    : `${printable(source.topic)}/${source.partition}, offset ${source.offset}`;
}

/** Offset, sixteen bytes and their characters, a line each. */
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
