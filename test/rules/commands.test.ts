/**
 * Every command line that a document, a help text, a hint or a comment shows: its command, its options and their values
 * exist. So no text names an option that the command lacks.
 */
import type { Command } from 'commander';
import { expect, test } from 'vitest';
import { createProgram } from '../../cli/main.ts';
import { projectTexts } from './prose.ts';

/** Texts in backticks that only look like command lines: an engine's name, and templates. */
const noCommand = /^(?:from topics|\$\{|needs Node)/;

/** Command lines in backticks, and lines of examples; a comment behind one, `&` and `|` end it. */
function commandLines(text: string): string[] {
  const inBackticks = [...text.matchAll(/`(?:npx )?reelflow ([^`\n]+)`/g)].map(([, line]) => line as string);
  const inExamples = [...text.matchAll(/^[ #*]*npx reelflow (.*)$/gm)].map(([, line]) => line as string);
  return [...inBackticks, ...inExamples]
    .filter((line) => !noCommand.test(line))
    .map((line) => line.replaceAll('\\', '').split(/ [#&|]| {2,}|[,;]? …/)[0] as string);
}

/** Words as a shell would split them; a template's expression stands for one value, or for options behind a word. */
const wordsOf = (line: string) =>
  (
    line
      .replace(/(?<=\w)\$\{[^}]*\}/g, '')
      .replace(/\$\{[^}]*\}/g, '1')
      .match(/'[^']*'|"[^"]*"|\S+/g) ?? []
  ).map((word) => word.replace(/^['"]|['"]$/g, ''));

const program = await createProgram();

/** @returns what is wrong with the line, or undefined */
function faultOf(line: string): string | undefined {
  let command: Command = program;
  const words = wordsOf(line);
  while (words[0] !== undefined && command.commands.length > 0) {
    const named = words[0];
    // `dlq list|show|replay` names several.
    const inner = named.split('|').map((name) => command.commands.find((one) => one.name() === name));
    if (inner.includes(undefined)) return named.startsWith('-') ? undefined : `unknown command ${named}`;
    command = inner[0] as Command;
    words.shift();
  }
  const given: string[] = [];
  for (let at = 0; at < words.length; at++) {
    const [flag, value] = (words[at] as string).replace(/[.,;:)]+$/, '').split('=');
    if (flag === undefined || !/^--[a-z]/.test(flag) || flag === '--help') continue;
    const option = command.options.find(({ long }) => long === flag);
    if (option === undefined) return `${command.name()} has no option ${flag}`;
    given.push(flag);
    const argument = value ?? (option.required ? words[++at] : undefined);
    // Placeholders are in capitals or angle brackets; the word may also be followed by prose.
    if (argument === undefined || /^[A-Z<…]/.test(argument) || option.parseArg === undefined) continue;
    try {
      option.parseArg(argument, option.defaultValue as never);
    } catch {
      return `${flag} ${argument} is not a value`;
    }
  }
  // A name alone is a mention; a line with options is to be typed as it is.
  const absent = command.options.find(({ mandatory, long }) => mandatory && !given.includes(long ?? ''));
  if (given.length > 0 && absent !== undefined) return `${command.name()} lacks ${absent.long}`;
  return undefined;
}

test.each([
  ['process --until-caught-up', undefined],
  ['sink --interval 60s', undefined],
  ['gold push s3://bucket/prefix', undefined],
  ['dlq list|show|replay', undefined],
  ['lag --watching', 'lag has no option --watching'],
  ['generate --out imdb', 'generate lacks --titles'],
  ['lagg', 'unknown command lagg'],
  ['gold shows', 'unknown command shows'],
  ['sink --interval 60', '--interval 60 is not a value'],
])('%j: %s', (line, fault) => {
  expect(faultOf(line)).toBe(fault);
});

test('every command line in the texts of the project is valid', () => {
  const faults: string[] = [];
  let count = 0;
  for (const [path, text] of projectTexts()) {
    if (path.startsWith('test/') || !/\.(?:ts|js|md|ya?ml|service|example)$|Dockerfile/.test(path)) continue;
    for (const line of commandLines(text)) {
      count++;
      const fault = faultOf(line);
      if (fault !== undefined) faults.push(`${path}: reelflow ${line}: ${fault}`);
    }
  }
  expect(count).toBeGreaterThan(80);
  expect(faults).toEqual([]);
});
