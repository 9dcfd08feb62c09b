/**
 * Checks cubes of users against sample rows of the datasets. What passes is additive over titles: the contribution of two
 * disjoint sets of titles together is the sum of both, so a change of one title changes nothing of the others. It is empty while
 * any dataset that it reads is empty, and equal whatever the order of the rows and the numbers of the texts are.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import { messageOf } from '../runtime/errors.ts';
import { type ColumnType, type DatasetName, datasets } from '../topics/catalog.ts';
import { formOf } from '../topics/chunk.ts';
import { type Cube, gateOf, relationOf } from './cubes/cube.ts';
import type { DeclarationFile, MetadataPath } from './declaration-file.ts';
import type { DeclarationProblem } from './declaration-problem.ts';
import { type Relations, statementProblem } from './statement-check.ts';

/** Texts with so many values that a number for each would fill the memory: 390 bytes and 14 µs a text. */
const wideTexts = new Set(
  'primaryTitle originalTitle title job characters primaryName primaryProfession knownForTitles'.split(' '),
);
const titles = 80;
const texts = ['Drama', 'Comedy,Drama', 'Action', 'Western', ''];
const integerTypes = new Set(['TINYINT', 'SMALLINT', 'INTEGER', 'BIGINT', 'HUGEINT']);

/** @throws DeclarationProblem for the first thing that is wrong */
export async function checkCube(
  connection: DuckDBConnection,
  file: DeclarationFile,
  cube: Cube,
): Promise<void> {
  await new CubeCheck(connection, file, cube).run();
}

/** Which rows of the sample a contribution reads. */
interface Sample {
  /** SQL over the number of a title. */
  readonly where?: string;
  /** A dataset without rows. */
  readonly empty?: DatasetName;
  /** Texts as numbers, as the stores have them; `shift` numbers them in another order. */
  readonly numbers?: { readonly shift: number };
  readonly isReversed?: boolean;
  /** One title, with this integer in each column that is not an id, or null where it may be. */
  readonly extreme?: number | null;
}

const integerMax = 2 ** 31 - 1;

class CubeCheck {
  readonly #connection: DuckDBConnection;
  readonly #file: DeclarationFile;
  readonly #cube: Cube;
  readonly #reads: [DatasetName, readonly string[]][];

  constructor(connection: DuckDBConnection, file: DeclarationFile, cube: Cube) {
    this.#connection = connection;
    this.#file = file;
    this.#cube = cube;
    this.#reads = Object.entries(cube.reads) as [DatasetName, readonly string[]][];
  }

