/**
 * Metrics of each stage against its own report, on a real pipeline; an unknown figure has no
 * sample; and every name that a rule or the dashboard in deploy/ uses exists. promtool (Debian package `prometheus`)
 * judges names, rules and their tests where it is installed.
 */

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Registry } from 'prom-client';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { parse } from 'yaml';
import { processRegistry } from '../../cli/observe.ts';
import { listenAddressOf } from '../../cli/options.ts';
import { logBounds } from '../../kafka/bounds.ts';
import { freePorts } from '../../kafka/local/probe.ts';
import type { LagReport } from '../../monitor/lag.ts';
import { registerLagMetrics } from '../../monitor/lag-metrics.ts';
import { ProcessorMetrics } from '../../processors/processor-metrics.ts';
import { ReplayMetrics } from '../../producers/replay-metrics.ts';
import { exitCodes } from '../../runtime/errors.ts';
import { logEveryMinute } from '../../runtime/logger.ts';
import { currentSnapshot, readManifest } from '../../sinks/gold/manifest.ts';
import { SinkMetrics } from '../../sinks/sink-metrics.ts';
import { broker, type Place, smallDataset, test, until } from '../support/harness.ts';

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

/** Samples by name with labels, as in the text format. */
type Samples = ReadonlyMap<string, number>;

function samplesOf(text: string): Samples {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => {
      const at = line.lastIndexOf(' ');
      return [line.slice(0, at), Number(line.slice(at + 1).replace('Inf', 'Infinity'))];
    }),
  );
}

/** The sum over all samples of a name whose labels contain this text. */
const sumOf = (samples: Samples, name: string, labels = ''): number =>
  [...samples]
    .filter(([key]) => key.replace(/\{.*/, '') === name && key.includes(labels))
    .reduce((sum, [, value]) => sum + value, 0);

const scrape = async (port: number): Promise<Samples> => {
  const response = await fetch(`http://127.0.0.1:${port}/metrics`);
  expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
  return samplesOf(await response.text());
};

const row: LagReport['rows'][number] = {
  ...{ group: 'g', topic: 't', partition: 3, startOffset: 2, endOffset: 10, nextOffset: 7, lag: 3 },
  ...{ highWatermark: 12, lost: 0, blocked: 2, isSubscribed: true, expiresMs: 90_000 },
  ...{
    lagRecords: null,
    state: 'STALL',
    whyUnknown: null,
    timeLagMs: 1_500,
    consumedPerSecond: 0,
    producedPerSecond: 1,
  },
  ...{ catchUpMs: Number.POSITIVE_INFINITY, catchesUp: false },
};
const group = { ...row, exists: true, members: 2, problem: null, isRefused: false, lagUnknown: 0 };

/** Everything that any process of ours can tell. */
function allMetrics(): Registry {
  const registry = processRegistry();
  new ReplayMetrics(registry);
  new ProcessorMetrics(registry);
  new SinkMetrics(registry);
  registerLagMetrics(registry, () => ({ atMs: 5_000, rows: [row], groups: [group] }));
  return registry;
}

describe('lag for Prometheus', () => {
  const samplesWith = async (report: LagReport | undefined) => {
    const registry = new Registry();
    registerLagMetrics(registry, () => report);
    return samplesOf(await registry.metrics());
  };
  const labels = '{group="g",topic="t",partition="3"}';

  it('is in seconds, with one state and with +Inf for never', async () => {
    const samples = await samplesWith({ atMs: 5_000, rows: [row], groups: [group] });
    expect(Object.fromEntries(samples)).toEqual({
      [`reelflow_group_lag_messages${labels}`]: 3,
      [`reelflow_group_lag_seconds${labels}`]: 1.5,
      [`reelflow_group_lost_messages${labels}`]: 0,
      [`reelflow_group_expires_seconds${labels}`]: 90,
      [`reelflow_group_blocked_messages${labels}`]: 2,
      [`reelflow_group_next_offset${labels}`]: 7,
      [`reelflow_group_start_offset${labels}`]: 2,
      [`reelflow_group_end_offset${labels}`]: 10,
      [`reelflow_group_high_watermark${labels}`]: 12,
      [`reelflow_group_catch_up_seconds${labels}`]: Number.POSITIVE_INFINITY,
      ...Object.fromEntries(
        ['OK', 'WARN', 'ERR', 'STALL', 'STOP', 'LOST'].map((state) => [
          `reelflow_group_state${labels.replace('}', `,state="${state}"}`)}`,
          state === 'STALL' ? 1 : 0,
        ]),
      ),
      'reelflow_group_exists{group="g"}': 1,
      'reelflow_group_members{group="g"}': 2,
      'reelflow_group_unreadable{group="g"}': 0,
      reelflow_monitor_look_timestamp_seconds: 5,
    });
  });

  it('has no sample for what is not known, and none of all before the first look', async () => {
    const unknown = {
      ...{ lag: null, nextOffset: null, state: null, timeLagMs: null, catchUpMs: null },
      ...{ lost: null, blocked: null, expiresMs: null },
    };
    const samples = await samplesWith({ atMs: 5_000, rows: [{ ...row, ...unknown }], groups: [] });
    expect([...samples.keys()]).toEqual([
      `reelflow_group_start_offset${labels}`,
      `reelflow_group_end_offset${labels}`,
      `reelflow_group_high_watermark${labels}`,
      'reelflow_monitor_look_timestamp_seconds',
    ]);
    expect([...(await samplesWith(undefined)).keys()]).toEqual([]);
  });
});

