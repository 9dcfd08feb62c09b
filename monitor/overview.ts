/**
 * What the page shows: one value that says how the whole pipeline is, made anew every few seconds. What cannot be found
 * out is said as a problem or is null; one part that fails does not take the others with it.
 */

import type { Broker } from '../kafka/client.ts';
import { readGroups } from '../kafka/groups.ts';
import { messageOf, ReelflowError } from '../runtime/errors.ts';
import type { TopicNames } from '../topics/catalog.ts';
import type { FoundLetter } from '../topics/dead-letter.ts';
import { DeadLetterView, idOf, type LetterGroup, type Letters, sourceName } from './dead-letters.ts';
import type { GroupLag, LagReport, LagRow, Watched } from './lag.ts';
import { LagWatch } from './lag.ts';

/** A snapshot as the page tells it. */
export interface SnapshotLine {
  readonly id: string;
  readonly created: string;
  readonly isCurrent: boolean;
  readonly isPinned: boolean;
  readonly rows: Readonly<Record<string, number>>;
  readonly bytes: number;
  readonly records: number;
}

export interface OverviewOptions {
  readonly broker: Broker;
  readonly names: TopicNames;
  /** The groups of the pipeline, processors, then sink, and behind them any others. */
  readonly watched: readonly Watched[];
  /** How far back looks count. */
  readonly spanMs?: number;
  /** Snapshots, oldest first. @throws ReelflowError goldUnusable */
  readonly snapshots: () => readonly SnapshotLine[];
}

const stageNames = ['processors', 'sink'] as const;

/** A group that is watched. */
export interface StageLine {
  readonly name: (typeof stageNames)[number] | 'other';
  readonly group: GroupLag;
  /** Members of the group; null when the cluster does not tell. */
  readonly members: number | null;
}

export type Severity = 'bad' | 'note';

export interface Problem {
  readonly severity: Severity;
  readonly text: string;
}

export interface LetterLine {
  readonly at: string;
  readonly timeMs: number;
  readonly stage: string;
  readonly reason: string;
  readonly source: string;
  readonly detail: string;
  readonly fate: string;
}

export interface View {
  readonly atMs: number;
  readonly namespace: string;
  readonly problems: readonly Problem[];
  /** Processors, sink, then other groups. */
  readonly stages: readonly StageLine[];
  readonly rows: readonly (LagRow & { readonly trend: readonly (number | null)[] })[];
  /** Newest first; null when gold cannot be read. */
  readonly snapshots: readonly SnapshotLine[] | null;
  /** null until they are read, and when they cannot be. */
  readonly letters: {
    readonly groups: readonly LetterGroup[];
    readonly latest: readonly LetterLine[];
  } | null;
}

/** Dead letters are read at every nth look. */
const lettersEvery = 3;
const lettersMax = 20;
const snapshotsMax = 12;
const trendMax = 30;

export class Overview {
  readonly #options: OverviewOptions;
  readonly #watch: LagWatch;
  readonly #deadLetters: DeadLetterView;
  /** The report of the last look; undefined before the first and while the broker is away. */
  newest: LagReport | undefined;
  #looks = 0;
  #letters: Letters | null = null;

  constructor(options: OverviewOptions) {
    this.#options = options;
    this.#watch = new LagWatch(options.broker, options.spanMs);
    this.#deadLetters = new DeadLetterView(options.broker, options.names, { latestMax: lettersMax });
  }

