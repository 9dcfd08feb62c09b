/** `reelflow status`: how every record of the newest snapshot was counted. */
import { Command } from 'commander';
import type { Broker } from '../kafka/client.ts';
import type { LagReport } from '../monitor/lag.ts';
import type { Places } from '../runtime/config.ts';
import { filled } from '../runtime/terminal.ts';
import type { Manifest } from '../sinks/gold/manifest.ts';
import type { TopicNames } from '../topics/catalog.ts';
import { noRecords } from '../topics/record-counts.ts';
import { inNamespaceOf, namespaceText, openContext } from './context.ts';
import { whole } from './figures.ts';
import { type CommonFlags, commonOptions } from './options.ts';
import { print, printJson } from './output.ts';
import { pipelineGroups, requireRights } from './pipeline-groups.ts';
import { type TableColumn, tableText, wholeColumn } from './table.ts';

interface Line {
  readonly topic: string;
  readonly partition: number | null;
  readonly start: number;
  readonly next: number;
  /** null where the topic or the partition no longer exists. */
  readonly end: number | null;
  readonly applied: number;
  readonly duplicate: number;
  readonly rejected: number;
  /** Rows that a later dump lacks. */
  readonly removed: number;
  /** Lost offsets in [start, next), skipped with --accept-loss. */
  readonly gaps: readonly (readonly [number, number])[];
}

export function statusCommand(): Command {
  return commonOptions(
    new Command('status').description(
      'show the input of the newest snapshot per partition, and how its records were counted',
    ),
  ).action(run);
}

async function run(given: CommonFlags, command: Command): Promise<void> {
  requireRights(await show(given, command));
}

/** @returns what is known of the stages */
async function show(given: CommonFlags, command: Command): Promise<LagReport> {
  const [
    { currentSnapshot, readManifest },
    { logBounds },
    { partitionCounts },
    { requireSameCluster },
    { readChecked, recordsSince },
    { stateFolderOf },
  ] = await Promise.all([
    import('../sinks/gold/manifest.ts'),
    import('../kafka/bounds.ts'),
    import('../kafka/topics.ts'),
    import('../sinks/verify/same-cluster.ts'),
    import('../sinks/checked.ts'),
    import('./stage-notes.ts'),
  ]);
  const current = currentSnapshot(given.gold);
  const flags = await inNamespaceOf(current, given, command);
  const { broker, names, places } = await openContext(flags);
  if (current !== undefined) await requireSameCluster(readManifest(places.gold, current), { broker, names });
  const { stages, notes, report } = await stagesNow(broker, names, places);
  if (current === undefined) {
    if (flags.json) printJson({ snapshot: null, stages });
    else print([`No snapshot in ${places.gold} yet.`, ...notes].map((line) => filled(line)).join('\n'));
    return report;
  }
  const manifest = readManifest(places.gold, current);
  const existing = await partitionCounts(broker, Object.keys(manifest.input));
  const bounds = await logBounds(broker, [...existing.keys()]);
  const lines: Line[] = [];
  for (const [topic, partitions] of Object.entries(manifest.input)) {
    for (const [partition, [start, next]] of Object.entries(partitions)) {
      const shard = manifest.shards[partition]?.sources[topic];
      const counts = topic === names.source('name.basics') ? manifest.names[partition] : shard;
      const { applied, duplicate, rejected, removed } = counts ?? noRecords;
      lines.push({
        topic,
        partition: Number(partition),
        start,
        next,
        end: bounds.get(topic)?.get(Number(partition))?.end ?? null,
        applied,
        duplicate,
        rejected,
        removed,
        gaps: shard?.gaps.filter(([from]) => from >= start) ?? [],
      });
    }
  }
  const { accounting, created, namespace } = manifest;
  const generation = Math.max(0, ...Object.values(manifest.shards).map((shard) => shard.generation));
  const checked = readChecked(await stateFolderOf(broker, places), current);
  const since = checked === undefined ? 0 : recordsSince(manifest, checked);
  if (flags.json) {
    const shown = checked === undefined ? null : { at: checked.at, records: since };
    printJson({
      snapshot: current,
      namespace,
      checked: shown,
      generation,
      partitions: lines,
      accounting,
      dumps: manifest.dumps ?? {},
      stages,
    });
    return report;
  }
  const { dumps = {} } = manifest;
  const totals = Object.entries(accounting).map(([topic, counts]) => ({ topic, ...counts }));
  const lost = lines.flatMap(({ topic, partition, gaps }) =>
    gaps.map(
      ([from, to]) => `${topic}/${partition}: offsets ${from} to ${to} were lost and accepted as lost.`,
    ),
  );
  print(
    [
      tableText(columns, [...lines, ...totals]),
      ...[
        ...lost,
        `Snapshot ${current} ${namespaceText(namespace)}, generation ${generation}, created ${created}`,
        ...(checked === undefined
          ? []
          : [
              `Checked ${checked.at}: ${whole(since)} more records, and every table still equals the snapshot.`,
            ]),
        ...dumpsText(dumps),
        ...notes,
      ].map((line) => filled(line)),
    ].join('\n'),
  );
  return report;
}

