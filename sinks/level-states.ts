/**
 * What the sink's store keeps of a dataset that it reads beside the cubes, besides its rows: the state of each partition, and a
 * revision, which tells whether the rows are those of a snapshot.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import { rowsOf } from '../database/duckdb.ts';
import { putState } from './shard-state.ts';

export class LevelStates<State extends { readonly shard: number }, Source> {
  /** By partition. Changed only after a commit. */
  readonly states = new Map<number, State>();
  protected readonly connection: DuckDBConnection;
  readonly #name: string;
  #source: Source | undefined;
  #revision = 0;

  /** @param name of the tables, before `_source` and `_revision` */
  constructor(connection: DuckDBConnection, name: string) {
    this.connection = connection;
    this.#name = name;
  }

  /** Creates the tables of an empty store, and loads the states. */
  async open(): Promise<void> {
    const { connection } = this;
    await connection.run(`CREATE TABLE IF NOT EXISTS ${this.#name}_source (shard INTEGER, state VARCHAR)`);
    await connection.run(`CREATE TABLE IF NOT EXISTS ${this.#name}_revision (revision INTEGER)`);
    const [[revision] = []] = await rowsOf(connection, `SELECT revision FROM ${this.#name}_revision`);
    this.#revision = Number(revision ?? 0);
    for (const [text] of await rowsOf(connection, `SELECT state FROM ${this.#name}_source`)) {
      const state = JSON.parse(String(text)) as State;
      this.states.set(state.shard, state);
    }
  }

  /** Where the rows come from. A sink whose tables need none of them reads none. */
  readFrom(source: Source): void {
    this.#source = source;
  }

  get isRead(): boolean {
    return this.#source !== undefined;
  }

  get source(): Source {
    if (this.#source === undefined) throw new Error(`${this.#name} has no source`);
    return this.#source;
  }

  /** Another one after every change of what gold reads. A revision that is rolled back stays in memory. */
  get revision(): number {
    return this.#revision;
  }

  async writeRevision(): Promise<void> {
    await this.connection.run(`DELETE FROM ${this.#name}_revision`);
    await this.connection.run(`INSERT INTO ${this.#name}_revision VALUES (${this.#revision})`);
  }

  protected async raiseRevision(): Promise<void> {
    this.#revision += 1;
    await this.writeRevision();
  }

  /** Commits the state with the rows that led to it. */
  async put(state: State): Promise<void> {
    await putState(this.connection, `${this.#name}_source`, 'shard', state.shard, state);
  }
}
