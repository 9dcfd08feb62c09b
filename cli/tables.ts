/** `reelflow tables`: list, check, try and begin declarations of cubes and gold tables, without a broker. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { counted } from '../runtime/counted.ts';
import { messageOf, ReelflowError, systemCodeOf } from '../runtime/errors.ts';
import type { Declarations } from '../tables/built-in.ts';
import { declarationsOf } from './declared.ts';
import { viewText } from './gold-text.ts';
import { integerIn, outputOptions, type TablesFlags, tablesOption } from './options.ts';
import { print, printFilled, printJson } from './output.ts';
import { tableText } from './table.ts';

interface Flags extends TablesFlags {
  json?: true;
}

export function tablesCommand(): Command {
  const tables = new Command('tables').description('list, check, try and begin declarations of tables');
  const add = (name: string, description: string) => {
    const command = new Command(name).description(description);
    tables.addCommand(outputOptions(tablesOption(command)));
    return command;
  };
  add('list', 'list all cubes and tables with what they read').action(list);
  add('check', 'check the declarations of --tables and name file, line and reason of each problem').action(
    check,
  );
  add('try', 'compute tables from small IMDb files and show their first rows')
    .requiredOption('--data <dir>', 'folder of IMDb files')
    .option('--table <name>', 'only this table; default all of --tables')
    .option('--rows <n>', 'number of rows', integerIn(0, 100_000), 20)
    .action(tryTables);
  add('new', 'write a commented example of a table')
    .argument('<name>', 'name of the table: lower-case letters, digits and _')
    .action(begin);
  return tables;
}

async function list(flags: Flags): Promise<void> {
  const declarations = await declarationsOf(flags);
  const rows = [
    ...declarations.cubes.map(({ name, reads, onlyDuckdb }) => ({
      name,
      kind: 'cube',
      reads: Object.keys(reads),
      engines: onlyDuckdb === undefined ? 'DuckDB, Flink' : 'DuckDB',
      file: null,
    })),
    ...declarations.tables.map(({ name, reads, onlyDuckdb, file = null }) => ({
      name,
      kind: 'table',
      reads,
      engines: onlyDuckdb === undefined ? 'DuckDB, Flink' : 'DuckDB',
      file,
    })),
  ];
  if (flags.json) return printJson(rows);
  print(
    tableText(
      [
        { head: 'name', cell: ({ name }) => name },
        { head: 'kind', cell: ({ kind }) => kind },
        { head: 'reads', cell: ({ reads }) => reads.join(', ') },
        { head: 'engines', drop: 1, cell: ({ engines }) => engines },
        // Only tables of a user lie in a file that a person may open.
        ...(rows.some(({ file }) => file !== null)
          ? [{ head: 'file', keep: 'end' as const, cell: ({ file }: (typeof rows)[number]) => file ?? '' }]
          : []),
      ],
      rows,
    ),
  );
}

async function check(flags: Flags): Promise<void> {
  const folder = requireFolder(flags);
  const declarations = await declarationsOf(flags);
  const { builtIn } = await import('../tables/built-in.ts');
  const tables = ownTables(declarations).map(({ name }) => name);
  const cubes = declarations.cubes.filter((cube) => !builtIn.cubes.includes(cube)).map(({ name }) => name);
  if (flags.json) return printJson({ folder, cubes, tables });
  const named = [listed(cubes, 'cube'), listed(tables, 'table')].filter((text) => text !== '');
  printFilled(`${folder} is correct: ${named.join('; ')}`);
}

const listed = (names: readonly string[], what: string) =>
  names.length === 0 ? '' : `${counted(names.length, what)}: ${names.join(', ')}`;

const ownTables = ({ tables }: Declarations) => tables.filter(({ file }) => file !== undefined);

function requireFolder({ tables }: Flags): string {
  if (tables !== undefined && tables !== '') return tables;
  throw new ReelflowError('usage', 'No folder of declarations is named', {
    hint: 'Name it with --tables or REELFLOW_TABLES.',
  });
}

async function tryTables(flags: Flags & { data: string; table?: string; rows: number }): Promise<void> {
  const declarations = await declarationsOf(flags);
  const wanted =
    flags.table === undefined
      ? ownTables(declarations)
      : declarations.tables.filter(({ name }) => name === flags.table);
  if (wanted.length === 0) {
    const isCube = declarations.cubes.some(({ name }) => name === flags.table);
    throw new ReelflowError(
      'usage',
      isCube ? `${flags.table} is a cube, no table` : `There is no table ${flags.table ?? 'to try'}`,
      {
        detail: `The tables are ${declarations.tables.map(({ name }) => name).join(', ')}.`,
        hint: 'Name one with --table, or a folder of declarations with --tables.',
      },
    );
  }
  const ofChanges = wanted.find(({ reads }) => reads.includes('history'));
  if (ofChanges !== undefined) {
    throw new ReelflowError('usage', `${ofChanges.name} cannot be tried`, {
      detail: 'It shows changes between dumps, and the files are of one dump.',
      hint: 'Name another table with --table.',
    });
  }
  const { tryOut } = await import('../sinks/verify/try-tables.ts');
  const views = await tryOut(flags.data, { cubes: declarations.cubes, tables: wanted }, flags.rows);
  if (flags.json) return printJson(views);
  print(views.map((view) => viewText(view)).join('\n\n'));
}

async function begin(name: string, flags: Flags): Promise<void> {
  const folder = flags.tables ?? '.';
  if (!/^[a-z][a-z0-9_]{0,62}$/.test(name)) {
    throw new ReelflowError('usage', `${name} is not a valid table name`, {
      hint: 'Use lower-case letters, digits and _.',
    });
  }
  const [{ exampleTable }, { makeFolder }] = await Promise.all([
    import('../tables/example.ts'),
    import('../runtime/files.ts'),
  ]);
  const file = join(folder, `${name}.sql`);
  try {
    makeFolder(folder);
    writeFileSync(file, exampleTable, { flag: 'wx' });
  } catch (thrown) {
    const isTaken = systemCodeOf(thrown) === 'EEXIST';
    throw new ReelflowError('usage', isTaken ? `${file} exists already` : `${file} cannot be written`, {
      detail: isTaken ? '' : messageOf(thrown),
      hint: 'Use another name or folder.',
      cause: thrown,
    });
  }
  print(
    flags.json
      ? JSON.stringify({ file })
      : `${file}\nCheck it with: reelflow tables check --tables ${folder}`,
  );
}
