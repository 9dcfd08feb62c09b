/**
 * Completion in the shells themselves. Method: the printed script is loaded by the shell, which is asked what it would offer
 * behind a command line; every command and option is tried in bash. zsh and fish are skipped where they are absent.
 */
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the variables are those of the shells
import { spawnSync } from 'node:child_process';
import type { Command } from 'commander';
import { expect, test } from 'vitest';
import { createProgram } from '../../cli/main.ts';
import { test as placed } from '../support/harness.ts';

const program = await createProgram();
const scripts = new Map<string, string>();
function scriptOf(shell: string): string {
  const known = scripts.get(shell);
  if (known !== undefined) return known;
  let text = '';
  const write = process.stdout.write;
  process.stdout.write = (chunk: string | Uint8Array) => {
    text += String(chunk);
    return true;
  };
  try {
    program.parse(['node', 'reelflow', 'completion', shell]);
  } finally {
    process.stdout.write = write;
  }
  scripts.set(shell, text);
  return text;
}

/** What bash offers for the last word of each line. */
function offeredByBash(lines: readonly string[], cwd = process.cwd()): string[][] {
  const asked = lines.map((line) => {
    const words = line.split(' ');
    const quoted = words.map((word) => `'${word}'`).join(' ');
    return `COMP_WORDS=(${quoted}); COMP_CWORD=${words.length - 1}; COMPREPLY=(); _reelflow; echo "\${COMPREPLY[*]}"`;
  });
  const { stdout, stderr } = spawnSync('bash', ['--norc'], {
    input: [scriptOf('bash'), ...asked].join('\n'),
    encoding: 'utf8',
    cwd,
  });
  expect(stderr).toBe('');
  return stdout
    .split('\n')
    .slice(0, lines.length)
    .map((line) => line.split(' ').filter((word) => word !== ''));
}

function walk(command: Command, path: string[], visit: (command: Command, path: string[]) => void): void {
  visit(command, path);
  for (const inner of command.commands) walk(inner, [...path, inner.name()], visit);
}

test('bash offers every command and every option of each', () => {
  const lines: string[] = [];
  const expected: string[][] = [];
  walk(program, ['reelflow'], (command, path) => {
    lines.push(`${path.join(' ')} --`);
    const shown = command.options.filter(({ hidden }) => !hidden);
    expected.push([...shown.map(({ long }) => long ?? ''), '--help'].sort());
    if (command.commands.length === 0) return;
    lines.push(`${path.join(' ')} `);
    const options = [...shown.map(({ long }) => long ?? ''), '--help'];
    expected.push([...command.commands.map((one) => one.name()), ...options].sort());
  });
  expect(lines.length).toBeGreaterThan(35);
  expect(offeredByBash(lines).map((words) => words.sort())).toEqual(expected);
});

placed('bash completes beginnings, values and folders, and passes over options', ({ place }) => {
  place.files('imdb', {});
  place.files('.', { 'notes.txt': '' });
  const [begun, choice, folder, free, later, argument, shell] = offeredByBash(
    [
      'reelflow go',
      'reelflow lag --fail-on S',
      'reelflow process --state i',
      'reelflow process --window ',
      'reelflow gold --json show --ro',
      'reelflow replay ',
      'reelflow completion ',
    ],
    place.folder,
  );
  expect(begun).toEqual(['gold']);
  expect(choice).toEqual(['STALL', 'STOP']);
  expect(folder).toEqual(['imdb']);
  expect(free).toEqual([]);
  expect(later).toEqual(['--rows']);
  expect(argument).toContain('--upsert');
  expect(shell).toContain('--help');
});

placed('bash completes behind npx too, and leaves other commands of npx alone', ({ place }) => {
  const asked = [
    ['npx', 'reelflow', 'go'],
    ['npx', 'reelflow', 'gold', 'show', '--ro'],
    ['npx', 'other', 'go'],
  ].map(
    (words) =>
      `COMP_WORDS=(${words.join(' ')}); COMP_CWORD=${words.length - 1}; COMPREPLY=(); _reelflow_npx; echo "\${COMPREPLY[*]}"`,
  );
  const { stdout, stderr } = spawnSync('bash', ['--norc'], {
    input: [scriptOf('bash'), ...asked, 'complete -p npx'].join('\n'),
    encoding: 'utf8',
    cwd: place.folder,
  });
  expect(stderr).toBe('');
  expect(stdout.split('\n')).toEqual(['gold', '--rows', '', expect.stringContaining('_reelflow_npx'), '']);
});

const has = (shell: string) => spawnSync(shell, ['--version']).status === 0;

test.skipIf(!has('fish'))(`fish offers the same${has('fish') ? '' : ' (skipped: there is no fish)'}`, () => {
  const input = [
    scriptOf('fish'),
    'complete -C "reelflow gold "',
    'echo ---',
    'complete -C "reelflow lag --fail-on "',
    'echo ---',
    'complete -C "reelflow gold show --r"',
  ].join('\n');
  const { stdout, stderr } = spawnSync('fish', ['--no-config', '-c', input], { encoding: 'utf8' });
  expect(stderr).toBe('');
  const [commands = '', choices = '', options = ''] = stdout.split('---\n');
  expect(commands).toMatch(/^diff\tshow what changed between two snapshots$/m);
  expect(choices.trim().split('\n')).toHaveLength(5);
  expect(options).toMatch(/^--rows\tnumber of rows$/m);
});

test.skipIf(!has('zsh'))(`zsh takes the script${has('zsh') ? '' : ' (skipped: there is no zsh)'}`, () => {
  // What zsh would offer shows only in a terminal: its builtins are replaced by ones that print.
  const input = [
    'compdef() { : }; _describe() { shift; print -l -- ${(P)1} }; _files() { print files }; compadd() { print -- $* }',
    scriptOf('zsh'),
    'words=(reelflow gold ""); CURRENT=3; _reelflow',
    'echo ---; words=(reelflow lag --fail-on ""); CURRENT=4; _reelflow',
    'echo ---; words=(reelflow gold show --r); CURRENT=4; _reelflow',
    'echo ---; words=(reelflow replay ""); CURRENT=3; _reelflow',
  ].join('\n');
  const { stdout, stderr } = spawnSync('zsh', ['-f'], { input, encoding: 'utf8' });
  expect(stderr).toBe('');
  const [commands = '', choices = '', options = '', files = ''] = stdout.split('---\n');
  expect(commands).toContain('diff:show what changed between two snapshots\n');
  expect(choices).toBe('-- WARN ERR STALL STOP LOST\n');
  expect(options).toContain('--rows:number of rows\n');
  expect(files).toBe('files\n');
});
