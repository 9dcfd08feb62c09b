/** The source of the Grafana dashboard. `npm run dashboard` writes it to reelflow.json, the file to import. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

type Unit = 's' | 'short' | 'bytes' | 'percentunit';

interface Panel {
  readonly title: string;
  readonly kind: 'stat' | 'timeseries' | 'table';
  readonly unit: Unit;
  /** Expressions with their legends. */
  readonly series: readonly (readonly [expr: string, legend: string])[];
  readonly description?: string;
  /** Of a stat: values from which it is orange or red. */
  readonly limits?: { readonly orange?: number; readonly red: number };
}

const stat = (
  title: string,
  expr: string,
  unit: Unit = 'short',
  limits: Panel['limits'] = { red: 1 },
): Panel => ({
  title,
  kind: 'stat',
  unit,
  series: [[expr, '']],
  limits,
});
const graph = (title: string, unit: Unit, ...series: Panel['series']): Panel => ({
  title,
  kind: 'timeseries',
  unit,
  series,
});
const rate = (metric: string, by: string) => `sum by (${by}) (rate(${metric}[$__rate_interval]))`;
const hourly = (metric: string, by: string) => `sum by (${by}) (increase(${metric}[1h])) > 0`;
const quantile = (q: number, metric: string, span = '$__rate_interval') =>
  `histogram_quantile(${q}, sum by (le) (rate(${metric}_bucket[${span}])))`;
const halfAndSlowest = (metric: string) =>
  [
    [quantile(0.5, metric), '50 %'],
    [quantile(0.99, metric), '99 %'],
  ] as const;

/** Rows of panels, each as wide as the others of its line. */
const rows: readonly { readonly title: string; readonly lines: readonly (readonly Panel[])[] }[] = [
  {
    title: 'Health',
    lines: [
      [
        stat('Age of gold', 'time() - max(reelflow_sink_snapshot_created_timestamp_seconds)', 's', {
          orange: 3_600,
          red: 86_400,
        }),
        stat('Partitions without a member (STOP)', 'sum(reelflow_group_state{state="STOP"}) or vector(0)'),
        stat('Partitions without progress (STALL)', 'sum(reelflow_group_state{state="STALL"}) or vector(0)'),
        stat(
          'Refused deltas, last hour',
          'sum(increase(reelflow_sink_deltas_total{verdict="refuse"}[1h])) or vector(0)',
        ),
        stat(
          'Dead letters, last hour',
          'sum(increase(reelflow_processor_dead_letters_total[1h])) + (sum(increase(reelflow_sink_dead_letters_total[1h])) or vector(0))',
        ),
        stat('Processes that do not answer', 'sum(up{job=~"reelflow.*"} == bool 0)'),
      ],
    ],
  },
  {
    title: 'Consumer groups',
    lines: [
      [
        graph('Lag, messages', 'short', ['sum by (group) (reelflow_group_lag_messages)', '{{group}}']),
        graph('Lag, age of the oldest unread message', 's', [
          'max by (group) (reelflow_group_lag_seconds)',
          '{{group}}',
        ]),
        {
          ...graph('Time to catch up', 's', [
            'max by (group) (reelflow_group_catch_up_seconds < Inf)',
            '{{group}}',
          ]),
          description: 'A group that never catches up has no point here.',
        },
      ],
      [
        graph(
          'Read and written, messages per second',
          'short',
          [rate('reelflow_group_next_offset', 'group'), '{{group}} read'],
          [rate('reelflow_group_end_offset', 'group'), '{{group}} written'],
        ),
        {
          title: 'Not OK now',
          kind: 'table',
          unit: 'short',
          series: [['reelflow_group_state{state!="OK"} == 1', '']],
        },
      ],
    ],
  },
  {
    title: 'Replay and processors',
    lines: [
      [
        graph('Rows replayed per second', 'short', [
          rate('reelflow_replay_records_total', 'dataset'),
          '{{dataset}}',
        ]),
        graph(
          'Records processed per second',
          'short',
          [rate('reelflow_processor_records_total', 'fate'), '{{fate}}'],
          ['sum(rate(reelflow_processor_removed_rows_total[$__rate_interval]))', 'removed rows'],
        ),
        graph(
          'Chunks per second',
          'short',
          [rate('reelflow_processor_chunks_total', 'instance'), '{{instance}} processed'],
          [rate('reelflow_replay_chunks_total', 'instance'), '{{instance}} sent'],
          ['sum(rate(reelflow_processor_messages_read_again_total[$__rate_interval]))', 'read again'],
        ),
      ],
      [
        graph('Micro-batches per second, by what closed them', 'short', [
          rate('reelflow_processor_micro_batches_total', 'closed_by'),
          '{{closed_by}}',
        ]),
        graph('Applying a micro-batch', 's', ...halfAndSlowest('reelflow_processor_apply_duration_seconds')),
        graph('Publishing a delta', 's', ...halfAndSlowest('reelflow_processor_publish_duration_seconds')),
      ],
      [
        graph('Not applied yet, messages', 'short', [
          'sum by (topic) (reelflow_processor_lag_messages)',
          '{{topic}}',
        ]),
        graph('Shards', 'short', ['reelflow_processor_shards', '{{instance}}']),
        graph(
          'Rebalances in 5 minutes',
          'short',
          ['increase(reelflow_processor_rebalances_total[5m])', '{{instance}} processor'],
          ['increase(reelflow_sink_rebalances_total[5m])', '{{instance}} sink'],
        ),
      ],
    ],
  },
  {
    title: 'Sink and gold',
    lines: [
      [
        graph('Deltas per second', 'short', [rate('reelflow_sink_deltas_total', 'verdict'), '{{verdict}}']),
        graph('Not taken in yet, messages', 'short', [
          'sum by (topic) (reelflow_sink_lag_messages)',
          '{{topic}}',
        ]),
        graph(
          'Transaction, snapshot: slowest 1 %',
          's',
          [quantile(0.99, 'reelflow_sink_commit_duration_seconds'), 'transaction'],
          [quantile(0.99, 'reelflow_sink_snapshot_duration_seconds', '30m'), 'snapshot'],
        ),
      ],
      [
        graph(
          'Rows of gold',
          'short',
          ['reelflow_sink_snapshot_rows', '{{table}}'],
          ['reelflow_sink_left_out_tables', 'tables left out'],
        ),
        graph(
          'Snapshots, and cubes published whole, in an hour',
          'short',
          ['sum(increase(reelflow_sink_snapshots_total[1h]))', 'snapshots'],
          ['sum(increase(reelflow_processor_cubes_backfilled_total[1h]))', 'cubes of shards'],
        ),
        graph('Source messages replaced by a base and deleted, in an hour', 'short', [
          'sum(increase(reelflow_sink_source_messages_deleted_total[1h]))',
          '',
        ]),
        graph(
          'Dead letters in an hour',
          'short',
          [hourly('reelflow_processor_dead_letters_total', 'reason'), 'processor: {{reason}}'],
          [hourly('reelflow_sink_dead_letters_total', 'reason'), 'sink: {{reason}}'],
          [hourly('reelflow_replay_dead_letters_total', 'reason'), 'replay: {{reason}}'],
        ),
      ],
    ],
  },
  {
    title: 'Processes',
    lines: [
      [
        graph(
          'Memory of DuckDB',
          'bytes',
          ['reelflow_processor_duckdb_memory_bytes', '{{instance}} processor'],
          ['reelflow_sink_duckdb_memory_bytes', '{{instance}} sink'],
        ),
        graph('Memory', 'bytes', [
          'process_resident_memory_bytes{job=~"reelflow.*"}',
          '{{job}} {{instance}}',
        ]),
        graph('CPU', 'percentunit', [
          'rate(process_cpu_seconds_total{job=~"reelflow.*"}[$__rate_interval])',
          '{{job}} {{instance}}',
        ]),
        graph('Event-loop delay, slowest 1 %', 's', [
          'nodejs_eventloop_lag_p99_seconds{job=~"reelflow.*"}',
          '{{job}} {{instance}}',
        ]),
      ],
    ],
  },
];

