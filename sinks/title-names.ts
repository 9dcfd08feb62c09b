/**
 * The names of titles in the sink's store, level with the cubes: what the rows of title.basics say up to the position of every
 * shard. Titles without a rating have names too, because they may be the series of rated episodes.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import { readIds, readNumbers } from '../database/duckdb.ts';
import { baseMarkOf, followBase, gapsAfterBase, type OpenBase } from '../topics/base.ts';
import { blockKey, blockSize, partitionOf } from '../topics/catalog.ts';
import type { ChunkDecoder, Owner } from '../topics/chunk.ts';
import type { IdSet } from '../topics/id-set.ts';
import { type Gap, gapsBeyond } from '../topics/position.ts';
import type { KeptTables } from './kept-tables.ts';
import type { LevelDataset, LevelStage, LevelState } from './level-intake.ts';
import { LevelStates } from './level-states.ts';
import type { ShardState } from './shard-state.ts';
import { StagedTexts } from './staged-texts.ts';
import { createTexts, namesOfTitles, selectTexts, writeTexts } from './text-table.ts';

/** Position of the names in one partition of title.basics. */
interface TitleState extends LevelState {
  /** The gaps of the cubes when the partition was begun: their rows may be among the names that were read before. */
  readonly cubeGaps: readonly Gap[];
  readonly openBase?: OpenBase | undefined;
}

interface TitleSource {
  readonly topic: string;
  readonly decoder: ChunkDecoder;
  /** Columns of title.basics that the cubes read: processors reject a message with an invalid value in one of them. */
  readonly checked: readonly string[];
}

const { table, id } = namesOfTitles;

export class TitleNames extends LevelStates<TitleState, TitleSource> implements LevelDataset<TitleState> {
  readonly what = 'titles';
  readonly #kept: KeptTables;
  #ids: IdSet | undefined;

  constructor(connection: DuckDBConnection, kept: KeptTables) {
    super(connection, 'title');
    this.#kept = kept;
  }

  override async open(): Promise<void> {
    await this.connection.run(createTexts(namesOfTitles));
    await this.connection.run('CREATE TABLE IF NOT EXISTS changed_titles (tconst INTEGER)');
    await this.connection.run(`CREATE OR REPLACE TEMP VIEW title_names AS ${selectTexts(namesOfTitles)}`);
    await super.open();
  }

  newState({ shard, chain }: ShardState): TitleState {
    const cubeGaps = chain.gaps[this.source.topic] ?? [];
    return { shard, generation: chain.generation, next: 0, lastHash: '', gaps: [], cubeGaps };
  }

  /** Whether the names were read from messages that the cubes lack since a loss was accepted. */
  isOutdated({ next, gaps, cubeGaps }: TitleState, { chain }: ShardState): boolean {
    const { topic } = this.source;
    const present = chain.gaps[topic] ?? [];
    if (next < (chain.position[topic] ?? 0) || String(present) === String(cubeGaps)) return false;
    return gapsBeyond(present, gaps).length > 0;
  }

  /** Deletes the names of a partition: those of its blocks. */
  async clear({ shard, shards }: ShardState): Promise<void> {
    const { columns, length } = await readNumbers(
      this.connection,
      `SELECT DISTINCT (${id} // ${blockSize})::INTEGER FROM ${table}`,
    );
    const blocks = [...(columns[0] as Int32Array).subarray(0, length)].filter(
      (block) => partitionOf(blockKey('tt', block), shards) === shard,
    );
    if (blocks.length === 0) return;
    await this.#kept.drop();
    await this.connection.run(`DELETE FROM ${table} WHERE ${id} // ${blockSize} IN (${blocks.join(', ')})`);
    await this.raiseRevision();
  }

  async stage(): Promise<LevelStage<TitleState>> {
    const { decoder, checked } = this.source;
    const staged = new StagedTexts(namesOfTitles, await this.#idsOfTitles(), checked);
    const write = async () => {
      if (staged.isEmpty) return;
      const { changed, removed } = await writeTexts(this.connection, namesOfTitles, staged.take(), (ids) =>
        this.#kept.changeNames('changed_titles', ids),
      );
      if (changed + removed > 0) await this.raiseRevision();
    };
    return {
      add: async (value: Buffer, owner: Owner, state: TitleState, offset: number) => {
        await staged.add(await decoder.asOwn(value), decoder, owner, write);
        const mark = baseMarkOf(value);
        if (mark === undefined) return state;
        const { open, whole } = followBase(state.openBase, mark, offset);
        const gaps = (whole && gapsAfterBase(state.gaps, whole)) ?? state.gaps;
        return { ...state, openBase: open, gaps };
      },
      // Every write compares with the whole table.
      write: async () => undefined,
      end: write,
    };
  }

  /** For the manifest: by partition, what the names lack of the input. */
  lacking(shards: ReadonlyMap<number, ShardState>): Record<string, [from: number, to: number][]> {
    const { topic } = this.source;
    const lacking: Record<string, [from: number, to: number][]> = {};
    for (const { shard, gaps } of this.states.values()) {
      const own = gapsBeyond(gaps, shards.get(shard)?.chain.gaps[topic]);
      if (own.length > 0) lacking[shard] = own.map(([from, to]) => [from, to]);
    }
    return lacking;
  }

  /** Ids of all titles that may have a name. Read at the first use: a sink without news does not need them. */
  async #idsOfTitles(): Promise<IdSet> {
    this.#ids ??= await readIds(this.connection, `SELECT ${id} FROM ${table}`);
    return this.#ids;
  }
}
