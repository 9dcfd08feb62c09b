/** Values of options as people write them: sizes, periods, shares of memory, addresses. */
import type { Command } from 'commander';
import { expect, test, vi } from 'vitest';
import { createProgram } from '../../cli/main.ts';
import { integerIn, listenAddressOf, memoryOf, periodOf, sizeOf } from '../../cli/options.ts';
import { filled } from '../../runtime/terminal.ts';

const program = await createProgram();

test.each([
  ['1', 1],
  ['500kB', 500_000],
  ['64MB', 64_000_000],
  ['64 MB', 64_000_000],
  ['64mb', 64_000_000],
  ['1.5GB', 1_500_000_000],
  ['1GiB', 2 ** 30],
  ['1Gi', 2 ** 30],
  ['512Mi', 2 ** 29],
  ['2G', 2_000_000_000],
])('%s is a size', (text, bytes) => {
  expect(sizeOf(text)).toBe(bytes);
});

test.each(['', 'lots', '-1MB', '0', '1XB', '1 parsec', '50%', '1e9', 'MB'])('“%s” is not a size', (text) => {
  expect(() => sizeOf(text)).toThrow(/size such as/);
});

test.each([
  ['250ms', 250],
  ['1s', 1_000],
  ['1.5s', 1_500],
  ['5m', 300_000],
  ['5min', 300_000],
  ['2h', 7_200_000],
  ['1d', 86_400_000],
])('%s is a period', (text, ms) => {
  expect(periodOf(text)).toBe(ms);
});

test.each(['', '5', '0s', '-1s', '1w', 's'])('“%s” is not a period', (text) => {
  expect(() => periodOf(text)).toThrow(/period such as/);
});

test('a memory limit is a size or a share of the memory, as DuckDB takes it', () => {
  expect(memoryOf('1GB')).toBe('1000000000B');
  expect(memoryOf('1Gi')).toBe('1073741824B');
  const [whole, half] = ['100%', '50%'].map((text) => Number.parseInt(memoryOf(text), 10));
  expect(Math.abs((whole as number) / 2 - (half as number))).toBeLessThanOrEqual(1);
});

test.each(['lots', '1MB', '0%', '101%', '-5%', ''])('“%s” is not a memory limit', (text) => {
  expect(() => memoryOf(text)).toThrow(/size of at least 16MB/);
});

test('a port listens on this machine, an address where it says', () => {
  expect(listenAddressOf('9464')).toEqual({ host: '127.0.0.1', port: 9464 });
  expect(listenAddressOf('[::]:9464')).toEqual({ host: '::', port: 9464 });
  expect(() => listenAddressOf('0')).toThrow(/port such as/);
});

test('a number outside its range is refused with the range', () => {
  expect(() => integerIn(1, 9)('10')).toThrow('from 1 to 9');
  expect(() => integerIn(1)('0')).toThrow('from 1 up');
});

test('a misspelt option is named, not the one that is missing for it', () => {
  const said = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  try {
    const parse = (...args: string[]) => program.parse(['node', 'reelflow', 'generate', ...args]);
    expect(() => parse('--titel', '5', '--out', 'x')).toThrow("unknown option '--titel'");
    expect(() => parse('--out', 'x')).toThrow("required option '--titles <n>' not specified");
  } finally {
    said.mockRestore();
  }
});

test.each([['--namespace', 'n'], ['--namespace=n'], ['--state', 's']])(
  'a command that reads gold alone says why it has no %s',
  (...args) => {
    const said = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    try {
      expect(() => program.parse(['node', 'reelflow', 'gold', 'show', 'titles', ...args])).toThrow(
        'A gold folder belongs to one pipeline: --gold alone names it.',
      );
    } finally {
      said.mockRestore();
    }
  },
);

test('every command refuses an empty path', () => {
  const said = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  const called: string[] = [];
  try {
    const visit = (command: Command, path: string[]) => {
      for (const inner of command.commands) visit(inner, [...path, inner.name()]);
      for (const { long, flags } of command.options.filter(({ envVar }) => envVar === undefined)) {
        if (!/<(dir|path|file)>/.test(flags)) continue;
        called.push([...path, long].join(' '));
        expect(() => program.parse(['node', 'reelflow', ...path, `${long}=`]), called.at(-1)).toThrow(
          `option '${flags}' argument '' is invalid. It is empty`,
        );
      }
    };
    visit(program, []);
  } finally {
    said.mockRestore();
  }
  expect(called).toEqual(expect.arrayContaining(['gold list --gold', 'process --state', 'generate --out']));
});

test('every command names a wrong option and its own help, in lines that fit the terminal', () => {
  const { isTTY, columns } = process.stderr;
  const written: string[] = [];
  const said = vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    written.push(String(text));
    return true;
  });
  Object.assign(process.stderr, { isTTY: true, columns: 40 });
  try {
    const visit = (command: Command, path: string[]) => {
      if (command.commands.length > 0) {
        for (const inner of command.commands) visit(inner, [...path, inner.name()]);
        return;
      }
      written.length = 0;
      expect(() => program.parse(['node', 'reelflow', ...path, '--no-such-option'])).toThrow();
      const called = ['reelflow', ...path].join(' ');
      expect(written.join(''), called).toBe(
        `Error: Unknown option '--no-such-option'\nHint: Run \`${called} --help\` for its usage.\n`
          .split('\n')
          .map((line) => filled(line, 40))
          .join('\n'),
      );
    };
    visit(program, []);
  } finally {
    said.mockRestore();
    Object.assign(process.stderr, { isTTY, columns });
  }
});

test.each([60, 80, 120])('no line of any help is wider than a terminal of %i columns', (columns) => {
  const tooWide: string[] = [];
  const visit = (command: Command) => {
    command.configureOutput({ getOutHelpWidth: () => columns });
    const lines = command.helpInformation().split('\n');
    tooWide.push(...lines.filter(({ length }) => length > columns));
    for (const inner of command.commands) visit(inner);
  };
  visit(program);
  expect(tooWide).toEqual([]);
});