  async run(): Promise<void> {
    this.#checkMetadata();
    const relations: Relations = Object.fromEntries(
      this.#reads.map(([dataset, columns]) => [relationOf(dataset), columns]),
    );
    const found = await statementProblem(this.#connection, this.#file.sql, relations);
    if (found !== undefined) {
      const line = this.#file.sqlLine + this.#file.sql.slice(0, found.at).split('\n').length - 1;
      throw this.#file.problem(line, found.reason, found.hint);
    }
    await this.#checkColumns();
    await this.#checkRows();
  }

  #checkMetadata(): void {
    const { reads, key, measures } = this.#cube;
    const gate = gateOf(this.#cube);
    if (reads[gate] === undefined) {
      throw this.#problem(
        [this.#cube.gate === undefined ? 'reads' : 'gate'],
        `the cube does not read ${gate}, the dataset that gates it`,
        `Join ${relationOf(gate)}; or name another dataset of reads as the gate: \`gate: ${this.#reads[0]?.[0]}\`.`,
      );
    }
    for (const [dataset, columns] of this.#reads) {
      const path = ['reads', dataset];
      if (datasets[dataset].idPrefix !== 'tt') {
        throw this.#problem(
          path,
          `${dataset} has no titles`,
          'Read datasets of titles; tables may read names.',
        );
      }
      const known = datasets[dataset].columns.map(({ name }) => name);
      const unknown = columns.findIndex((column) => !known.includes(column));
      if (unknown >= 0) {
        throw this.#problem(
          [...path, unknown],
          `${dataset} has no column ${columns[unknown]}`,
          `It has ${known.join(', ')}.`,
        );
      }
      const wanted = known.slice(0, datasets[dataset].keyColumns);
      if (columns.slice(0, wanted.length).join() !== wanted.join()) {
        throw this.#problem(
          path,
          `the columns of ${dataset} do not begin with its key`,
          `Begin with ${wanted.join(', ')}.`,
        );
      }
      const wide = columns.findIndex((column) => wideTexts.has(column));
      if (wide >= 0) {
        throw this.#problem(
          [...path, wide],
          `${columns[wide]} has too many different values for a cube`,
          'Read ids, numbers, and texts of few values.',
        );
      }
    }
    const seen = new Set<string>(['shard']);
    for (const [property, names] of Object.entries({ key, measures })) {
      for (const [i, name] of names.entries()) {
        if (seen.has(name.toLowerCase())) {
          throw this.#problem(
            [property, i],
            `${name} is taken`,
            'Name each column once, and none of them shard.',
          );
        }
        seen.add(name.toLowerCase());
      }
    }
  }

  async #checkColumns(): Promise<void> {
    const { key, texts: declared = [], measures } = this.#cube;
    const described = await this.#describe();
    for (const [property, names] of Object.entries({ key, measures })) {
      for (const [i, column] of names.entries()) {
        const type = described.get(column);
        if (type === undefined) {
          throw this.#problem(
            [property, i],
            `the SELECT has no column ${column}`,
            `Its columns are ${[...described.keys()].join(', ')}.`,
          );
        }
        if (integerTypes.has(type) || (property === 'key' && type === 'VARCHAR')) continue;
        throw this.#problem(
          [property, i],
          `${column} is ${type}, no integer`,
          'Use integers; tables compute fractions.',
        );
      }
    }
    const more = [...described.keys()].find((column) => ![...key, ...measures].includes(column));
    if (more !== undefined) {
      throw this.#file.problem(
        this.#file.sqlLine,
        `${more} is neither key nor measure`,
        'List it under key or measures.',
      );
    }
    const isText = key.filter((column) => described.get(column) === 'VARCHAR');
    if (
      isText.join() !== key.filter((column) => declared.includes(column)).join() ||
      declared.length !== isText.length
    ) {
      throw this.#problem(
        declared.length === 0 ? ['key'] : ['texts'],
        `the texts of the key are ${isText.join(', ') || 'none'}`,
        isText.length === 0 ? 'Remove the line texts.' : `Write \`texts: [${isText.join(', ')}]\` under key.`,
      );
    }
  }

  async #checkRows(): Promise<void> {
    const whole = await this.#sums({});
    if (whole.size === 0) {
      throw this.#file.problem(
        this.#file.sqlLine,
        'the sample rows contribute nothing',
        'Check joins and filters.',
      );
    }
    const { key } = this.#cube;
    const grouped = await this.#rows(
      `SELECT 1 FROM (${this.#contribution({})}) GROUP BY ${key.join(', ')} HAVING count(*) > 1 LIMIT 1`,
    );
    if (grouped.length > 0) {
      throw this.#problem(
        ['key'],
        'the key does not identify a row of the contribution',
        'GROUP BY the key.',
      );
    }
    for (const [dataset] of this.#reads) {
      if ((await this.#sums({ empty: dataset })).size === 0) continue;
      throw this.#file.problem(
        this.#file.sqlLine,
        `titles without rows in ${dataset} contribute`,
        `Join ${relationOf(dataset)} with JOIN, or remove it from reads.`,
      );
    }
    for (const split of ['title % 2 = 0', 'title < 20', 'hash(title) % 5 < 2']) {
      const [one, other] = [
        await this.#sums({ where: split }),
        await this.#sums({ where: `NOT (${split})` }),
      ];
      if (isSame(whole, added(one, other))) continue;
      throw this.#file.problem(
        this.#file.sqlLine,
        'the contribution is not additive: two sets of titles together give other figures than the sum of both',
        'Compute from the rows of one title at a time; compare titles in a table, not in a cube.',
      );
    }
    if (!isSame(whole, await this.#sums({ isReversed: true }))) {
      throw this.#file.problem(
        this.#file.sqlLine,
        'the contribution depends on the order of rows',
        'Use counts and sums.',
      );
    }
    for (const shift of [0, 3]) {
      const sums = await this.#sums({ numbers: { shift } }).catch((thrown: unknown) => messageOf(thrown));
      if (typeof sums !== 'string' && isSame(whole, sums)) continue;
      throw this.#file.problem(
        this.#file.sqlLine,
        'the contribution takes a text apart, which a store has as a number',
        'Group by whole texts; take them apart in a table.',
      );
    }
    await this.#checkExtremes();
    await this.#checkCount();
  }

  /** No value that a dump may have makes a processor fail. A processor reads the key as INTEGER and the measures as DOUBLE. */
  async #checkExtremes(): Promise<void> {
    const { key, texts: keyTexts = [], measures } = this.#cube;
    const numbers = key.filter((column) => !keyTexts.includes(column));
    const within = (max: number) => (column: string) =>
      `coalesce(${column} BETWEEN -${max} AND ${max}, true)`;
    const bounded = [...numbers.map(within(integerMax)), ...measures.map(within(Number.MAX_SAFE_INTEGER))];
    for (const extreme of [integerMax, -integerMax, 0, null]) {
      const sql = `SELECT ${bounded.join(', ')} FROM (${this.#contribution({ extreme, numbers: { shift: 0 } })})`;
      const rows = await this.#connection.runAndReadAll(sql).then(
        (reader) => reader.getRows(),
        (thrown: unknown) => messageOf(thrown).split('\n')[0] as string,
      );
      const tooLarge = [...numbers, ...measures].find(
        (_, i) => typeof rows !== 'string' && rows.some((row) => row[i] === false),
      );
      if (typeof rows !== 'string' && tooLarge === undefined) continue;
      throw this.#file.problem(
        this.#file.sqlLine,
        `it fails on a title with ${extreme} in its columns: ${tooLarge === undefined ? rows : `${tooLarge} is too large`}`,
        'Compute in BIGINT, `CAST(numVotes AS BIGINT) * 100`; bound a key, `least(startYear, 9999)`. A key has 32 bits, a measure 53.',
      );
    }
  }

  /** Rows whose measures are all 0 are not rows of a cube. So that no group vanishes while it has titles, one measure counts them. */
  async #checkCount(): Promise<void> {
    const { measures } = this.#cube;
    let counts: readonly string[] = measures;
    for (const sample of [{}, { extreme: -integerMax }, { extreme: 0 }, { extreme: null }]) {
      const positive = measures.map((column) => `coalesce(bool_and(coalesce(${column}, 0) > 0), true)`);
      const [row] = await this.#rows(`SELECT ${positive.join(', ')} FROM (${this.#contribution(sample)})`);
      counts = counts.filter((column) => row?.[measures.indexOf(column)] !== false);
    }
    if (counts.length > 0) return;
    throw this.#problem(
      ['measures'],
      'no measure is above 0 for every row, so a group with titles could vanish',
      'Add `count(*) AS titles` to the SELECT, and titles to the measures.',
    );
  }

  /** Key → measures, without those that are all 0. */
  async #sums(sample: Sample): Promise<Map<string, number[]>> {
    const { key, texts: keyTexts = [], measures } = this.#cube;
    const rows = await this.#rows(
      `SELECT ${[...key, ...measures].join(', ')} FROM (${this.#contribution(sample)})`,
    );
    const sums = new Map<string, number[]>();
    for (const row of rows) {
      const at = key.map((column, i) => {
        const value = row[i];
        const shift = sample.numbers?.shift;
        if (shift === undefined || value === null || !keyTexts.includes(column)) return value;
        return texts[(Number(value) + texts.length - shift) % texts.length];
      });
      const values = row.slice(key.length).map(Number);
      if (values.some((value) => value !== 0)) sums.set(JSON.stringify(at), values);
    }
    return sums;
  }

  #contribution(sample: Sample): string {
    const relations = this.#reads.map(
      ([dataset, columns]) => `${relationOf(dataset)} AS (${sampleOf(dataset, columns, sample)})`,
    );
    // A contribution may begin with a WITH of its own.
    return `WITH ${relations.join(', ')} SELECT * FROM (${this.#cube.contribution}\n) AS contribution`;
  }

  async #describe(): Promise<Map<string, string>> {
    const rows = await this.#rows(`DESCRIBE ${this.#contribution({})}`);
    return new Map(rows.map(([name, type]) => [String(name), String(type)]));
  }

  async #rows(sql: string): Promise<unknown[][]> {
    try {
      return (await this.#connection.runAndReadAll(sql)).getRowsJson() as unknown[][];
    } catch (thrown) {
      const [reason = ''] = messageOf(thrown).split('\n');
      throw this.#file.problem(this.#file.sqlLine, reason, 'Correct the SQL.');
    }
  }

  #problem(path: MetadataPath, reason: string, hint: string): DeclarationProblem {
    return this.#file.problem(this.#file.lineOf(path), reason, hint);
  }
}

