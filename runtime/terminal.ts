/** Text on a terminal: its width, the columns of a text, lines that break between words, words of a command line. */
import { stripVTControlCharacters } from 'node:util';

/** Columns of the terminal; Infinity if the stream is not a terminal. */
export const terminalWidth = (stream: NodeJS.WriteStream = process.stdout): number =>
  stream.isTTY === true && stream.columns > 0 ? stream.columns : Number.POSITIVE_INFINITY;

/**
 * A text whose lines break between words. A longer word, and a command in backticks, stays whole, so that it can be copied.
 * @param width columns that a line may take
 * @param indent blanks before each further line
 */
export function filled(text: string, width = terminalWidth(), indent = 0): string {
  return text
    .split('\n')
    .flatMap((line) => filledLine(line, width, indent))
    .join('\n');
}

function filledLine(text: string, width: number, indent: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const [word] of text.matchAll(/\s*(?:`[^`]*`|\S)+|\s+$/g)) {
    const isFull = line !== '' && widthOf(line) + widthOf(word) > width;
    if (isFull) lines.push(line);
    line = isFull ? ' '.repeat(indent) + word.trimStart() : line + word;
  }
  return [...lines, line];
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

/** A text as a shell takes it for one word. */
export const shellWord = (text: string): string =>
  /^[\w.:/@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