describe('where to listen', () => {
  it.each([
    ['9464', '127.0.0.1', 9464],
    ['0.0.0.0:80', '0.0.0.0', 80],
    ['[::1]:9464', '::1', 9464],
    ['node-1.example:9464', 'node-1.example', 9464],
  ])('%s', (text, host, port) => expect(listenAddressOf(text)).toEqual({ host, port }));

  it.each(['', '0', '65536', 'host', 'host:', ':1:2', '1 2', 'a b:1'])('is not %j', (text) =>
    expect(() => listenAddressOf(text)).toThrow('Use a port'),
  );
});

describe('once a minute', () => {
  afterEach(() => vi.useRealTimers());

  it('totals are logged, with what the minute brought, until it ends', () => {
    vi.useFakeTimers();
    const lines: unknown[] = [];
    // One object that changes, as a stage keeps it.
    const totals = { records: 5 };
    const end = logEveryMinute(
      { info: (...line: unknown[]) => void lines.push(line) },
      'processed',
      () => totals,
      () => ({ lagMessages: 2 }),
    );
    totals.records = 12;
    vi.advanceTimersByTime(59_999);
    expect(lines).toEqual([]);
    vi.advanceTimersByTime(1);
    totals.records = 15;
    vi.advanceTimersByTime(60_000);
    end();
    vi.advanceTimersByTime(300_000);
    expect(lines).toEqual([
      [{ lagMessages: 2, lastMinute: { records: 7 }, records: 12 }, 'processed'],
      [{ lagMessages: 2, lastMinute: { records: 3 }, records: 15 }, 'processed'],
    ]);
  });
});

/** Whether CURRENT holds all that lies on the topics: then no other snapshot comes. */
async function holdsAll({ gold, names }: Place): Promise<boolean> {
  const current = currentSnapshot(gold);
  if (current === undefined) return false;
  const { deltas, input } = readManifest(gold, current);
  const people = names.source('name.basics');
  const bounds = await logBounds(broker, [names.deltas, people]);
  const isIn = (topic: string, next: (partition: number) => number | undefined) =>
    [...(bounds.get(topic) ?? [])].every(([partition, { end }]) => (next(partition) ?? 0) >= end);
  return (
    isIn(names.deltas, (shard) => deltas[shard]) &&
    isIn(people, (partition) => input[people]?.[partition]?.[1])
  );
}

