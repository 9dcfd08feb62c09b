/**
 * The sink's state: one DuckDB file with the cubes of every shard, the names of people and titles, the history of ratings, and
 * the positions that they have reached. A transaction writes rows and positions together. Cubes are kept as the signed rows that
 * arrived and are summed when they are read; `compact` sums them in place when the sum is much smaller. Every cube that a delta
 * brings is kept, also one that this version does not declare: a newer one then finds it complete.
 */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import { interruptOn, memoryBytesOf, readIds, rowsOf } from '../database/duckdb.ts';
import { databasePath } from '../database/sql.ts';
import { asOpeningError, asStorageError, type Storage } from '../database/storage-errors.ts';
import { loadDictionary, storeDictionary } from '../database/stored-dictionary.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { makeFolder } from '../runtime/files.ts';
import type { Cube } from '../tables/cubes/cube.ts';
import { cubeSetOf, cubes } from '../tables/cubes/cube-set.ts';
import type { GoldTable } from '../tables/gold-table.ts';
import type { CubeRows } from '../topics/cube-rows.ts';
import { Dictionary } from '../topics/dictionary.ts';
import { IdSet } from '../topics/id-set.ts';
import { CubeTables } from './cube-tables.ts';
import { KeptTables } from './kept-tables.ts';
import { RatingHistory } from './rating-history.ts';
import { type PeopleState, putState, type ShardState } from './shard-state.ts';
import { createTexts, namesOfPeople, type TextRows, type WrittenTexts, writeTexts } from './text-table.ts';
import { TitleNames } from './title-names.ts';

const formatVersion = 6;

/** What a snapshot was made from. */
interface Published {
  readonly snapshot: string;
  /** Fingerprint of the declarations and versions that made it. */
  readonly maker: string;
  /** Of each relation. */
  readonly revisions: Readonly<Record<string, number>>;
}

export class CubeStore {
  readonly connection: DuckDBConnection;
  readonly path: string;
  readonly dictionary = new Dictionary();
  /** Ids of all people whose name the store may hold. */
  readonly personIds = new IdSet();
  readonly shards = new Map<number, ShardState>();
  /** By partition of name.basics. */
  readonly peopleStates = new Map<number, PeopleState>();
  readonly ratings: RatingHistory;
  readonly kept: KeptTables;
  readonly titles: TitleNames;
  readonly #instance: DuckDBInstance;
  #dictionaryStored = 0;
  #stopInterrupting: () => void = () => undefined;
  readonly #cubes: CubeTables;
  /** The declared cubes with their versions. */
  readonly cubeSet: string;
  #namesRevision = 0;
  /** What the last snapshot was made from. */
  #published: Published | undefined;

  private constructor(
    instance: DuckDBInstance,
    connection: DuckDBConnection,
    path: string,
    declared: readonly Cube[],
  ) {
    this.#instance = instance;
    this.connection = connection;
    this.path = path;
    this.ratings = new RatingHistory(connection);
    this.kept = new KeptTables(connection);
    this.titles = new TitleNames(connection, this.kept);
    this.#cubes = new CubeTables(connection, declared);
    this.cubeSet = cubeSetOf(declared);
  }

  /**
   * Opens the sink's state, or creates it.
   * @throws ReelflowError busy, if another sink holds it; foreignCluster; stateUnusable
   */
  static async open(
    folder: string,
    identity: { clusterId: string; namespace: string },
    memoryLimit: string,
    declared: readonly Cube[] = cubes,
  ): Promise<CubeStore> {
    const path = join(folder, 'sink.duckdb');
    try {
      makeFolder(folder);
      const instance = await DuckDBInstance.create(databasePath(path), {
        memory_limit: memoryLimit,
        temp_directory: join(folder, 'spill-sink'),
        threads: '1',
      });
      const store = new CubeStore(instance, await instance.connect(), path, declared);
      await store.#prepare(identity);
      await store.#load();
      await store.ratings.open();
      await store.titles.open();
      return store;
    } catch (thrown) {
      throw asOpeningError(thrown, storageOf(path));
    }
  }

