/**
 * Exports the lag of consumer groups to Prometheus, from the newest report at each scrape. An unknown value has no sample;
 * a group that never catches up has +Inf. Topics to which a group no longer subscribes are left out.
 */
import { Gauge, type Registry } from 'prom-client';
import { states } from './judge.ts';
import type { GroupLag, LagReport, LagRow } from './lag.ts';

const perPartition = ['group', 'topic', 'partition'] as const;

/** @param newest the report of the last look; undefined before the first look and while no broker answers */
export function registerLagMetrics(registry: Registry, newest: () => LagReport | undefined): void {
  const rows = () => (newest()?.rows ?? []).filter(({ isSubscribed }) => isSubscribed);
  const partitions = (name: string, help: string, pick: (row: LagRow) => number | null) =>
    new Gauge({
      name,
      help,
      labelNames: perPartition,
      registers: [registry],
      collect() {
        this.reset();
        for (const row of rows()) {
          const value = pick(row);
          const { group, topic, partition } = row;
          if (value !== null) this.set({ group, topic, partition }, value);
        }
      },
    });
  const groups = (name: string, help: string, pick: (group: GroupLag) => number | null) =>
    new Gauge({
      name,
      help,
      labelNames: ['group'],
      registers: [registry],
      collect() {
        this.reset();
        for (const group of newest()?.groups ?? []) {
          const value = pick(group);
          if (value !== null) this.set({ group: group.group }, value);
        }
      },
    });
  const seconds = (ms: number | null) => (ms === null ? null : ms / 1000);
  partitions(
    'reelflow_group_lag_messages',
    'Readable messages that the group has not processed',
    (row) => row.lag,
  );
  partitions(
    'reelflow_group_lag_seconds',
    'Age of the oldest message that the group has not processed',
    (row) => seconds(row.timeLagMs),
  );
  partitions(
    'reelflow_group_lost_messages',
    'Messages that were deleted before the group read them',
    (row) => row.lost,
  );
  partitions(
    'reelflow_group_expires_seconds',
    'Time until retention may delete the oldest message that the group has not processed',
    (row) => seconds(row.expiresMs),
  );
  partitions(
    'reelflow_group_blocked_messages',
    'Messages that an open transaction withholds from consumers of committed messages',
    (row) => row.blocked,
  );
  partitions('reelflow_group_next_offset', 'Committed offset of the group', (row) => row.nextOffset);
  partitions(
    'reelflow_group_start_offset',
    'First offset that the log still holds',
    (row) => row.startOffset,
  );
  partitions('reelflow_group_end_offset', 'Last stable offset of the log', (row) => row.endOffset);
  partitions('reelflow_group_high_watermark', 'High watermark of the log', (row) => row.highWatermark);
  partitions(
    'reelflow_group_catch_up_seconds',
    'Time until the group has no lag at its current pace',
    (row) => seconds(row.catchUpMs),
  );
  new Gauge({
    name: 'reelflow_group_state',
    help: '1 for the current state, 0 for the others; absent while it is unknown',
    labelNames: [...perPartition, 'state'],
    registers: [registry],
    collect() {
      this.reset();
      for (const { group, topic, partition, state: current } of rows()) {
        if (current === null) continue;
        for (const state of states) this.set({ group, topic, partition, state }, state === current ? 1 : 0);
      }
    },
  });
  groups('reelflow_group_exists', 'Whether the cluster knows the group', ({ exists }) => (exists ? 1 : 0));
  groups('reelflow_group_members', 'Members of the group', ({ members }) => members);
  groups('reelflow_group_unreadable', '1 when the group could not be read', ({ problem }) =>
    problem === null ? 0 : 1,
  );
  new Gauge({
    name: 'reelflow_monitor_look_timestamp_seconds',
    help: 'Time of the last successful observation of the cluster',
    registers: [registry],
    collect() {
      const report = newest();
      if (report === undefined) this.remove();
      else this.set(report.atMs / 1000);
    },
  });
}
