/**
 * Builds what the page shows: one value that describes the whole pipeline, every few seconds. A part that fails becomes a
 * problem and does not affect the others. While the brokers do not answer, the last figures stay, with their age.
 */
import type { Broker } from '../kafka/client.ts';
import { counted } from '../runtime/counted.ts';
import { ReelflowError, reasonOf } from '../runtime/errors.ts';
import type { TopicNames } from '../topics/catalog.ts';
import { DeadLetterView, idOf, type LetterGroup, type Letters, sourceName } from './dead-letters.ts';
import type { LagReport, LagRow, WatchedGroup } from './lag.ts';
import { LagWatch } from './lag-watch.ts';
import { type PipelineProblem, type PipelineVerdict, problemsOf, verdictOf } from './problems.ts';
import { type StageLine, type StageName, stageHistory, stageOf } from './stage-history.ts';

/** A snapshot as the page shows it. */
interface SnapshotLine {
  readonly id: string;
  readonly created: string;
  readonly isCurrent: boolean;
  readonly isPinned: boolean;
  readonly rows: Readonly<Record<string, number>>;
  readonly bytes: number;
  readonly records: number;
}

interface OverviewOptions {
  readonly broker: Broker;
  readonly names: TopicNames;
  /** Options of a command that works on this pipeline, with a blank before each. */
  readonly places: string;
  /** The groups of the processors and the sink, then any others. */
  readonly watched: readonly WatchedGroup[];
  /** How long observations count. */
  readonly spanMs?: number;
  /** Snapshots, oldest first. @throws ReelflowError goldUnusable */
  readonly snapshots: () => readonly SnapshotLine[];
  /** Whether this machine holds state of a stage. */
  readonly hasStateHere: (stage: StageName) => boolean;
}

interface LetterLine {
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
  readonly verdict: PipelineVerdict;
  readonly problems: readonly PipelineProblem[];
  /** Age of `stages` and `rows`; null when there are none yet. */
  readonly figuresAgeMs: number | null;
  /** Processors, sink, then other groups. */
  readonly stages: readonly StageLine[];
  readonly rows: readonly (LagRow & { readonly trend: readonly (number | null)[] })[];
  /** Newest first; null when gold cannot be read. */
  readonly snapshots: readonly SnapshotLine[] | null;
  /** null before they are read, and when they cannot be read. */
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
/** Names the activity to the outage monitor. */
const observing = 'observing';

/** The last figures, and when they were observed by the monotonic clock. */
interface Figures {
  readonly atMs: number;
  readonly stages: readonly StageLine[];
  readonly rows: View['rows'];
}

/** Builds one view per look, and keeps the last figures and letters between looks. */
export class Overview {
  readonly #options: OverviewOptions;
  readonly #watch: LagWatch;
  readonly #deadLetters: DeadLetterView;
  /** The report of the last look; undefined before the first look and while no broker answers. */
  newest: LagReport | undefined;
  #figures: Figures | undefined;
  #looks = 0;
  /** The reasons that the log last named, by what could not be observed. */
  readonly #logged = new Map<string, string>();
  #letters: Letters | null = null;

  constructor(options: OverviewOptions) {
    this.#options = options;
    this.#watch = new LagWatch(options.broker, options.spanMs);
    this.#deadLetters = new DeadLetterView(options.broker, options.names, { latestMax: lettersMax });
  }

  /** Observes everything once. The view contains failures. @throws a defect */
  async look(signal: AbortSignal): Promise<View> {
    const { broker, names, places, watched } = this.#options;
    const problems: PipelineProblem[] = [];
    const attempt = async <T>(what: string, work: () => Promise<T> | T): Promise<T | null> => {
      try {
        const done = await work();
        this.#unobserved(what, null);
        return done;
      } catch (thrown) {
        if (signal.aborted || !(thrown instanceof ReelflowError)) throw thrown;
        const text = reasonOf(thrown);
        // An outage causes one warning, however many parts fail.
        if (thrown.kind === 'brokerUnreachable') broker.outages.waits(observing, text);
        else this.#unobserved(what, text);
        const command = thrown.kind === 'brokerUnreachable' ? 'reelflow services status' : null;
        if (!problems.some((known) => known.text === text)) problems.push({ severity: 'bad', text, command });
        return null;
      }
    };
    const report = await attempt('groups', () => this.#watch.look(watched));
    this.newest = report ?? undefined;
    if (report !== null) {
      broker.outages.resumes(observing);
      this.#figures = this.#figuresOf(report);
      for (const { group, problem } of report.groups) this.#unobserved(`group ${group}`, problem);
    }
    const stages = this.#figures?.stages ?? [];
    if (report !== null) for (const stage of stages) problems.push(...problemsOf(stage, places));
    if (report !== null && this.#looks++ % lettersEvery === 0) {
      this.#letters = (await attempt('dead letters', () => this.#deadLetters.read(signal))) ?? this.#letters;
    }
    const snapshots = await attempt('snapshots', () =>
      [...this.#options.snapshots()].reverse().slice(0, snapshotsMax),
    );
    problems.push(...letterProblems(this.#letters, places));
    return {
      atMs: Date.now(),
      namespace: names.namespace,
      verdict: verdictOf(problems, report === null ? null : stages),
      problems,
      figuresAgeMs: this.#figures === undefined ? null : performance.now() - this.#figures.atMs,
      stages,
      rows: this.#figures?.rows ?? [],
      snapshots,
      letters: this.#letters && {
        groups: this.#letters.groups,
        latest: this.#letters.latest.map(lineOf),
      },
    };
  }

  /** Logs a warning when the reason is new. @param reason null when `what` was observed */
  #unobserved(what: string, reason: string | null): void {
    if (reason === null) this.#logged.delete(what);
    if (reason === null || this.#logged.get(what) === reason) return;
    this.#logged.set(what, reason);
    this.#options.broker.logger.warn({ what, reason }, 'not observed');
  }

  #figuresOf(report: LagReport): Figures {
    const { names, hasStateHere } = this.#options;
    const stages = report.groups.map((group): StageLine => {
      const name = stageOf(names, group);
      const history = name === undefined ? null : stageHistory(group, hasStateHere(name));
      return { name: name ?? 'other', group, history };
    });
    const rows = report.rows.map((row) => ({ ...row, trend: this.#watch.trendOf(row).slice(-trendMax) }));
    return { atMs: performance.now(), stages, rows };
  }
}

function letterProblems(letters: Letters | null, places: string): PipelineProblem[] {
  const open = letters?.groups.reduce((sum, group) => sum + group.open, 0) ?? 0;
  if (open === 0) return [];
  const text = `${counted(open, 'dead letter is', 'dead letters are')} open.`;
  return [{ severity: 'note', text, command: `reelflow dlq list${places}` }];
}

function lineOf(letter: Letters['latest'][number]): LetterLine {
  const { timeMs, stage, reason, detail, fate } = letter;
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
