/** The consumer groups of the pipeline, and the right to read groups. */
import type { LagReport, WatchedGroup } from '../monitor/lag.ts';
import { ReelflowError } from '../runtime/errors.ts';
import type { TopicNames } from '../topics/catalog.ts';

/** @throws ReelflowError accessRefused, when the user lacks a right on a group or on one of its topics */
export function requireRights({ groups }: LagReport): void {
  const refused = groups.filter(({ isRefused }) => isRefused);
  if (refused.length === 0) return;
  throw new ReelflowError(
    'accessRefused',
    'The broker does not allow this user to read all of these groups',
    {
      detail: refused.map(({ group, problem }) => `group ${group}: ${problem}`).join(' '),
      hint: 'Grant what the detail names: docs/operations.md lists the rights of each command.',
    },
  );
}

/** The consumer groups of the pipeline and what they read. */
export async function pipelineGroups(names: TopicNames): Promise<WatchedGroup[]> {
  const { cubes } = await import('../tables/cubes/cube-set.ts');
  const datasets = new Set(cubes.flatMap(({ reads }) => Object.keys(reads) as (keyof typeof reads)[]));
  return [
    { group: names.processorGroup, topics: [...datasets].map((dataset) => names.source(dataset)) },
    { group: names.sinkGroup, topics: [names.deltas, names.source('name.basics')] },
  ];
}