  /**
   * Interrupts every statement from `graceMs` after the abort of `signal` on. The work that it belongs to fails: a transaction
   * is rolled back, a snapshot is not published.
   */
  interruptAfter(signal: AbortSignal, graceMs: number): void {
    this.#stopInterrupting = interruptOn(signal, this.connection, graceMs);
  }

  /** Memory that DuckDB uses. */
  memoryBytes(): Promise<number> {
    return memoryBytesOf(this.#instance);
  }

  close(): void {
    this.#stopInterrupting();
    this.connection.closeSync();
    this.#instance.closeSync();
  }

  /** Names of the declared cubes. */
  get declaredCubes(): string[] {
    return this.#cubes.names;
  }

  get isEmpty(): boolean {
    return this.shards.size === 0 && this.peopleStates.size === 0;
  }

  /** Runs `work` in one transaction. The caller changes its state in memory only after the commit. */
  async transaction(work: () => Promise<void>): Promise<void> {
    await this.connection.run('BEGIN');
    try {
      await work();
      const words = await this.#storeDictionary();
      await this.#cubes.writeRevisions();
      await this.connection.run('COMMIT');
      this.#dictionaryStored = words;
      this.#cubes.committed();
    } catch (thrown) {
      await this.connection.run('ROLLBACK').catch(() => undefined);
      throw asStorageError(thrown, storageOf(this.path));
    } finally {
      this.#cubes.ended();
    }
  }

  /** Runs statements over the whole state on all processors. For small statements, threads cost more than they save. */
  async onAllThreads<T>(work: () => Promise<T>): Promise<T> {
    await this.connection.run(`SET threads = ${availableParallelism()}`);
    try {
      return await work();
    } finally {
      await this.connection.run('SET threads = 1');
    }
  }

  /** Appends rows of one cube of one shard. */
  addCubeRows(shard: number, rows: CubeRows): Promise<void> {
    return this.#cubes.add(shard, rows);
  }

  /** Deletes the cubes of a shard: a base or a reset starts without them. @param keeps names of cubes that stay */
  async clearShard(shard: number, keeps: readonly string[] = []): Promise<void> {
    await this.kept.drop();
    // Of rows that vanish, the exports of later rows would know nothing.
    await this.#forgetPublished();
    await this.#cubes.clear(shard, keeps);
  }

  /** The next snapshot takes over no file of the last one. */
  async #forgetPublished(): Promise<void> {
    await this.connection.run('DELETE FROM published');
    this.#published = undefined;
  }

  /** The cubes that a snapshot has to hold for `restore`: the declared ones, and all others with rows. */
  heldCubes(): Promise<string[]> {
    return this.#cubes.held();
  }

  /** Upserts and deletes rows of name.basics. @returns how many rows of the table changed */
  async writePeople(rows: TextRows): Promise<WrittenTexts> {
    const written = await writeTexts(this.connection, namesOfPeople, rows, (ids) =>
      this.kept.changeNames('changed_names', ids),
    );
    if (written.changed + written.removed > 0) await this.#changeNames();
    return written;
  }