describe('a pipeline that is scraped', { timeout: 180_000 }, () => {
  const args = (place: Place, stage: 'process' | 'sink', port: number, ...more: string[]) =>
    place.args(stage, '--listen', String(port), '--json', ...more);

  test('says what its stages report', async ({ place }) => {
    const [processPort, sinkPort] = (await freePorts(2)) as [number, number];
    const data = await smallDataset(`${place.folder}/data`, 300, 5);
    const processor = place.start(args(place, 'process', processPort, '--window', '200ms'));
    const sink = place.start(args(place, 'sink', sinkPort, '--interval', '300ms'));
    const replayed = await place.replay(data);
    // Not Avro: a dead letter of the processor.
    const producer = broker.kafka.producer();
    await producer.connect();
    const [topic] = [place.names.source('title.ratings')];
    await producer.send({ topic, messages: [{ partition: 0, value: 'no chunk' }] });
    await producer.disconnect();
    await until('everything is applied', () => place.hasCaughtUp());
    await until('gold holds every delta and name', () => holdsAll(place));

    const scraped = await scrape(processPort);
    const sunk = await scrape(sinkPort);
    expect((await fetch(`http://127.0.0.1:${sinkPort}/readyz`)).status).toBe(200);
    const { manifest } = place;
    const [processed, sinkReport] = await Promise.all([processor.terminate(), sink.terminate()]);
    const report = JSON.parse(processed.stdout) as Record<string, number>;
    for (const fate of ['applied', 'duplicate', 'rejected']) {
      expect(sumOf(scraped, 'reelflow_processor_records_total', `fate="${fate}"`), fate).toBe(report[fate]);
    }
    expect(report.rejected).toBe(1);
    expect(sumOf(scraped, 'reelflow_processor_micro_batches_total')).toBe(report.microBatches);
    expect(sumOf(scraped, 'reelflow_processor_micro_batches_total', 'closed_by="window"')).toBeGreaterThan(0);
    expect(sumOf(scraped, 'reelflow_processor_apply_duration_seconds_count')).toBe(report.microBatches);
    expect(sumOf(scraped, 'reelflow_processor_publish_duration_seconds_count')).toBe(report.microBatches);
    const read = Object.entries(replayed.datasets).filter(([dataset]) => dataset.startsWith('title.'));
    const chunks = read.reduce((sum, [, { chunks }]) => sum + chunks, 0);
    expect(sumOf(scraped, 'reelflow_processor_chunks_total')).toBe(chunks + 1);
    expect(sumOf(scraped, 'reelflow_processor_dead_letters_total')).toBe(1);
    expect(sumOf(scraped, 'reelflow_processor_dead_letters_total', 'reason="bad_magic_byte"')).toBe(1);
    expect(sumOf(scraped, 'reelflow_processor_shards')).toBe(4);
    expect(sumOf(scraped, 'reelflow_processor_rebalances_total')).toBeGreaterThan(0);
    expect(
      [...scraped.keys()].filter((key) => key.startsWith('reelflow_processor_lag_messages')),
    ).toHaveLength(4 * read.length);
    expect(sumOf(scraped, 'reelflow_processor_lag_messages')).toBe(0);
    expect(sumOf(scraped, 'reelflow_processor_duckdb_memory_bytes')).toBeGreaterThan(0);
    expect(sumOf(scraped, 'nodejs_eventloop_lag_p99_seconds')).toBeGreaterThan(0);

    const told = JSON.parse(sinkReport.stdout) as { deltas: number; refused: number };
    expect(sumOf(sunk, 'reelflow_sink_deltas_total', 'verdict="apply"')).toBe(told.deltas);
    expect(sumOf(sunk, 'reelflow_sink_deltas_total', 'verdict="refuse"')).toBe(0);
    expect(sumOf(sunk, 'reelflow_sink_names_total')).toBe(replayed.datasets['name.basics']?.produced);
    expect(sumOf(sunk, 'reelflow_sink_snapshot_created_timestamp_seconds')).toBe(
      Date.parse(manifest.created) / 1000,
    );
    for (const [table, { rows }] of Object.entries(manifest.tables)) {
      expect(sumOf(sunk, 'reelflow_sink_snapshot_rows', `table="${table}"`), table).toBe(rows);
    }
    expect(sumOf(sunk, 'reelflow_sink_lag_messages')).toBe(0);
    expect(sumOf(sunk, 'reelflow_sink_commit_duration_seconds_count')).toBeGreaterThan(0);
  });

  test('has no age of gold before there is gold', async ({ place }) => {
    const [port] = (await freePorts(1)) as [number];
    const sink = place.start(args(place, 'sink', port));
    await until('it answers', () =>
      scrape(port).then(
        () => true,
        () => false,
      ),
    );
    const samples = await scrape(port);
    await sink.terminate();
    expect([...samples.keys()].filter((key) => key.startsWith('reelflow_sink_snapshot_created'))).toEqual([]);
    expect(sumOf(samples, 'reelflow_sink_snapshots_total')).toBe(0);
  });
});

