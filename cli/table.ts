/**
 * Tables for a terminal: columns two spaces apart, a rule under the head and none between rows. On a terminal a table
 * fits the width: columns are dropped by priority, then long texts are cut. In a pipe nothing is left out.
 */
import { stripVTControlCharacters, styleText } from 'node:util';
import { terminalWidth, widthOf } from '../runtime/terminal.ts';
import { whole } from './figures.ts';

export interface TableColumn<Row> {
  /** The head; further lines of it go below. */
  readonly head: string;
  readonly cell: (row: Row) => string;
  /** Numbers go to the right. Default left. */
  readonly align?: 'left' | 'right';
  /** Columns with the highest number are dropped first; 0, the default, always stays. */
  readonly drop?: number;
  /** Which part of a cut text stays, default its start. Names that differ at their end, such as topics, keep the end. */
  readonly keep?: 'start' | 'end';
}

/** A column of whole numbers; null reads `unknown`. @param drop as in `TableColumn` */
export const wholeColumn = <Row>(
  head: string,
  value: (row: Row) => number | null,
  drop = 0,
): TableColumn<Row> => ({ head, align: 'right', drop, cell: (row) => whole(value(row)) });

const gap = '  ';
/** A text is not cut below this. */
const cutMin = 8;

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
      .map((at) => padded(texts[at] ?? '', widths[at] as number, columns[at]))
      .join(gap)
      .trimEnd();
  const headLines = Math.max(...shown.map((at) => heads[at]?.length ?? 1));
  return [
    ...Array.from({ length: headLines }, (_, n) => line(heads.map((lines) => lines[n] ?? ''))),
    '─'.repeat(total(widths, shown)),
    ...cells.map(line),
  ].join('\n');
}

/** Columns that a line takes. */
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

function padded(text: string, width: number, { align, keep }: Partial<TableColumn<never>> = {}): string {
  const own = widthOf(text);
  if (own > width) return keep === 'end' ? `…${ending(text, width - 1)}` : `${cut(text, width - 1)}…`;
  const space = ' '.repeat(width - own);
  return align === 'right' ? space + text : text + space;
}

function cut(text: string, width: number): string {
  const taken = firstOf([...stripVTControlCharacters(text)], width).join('');
  return taken + ' '.repeat(Math.max(0, width - widthOf(taken)));
}

function ending(text: string, width: number): string {
  const taken = firstOf([...stripVTControlCharacters(text)].reverse(), width)
    .reverse()
    .join('');
  return ' '.repeat(Math.max(0, width - widthOf(taken))) + taken;
}

/** The first characters that fit. */
function firstOf(chars: readonly string[], width: number): string[] {
  let own = 0;
  const end = chars.findIndex((char) => {
    own += widthOf(char);
    return own > width;
  });
  return chars.slice(0, end < 0 ? chars.length : end);
}

/** Colours a text on a terminal, unless NO_COLOR is set. */
export function coloured(colour: 'green' | 'yellow' | 'red' | 'dim', text: string): string {
  return styleText(colour, text, { stream: process.stdout });
}