/** Rows of a dataset: titles have none or one, and up to four where the key has an ordering. */
function sampleOf(dataset: DatasetName, columns: readonly string[], sample: Sample): string {
  const { columns: all, keyColumns } = datasets[dataset];
  const perTitle = keyColumns === 1 ? 1 : 4;
  const values = columns.map((column) => {
    const type = all.find(({ name }) => name === column)?.type as ColumnType;
    if (column === all[0]?.name) return `title::INTEGER AS ${column}`;
    if (column === 'ordering') return `ordering::INTEGER AS ${column}`;
    return `${sampleValue(`hash(title, ordering, '${dataset}.${column}')`, dataset, column, type, sample)} AS ${column}`;
  });
  const kept = [sample.extreme === undefined ? `hash(title, ordering, '${dataset}') % 4 > 0` : 'title = 1'];
  if (sample.where !== undefined) kept.push(`(${sample.where})`);
  if (sample.empty === dataset) kept.push('false');
  const order = sample.isReversed === true ? 'ORDER BY title DESC, ordering DESC' : '';
  return `SELECT ${values.join(', ')} FROM range(${titles}) AS t(title), range(${perTitle}) AS o(ordering)
    WHERE ${kept.join(' AND ')} ${order}`;
}

function sampleValue(
  random: string,
  dataset: DatasetName,
  column: string,
  type: ColumnType,
  { numbers, extreme }: Sample,
): string {
  const isNullable = type.startsWith('nullable');
  const isList = formOf(datasets[dataset], column) === 'people';
  if (extreme === null && isNullable) return isList ? 'NULL::INTEGER[]' : 'NULL::INTEGER';
  const value = () => {
    if (/Tconst$|^nconst$/.test(column)) return `(1 + ${random} % 9)::INTEGER`;
    if (isList) {
      return `[(1 + ${random} % 9)::INTEGER, (1 + ${random} % 5)::INTEGER]`;
    }
    if (type.endsWith('string')) {
      const index = `(${random} % ${texts.length})::INTEGER`;
      return numbers === undefined
        ? `[${texts.map((text) => `'${text}'`).join(', ')}][1 + ${index}]`
        : `((${index} + ${numbers.shift}) % ${texts.length})::INTEGER`;
    }
    if (type.endsWith('boolean')) return extreme === undefined ? `(${random} % 2)::INTEGER` : '0';
    if (typeof extreme === 'number') return type === 'tenths' ? `${extreme > 0 ? 100 : 10}` : `${extreme}`;
    return `(10 + ${random} % 60)::INTEGER`;
  };
  return isNullable && extreme === undefined ? `CASE WHEN ${random} % 7 > 0 THEN ${value()} END` : value();
}

function added(
  one: ReadonlyMap<string, number[]>,
  other: ReadonlyMap<string, number[]>,
): Map<string, number[]> {
  const sums = new Map(one);
  for (const [key, values] of other) {
    const before = sums.get(key);
    sums.set(key, before === undefined ? values : values.map((value, i) => value + (before[i] ?? 0)));
  }
  return new Map([...sums].filter(([, values]) => values.some((value) => value !== 0)));
}

function isSame(one: ReadonlyMap<string, number[]>, other: ReadonlyMap<string, number[]>): boolean {
  return (
    one.size === other.size && [...one].every(([key, values]) => other.get(key)?.join() === values.join())
  );
}
