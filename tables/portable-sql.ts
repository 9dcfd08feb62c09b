/**
 * The SQL that DuckDB and Flink understand in the same way. Declarations use it, so one text serves both engines. It excludes
 * everything that only one engine accepts, or that they compute differently (`avg` of integers, a division of integers). A
 * declaration that breaks the rule is refused when the module loads, not when an engine runs it.
 */

const words = new Set(
  'SELECT DISTINCT FROM JOIN LEFT ON WHERE GROUP BY HAVING AS AND OR NOT IS NULL IN BETWEEN CASE WHEN THEN ELSE END CAST'.split(
    ' ',
  ),
);
const types = new Set(['BIGINT', 'INTEGER', 'DOUBLE', 'STRING', 'DECIMAL']);
const functions = new Set('count sum min max coalesce nullif floor sqrt abs lpad'.split(' '));
const notFunctions: Readonly<Record<string, string>> = {
  filter: 'Flink needs a CASE within the sum: sum(CASE WHEN … THEN 1 ELSE 0 END)',
  avg: 'Flink returns the average of integers as an integer; declare sums and counts',
};

interface Token {
  readonly kind: 'word' | 'type' | 'function' | 'name' | 'literal' | 'sign';
  readonly text: string;
  /** Its position in the SQL. */
  readonly at: number;
}

const tokenPattern =
  /\s+|(?<identifier>[A-Za-z_]\w*)|(?<literal>\d+(?:\.\d+)?|'(?:[^']|'')*')|(?<sign><>|<=|>=|\|\||[-+*/=<>(),.])/y;

const notWords: Readonly<Record<string, string>> = {
  USING: 'Flink cannot compute with a column that USING merged; join ON the two columns',
};

/** @throws RangeError at the first character that cannot occur in portable SQL */
function tokensOf(sql: string): Token[] {
  const tokens: Token[] = [];
  for (let at = 0; at < sql.length; ) {
    tokenPattern.lastIndex = at;
    const match = tokenPattern.exec(sql);
    if (match === null || sql.startsWith('--', at)) {
      throw new RangeError(`${sql.slice(at, at + 12).trim()} is not SQL that DuckDB and Flink share`);
    }
    const { identifier, literal, sign } = match.groups ?? {};
    const next = tokenPattern.lastIndex;
    if (identifier !== undefined) {
      tokens.push({ ...identified(identifier, /^\s*\(/.test(sql.slice(next))), at });
    } else if (literal !== undefined) tokens.push({ kind: 'literal', text: literal, at });
    else if (sign !== undefined) tokens.push({ kind: 'sign', text: sign, at });
    at = next;
  }
  return tokens;
}

function identified(text: string, isCalled: boolean): Omit<Token, 'at'> {
  const upper = text.toUpperCase();
  if (words.has(upper)) return { kind: 'word', text: upper };
  if (types.has(upper)) return { kind: 'type', text: upper };
  if (notWords[upper] !== undefined) throw new RangeError(`${upper} cannot be used: ${notWords[upper]}`);
  if (!isCalled) return { kind: 'name', text };
  const lower = text.toLowerCase();
  if (functions.has(lower)) return { kind: 'function', text };
  const why = notFunctions[lower] ?? `DuckDB and Flink share only ${[...functions].join(', ')}`;
  throw new RangeError(`the function ${text} cannot be used: ${why}`);
}

/**
 * @param names relations and columns that the SQL may use, besides those that it introduces with AS; the spelling must match
 * @throws RangeError that names the first thing that one of the engines rejects
 */
export function checkPortable(sql: string, names: Iterable<string>): void {
  const tokens = tokensOf(sql);
  if (tokens.length === 0) throw new RangeError('there is no SQL');
  const known = new Set(names);
  const isIntroduced = (i: number) => tokens[i - 1]?.text === 'AS';
  for (const [i, { kind, text }] of tokens.entries()) if (kind === 'name' && isIntroduced(i)) known.add(text);
  /** The token before each open bracket. */
  const open: (string | undefined)[] = [];
  for (const [i, { kind, text }] of tokens.entries()) {
    if (text === '(') open.push(tokens[i - 1]?.text);
    if (text === ')' && open.length === 0) throw new RangeError('the brackets do not match');
    if (text === ')') open.pop();
    if (kind === 'name' && isIntroduced(i) && open.at(-1) === 'CAST') {
      throw new RangeError(`the type ${text} cannot be used: both engines have ${[...types].join(', ')}`);
    }
    if (kind === 'name' && !known.has(text)) {
      throw new RangeError(
        `${text} is neither a column that the declaration reads nor a name that AS introduces`,
      );
    }
    if (text === '/' && !isDouble(tokens.slice(i + 1))) {
      throw new RangeError(
        'a division needs a divisor CAST(… AS DOUBLE), because Flink drops the fraction of integers',
      );
    }
    const next = tokens[i + 1];
    if (text === 'BY' && (next?.kind === 'literal' || next?.text.toUpperCase() === 'ALL')) {
      throw new RangeError('GROUP BY needs column names');
    }
  }
  if (open.length > 0) throw new RangeError('the brackets do not match');
}

/** Whether the next operand is `CAST(… AS DOUBLE)`. */
function isDouble(tokens: readonly Token[]): boolean {
  if (tokens[0]?.text !== 'CAST' || tokens[1]?.text !== '(') return false;
  let depth = 0;
  for (const [i, { text }] of tokens.entries()) {
    depth += text === '(' ? 1 : text === ')' ? -1 : 0;
    if (i > 0 && depth === 0) return tokens[i - 1]?.text === 'DOUBLE' && tokens[i - 2]?.text === 'AS';
  }
  return false;
}

/** The same text with every name in backticks, because Flink reserves hundreds of words. */
export function quotedForFlink(sql: string): string {
  let quoted = '';
  let end = 0;
  for (const { kind, text, at } of tokensOf(sql)) {
    if (kind !== 'name') continue;
    quoted += `${sql.slice(end, at)}\`${text}\``;
    end = at + text.length;
  }
  return quoted + sql.slice(end);
}
