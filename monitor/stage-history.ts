/** The stages of the pipeline: whether each runs, and if not, whether it ever ran and whether it ran on this machine. */
import type { TopicNames } from '../topics/catalog.ts';
import type { GroupLag } from './lag.ts';

export type StageName = 'processors' | 'sink';

/** The command that starts a member of a stage. */
export const startCommands: Readonly<Record<StageName, string>> = {
  processors: 'reelflow process',
  sink: 'reelflow sink',
};

/** The stage of a group; undefined for groups of other programs. */
export function stageOf(names: TopicNames, { group }: Pick<GroupLag, 'group'>): StageName | undefined {
  if (group === names.processorGroup) return 'processors';
  return group === names.sinkGroup ? 'sink' : undefined;
}

/** A watched group. */
export interface StageLine {
  readonly name: StageName | 'other';
  readonly group: GroupLag;
  /** null while it is unknown, and for other groups. */
  readonly history: StageHistory | null;
}

/**
 * - `running`: the group has members;
 * - `never-started`: the cluster does not know the group, and this machine has no state of the stage;
 * - `ended-here`: no member, and this machine has state of the stage, so it ran here and ended or was killed;
 * - `ended-elsewhere`: no member, and it ran only on other machines or with another state folder.
 */
type StageHistory = 'running' | 'never-started' | 'ended-here' | 'ended-elsewhere';

/** @returns null while it is unknown whether the group has members */
export function stageHistory(
  { exists, members }: Pick<GroupLag, 'exists' | 'members'>,
  hasStateHere: boolean,
): StageHistory | null {
  if (members === null) return null;
  if (members > 0) return 'running';
  if (hasStateHere) return 'ended-here';
  return exists ? 'ended-elsewhere' : 'never-started';
}

const texts: Readonly<Record<Exclude<StageHistory, 'running'>, string>> = {
  'never-started': 'has never been started',
  'ended-here': 'was started here and has ended',
  'ended-elsewhere': 'has run, but not here, and has ended',
};

/** Completes a sentence that starts with the stage; undefined while it runs or is unknown. */
export function historyText(history: StageHistory | null): string | undefined {
  return history === null || history === 'running' ? undefined : texts[history];
}
