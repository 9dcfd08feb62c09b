/** `reelflow status`: how every record of the newest snapshot was counted, and whether the accounts close. */
import { Command } from 'commander';
import { type CommonFlags, commonOptions, openContext } from './context.ts';

interface Line {
  readonly topic: string;
  readonly partition: number | null;
  readonly start: number;
  readonly next: number;
  /** null where the log no longer holds them or the topic is gone. */
  readonly end: number | null;
  readonly applied: number;
  readonly duplicate: number;
  readonly rejected: number;
  /** Offsets in [start, next) that the log had lost: the loss was accepted. */
  readonly gaps: readonly (readonly [number, number])[];
}

export function statusCommand(): Command {
  return commonOptions(
    new Command('status').description(
      'what the newest snapshot holds, by topic and partition, and how it was counted',
    ),
  ).action(run);
}

async function run(flags: CommonFlags): Promise<void> {
  const { broker, names, places } = await openContext(flags);
  const [{ currentSnapshot, readManifest }, { logBounds }, { partitionCounts }] = await Promise.all([
    import('../sinks/gold/manifest.ts'),
    import('../kafka/bounds.ts'),
    import('../kafka/topics.ts'),
  ]);
  const current = currentSnapshot(places.gold);
  if (current === undefined) {
    process.stdout.write(
      flags.json ? `${JSON.stringify({ snapshot: null })}\n` : `No snapshot in ${places.gold} yet.\n`,
    );
    return;
  }
  const manifest = readManifest(places.gold, current);
  const existing = await partitionCounts(broker, Object.keys(manifest.input));
  const bounds = await logBounds(broker, [...existing.keys()]);
  const lines: Line[] = [];
  for (const [topic, partitions] of Object.entries(manifest.input)) {
    for (const [partition, [start, next]] of Object.entries(partitions)) {
      const counts =
        topic === names.source('name.basics')
          ? manifest.names[partition]
          : manifest.shards[partition]?.sources[topic];
      const { applied, duplicate, rejected } = counts ?? { applied: 0, duplicate: 0, rejected: 0 };
      const gaps = manifest.shards[partition]?.sources[topic]?.gaps.filter(([from]) => from >= start) ?? [];
      const end = bounds.get(topic)?.get(Number(partition))?.end ?? null;
      lines.push({
        topic,
        partition: Number(partition),
        start,
        next,
        end,
        applied,
        duplicate,
        rejected,
        gaps,
      });
    }
  }
  const generation = Math.max(0, ...Object.values(manifest.shards).map((shard) => shard.generation));
  if (flags.json) {
    const { accounting } = manifest;
    process.stdout.write(
      `${JSON.stringify({ snapshot: current, generation, partitions: lines, accounting })}\n`,
    );
    return;
  }
  const { default: Table } = await import('cli-table3');
  const table = new Table({
    head: ['topic', 'partition', 'start', 'next', 'end', 'applied', 'duplicate', 'rejected', 'records'],
    colAligns: ['left', 'right', 'right', 'right', 'right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [] },
  });
  const whole = (value: number | null) => (value === null ? 'unknown' : value.toLocaleString('en-US'));
  for (const { topic, partition, start, next, end, applied, duplicate, rejected } of lines) {
    table.push([
      topic,
      partition,
      ...[start, next, end, applied, duplicate, rejected, applied + duplicate + rejected].map(whole),
    ]);
  }
  for (const [topic, { applied, duplicate, rejected }] of Object.entries(manifest.accounting)) {
    table.push([
      topic,
      'all',
      '',
      '',
      '',
      ...[applied, duplicate, rejected, applied + duplicate + rejected].map(whole),
    ]);
  }
  const lost = lines.flatMap(({ topic, partition, gaps }) =>
    gaps.map(
      ([from, to]) => `${topic}/${partition}: offsets ${from} to ${to} were lost, which was accepted.\n`,
    ),
  );
  process.stdout.write(
    `${table.toString()}\n${lost.join('')}Snapshot ${current}, generation ${generation}, created ${manifest.created}\n`,
  );
}