describe('a replay that is scraped', () => {
  it('counts repeated progress once, and a resumed run from the work of the earlier one', async () => {
    const registry = new Registry();
    const metrics = new ReplayMetrics(registry);
    const dataset = 'title.ratings' as const;
    const now = {
      dataset,
      pass: 'send' as const,
      bytesRead: 10,
      bytesTotal: 40,
      read: 100,
      rejected: 3,
      chunks: 2,
      bytes: 900,
    };
    metrics.progress(now);
    metrics.progress(now);
    metrics.progress({ ...now, bytesRead: 40, read: 250, rejected: 5, chunks: 4, bytes: 2_000 });
    metrics.rejected('columns');
    const samples = samplesOf(await registry.metrics());
    expect(Object.fromEntries(samples)).toEqual({
      'reelflow_replay_records_total{dataset="title.ratings",fate="rejected"}': 5,
      'reelflow_replay_records_total{dataset="title.ratings",fate="produced"}': 245,
      'reelflow_replay_chunks_total{dataset="title.ratings"}': 4,
      'reelflow_replay_chunk_bytes_total{dataset="title.ratings"}': 2_000,
      'reelflow_replay_dead_letters_total{reason="columns"}': 1,
      'reelflow_replay_file_bytes{dataset="title.ratings"}': 40,
      'reelflow_replay_file_read_bytes{dataset="title.ratings"}': 40,
    });
  });
});

const promtool = spawnSync('promtool', ['--version']).status === 0;
const deploy = fileURLToPath(new URL('../../deploy/prometheus', import.meta.url));

describe('what is deployed', () => {
  const alerts = read('deploy/prometheus/alerts.yml');
  const dashboard = read('deploy/grafana/reelflow.json');

  it('names only metrics that exist', async () => {
    const text = await allMetrics().metrics();
    const known = new Set(
      [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].flatMap(([, name, type]) =>
        type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
      ),
    );
    const rules = (parse(alerts) as { groups: { rules: { expr: string }[] }[] }).groups;
    const panels = (JSON.parse(dashboard) as { panels: { targets?: { expr: string }[] }[] }).panels;
    const expressions = [
      ...rules.flatMap((one) => one.rules.map(({ expr }) => expr)),
      ...panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr)),
    ];
    expect(expressions.length).toBeGreaterThan(40);
    const used = new Set(
      expressions.flatMap((expr) => expr.match(/\b(?:reelflow|nodejs|process)_[a-z0-9_]+/g) ?? []),
    );
    expect([...used].filter((name) => !known.has(name))).toEqual([]);
    // Every metric is on the dashboard, in a rule or in the guide, which names no others.
    const guide = new Set(read('docs/operations.md').match(/\breelflow_\w+/g));
    const ours = [...known].filter((name) => name?.startsWith('reelflow_') && !/_(sum|count)$/.test(name));
    expect(ours.filter((name) => !used.has(name as string) && !guide.has(name as string))).toEqual([]);
    expect([...guide].filter((name) => !known.has(name) && !known.has(`${name}_bucket`))).toEqual([]);
  });

  it('has a section in the operations guide for every alert and every exit code', () => {
    const guide = read('docs/operations.md');
    const headings = new Set([...guide.matchAll(/^### (Reelflow\w+)$/gm)].map(([, name]) => name));
    const names = [...alerts.matchAll(/alert: (\w+)/g)].map(([, name]) => name);
    expect(names.filter((name) => !headings.has(name))).toEqual([]);
    expect([...headings].filter((name) => !names.includes(name as string))).toEqual([]);
    const runbooks = [...alerts.matchAll(/runbook_url: docs\/operations\.md#(\w+)/g)].map(([, id]) => id);
    expect(runbooks).toEqual(names.map((name) => name?.toLowerCase()));
    const codes = [...guide.matchAll(/^\| (\d+) +\| `(\w+)`/gm)].map(([, code, kind]) => [
      kind,
      Number(code),
    ]);
    expect(Object.fromEntries(codes)).toEqual(exitCodes);
    expect(new Set(Object.values(exitCodes)).size).toBe(Object.keys(exitCodes).length);
  });

  it.skipIf(!promtool)('passes promtool: configuration, rules and the tests of the rules', () => {
    for (const args of [
      ['check', 'config', 'prometheus.yml'],
      ['test', 'rules', 'alerts.test.yml'],
    ]) {
      const { status, stdout, stderr } = spawnSync('promtool', args, { cwd: deploy, encoding: 'utf8' });
      expect(status, `promtool ${args.join(' ')}\n${stdout}${stderr}`).toBe(0);
    }
  });

  it.skipIf(!promtool)('passes promtool: names, units and help of all metrics', async () => {
    const ours = (await allMetrics().metrics())
      .split('\n\n')
      .filter((part) => part.includes('reelflow_'))
      .join('\n\n');
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], {
      input: `${ours}\n`,
      encoding: 'utf8',
    });
    expect(status, `${stdout}${stderr}`).toBe(0);
  });
});
