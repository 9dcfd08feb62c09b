/**
 * `npm run bench:docs`: writes the kept results (docs/results/*.json) into docs/performance.md, each between its marks,
 * the table of goals from them, and the picture. No figure is typed by hand; what was not measured says so.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as vega from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';
import { docs, type Line, markdown, type Result, resultFile, shown } from './report.ts';

const names = ['pipeline', 'stages', 'variations', 'refresh', 'freshness', 'starts', 'peers'] as const;
type Name = (typeof names)[number];

/** A goal: what it asks, and what is measured of it; undefined when the results do not hold it. */
interface Goal {
  readonly goal: string;
  readonly from: Name;
  readonly measured: (lines: readonly Line[]) => string | undefined;
}

const number = (line: Line | undefined, column: string) => {
  const value = line?.[column];
  return typeof value === 'number' ? value : undefined;
};
const million = (value: number) => `${(value / 1e6).toFixed(2)} M records/s`;
const largest = (lines: readonly Line[]) =>
  lines.toSorted((a, b) => Number(b.records) - Number(a.records))[0];
/** How many times faster than an engine, in its fastest form. */
const faster = (engine: RegExp) => (lines: readonly Line[]) => {
  const fastest = lines
    .filter((line) => engine.test(String(line.engine)) && number(line, '× reelflow') !== undefined)
    .toSorted((a, b) => Number(a['× reelflow']) - Number(b['× reelflow']))[0];
  return fastest && `${shown(fastest['× reelflow'])} × with ${shown(fastest.records)} records`;
};
const variation = (name: RegExp) => (lines: readonly Line[]) => {
  const [as, other] = [lines[0], lines.find(({ variation }) => name.test(String(variation)))];
  const [first, second] = [number(as, 'seconds'), number(other, 'seconds')];
  return first === undefined || second === undefined ? undefined : `${shown(second / first)} × the time`;
};

const goals: readonly Goal[] = [
  {
    goal: 'End to end 2 M records/s, 1.5 M/s at least',
    from: 'pipeline',
    measured: (lines) => {
      const line = largest(lines);
      const rate = number(line, 'records/s');
      return rate === undefined ? undefined : `${million(rate)} with ${shown(line?.records)} records`;
    },
  },
  {
    goal: 'At most 3 × the time of DuckDB straight from the files',
    from: 'peers',
    measured: (lines) => {
      const times = number(
        lines.find(({ engine }) => engine === 'duckdb'),
        '× reelflow',
      );
      return times === undefined
        ? undefined
        : `${shown(1 / times)} × with ${shown(largest(lines)?.records)} records`;
    },
  },
  { goal: '4 × faster than PySpark batch', from: 'peers', measured: faster(/^pyspark/) },
  { goal: '6 × faster than Spark Structured Streaming', from: 'peers', measured: faster(/^spark-streaming/) },
  { goal: '10 × faster than Flink SQL', from: 'peers', measured: faster(/^flink/) },
  { goal: '20 × faster than Kafka Streams', from: 'peers', measured: faster(/^kafka-streams/) },
  {
    goal: 'An unchanged dump again at least as fast as the first time',
    from: 'variations',
    measured: variation(/again/),
  },
  {
    goal: "A new dump in at most 1.5 × the time that DuckDB takes from the dump's files",
    from: 'refresh',
    measured: (lines) => {
      const times = number(largest(lines), '× DuckDB');
      return times === undefined
        ? undefined
        : `${shown(times)} × with ${shown(largest(lines)?.records)} records`;
    },
  },
  {
    goal: 'An unchanged dump in at most 2.5 CPU seconds',
    from: 'refresh',
    measured: (lines) => {
      const cpu = number(largest(lines), 'CPU s unchanged');
      return cpu === undefined ? undefined : `${shown(cpu)} with ${shown(largest(lines)?.records)} records`;
    },
  },
  { goal: 'Rows in random order within 2 ×', from: 'variations', measured: variation(/random/) },
  {
    goal: 'Records/s at 12, 45 and 182 M within 20 %',
    from: 'pipeline',
    measured: (lines) => {
      const rates = lines.map((line) => number(line, 'records/s')).filter((rate) => rate !== undefined);
      if (rates.length < 2) return undefined;
      const [low, high] = [Math.min(...rates), Math.max(...rates)];
      return `${rates.map((rate) => (rate / 1e6).toFixed(2)).join(', ')} M/s: ${Math.round((1 - low / high) * 100)} % apart`;
    },
  },
  {
    goal: 'Peak memory at most 4 GiB, all processes together',
    from: 'pipeline',
    measured: (lines) => {
      const peak = number(largest(lines), 'peak MiB');
      if (peak === undefined) return undefined;
      return `${(peak / 1024).toFixed(2)} GiB with ${shown(largest(lines)?.records)} records`;
    },
  },
  {
    goal: 'State on disk at most 25 bytes a record',
    from: 'pipeline',
    measured: (lines) => {
      const bytes = number(largest(lines), 'state bytes/record');
      return bytes === undefined ? undefined : `${shown(bytes)} bytes`;
    },
  },
  {
    goal: 'Freshness at 100,000 records/s: p50 at most 1 s, p99 at most 3 s',
    from: 'freshness',
    measured: ([line]) =>
      line && `${shown(line['p50 s'])} s, ${shown(line['p99 s'])} s at ${shown(line['records/s'])} records/s`,
  },
  start('`--help`, at most 0.08 s', '--help'),
  start('`process --until-caught-up` with nothing to do, at most 0.5 s', 'process'),
  start('`sink --once` with nothing to do, at most 0.4 s', 'sink'),
  start('`lag`, at most 0.3 s', 'lag'),
  start('Demo of 10,000 titles, the first time, at most 3 s', 'demo of 10,000 titles, the first'),
  start('`monitor` stops within 0.5 s', 'monitor'),
];

function start(goal: string, command: string): Goal {
  return {
    goal,
    from: 'starts',
    measured: (lines) => {
      const line = lines.find((one) => String(one.command).startsWith(command));
      if (line === undefined) return undefined;
      const of = (from: string) => {
        const cpu = line[`CPU s ${from}`];
        return `${shown(line[`s ${from}`])} s${cpu === undefined ? '' : ` (${shown(cpu)} CPU s)`}`;
      };
      return `${of('package')} from the package, ${of('checkout')} from a checkout`;
    },
  };
}

function goalTable(results: ReadonlyMap<Name, Result>): string {
  const rows = goals.map(({ goal, from, measured }) => {
    const result = results.get(from);
    const found = result && measured(result.lines);
    return `| ${goal} | ${found ?? 'not measured'} | ${result && found !== undefined ? `\`${result.command}\`` : ''} |`;
  });
  return ['| goal | measured | command |', '| --- | --- | --- |', ...rows].join('\n');
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
