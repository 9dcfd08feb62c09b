/**
 * `npm run bench:docs`: writes the kept results (docs/results/*.json) into docs/performance.md, each between its marks,
 * the table of goals from them, and the picture. No figure is typed by hand; what was not measured says so.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as vega from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';
import { docs, type Line, markdown, type Result, resultFile, shown } from './report.ts';

const names = [
  'pipeline',
  'stages',
  'variations',
  'refresh',
  'snapshots',
  'freshness',
  'starts',
  'peers',
] as const;
type Name = (typeof names)[number];

/** A goal: what it asks, and what is measured of it; undefined when the results do not hold it. */
interface Goal {
  readonly goal: string;
  readonly from: Name;
  readonly measured: (lines: readonly Line[]) => Measured | undefined;
}

interface Measured {
  readonly text: string;
  readonly isReached: boolean;
}

const number = (line: Line | undefined, column: string) => {
  const value = line?.[column];
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined;
};

/** The lines of the first of the sizes, or of the largest. */
const ofSize = (lines: readonly Line[], size: 'first' | 'largest') => {
  const titles = lines.map((line) => Number(line.titles));
  const wanted = size === 'first' ? titles[0] : Math.max(...titles);
  return lines.filter((line) => line.titles === wanted);
};

/** A column of each workload at one size, as `five 1.96, all 2.43`: the first of them must be within the limit. */
function within(
  goal: string,
  from: Name,
  limit: number,
  column: string,
  size: 'first' | 'largest' = 'first',
): Goal {
  return {
    goal,
    from,
    measured: (lines) => {
      if (size === 'largest' && ofSize(lines, size)[0] === ofSize(lines, 'first')[0]) return undefined;
      const found = ofSize(lines, size).filter((line) => number(line, column) !== undefined);
      const [first] = found;
      if (first === undefined) return undefined;
      const texts = found.map((line) => `${line.tables} ${shown(line[column])}`);
      return {
        text: `${texts.join(', ')} with ${shown(first.records ?? first.titles)} ${first.records === undefined ? 'titles' : 'records'}`,
        isReached: Number(first[column]) <= limit,
      };
    },
  };
}

/** How many times faster than an engine, in its fastest form. */
const faster = (goal: string, engine: RegExp, limit: number): Goal => ({
  goal: `${limit} × faster than ${goal}`,
  from: 'peers',
  measured: (lines) => {
    const fastest = lines
      .filter((line) => engine.test(String(line.engine)) && number(line, '× reelflow') !== undefined)
      .toSorted((a, b) => Number(a['× reelflow']) - Number(b['× reelflow']))[0];
    return (
      fastest && {
        text: `${shown(fastest['× reelflow'])} × with ${shown(fastest.records)} records`,
        isReached: Number(fastest['× reelflow']) >= limit,
      }
    );
  },
});

const variation = (goal: string, name: RegExp, limit: number): Goal => ({
  goal,
  from: 'variations',
  measured: (lines) => {
    const [as, other] = [lines[0], lines.find((line) => name.test(String(line.variation)))];
    const [first, second] = [number(as, 'seconds'), number(other, 'seconds')];
    if (first === undefined || second === undefined) return undefined;
    return { text: `${shown(second / first)} × the time`, isReached: second / first <= limit };
  },
});

