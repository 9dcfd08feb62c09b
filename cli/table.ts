/**
 * Tables for a terminal: columns two spaces apart, a rule under the head and none between rows. On a terminal a table
 * fits the width: columns are dropped by priority, then long texts are cut. In a pipe nothing is left out.
 */
import { stripVTControlCharacters, styleText } from 'node:util';

export interface TableColumn<Row> {
  /** The head; further lines of it go below. */
  readonly head: string;
  readonly cell: (row: Row) => string;
  /** Numbers go to the right. Default left. */
  readonly align?: 'left' | 'right';
  /** Columns with the highest number are dropped first; 0, the default, stays always. */
  readonly drop?: number;
}

const gap = '  ';
/** A text is not cut below this. */
const cutMin = 8;

/** Columns of the terminal; without end where standard output is none. */
export const terminalWidth = (): number =>
  process.stdout.isTTY === true ? process.stdout.columns : Number.POSITIVE_INFINITY;

/**
 * A text whose lines break between words. A word that is longer stays whole, so that it can be copied.
 * @param width columns that a line may take
 * @param indent blanks before each further line
 */
export function filled(text: string, width = terminalWidth(), indent = 0): string {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/(?<=\S)(?= )/)) {
    const isFull = line !== '' && widthOf(line) + widthOf(word) > width;
    if (isFull) lines.push(line);
    line = isFull ? ' '.repeat(indent) + word.trimStart() : line + word;
  }
  return [...lines, line].join('\n');
}

/** @param width columns that a line may take */
export function tableText<Row>(
  columns: readonly TableColumn<Row>[],
  rows: readonly Row[],
  width = terminalWidth(),
): string {
  const heads = columns.map(({ head }) => head.split('\n'));
  const cells = rows.map((row) => columns.map(({ cell }) => cell(row)));
  const widths = columns.map((_, at) =>
    Math.max(...[...(heads[at] as string[]), ...cells.map((line) => line[at] as string)].map(widthOf)),
  );
  const shown = fitting(columns, widths, width);
  cutToFit(columns, widths, shown, width);
  const line = (texts: readonly string[]) =>
    shown
      .map((at) => padded(texts[at] ?? '', widths[at] as number, columns[at]?.align ?? 'left'))
      .join(gap)
      .trimEnd();
  const headLines = Math.max(...shown.map((at) => heads[at]?.length ?? 1));
  return [
    ...Array.from({ length: headLines }, (_, n) => line(heads.map((lines) => lines[n] ?? ''))),
    '─'.repeat(shown.reduce((sum, at) => sum + (widths[at] as number), gap.length * (shown.length - 1))),
    ...cells.map(line),
  ].join('\n');
}

const total = (widths: readonly number[], shown: readonly number[]) =>
  shown.reduce((sum, at) => sum + (widths[at] as number), gap.length * (shown.length - 1));

function fitting(columns: readonly TableColumn<never>[], widths: readonly number[], width: number): number[] {
  let shown = columns.map((_, at) => at);
  while (total(widths, shown) > width) {
    const next = Math.max(...shown.map((at) => columns[at]?.drop ?? 0));
    if (next === 0) break;
    const dropped = shown.findLast((at) => columns[at]?.drop === next);
    shown = shown.filter((at) => at !== dropped);
  }
  return shown;
}

/** Narrows the widest text columns until the line fits, or no text can be cut further. */
function cutToFit(
  columns: readonly TableColumn<never>[],
  widths: number[],
  shown: readonly number[],
  width: number,
): void {
  const texts = shown.filter((at) => columns[at]?.align !== 'right');
  while (total(widths, shown) > width) {
    const widest = texts.reduce(
      (best, at) => ((widths[at] as number) > (widths[best] ?? cutMin) ? at : best),
      -1,
    );
    if (widest < 0) return;
    widths[widest] = (widths[widest] as number) - 1;
  }
}

function padded(text: string, width: number, align: 'left' | 'right'): string {
  const own = widthOf(text);
  if (own > width) return `${cut(text, width - 1)}…`;
  const space = ' '.repeat(width - own);
  return align === 'right' ? space + text : text + space;
}

function cut(text: string, width: number): string {
  let taken = '';
  let own = 0;
  for (const char of stripVTControlCharacters(text)) {
    own += widthOf(char);
    if (own > width) break;
    taken += char;
  }
  return taken + ' '.repeat(Math.max(0, width - widthOf(taken)));
}

const wide =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/gu;
const without = /[\p{Mn}\p{Me}\p{Cf}]/gu;

/** Columns that a text takes on a terminal. */
export function widthOf(text: string): number {
  const plain = stripVTControlCharacters(text);
  if (/^[ -~]*$/.test(plain)) return plain.length;
  return [...plain.replace(without, '')].length + (plain.match(wide)?.length ?? 0);
}

/** Colours a text on a terminal, unless NO_COLOR is set. */
export function coloured(colour: 'green' | 'yellow' | 'red' | 'dim', text: string): string {
  return styleText(colour, text, { stream: process.stdout });
}