  /** Looks at everything once. Failures are in the view; a defect is thrown. */
  async look(signal: AbortSignal): Promise<View> {
    const { broker, names, watched } = this.#options;
    const problems: Problem[] = [];
    const attempt = async <T>(work: () => Promise<T> | T): Promise<T | null> => {
      try {
        return await work();
      } catch (thrown) {
        if (signal.aborted || !(thrown instanceof ReelflowError)) throw thrown;
        const text = [thrown.message, thrown.detail].filter((part) => part !== '').join(': ');
        if (!problems.some((known) => known.text === text)) problems.push({ severity: 'bad', text });
        return null;
      }
    };
    const report = await attempt(() => this.#watch.look(watched));
    this.newest = report ?? undefined;
    const groups =
      report === null
        ? null
        : await attempt(() =>
            readGroups(
              broker,
              watched.map(({ group }) => group),
            ),
          );
    const stages = (report?.groups ?? []).map((group, at): StageLine => {
      const owners = groups?.get(group.group)?.owners;
      const members =
        owners && new Set([...owners.values()].flatMap((partitions) => [...partitions.values()]));
      return { name: stageNames[at] ?? 'other', group, members: members?.size ?? null };
    });
    for (const stage of stages) problems.push(...problemsOf(stage));
    if (report !== null && this.#looks++ % lettersEvery === 0) {
      this.#letters = (await attempt(() => this.#deadLetters.read(signal))) ?? this.#letters;
    }
    const snapshots = await attempt(() => [...this.#options.snapshots()].reverse().slice(0, snapshotsMax));
    const open = this.#letters?.groups.reduce((sum, group) => sum + group.open, 0) ?? 0;
    if (open > 0) {
      problems.push({
        severity: 'note',
        text: `${count(open, 'dead letter')} ${open === 1 ? 'is' : 'are'} open.`,
      });
    }
    return {
      atMs: Date.now(),
      namespace: names.namespace,
      problems,
      stages,
      rows: (report?.rows ?? []).map((row) => ({ ...row, trend: this.#watch.trendOf(row).slice(-trendMax) })),
      snapshots,
      letters: this.#letters && {
        groups: this.#letters.groups,
        latest: this.#letters.latest.map((letter) => lineOf(letter, letter.fate)),
      },
    };
  }
}

function lineOf(letter: FoundLetter, fate: string): LetterLine {
  const { timeMs, stage, reason, detail } = letter;
  return {
    at: idOf(letter),
    timeMs,
    stage,
    reason,
    source: sourceName(letter),
    detail: detail.slice(0, 200),
    fate,
  };
}

const count = (n: number, what: string) => `${n.toLocaleString('en-US')} ${what}${n === 1 ? '' : 's'}`;

/** What is not as it should be with a stage, in words. */
export function problemsOf({ name, group, members }: StageLine): Problem[] {
  const { state, lag } = group;
  const [who, is, has, one] = {
    processors: ['Processors', 'are', 'have', 'processor'],
    sink: ['The sink', 'is', 'has', 'sink'],
    other: [`Group ${group.group}`, 'is', 'has', `member of group ${group.group}`],
  }[name] as [string, string, string, string];
  const waiting =
    lag === null ? 'what waits is unknown' : `${count(lag, 'message')} ${lag === 1 ? 'waits' : 'wait'}`;
  const bad = (text: string): Problem[] => [{ severity: 'bad', text }];
  switch (state) {
    case 'STOP':
      return bad(`${who} ${has} stopped: nobody is there, and ${waiting}.`);
    case 'STALL':
      return bad(`${who} ${is} stalled: somebody is there and stands still, and ${waiting}.`);
    case 'ERR':
      return bad(`${who} went back, or a topic is shorter than what was processed of it.`);
    case 'WARN':
      return bad(`${who} ${is} too slow: ${waiting}, and it does not get less.`);
    default:
      // Without work that waits nobody is missed; but an operator who has just lost one wants to know.
      if (name === 'other' && !group.exists) {
        return [{ severity: 'note', text: `${who} does not exist (yet).` }];
      }
      if (members !== 0 || !group.exists) return [];
      return [
        {
          severity: 'note',
          text: `No ${one} is ${name === 'other' ? 'there' : 'running'}; ${lag === 0 ? 'nothing waits for it' : waiting}.`,
        },
      ];
  }
}

/** A failure to look, as the page shows it. */
export function failureText(thrown: unknown): string {
  return thrown instanceof ReelflowError ? `${thrown.message}: ${thrown.detail}` : messageOf(thrown);
}