  /** A revision that is rolled back stays in memory: the next one is another again. */
  async #changeNames(): Promise<void> {
    this.#namesRevision += 1;
    await this.#writeNamesRevision();
  }

  async #writeNamesRevision(): Promise<void> {
    await this.connection.run('DELETE FROM names_revision');
    await this.connection.run(`INSERT INTO names_revision VALUES (${this.#namesRevision})`);
  }

  async putShard(state: ShardState): Promise<void> {
    await putState(this.connection, 'shard', 'shard', state.shard, state);
  }

  /** Deletes all names, so that the topic is read again from its start. `personIds` keeps them, which costs only look-ups. */
  async clearPeople(): Promise<void> {
    await this.kept.drop();
    await this.connection.run('DELETE FROM names');
    await this.#changeNames();
    await this.connection.run('DELETE FROM name_source');
  }

  async putPeople(state: PeopleState): Promise<void> {
    await putState(this.connection, 'name_source', 'partition', state.partition, state);
  }

  /** Brings the relations of these cubes up to date: see `CubeTables.sum`. */
  sumCubes(names: ReadonlySet<string>): Promise<{ whole: number; recent: number }> {
    return this.#cubes.sum(names);
  }

  /**
   * Brings the kept integer forms of tables up to date: see `KeptTables`. It sums only the cubes of those that are computed as a whole.
   * @param maker fingerprint of the declarations and versions
   */
  async keep(tables: readonly GoldTable[], maker: string): Promise<void> {
    const plans = await this.kept.plan(tables, maker, this.#cubes);
    const whole = plans.filter(({ before }) => before === undefined);
    await this.#cubes.sum(new Set(whole.flatMap(({ table }) => table.reads)));
    await this.transaction(() => this.kept.update(plans, maker, this.#cubes));
  }

  /** Sums cubes in place: see `CubeTables.compact`. */
  async compact(): Promise<{ before: number; after: number }> {
    const of = this.#published?.revisions;
    // The sums get the newest revision: an export of the rows after an older one would repeat them.
    if (Object.entries(this.#cubes.revisions).some(([cube, revision]) => of?.[cube] !== revision))
      await this.transaction(() => this.#forgetPublished());
    return this.#cubes.compact((work) => this.transaction(work));
  }

  /** Writes a cube to a file: see `CubeTables.export`. */
  exportCube(path: string, cube: string, after?: number): Promise<void> {
    return this.#cubes.export(path, cube, after);
  }

  /** Revisions of what gold tables read, by relation. A relation that is not named here may have changed at any time. */
  get revisions(): Readonly<Record<string, number>> {
    // The dictionary only ever gets words that no earlier row has.
    const history = this.ratings.revision;
    return {
      ...this.#cubes.revisions,
      ...{ names: this.#namesRevision, title_names: this.titles.revision, dictionary: 0 },
      ...{ history, history_span: history },
    };
  }

  /** What the last recorded snapshot was made from. */
  get published(): Published | undefined {
    return this.#published;
  }

  /** Records what a published snapshot was made from. */
  async recordPublished(published: Published): Promise<void> {
    await this.transaction(async () => {
      await this.connection.run('DELETE FROM published');
      await this.connection.run('INSERT INTO published VALUES ($1)', [JSON.stringify(published)]);
      // In memory it may be ahead, and a revision that is published must not repeat.
      await this.#writeNamesRevision();
      await this.ratings.writeRevision();
      await this.titles.writeRevision();
    });
    this.#published = published;
  }

  /**
   * Loads the cubes and positions of a snapshot into an empty store.
   * @param folder with the files of its cubes, declared or not
   */
  async restore(folder: string, shards: readonly ShardState[]): Promise<void> {
    const { connection, dictionary } = this;
    await this.transaction(async () => {
      await this.#cubes.restore(folder, async (select) => {
        for (const [word] of await rowsOf(connection, select)) dictionary.numberOfText(String(word));
        this.#dictionaryStored = await this.#storeDictionary();
      });
      for (const state of shards) await this.putShard(state);
    });
    for (const state of shards) this.shards.set(state.shard, state);
  }

  async #prepare(identity: { clusterId: string; namespace: string }): Promise<void> {
    const { connection } = this;
    await connection.run('CREATE TABLE IF NOT EXISTS meta (name VARCHAR, value VARCHAR)');
    const wanted = { format: String(formatVersion), ...identity };
    const rows = await rowsOf(connection, 'SELECT name, value FROM meta');
    const meta = new Map(rows.map(([name, value]) => [String(name), String(value)]));
    if (meta.size === 0) {
      await this.#create(wanted);
      return;
    }
    if (meta.get('format') === '5') {
      // It only lacks what is kept. A version that does not record changed names must not write to it any more.
      await connection.run('BEGIN');
      for (const statement of KeptTables.definitions) await connection.run(statement);
      await connection.run(`UPDATE meta SET value = '${formatVersion}' WHERE name = 'format'`);
      await connection.run('COMMIT');
      meta.set('format', String(formatVersion));
    }
    for (const [name, value] of Object.entries(wanted)) {
      if (meta.get(name) === value) continue;
      throw new ReelflowError(
        name === 'format' ? 'stateUnusable' : 'foreignCluster',
        `The sink's state has another ${name}`,
        {
          detail: `${this.path}: ${meta.get(name)}, expected ${value}.`,
          hint:
            name === 'format'
              ? 'Move the file away: the sink restores from CURRENT.'
              : 'Use another --state folder.',
        },
      );
    }
  }

  /** Creates the tables, and after them the identity: a crash in between leaves a state that is created again. */
  async #create(identity: Readonly<Record<string, string>>): Promise<void> {
    const { connection } = this;
    for (const statement of [
      'CREATE TABLE IF NOT EXISTS shard (shard INTEGER, state VARCHAR)',
      'CREATE TABLE IF NOT EXISTS name_source (partition INTEGER, state VARCHAR)',
      createTexts(namesOfPeople),
      'CREATE TABLE IF NOT EXISTS dictionary (number INTEGER, value VARCHAR)',
      'CREATE TABLE IF NOT EXISTS names_revision (revision INTEGER)',
      'CREATE TABLE IF NOT EXISTS published (value VARCHAR)',
      ...CubeTables.definitions,
      ...KeptTables.definitions,
    ]) {
      await connection.run(statement);
    }
    // In one statement: a crash between two would leave a state that seems to belong to another cluster.
    const rows = Object.keys(identity).map((_, i) => `($${2 * i + 1}, $${2 * i + 2})`);
    await connection.run(`INSERT INTO meta VALUES ${rows.join(', ')}`, Object.entries(identity).flat());
  }

  async #load(): Promise<void> {
    const { connection } = this;
    await this.#cubes.load();
    await this.kept.load();
    await this.transaction(() => this.#cubes.provideDeclared());
    const [revision] = await rowsOf(connection, 'SELECT revision FROM names_revision');
    this.#namesRevision = Number(revision?.[0] ?? 0);
    const [published] = await rowsOf(connection, 'SELECT value FROM published');
    this.#published = published && (JSON.parse(String(published[0])) as Published);
    for (const [state] of await rowsOf(connection, 'SELECT state FROM shard')) {
      const shard = JSON.parse(String(state)) as ShardState;
      this.shards.set(shard.shard, shard);
    }
    for (const [state] of await rowsOf(connection, 'SELECT state FROM name_source')) {
      const people = JSON.parse(String(state)) as PeopleState;
      this.peopleStates.set(people.partition, people);
    }
    await loadDictionary(connection, 'dictionary', this.dictionary);
    this.#dictionaryStored = this.dictionary.size;
    await readIds(connection, 'SELECT nconst FROM names', this.personIds);
  }

  async #storeDictionary(): Promise<number> {
    return storeDictionary(this.connection, 'dictionary', this.dictionary, this.#dictionaryStored);
  }
}

const storageOf = (path: string): Storage => ({
  path,
  folder: 'the state folder',
  kind: 'stateUnusable',
  unusable: "The sink's state cannot be used",
  hint: 'If the file is damaged, move it away: the sink restores from CURRENT and reads on.',
  hintWhenDenied: 'Name another folder with --state, or check its permissions.',
  hintWhenFull: 'Free disk space and start again; nothing is lost, CURRENT still names a complete snapshot.',
  busy: {
    what: 'Another sink uses this state',
    hint: 'One sink serves a namespace. End the other one first.',
  },
});