const goals: readonly Goal[] = [
  within('First load: at most 1.3 µs of CPU a record at 12 M', 'pipeline', 1.3, 'CPU µs/record'),
  within('First load: at most 1.1 µs of CPU a record at 182 M', 'pipeline', 1.1, 'CPU µs/record', 'largest'),
  within("First load: at most 4 × DuckDB's time at 12 M", 'pipeline', 4, '× DuckDB'),
  within("First load: at most 3 × DuckDB's time at 182 M", 'pipeline', 3, '× DuckDB', 'largest'),
  {
    goal: 'Records/s at 12, 45 and 182 M within 20 %',
    from: 'pipeline',
    measured: (lines) => {
      const rates = lines.filter(({ tables }) => tables === 'five').map((line) => Number(line['records/s']));
      if (rates.length < 2) return undefined;
      const apart = 1 - Math.min(...rates) / Math.max(...rates);
      return {
        text: `${rates.map((rate) => (rate / 1e6).toFixed(2)).join(', ')} M/s: ${Math.round(apart * 100)} % apart`,
        isReached: apart <= 0.2,
      };
    },
  },
  within('Peak memory at most 3,072 MiB, all processes together', 'pipeline', 3072, 'peak MiB', 'largest'),
  within('State on disk at most 25 bytes a record', 'pipeline', 25, 'state bytes/record'),
  faster('PySpark batch', /^pyspark/, 3.5),
  faster('Spark Structured Streaming', /^spark-streaming/, 6),
  faster('Flink SQL', /^flink/, 10),
  faster('Kafka Streams', /^kafka-streams/, 20),
  within("A new dump: at most 1.5 × DuckDB's time at 12 M", 'refresh', 1.5, '× DuckDB'),
  within("A new dump: at most 1.5 × DuckDB's time at 182 M", 'refresh', 1.5, '× DuckDB', 'largest'),
  within('An unchanged dump: at most 2.5 CPU seconds at 12 M', 'refresh', 2.5, 'CPU s unchanged'),
  within(
    'The sink after a new dump: at most 15 CPU seconds at 182 M',
    'refresh',
    15,
    'CPU s sink',
    'largest',
  ),
  within(
    'A snapshot after a change of 1 %: at most 25 % of a whole one',
    'snapshots',
    25,
    '% of a whole one',
  ),
  within('A sink without work: at most 5 % of a core', 'snapshots', 5, 'idle, % of a core'),
  {
    goal: 'Replay alone: at least 1.4 × faster on two cores than on one',
    from: 'stages',
    measured: (lines) => {
      const seconds = (name: string) =>
        number(
          lines.find(({ stage }) => stage === name),
          'seconds',
        );
      const [two, one] = [seconds('replay'), seconds('replay on one core')];
      if (two === undefined || one === undefined) return undefined;
      return { text: `${shown(one / two)} ×`, isReached: one / two >= 1.4 };
    },
  },
  variation('An unchanged dump again at least as fast as the first time', /again/, 1),
  variation('Rows in random order within 2 ×', /random/, 2),
  {
    goal: 'Freshness at 100,000 records/s: p50 at most 1 s, p99 at most 3 s',
    from: 'freshness',
    measured: ([line]) =>
      line && {
        text: `${shown(line['p50 s'])} s, ${shown(line['p99 s'])} s at ${shown(line['records/s'])} records/s`,
        isReached: Number(line['p50 s']) <= 1 && Number(line['p99 s']) <= 3,
      },
  },
  start('`--help`', '--help', 0.08),
  start('`process --until-caught-up` with nothing to do', 'process', 0.5),
  start('`sink --once` with nothing to do', 'sink', 0.4),
  start('`lag`', 'lag', 0.3),
  start('Demo of 10,000 titles, the first time', 'demo of 10,000 titles, the first', 3),
  start('`monitor`, to stop', 'monitor', 0.5),
];

function start(goal: string, command: string, limit: number): Goal {
  return {
    goal: `${goal}: at most ${limit} s`,
    from: 'starts',
    measured: (lines) => {
      const line = lines.find((one) => String(one.command).startsWith(command));
      if (line === undefined) return undefined;
      const of = (from: string) => {
        const cpu = line[`CPU s ${from}`];
        return `${shown(line[`s ${from}`])} s${cpu === undefined ? '' : ` (${shown(cpu)} CPU s)`}`;
      };
      return {
        text: `${of('package')} from the package, ${of('checkout')} from a checkout`,
        isReached: Number(line['s package']) <= limit,
      };
    },
  };
}

