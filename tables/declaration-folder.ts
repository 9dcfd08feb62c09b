/** Reads and checks a folder of declarations. Every file is looked at, so one run shows the first problem of each. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { withDatabase } from '../database/duckdb.ts';
import { messageOf, systemCodeOf } from '../runtime/errors.ts';
import { datasetNames } from '../topics/catalog.ts';
import { builtIn } from './built-in.ts';
import { checkCube } from './cube-check.ts';
import { type Cube, relationOf } from './cubes/cube.ts';
import { declaredCubes } from './cubes/cube-set.ts';
import { DeclarationFile } from './declaration-file.ts';
import { DeclarationProblem, type Problem } from './declaration-problem.ts';
import { declaredTables, type GoldTable } from './gold-table.ts';
import { readCube, readGoldTable, withoutNulls } from './read-declaration.ts';
import { checkTable, createSamples, goldRelations } from './table-check.ts';

interface CheckedFolder {
  readonly problems: readonly Problem[];
  readonly cubes: readonly Cube[];
  readonly tables: readonly GoldTable[];
}

/** Names of relations of the sink, of processors and of a check. */
const reserved = new Set(
  `names dictionary integers scales shard meta snapshot changes history history_span cube cube_revision names_revision name_source
  published recent replaced compacted kept changed_names changed_ids rows_before rows_after held after signed affected asked_titles title_names`.split(
    /\s+/,
  ),
);

/** @param onFile receives each file before it is read */
export async function readFolder(folder: string, onFile?: (file: string) => void): Promise<CheckedFolder> {
  const problems: Problem[] = [];
  const tables: GoldTable[] = [];
  let names: string[];
  try {
    names = readdirSync(folder)
      .filter((name) => name.endsWith('.sql'))
      .sort();
  } catch (thrown) {
    const problem = {
      file: folder,
      line: 1,
      reason: systemCodeOf(thrown) === 'ENOENT' ? 'the folder does not exist' : messageOf(thrown),
      hint: 'Name a folder with SQL files.',
    };
    return { problems: [problem], cubes: [], tables };
  }
  if (names.length === 0) {
    const reason = 'the folder holds no SQL file';
    return {
      problems: [{ file: folder, line: 1, reason, hint: 'Write a declaration into it.' }],
      cubes: [],
      tables,
    };
  }
  const cubes: Cube[] = [];
  await inSandbox(async (connection) => {
    const files: DeclarationFile[] = [];
    const words = await connection.runAndReadAll(
      "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'",
    );
    const keywords = new Set(words.getRows().map(([word]) => String(word)));
    const attempt = async (path: string, work: () => Promise<void>) => {
      onFile?.(path);
      try {
        await work();
      } catch (thrown) {
        if (!(thrown instanceof DeclarationProblem)) throw thrown;
        problems.push(thrown.problem);
      }
    };
    for (const name of names) {
      const path = join(folder, name);
      await attempt(path, async () => {
        const file = new DeclarationFile(path);
        checkName(file, keywords);
        files.push(file);
      });
    }
    // Tables may read the cubes of the same folder.
    for (const file of files.filter(({ kind }) => kind === 'cube')) {
      await attempt(file.path, async () => {
        const cube = readCube(file);
        await checkCube(connection, file, cube);
        const whole = withoutNulls(cube);
        checkShared(file, () => declaredCubes([whole]));
        cubes.push(whole);
      });
    }
    const all = [...builtIn.cubes, ...cubes];
    const relations = goldRelations(all);
    await createSamples(connection, relations);
    const wrongCubes = new Set(files.filter(({ kind }) => kind === 'cube').map(({ name }) => name));
    for (const { name } of cubes) wrongCubes.delete(name);
    for (const file of files.filter(({ kind }) => kind !== 'cube')) {
      await attempt(file.path, async () => {
        const table = readGoldTable(file);
        const wrong = table.reads.findIndex((name) => wrongCubes.has(name));
        if (wrong >= 0) {
          const line = file.lineOf(['reads', wrong]);
          file.fail(
            line,
            `the cube ${table.reads[wrong]} has a problem of its own`,
            `Correct ${table.reads[wrong]}.sql first.`,
          );
        }
        await checkTable(connection, file, table, relations);
        checkShared(file, () => declaredTables([table], all));
        tables.push({ ...table, file: file.path });
      });
    }
  });
  problems.sort((a, b) => (a.file < b.file ? -1 : 1));
  return { problems, cubes, tables };
}

function checkName(file: DeclarationFile, keywords: ReadonlySet<string>): void {
  const { name } = file;
  const taken = [...builtIn.tables, ...builtIn.cubes].some((declared) => declared.name === name);
  const isDataset = datasetNames.some((dataset) => relationOf(dataset) === name);
  if (taken || isDataset || reserved.has(name) || name.endsWith('_sums')) {
    file.fail(1, `${name} is a name of reelflow's own`, 'Rename the file.');
  }
  if (keywords.has(name)) file.fail(1, `${name} is a word of SQL`, 'Rename the file.');
}

/** Flink computes every cube and table that does not say why not. */
function checkShared(file: DeclarationFile, check: () => unknown): void {
  try {
    check();
  } catch (thrown) {
    file.fail(
      file.sqlLine,
      `Flink cannot compute it: ${messageOf(thrown).replace(/^(gold table|cube) \w+: /, '')}`,
      'Write SQL that both engines share, or add a line `onlyDuckdb: why` to the metadata.',
    );
  }
}

/** A database in memory without files, network, extensions and changes of its settings. */
async function inSandbox(work: (connection: DuckDBConnection) => Promise<void>): Promise<void> {
  await withDatabase(
    async (connection) => {
      await connection.run("SET temp_directory = ''");
      await connection.run('SET enable_external_access = false');
      await connection.run('SET lock_configuration = true');
      await work(connection);
    },
    ':memory:',
    { memory_limit: '512MB', threads: '4' },
  );
}
