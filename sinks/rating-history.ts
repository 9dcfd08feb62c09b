/**
 * The history of ratings in the sink's store. A message of title.ratings with the date d of its dump says that its titles
 * have these ratings from day d on; a replaced group or a delete says that titles have none. So a message withdraws
 * what earlier messages said about its titles for d and for later days. What no later message withdraws, and differs from the
 * title's day before it, is a row. Rows are thus a function of the log and of `historyDays`, whatever the batches were.
 *
 * Pruning keeps, per title, the newest row at or before the cut-off: the newest day of the log less `historyDays`.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import { appendColumns, readIds } from '../database/duckdb.ts';
import { counted } from '../runtime/counted.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { type BaseMark, baseMarkOf, followBase, type OpenBase } from '../topics/base.ts';
import type { ChunkDecoder, Owner } from '../topics/chunk.ts';
import { dayOf, dayText } from '../topics/day.ts';
import type { IdSet } from '../topics/id-set.ts';
import type { LevelDataset, LevelStage, LevelState } from './level-intake.ts';
import { LevelStates } from './level-states.ts';
import type { ShardState } from './shard-state.ts';
import { type RatingVersions, StagedRatings } from './staged-ratings.ts';

/** Position of the history in one partition of title.ratings. */
export interface RatingState extends LevelState {
  /** Newest date of a dump in [0, next), in days since 1970; -1 without one. */
  readonly newestDay: number;
  /** The `historyDays` by which the messages were read. */
  readonly historyDays: number;
  /** A base that has begun, and whole ones; of those as old as the history is long, the newest. Oldest first. */
  readonly openBase?: OpenBase | undefined;
  readonly bases?: readonly { readonly begin: number; readonly day: number }[];
}

/** What a snapshot's manifest says about its history. */
interface HistorySummary {
  readonly days: number;
  readonly newest: string | null;
  readonly gaps: Record<string, [from: number, to: number][]>;
}

const rowsTable = 'sink.rating_days';
/** Length of a new history, unless one is named. */
const newHistoryDays = 400;

type Days = Pick<RatingState, 'newestDay' | 'historyDays'>;

const bedrockOf = (bases: NonNullable<RatingState['bases']>, { newestDay, historyDays }: Days) =>
  bases.findLast(({ day }) => day <= newestDay - historyDays);

/** What a mark of a base makes of the state of its partition. */
export function afterMark(
  state: RatingState,
  mark: BaseMark & { readonly asOfMs: number },
  offset: number,
): RatingState {
  const { open, whole } = followBase(state.openBase, mark, offset);
  if (whole === undefined) return { ...state, openBase: open };
  const all = [...(state.bases ?? []), { begin: whole.begin, day: dayOf(mark.asOfMs) }];
  const bedrock = bedrockOf(all, state);
  return {
    ...state,
    openBase: undefined,
    bases: bedrock === undefined ? all : all.slice(all.indexOf(bedrock)),
    // What is lost before it is missing in no day of the history.
    gaps: bedrock === undefined ? state.gaps : state.gaps.filter(([, to]) => to > bedrock.begin),
  };
}

interface RatingSource {
  readonly decoder: ChunkDecoder;
  /** Length of the history, in days before the newest dump. */
  readonly historyDays: number;
}