/** One line for the datasets of each date. */
function dumpsText(dumps: NonNullable<Manifest['dumps']>): string[] {
  const byDate = Map.groupBy(Object.entries(dumps), ([, { asOf, complete }]) =>
    complete ? `of ${asOf}` : `of ${asOf} in part, or with later messages`,
  );
  return [...byDate].map(([text, own]) => `Dump ${text}: ${own.map(([dataset]) => dataset).join(', ')}`);
}

/** Whether the stages run; if not, sentences that say whether they ever ran here. */
async function stagesNow(broker: Broker, names: TopicNames, places: Places) {
  const [{ LagWatch }, { stageHistory, stageOf }, { LocalState, stageNote }] = await Promise.all([
    import('../monitor/lag-watch.ts'),
    import('../monitor/stage-history.ts'),
    import('./stage-notes.ts'),
  ]);
  const watched = await pipelineGroups(names);
  // Together, so that a command without an answer of a broker waits once.
  const [local, report] = await Promise.all([
    new LocalState(broker, places).find(),
    new LagWatch(broker).look(watched),
  ]);
  const { groups } = report;
  const stages = groups.flatMap((group) => {
    const stage = stageOf(names, group);
    const { members } = group;
    const history = stage === undefined ? null : stageHistory(group, local.has(stage));
    return stage === undefined ? [] : [{ stage, group: group.group, members, history }];
  });
  const notes = groups.map((group) => stageNote(names, group, local)).filter((note) => note !== undefined);
  return { stages, notes, report };
}

/** A line of a partition, or the totals of a topic. */
type Shown = Pick<Line, 'topic' | 'applied' | 'duplicate' | 'rejected' | 'removed'> & Partial<Line>;

const offset = (head: 'start' | 'next' | 'end', drop: number): TableColumn<Shown> => ({
  head,
  align: 'right',
  drop,
  cell: ({ [head]: value }) => (value === undefined ? '' : whole(value)),
});

const columns: readonly TableColumn<Shown>[] = [
  { head: 'topic', keep: 'end', cell: ({ topic }) => topic },
  { head: 'partition', align: 'right', cell: ({ partition }) => String(partition ?? 'all') },
  offset('start', 3),
  offset('next', 1),
  offset('end', 2),
  wholeColumn('applied', ({ applied }) => applied),
  wholeColumn('duplicate', ({ duplicate }) => duplicate),
  wholeColumn('rejected', ({ rejected }) => rejected),
  wholeColumn('removed', ({ removed }) => removed, 4),
  wholeColumn('records', ({ applied, duplicate, rejected }) => applied + duplicate + rejected),
];
