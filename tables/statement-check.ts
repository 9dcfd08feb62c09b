/**
 * Checks the SQL of a user's declaration by DuckDB's own parser, before anything runs: exactly one SELECT, over an allow-list of
 * relations and functions whose result depends on nothing but the rows. DuckDB's `stability` column is not a test: it calls
 * `any_value`, `list` and `arg_max` consistent, and `enable_logging` inside a SELECT writes a file.
 */
import type { DuckDBConnection } from '@duckdb/node-api';

/** What is wrong with a statement. */
interface StatementProblem {
  /** Offset of a character in the statement. */
  readonly at: number;
  readonly reason: string;
  readonly hint: string;
}

/** Relation → its columns. */
export type Relations = Readonly<Record<string, readonly string[]>>;

const list = (text: string) => text.trim().split(/\s+/);

const functions = new Set(
  list(`
    abs ceil ceiling floor round trunc sign sqrt cbrt exp ln log log2 log10 pow power greatest least mod fmod
    add subtract multiply divide nullif coalesce ifnull if
    lower upper length len strlen substring substr left right lpad rpad trim ltrim rtrim replace translate reverse
    concat concat_ws contains starts_with prefix suffix ends_with strpos instr position ascii chr format printf
    string_split str_split split string_to_array split_part regexp_matches regexp_full_match regexp_replace regexp_extract
    like_escape not_like_escape md5 sha256 bit_count
    list_value list_contains list_has list_has_any list_has_all list_sort list_sum list_min list_max list_transform
    list_filter list_reduce list_extract list_element array_extract array_slice list_slice list_concat list_position
    array_length list_count unnest row struct_pack struct_extract
    count count_star count_if sum min max avg bool_and bool_or bit_and bit_or bit_xor median quantile_disc
  `),
);
const windows = new Set(list('rank dense_rank percent_rank cume_dist count count_star sum min max'));

const whyNot: Readonly<Record<string, string>> = {
  row_number: 'rows that are equal in its order get any number; use rank()',
  any_value: 'it takes the value of any row; use min() or max()',
  list: 'its result depends on the order of rows',
  array_agg: 'its result depends on the order of rows',
  string_agg: 'its result depends on the order of rows',
  first: 'it depends on the order of rows; use min() or max()',
  last: 'it depends on the order of rows; use min() or max()',
  arg_max: 'it takes any of several equal rows',
  arg_min: 'it takes any of several equal rows',
  max_by: 'it takes any of several equal rows',
  min_by: 'it takes any of several equal rows',
  mode: 'it takes any of several equal counts',
  random: 'its result differs from call to call',
  uuid: 'its result differs from call to call',
  now: 'its result differs from call to call',
  stddev_samp: 'its last digits depend on the order of rows; compute it from integer sums',
  stddev: 'its last digits depend on the order of rows; compute it from integer sums',
};
/** Names without brackets that DuckDB takes for functions where no column has them, and its own column. */
const valueFunctions =
  /^(current_\w+|localtime|localtimestamp|user|session_user|get_current_time|now|rowid|today)$/;

const classes = new Set(
  list(
    'COLUMN_REF CONSTANT FUNCTION OPERATOR CAST CASE COMPARISON CONJUNCTION BETWEEN SUBQUERY STAR WINDOW LAMBDA',
  ),
);
const fromTypes = new Set(list('BASE_TABLE JOIN SUBQUERY EMPTY EXPRESSION_LIST'));
const nodeTypes = new Set(list('SELECT_NODE SET_OPERATION_NODE CTE_NODE'));

type Node = Record<string, unknown>;

/**
 * The first problem of a statement, or undefined.
 * @param more functions that are allowed besides
 */
export async function statementProblem(
  connection: DuckDBConnection,
  sql: string,
  relations: Relations,
  more: readonly string[] = [],
): Promise<StatementProblem | undefined> {
  const reader = await connection.runAndReadAll('SELECT json_serialize_sql($1::VARCHAR)', [sql]);
  const parsed = JSON.parse(String(reader.getRows()[0]?.[0])) as Node & { statements?: Node[] };
  if (parsed.error === true) {
    const isSyntax = parsed.error_type === 'parser';
    return {
      at: Number(parsed.position ?? 0),
      reason: isSyntax ? String(parsed.error_message) : 'it is not a SELECT',
      hint: isSyntax ? 'Correct the SQL.' : 'Write one SELECT.',
    };
  }
  const { statements = [] } = parsed;
  if (statements.length !== 1) {
    return { at: 0, reason: `expected one SELECT, found ${statements.length}`, hint: 'Write one SELECT.' };
  }
  return new Walk(relations, more).check(statements[0]);
}

class Walk {
  readonly #relations: Relations;
  readonly #functions: ReadonlySet<string>;
  /** Names that a column may have: columns of the relations, and what the statement introduces. */
  readonly #columns = new Set<string>();
  /** Relations that the statement introduces. */
  readonly #introduced = new Set<string>();
  #at = 0;

  constructor(relations: Relations, more: readonly string[]) {
    this.#relations = relations;
    this.#functions = new Set([...functions, ...more]);
    for (const [name, columns] of Object.entries(relations)) {
      for (const each of [name, ...columns]) this.#columns.add(each.toLowerCase());
    }
  }

  check(statement: unknown): StatementProblem | undefined {
    this.#collect(statement);
    return this.#visit(statement);
  }