export class RatingHistory
  extends LevelStates<RatingState, RatingSource>
  implements LevelDataset<RatingState>
{
  readonly what = 'ratings';
  #titles: IdSet | undefined;
  /** The cut-offs of the last pruning, by shard. */
  #pruned = '';

  constructor(connection: DuckDBConnection) {
    super(connection, 'sink.rating');
  }

  override async open(): Promise<void> {
    await this.connection.run(
      `CREATE TABLE IF NOT EXISTS ${rowsTable} (shard INTEGER, tconst INTEGER, day INTEGER, tenths INTEGER, votes INTEGER)`,
    );
    await super.open();
  }

  /** Ids of all titles of which the history may hold rows. Read at the first use: a sink without news does not need them. */
  async titles(): Promise<IdSet> {
    this.#titles ??= await readIds(this.connection, `SELECT DISTINCT tconst FROM ${rowsTable}`);
    return this.#titles;
  }

  newState({ shard, chain }: ShardState): RatingState {
    const { historyDays } = this.source;
    const { generation } = chain;
    return { shard, generation, next: 0, lastHash: '', newestDay: -1, historyDays, gaps: [] };
  }

  /**
   * The length of the history in days: the one that is wanted, else as it is. A shorter history loses its first days, and a
   * longer one is read again, which loses the days whose messages are gone.
   * @param published length of the history in the newest snapshot
   * @throws ReelflowError usage, for another length than now without `acceptLoss`
   */
  daysToKeep({
    wanted,
    published,
    acceptLoss,
  }: {
    wanted: number | undefined;
    published: number | undefined;
    acceptLoss: boolean;
  }): number {
    const read = [...this.states.values()].find(({ newestDay }) => newestDay >= 0);
    const kept = read?.historyDays ?? published;
    if (wanted === undefined) return kept ?? newHistoryDays;
    if (kept === undefined || wanted === kept || acceptLoss) return wanted;
    throw new ReelflowError('usage', `--history ${wanted} would change the history of ratings`, {
      detail:
        wanted < kept
          ? `Of its ${counted(kept, 'day')}, the first ${kept - wanted} would be lost.`
          : `It has ${counted(kept, 'day')}, and would be read again: days before a base would be lost.`,
      hint: 'Leave --history out to keep its length, or add --accept-loss.',
    });
  }

  isOutdated({ historyDays }: RatingState): boolean {
    return historyDays !== this.source.historyDays;
  }

  async stage(): Promise<LevelStage<RatingState>> {
    const { decoder, historyDays } = this.source;
    const staged = new StagedRatings(await this.titles());
    return {
      add: async (value: Buffer, owner: Owner, state: RatingState, offset: number) => {
        const newestDay = staged.add(
          await decoder.asOwn(value),
          decoder,
          owner,
          state.newestDay,
          historyDays,
        );
        const mark = baseMarkOf(value);
        const after = { ...state, newestDay };
        return mark === undefined ? after : afterMark(after, mark, offset);
      },
      write: (partition: number) => this.write(partition, staged.take()),
      end: async () => undefined,
    };
  }

  /** Deletes the history of a partition. */
  async clear({ shard }: Pick<ShardState, 'shard'>): Promise<void> {
    await this.connection.run(`DELETE FROM ${rowsTable} WHERE shard = ${shard}`);
  }

  /** Applies versions of one partition, which follow all that were written before. */
  async write(shard: number, versions: RatingVersions): Promise<void> {
    const connection = this.connection;
    const { length, tconst, day, tenths, votes, isFresh } = versions;
    if (length === 0) return;
    const columns = [tconst, day, tenths, votes];
    if (isFresh) {
      const table = { catalog: 'sink', name: 'rating_days' };
      const nullable = [false, false, false, true, true];
      return appendColumns(
        connection,
        table,
        [new Int32Array(length).fill(shard), ...columns],
        length,
        nullable,
      );
    }
    await connection.run(
      'CREATE OR REPLACE TEMP TABLE rating_versions (place INTEGER, tconst INTEGER, day INTEGER, tenths INTEGER, votes INTEGER)',
    );
    const places = Int32Array.from({ length }, (_, place) => place);
    const table = { catalog: 'temp', name: 'rating_versions' };
    const nullable = [false, false, false, true, true];
    await appendColumns(connection, table, [places, ...columns], length, nullable);
    await connection.run(`
      CREATE OR REPLACE TEMP TABLE all_versions AS
      SELECT *, coalesce(day >= min(day) OVER later, false) AS isWithdrawn
      FROM (
        SELECT place, tconst, day, tenths, votes, NULL AS storedRow FROM rating_versions
        UNION ALL
        SELECT -1, tconst, day, tenths, votes, rowid FROM ${rowsTable}
        WHERE shard = ${shard} AND tconst IN (SELECT tconst FROM rating_versions)
      )
      WINDOW later AS (PARTITION BY tconst ORDER BY place, day ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)`);
    await connection.run(
      `DELETE FROM ${rowsTable} WHERE rowid IN (SELECT storedRow FROM all_versions WHERE isWithdrawn)`,
    );
    await connection.run(`
      INSERT INTO ${rowsTable}
      SELECT ${shard}, tconst, day, tenths, votes
      FROM (
        SELECT *, lag(tenths) OVER before AS tenthsBefore, lag(votes) OVER before AS votesBefore
        FROM all_versions WHERE NOT isWithdrawn
        WINDOW before AS (PARTITION BY tconst ORDER BY day)
      )
      WHERE storedRow IS NULL
        AND (tenths IS DISTINCT FROM tenthsBefore OR votes IS DISTINCT FROM votesBefore)`);
  }

  override async put(state: RatingState): Promise<void> {
    await this.raiseRevision();
    await super.put(state);
  }

  /** Whether the next `prune` may find something. */
  get isPrunable(): boolean {
    return this.#cutOffs() !== this.#pruned;
  }

  /**
   * Deletes rows that can never matter again, each partition by its own cut-off: of the rows before it, all but the newest
   * of each title. A later message may still replace the row at the cut-off itself, and is then compared with the one before.
   * A title that had no rating before the cut-off needs no row. Run it in a transaction.
   */
  async prune(): Promise<void> {
    const cutOffs = this.#cutOffs();
    this.#pruned = cutOffs;
    if (cutOffs === '') return;
    await this.connection.run(`
      DELETE FROM ${rowsTable} WHERE rowid IN (
        SELECT row FROM (
          SELECT kept.rowid AS row, tenths, row_number() OVER (PARTITION BY tconst ORDER BY day DESC) AS age
          FROM ${rowsTable} AS kept JOIN (VALUES ${cutOffs}) AS cuts(shard, cutOff)
          ON kept.shard = cuts.shard AND kept.day < cutOff
        )
        WHERE age > 1 OR tenths IS NULL
      )`);
  }

  #cutOffs(): string {
    return [...this.states.values()]
      .filter(({ newestDay, historyDays }) => newestDay >= historyDays)
      .map(({ shard, newestDay, historyDays }) => `(${shard}, ${newestDay - historyDays})`)
      .join(', ');
  }

  /**
   * Creates the relations that gold tables read: `history`, one row per title and day on which its rating or its votes
   * changed, and `history_span`, one row: the newest day, and the day with which the history begins. What a title had on
   * that day is not a change.
   */
  async createViews(): Promise<void> {
    const { newestDay, cutOff } = this.#span();
    await this.connection.run(`
      CREATE OR REPLACE TEMP VIEW history AS
      SELECT tconst, DATE '1970-01-01' + day AS day, tenths::BIGINT AS tenths, votes::BIGINT AS votes
      FROM (
        SELECT tconst, day, tenths, votes FROM ${rowsTable} WHERE day > ${cutOff}
        UNION ALL
        SELECT tconst, day, tenths, votes FROM (
          SELECT * FROM ${rowsTable} WHERE day <= ${cutOff}
          QUALIFY row_number() OVER (PARTITION BY tconst ORDER BY day DESC) = 1
        ) WHERE tenths IS NOT NULL
      )`);
    await this.connection.run(`
      CREATE OR REPLACE TEMP TABLE history_span AS
      SELECT DATE '1970-01-01' + ${newestDay} AS newest,
        greatest(DATE '1970-01-01' + ${cutOff}, (SELECT min(day) FROM history)) AS beginning
      WHERE ${newestDay} >= 0`);
  }

  /**
   * First offset of a partition that a rebuild needs: the begin of the newest base that is as old as the history is long.
   * Messages before it say nothing about later days.
   */
  neededFrom(shard: number): number {
    const state = this.states.get(shard);
    if (state === undefined) return 0;
    return bedrockOf(state.bases ?? [], state)?.begin ?? 0;
  }

  /** For the manifest. */
  summary(historyDays: number): HistorySummary {
    const { newestDay } = this.#span();
    const gaps = [...this.states.values()].filter((state) => state.gaps.length > 0);
    return {
      days: historyDays,
      newest: newestDay < 0 ? null : dayText(newestDay),
      gaps: Object.fromEntries(
        gaps.map(({ shard, gaps: own }) => [String(shard), own.map(([from, to]) => [from, to])]),
      ),
    };
  }

  #span(): { newestDay: number; cutOff: number } {
    const states = [...this.states.values()];
    const newestDay = Math.max(-1, ...states.map((state) => state.newestDay));
    const historyDays = states[0]?.historyDays ?? 0;
    return { newestDay, cutOff: Math.max(-1, newestDay - historyDays) };
  }
}