const gridWidth = 24;
const heights = { row: 1, stat: 4, other: 8 } as const;
const datasource = { type: 'prometheus', uid: '$' + '{datasource}' };

const optionsOf = {
  stat: {
    options: { reduceOptions: { calcs: ['lastNotNull'] }, colorMode: 'value', graphMode: 'none' },
  },
  timeseries: {
    options: { legend: { displayMode: 'list', placement: 'bottom' }, tooltip: { mode: 'multi' } },
  },
  table: {
    options: { showHeader: true },
    transformations: [
      {
        id: 'organize',
        options: {
          excludeByName: { Time: true, Value: true, __name__: true, instance: true, job: true },
        },
      },
    ],
  },
} as const;

function panelJson({ title, kind, unit, series, description = '', limits }: Panel): object {
  const steps = limits && [
    { color: 'green', value: null },
    ...(limits.orange === undefined ? [] : [{ color: 'orange', value: limits.orange }]),
    { color: 'red', value: limits.red },
  ];
  return {
    type: kind,
    title,
    description,
    datasource,
    fieldConfig: {
      defaults: { unit, min: 0, ...(steps && { thresholds: { mode: 'absolute', steps } }) },
      overrides: [],
    },
    targets: series.map(([expr, legendFormat], at) => ({
      refId: 'ABC'[at],
      datasource,
      expr,
      legendFormat,
      ...(kind !== 'timeseries' && { instant: true, range: false }),
      ...(kind === 'table' && { format: 'table' }),
    })),
    ...optionsOf[kind],
  };
}

/** The dashboard as Grafana imports it. */
export function dashboardJson(): string {
  const panels: object[] = [];
  let y = 0;
  const add = (panel: object, x: number, w: number, h: number) =>
    panels.push({ id: panels.length + 1, ...panel, gridPos: { x, y, w, h } });
  for (const { title, lines } of rows) {
    add({ type: 'row', title, collapsed: false, panels: [] }, 0, gridWidth, heights.row);
    y += heights.row;
    for (const line of lines) {
      const width = gridWidth / line.length;
      const height = line.every(({ kind }) => kind === 'stat') ? heights.stat : heights.other;
      line.forEach((panel, at) => {
        add(panelJson(panel), at * width, width, height);
      });
      y += height;
    }
  }
  const dashboard = {
    title: 'reelflow',
    uid: 'reelflow',
    tags: ['reelflow', 'kafka'],
    timezone: 'browser',
    schemaVersion: 39,
    version: 1,
    refresh: '15s',
    time: { from: 'now-1h', to: 'now' },
    templating: {
      list: [{ name: 'datasource', type: 'datasource', query: 'prometheus', label: 'Prometheus' }],
    },
    annotations: { list: [] },
    panels,
  };
  return `${JSON.stringify(dashboard, undefined, 2)}\n`;
}

export const dashboardFile = join(import.meta.dirname, 'reelflow.json');

if (import.meta.main) writeFileSync(dashboardFile, dashboardJson());
