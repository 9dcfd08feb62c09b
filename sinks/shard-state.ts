/** The sink's state of one shard and of one partition of name.basics: what a transaction commits beside the rows. */
import type { DuckDBConnection } from '@duckdb/node-api';
import type { OpenBase } from '../topics/base.ts';
import type { ChainState } from '../topics/delta-chain.ts';
import type { Position } from '../topics/position.ts';
import type { RecordCounts } from '../topics/record-counts.ts';

export interface ShardState {
  readonly shard: number;
  /** Partition count of the sources. */
  readonly shards: number;
  readonly chain: ChainState;
  /** Next offset of the shard's delta partition; never between the parts of a delta. */
  readonly next: number;
  /** First offset of the last applied delta, -1 before the first. */
  readonly lastDelta: number;
  /** By source topic. */
  readonly counts: Readonly<Record<string, RecordCounts>>;
  /** After a reset: the sink publishes nothing before the shard and the people have reached these offsets, by topic. */
  readonly heldUntil: Position;
}

/** The counts are of all records since `start`. */
export interface PeopleState extends RecordCounts {
  readonly partition: number;
  /** Offset 0, or the begin of the last whole base; absent in the state of an earlier version, which began at 0. */
  readonly start?: number;
  /** A base that has begun, with the counts before its begin. */
  readonly openBase?: (OpenBase & { readonly before: RecordCounts }) | undefined;
  readonly next: number;
  /** SHA-256 of the message before `next`: reading it again proves that the topic is the same one. */
  readonly lastHash: string;
}

/** Replaces the state of a shard or partition, as part of the open transaction. @param key name of its column */
export async function putState(
  connection: DuckDBConnection,
  table: string,
  key: 'shard' | 'partition',
  number: number,
  state: object,
): Promise<void> {
  await connection.run(`DELETE FROM ${table} WHERE ${key} = ${number}`);
  await connection.run(`INSERT INTO ${table} VALUES ($1, $2)`, [number, JSON.stringify(state)]);
}
