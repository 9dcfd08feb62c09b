/** Results of a measurement: flat lines, a table of them for the terminal or for Markdown, a file to keep them. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { tableText } from '../cli/table.ts';
import { machine } from './measure.ts';

/** Values by the heads of the columns. A number is shown with as many digits as say something. */
export type Line = Readonly<Record<string, string | number>>;

export interface Result {
  readonly name: string;
  /** What to type to measure it again. */
  readonly command: string;
  readonly machine: string;
  /** YYYY-MM-DD */
  readonly date: string;
  readonly lines: readonly Line[];
  /** Sentences under the table. */
  readonly notes: readonly string[];
}

export const docs = fileURLToPath(new URL('../docs', import.meta.url));
export const resultFile = (name: string) => join(docs, 'results', `${name}.json`);

export function resultOf(name: string, lines: readonly Line[], notes: readonly string[] = []): Result {
  const script = name === 'peers' ? 'bench:peers' : 'bench';
  const given = process.argv.slice(2).filter((argument) => argument !== '--json');
  return {
    name,
    command: `npm run ${script}${given.length > 0 ? ` -- ${given.join(' ')}` : ''}`,
    machine: machine(),
    date: new Date().toISOString().slice(0, 10),
    lines,
    notes,
  };
}

/** Writes a result to standard output, and into docs/results/ when it is to be kept. */
export function report(result: Result, { json, save }: { json?: true; save?: true }): void {
  if (save) {
    mkdirSync(dirname(resultFile(result.name)), { recursive: true });
    writeFileSync(resultFile(result.name), `${JSON.stringify(result, undefined, 2)}\n`);
  }
  process.stdout.write(json ? `${JSON.stringify(result)}\n` : text(result));
}

const heads = (lines: readonly Line[]) => [...new Set(lines.flatMap((line) => Object.keys(line)))];
const isNumeric = (lines: readonly Line[], head: string) =>
  lines.some((line) => typeof line[head] === 'number');

/** A number as people read it: whole from 100 on, else three digits that count. */
export function shown(value: string | number | undefined): string {
  if (value === undefined) return '';
  if (typeof value === 'string') return value;
  if (!Number.isFinite(value)) return '–';
  if (Number.isInteger(value) || Math.abs(value) >= 100) return Math.round(value).toLocaleString('en-US');
  return value.toPrecision(Math.abs(value) < 1 ? 2 : 3);
}

function text({ lines, notes, machine, command }: Result): string {
  const columns = heads(lines);
  const table = tableText(
    columns.map((head) => ({
      head,
      align: isNumeric(lines, head) ? ('right' as const) : ('left' as const),
      cell: (line: Line) => shown(line[head]),
    })),
    lines,
    Number.POSITIVE_INFINITY,
  );
  return `${[table, ...notes, machine, command].join('\n')}\n`;
}

/** The table in Markdown, with the machine and the command under it. */
export function markdown({ lines, notes, machine, command, date }: Result): string {
  const columns = heads(lines);
  const row = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [
    row(columns),
    row(columns.map((head) => (isNumeric(lines, head) ? '--:' : '---'))),
    ...lines.map((line) => row(columns.map((head) => shown(line[head]).replaceAll('|', '\\|')))),
    '',
    ...notes.flatMap((note) => [`${note}`, '']),
    `\`${command}\` on ${machine}, ${date}.`,
  ].join('\n');
}
