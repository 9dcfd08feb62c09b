/**
 * Options in hints. Method: each option that any hint names exists somewhere; and a hint of a shared module, reported by a
 * command that lacks the option, names a command that has it.
 */
import { spawnSync } from 'node:child_process';
import type { Command } from 'commander';
import { expect, test, vi } from 'vitest';
import { placesText, qualifiedHint } from '../../cli/hint.ts';
import { createProgram } from '../../cli/main.ts';
import { projectTexts } from './prose.ts';

const program = await createProgram();
const allCommands = (command: Command): Command[] => [
  ...(command.commands.length === 0 ? [command] : []),
  ...command.commands.flatMap(allCommands),
];
const commands = allCommands(program);
const known = new Set(commands.flatMap(({ options }) => options.map(({ long }) => long)));

/** The hints of a source, as far as they are written out, without command lines in backticks. */
function hintsOf(source: string): string[] {
  const texts = [
    ...source.matchAll(/\bhint(?:When\w+)?:\s*((?:'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|"[^"]*"|[^,'`"])*)/g),
  ];
  return texts.map(([, text]) =>
    (text as string).replaceAll(/\\`.*?\\`|(?<=')`.*?`|`[^`]*`(?=[^`]*'$)/gs, ''),
  );
}

const hints = [...projectTexts()]
  .filter(([path]) => path.endsWith('.ts') && !path.startsWith('test/'))
  .flatMap(([, source]) => hintsOf(source));
const optionsIn = (hint: string) => hint.match(/(?<![-\w])--[a-z][a-z-]*[a-z]/g) ?? [];

test('every option that a hint names is an option of some command', () => {
  const named = new Set(hints.flatMap(optionsIn));
  expect(named.size).toBeGreaterThan(10);
  expect(
    [...named].filter((option) => !known.has(option) && option !== '--omit' && option !== '--help'),
  ).toEqual([]);
});

test('no command shows a hint with an option that it lacks, without a command that has it', () => {
  let shown = 0;
  for (const command of commands) {
    const own = new Set(command.options.map(({ long }) => long));
    for (const hint of hints) {
      const text = qualifiedHint(hint, program, command);
      for (const option of optionsIn(hint).filter((one) => known.has(one) && !own.has(one))) {
        shown++;
        expect(text).toMatch(
          new RegExp(`${option}(?: [A-Z]+)? \\(of \`reelflow |\`[^\`]*${option}|npx reelflow [^.]*${option}`),
        );
      }
    }
  }
  expect(shown).toBeGreaterThan(100);
});

test('an option that the command has stays as it is, and one of a command line in backticks too', () => {
  const command = (name: string) => commands.find((one) => one.name() === name) as Command;
  const hint = 'Raise --memory, or run `reelflow sink --once` and name --gold DIR.';
  expect(qualifiedHint(hint, program, command('sink'))).toBe(hint);
  expect(qualifiedHint(hint, program, command('monitor'))).toMatch(
    /^Raise --memory \(of `reelflow \w+`, `\w+`, `\w+`\), or run `reelflow sink --once` and name --gold DIR\.$/,
  );
});

test('a command line in a hint works on the pipeline of the command that failed', () => {
  const failed = async (...argv: string[]) => {
    const running = await createProgram();
    let found: Command | undefined;
    for (const one of allCommands(running)) {
      one.action(() => {
        found = one;
      });
    }
    await running.parseAsync(['node', 'reelflow', ...argv]);
    return found as Command;
  };
  const hint =
    'Run `reelflow process` and `reelflow gold list`, `reelflow download --out DIR`, `ls` or `reelflow reset --gold X`.';
  const shown = async (...argv: string[]) => qualifiedHint(hint, program, await failed(...argv));
  return Promise.all([
    expect(shown('sink')).resolves.toBe(hint),
    expect(shown('sink', '--gold', '.reelflow/gold')).resolves.toBe(hint),
    expect(shown('sink', '--gold', "it's", '--state', '/s', '--namespace', 'n')).resolves.toBe(
      "Run `reelflow process --gold 'it'\\''s' --state /s --namespace n` and `reelflow gold list --gold 'it'\\''s'`, " +
        '`reelflow download --out DIR`, `ls` or `reelflow reset --gold X --state /s --namespace n`.',
    ),
    expect(shown('gold', 'list', '--gold', 'g')).resolves.toBe(
      'Run `reelflow process --gold g` and `reelflow gold list --gold g`, `reelflow download --out DIR`, `ls` or `reelflow reset --gold X`.',
    ),
  ]);
});

test('the namespace of the environment needs no option, and none needs an empty one', () => {
  vi.stubEnv('REELFLOW_NAMESPACE', 'n');
  expect(placesText({ namespace: 'n' })).toBe('');
  expect(placesText({ namespace: '' })).toBe(" --namespace ''");
  vi.unstubAllEnvs();
});

test('the command line reports the hint of the command that ran', () => {
  const { stderr } = spawnSync(
    process.execPath,
    ['cli/reelflow.js', 'gold', 'report', '--gold', '/nowhere/at/all', '--at', '2026-13-77'],
    { cwd: new URL('../..', import.meta.url), encoding: 'utf8' },
  );
  expect(stderr).toMatch(/^Error: /);
  expect(stderr).not.toContain('(of `');
});