function goalTable(results: ReadonlyMap<Name, Result>): string {
  const rows = goals.map(({ goal, from, measured }) => {
    const result = results.get(from);
    const found = result && measured(result.lines);
    const reached = found === undefined ? '' : found.isReached ? 'yes' : 'no';
    return `| ${goal} | ${found?.text ?? 'not measured'} | ${reached} | ${result && found ? `\`${result.command}\`` : ''} |`;
  });
  return ['| goal | measured | reached | command |', '| --- | --- | --- | --- |', ...rows].join('\n');
}

/** Records/s of the engines as bars, on a logarithmic scale. */
async function picture({ lines, machine, command, date }: Result): Promise<string> {
  const values = lines
    .filter((line) => typeof line['records/s'] === 'number')
    .map((line) => ({
      engine: `${line.engine} (${line.reads}${line.records === lines[0]?.records ? '' : `, ${shown(line.records)} records`})`,
      rate: line['records/s'],
      own: /^reelflow( |$)/.test(String(line.engine)),
    }));
  const records = shown(lines.find((line) => typeof line.records === 'number')?.records);
  const spec: TopLevelSpec = {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    title: {
      text: `The same five gold tables of ${records} records: records/s`,
      subtitle: [`${command}; ${machine}; ${date}`],
      anchor: 'start',
    },
    background: 'white',
    width: 560,
    data: { values },
    encoding: {
      y: { field: 'engine', type: 'nominal', sort: '-x', title: null, axis: { labelLimit: 300 } },
      x: {
        field: 'rate',
        type: 'quantitative',
        scale: { type: 'log' },
        title: 'records/s',
        axis: { format: '~s' },
      },
    },
    layer: [
      {
        mark: 'bar',
        encoding: {
          // A bar on a logarithmic scale has to begin somewhere.
          x2: { datum: Math.max(1, Math.min(...values.map(({ rate }) => Number(rate))) / 10) },
          color: { field: 'own', type: 'nominal', legend: null, scale: { range: ['#9aa5b1', '#1f6feb'] } },
        },
      },
      {
        mark: { type: 'text', align: 'left', dx: 4 },
        encoding: { text: { field: 'rate', type: 'quantitative', format: '.3~s' } },
      },
    ],
  };
  const view = new vega.View(vega.parse(compile(spec).spec), { renderer: 'none' });
  return view.toSVG();
}

/** The results that are kept. */
export function keptResults(): Map<Name, Result> {
  return new Map(
    names
      .filter((name) => existsSync(resultFile(name)))
      .map((name) => [name, JSON.parse(readFileSync(resultFile(name), 'utf8')) as Result]),
  );
}

/** The text of performance.md with the tables of these results in their places. */
export function withResults(text: string, results: ReadonlyMap<Name, Result>): string {
  const tables = new Map<string, string>([['goals', goalTable(results)]]);
  for (const name of names) {
    const result = results.get(name);
    tables.set(name, result === undefined ? 'Not measured yet.' : markdown(result));
  }
  for (const [name, table] of tables) {
    const marked = new RegExp(`(<!-- ${name}: npm run bench:docs -->\n)[^]*?(<!-- end -->)`);
    if (!marked.test(text)) throw new Error(`there is no place for ${name}`);
    text = text.replace(marked, (_, begin: string, end: string) => `${begin}\n${table}\n\n${end}`);
  }
  return text;
}

export const performanceFile = join(docs, 'performance.md');

if (import.meta.main) {
  const results = keptResults();
  writeFileSync(performanceFile, withResults(readFileSync(performanceFile, 'utf8'), results));
  const peers = results.get('peers');
  if (peers !== undefined) writeFileSync(join(docs, 'throughput.svg'), `${await picture(peers)}\n`);
  process.stdout.write(`${performanceFile}: ${results.size} of ${names.length} measurements\n`);
}