  #collect(value: unknown): void {
    if (Array.isArray(value)) for (const each of value) this.#collect(each);
    if (!isNode(value)) return;
    if (typeof value.alias === 'string') this.#columns.add(value.alias.toLowerCase());
    for (const names of [value.column_name_alias, value.aliases]) {
      if (Array.isArray(names)) for (const each of names) this.#columns.add(String(each).toLowerCase());
    }
    for (const { key } of cteMap(value)) {
      this.#introduced.add(key.toLowerCase());
      this.#columns.add(key.toLowerCase());
    }
    // The parameters of a lambda.
    if (value.class === 'LAMBDA') {
      for (const name of columnNames(value.lhs)) this.#columns.add(name);
    }
    for (const each of Object.values(value)) this.#collect(each);
  }

  #visit(value: unknown): StatementProblem | undefined {
    if (Array.isArray(value)) {
      for (const each of value) {
        const found = this.#visit(each);
        if (found !== undefined) return found;
      }
      return undefined;
    }
    if (!isNode(value)) return undefined;
    const at = Number(value.query_location);
    // Nodes without a place have the largest number of 64 bits.
    if (Number.isSafeInteger(at)) this.#at = at;
    // A relation that cannot be read explains the columns that are missing.
    return this.#judge(value) ?? this.#visit(value.from_table) ?? this.#visit(Object.values(value));
  }

  #judge(node: Node): StatementProblem | undefined {
    const type = String(node.type);
    const alias = String(node.alias ?? '').toLowerCase();
    if (valueFunctions.test(alias))
      return this.#problem(`the name ${alias} cannot be used`, 'Use another name.');
    if (node.sample != null) return this.#problem('a sample is not deterministic', 'Use all rows.');
    if (type.endsWith('_NODE') && !nodeTypes.has(type)) {
      return this.#problem('a recursive query cannot be used', 'Write the SELECT without RECURSIVE.');
    }
    if (type.endsWith('_MODIFIER')) return this.#judgeModifier(node, type);
    if ('select_list' in node) return undefined;
    if (node.class !== undefined) return this.#judgeExpression(node, String(node.class));
    if ('query_location' in node) return this.#judgeFrom(node, type);
    return undefined;
  }

  #judgeModifier(node: Node, type: string): StatementProblem | undefined {
    const isDistinctOn = Array.isArray(node.distinct_on_targets) && node.distinct_on_targets.length > 0;
    if (type.startsWith('LIMIT') || isDistinctOn) {
      return this.#problem(
        'LIMIT, OFFSET and DISTINCT ON take any of several equal rows',
        'Filter by rank() OVER (ORDER BY …) instead.',
      );
    }
    return undefined;
  }

  #judgeFrom(node: Node, type: string): StatementProblem | undefined {
    if (type === 'TABLE_FUNCTION') {
      const name = (node.function as Node | undefined)?.function_name;
      return this.#problem(`the table function ${name} cannot be used`, this.#relationsHint());
    }
    if (!fromTypes.has(type)) return this.#problem(`${type} cannot be used`, this.#relationsHint());
    if (type === 'JOIN' && ['POSITIONAL', 'ASOF'].includes(String(node.ref_type))) {
      return this.#problem(`a ${node.ref_type} join takes any of several rows`, 'Join by a key.');
    }
    if (type !== 'BASE_TABLE') return undefined;
    const name = String(node.table_name);
    const isQualified = node.schema_name !== '' || node.catalog_name !== '';
    const known = [...Object.keys(this.#relations), ...this.#introduced];
    if (!isQualified && known.some((each) => each.toLowerCase() === name.toLowerCase())) return undefined;
    return this.#problem(`there is no relation ${name}`, this.#relationsHint());
  }

  #judgeExpression(node: Node, kind: string): StatementProblem | undefined {
    if (!classes.has(kind)) return this.#problem(`${kind} cannot be used`, 'Write values and columns.');
    if (kind === 'COLUMN_REF') {
      const unknown = columnNames(node).find((name) => !this.#columns.has(name) || valueFunctions.test(name));
      if (unknown === undefined) return undefined;
      return this.#problem(`there is no column ${unknown}`, `Known columns: ${this.#columnsText()}.`);
    }
    if (kind !== 'FUNCTION' && kind !== 'WINDOW') return undefined;
    const name = String(node.function_name).toLowerCase();
    const allowed = kind === 'WINDOW' ? windows : this.#functions;
    if (allowed.has(name) || node.is_operator === true) return undefined;
    const why = whyNot[name];
    return this.#problem(
      `the function ${name} cannot be used${why === undefined ? '' : `: ${why}`}`,
      kind === 'WINDOW'
        ? `Over windows, use ${[...windows].join(', ')}.`
        : 'Use arithmetic, texts, lists, CASE, and count, sum, min and max.',
    );
  }

  #relationsHint(): string {
    return `Read ${Object.keys(this.#relations).join(', ')}, and list them under reads.`;
  }

  #columnsText(): string {
    return [...new Set(Object.values(this.#relations).flat())].join(', ');
  }

  #problem(reason: string, hint: string): StatementProblem {
    return { at: this.#at, reason, hint };
  }
}

const isNode = (value: unknown): value is Node =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function cteMap({ cte_map: ctes }: Node): { key: string }[] {
  const map = isNode(ctes) ? ctes.map : undefined;
  return Array.isArray(map) ? map : [];
}

function columnNames(value: unknown): string[] {
  const found: string[] = [];
  const gather = (each: unknown): void => {
    if (Array.isArray(each)) each.forEach(gather);
    if (!isNode(each)) return;
    if (Array.isArray(each.column_names))
      found.push(...each.column_names.map((name) => String(name).toLowerCase()));
    else Object.values(each).forEach(gather);
  };
  gather(value);
  return found;
}
