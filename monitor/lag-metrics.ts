/**
 * The lag of consumer groups for Prometheus, of the newest report when it is scraped. What is not known has no sample;
 * a group that never catches up has +Inf.
 */
import { Gauge, type Registry } from 'prom-client';
import { states } from './judge.ts';
import type { LagReport, LagRow } from './lag.ts';

const perPartition = ['group', 'topic', 'partition'] as const;

/** @param newest the report of the last look, undefined before the first and while the broker is away */
export function registerLagMetrics(registry: Registry, newest: () => LagReport | undefined): void {
  const partitions = (name: string, help: string, of: (row: LagRow) => number | null) =>
    new Gauge({
      name,
      help,
      labelNames: perPartition,
      registers: [registry],
      collect() {
        this.reset();
        for (const row of newest()?.rows ?? []) {
          const value = of(row);
          const { group, topic, partition } = row;
          if (value !== null) this.set({ group, topic, partition }, value);
        }
      },
    });
  const seconds = (ms: number | null) => (ms === null ? null : ms / 1000);
  partitions('reelflow_group_lag_messages', 'Messages that a group has not processed', (row) => row.lag);
  partitions(
    'reelflow_group_lag_seconds',
    'Age of the oldest message that a group has not processed',
    (row) => seconds(row.timeLagMs),
  );
  partitions(
    'reelflow_group_next_offset',
    'First offset that a group has not processed',
    (row) => row.nextOffset,
  );
  partitions(
    'reelflow_group_start_offset',
    'First offset that the log of a group keeps',
    (row) => row.startOffset,
  );
  partitions('reelflow_group_end_offset', 'Offset of the next message to be written', (row) => row.endOffset);
  partitions(
    'reelflow_group_catch_up_seconds',
    'Time until nothing is left if all goes on as it did',
    (row) => seconds(row.catchUpMs),
  );
  new Gauge({
    name: 'reelflow_group_state',
    help: 'One of the states is 1, the others are 0; none while it is not known',
    labelNames: [...perPartition, 'state'],
    registers: [registry],
    collect() {
      this.reset();
      for (const { group, topic, partition, state: is } of newest()?.rows ?? []) {
        if (is === null) continue;
        for (const state of states) this.set({ group, topic, partition, state }, state === is ? 1 : 0);
      }
    },
  });
  new Gauge({
    name: 'reelflow_group_exists',
    help: 'Whether the cluster knows the group',
    labelNames: ['group'],
    registers: [registry],
    collect() {
      this.reset();
      for (const { group, exists } of newest()?.groups ?? []) this.set({ group }, exists ? 1 : 0);
    },
  });
  new Gauge({
    name: 'reelflow_monitor_look_timestamp_seconds',
    help: 'When the cluster was last looked at',
    registers: [registry],
    collect() {
      const report = newest();
      if (report === undefined) this.remove();
      else this.set(report.atMs / 1000);
    },
  });
}
