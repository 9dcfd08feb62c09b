/**
 * The catalog of the wire: the seven datasets, their columns and keys, the names of topics and groups, the size of messages, and
 * the partition of a record. No other file spells a topic's name.
 */

/** How a column is read from the files and written to Avro. `tenths` is a double with one decimal. */
export type ColumnType =
  | 'string'
  | 'nullable-string'
  | 'int'
  | 'nullable-int'
  | 'boolean'
  | 'nullable-boolean'
  | 'tenths';

export interface Column {
  /** Official camelCase name: the header of the files and the field of the Avro record. */
  readonly name: string;
  readonly type: ColumnType;
}

export type DatasetName =
  | 'title.basics'
  | 'title.ratings'
  | 'title.principals'
  | 'title.akas'
  | 'title.crew'
  | 'title.episode'
  | 'name.basics';

export interface Dataset {
  readonly name: DatasetName;
  /** Two-letter prefix of the id in column 0. */
  readonly idPrefix: 'tt' | 'nm';
  /** Number of leading columns that form the key: 1 (id) or 2 (id, ordering). */
  readonly keyColumns: 1 | 2;
  readonly columns: readonly Column[];
  /** A replay refuses a directory without a required dataset. */
  readonly required: boolean;
}

const columns = (spec: Record<string, ColumnType>): Column[] =>
  Object.entries(spec).map(([name, type]) => ({ name, type }));

export const datasets: Readonly<Record<DatasetName, Dataset>> = {
  // Ratings come first: only rated titles contribute, and a processor with the ratings knows which titles those are.
  'title.ratings': {
    name: 'title.ratings',
    idPrefix: 'tt',
    keyColumns: 1,
    required: true,
    columns: columns({ tconst: 'string', averageRating: 'tenths', numVotes: 'int' }),
  },
  'title.basics': {
    name: 'title.basics',
    idPrefix: 'tt',
    keyColumns: 1,
    required: true,
    columns: columns({
      tconst: 'string',
      titleType: 'nullable-string',
      primaryTitle: 'nullable-string',
      originalTitle: 'nullable-string',
      isAdult: 'boolean',
      startYear: 'nullable-int',
      endYear: 'nullable-int',
      runtimeMinutes: 'nullable-int',
      genres: 'nullable-string',
    }),
  },
  'title.principals': {
    name: 'title.principals',
    idPrefix: 'tt',
    keyColumns: 2,
    required: false,
    columns: columns({
      tconst: 'string',
      ordering: 'int',
      nconst: 'string',
      category: 'nullable-string',
      job: 'nullable-string',
      characters: 'nullable-string',
    }),
  },
  'title.akas': {
    name: 'title.akas',
    idPrefix: 'tt',
    keyColumns: 2,
    required: false,
    columns: columns({
      titleId: 'string',
      ordering: 'int',
      title: 'nullable-string',
      region: 'nullable-string',
      language: 'nullable-string',
      types: 'nullable-string',
      attributes: 'nullable-string',
      isOriginalTitle: 'nullable-boolean',
    }),
  },
  'title.crew': {
    name: 'title.crew',
    idPrefix: 'tt',
    keyColumns: 1,
    required: false,
    columns: columns({
      tconst: 'string',
      directors: 'nullable-string',
      writers: 'nullable-string',
    }),
  },
  'title.episode': {
    name: 'title.episode',
    idPrefix: 'tt',
    keyColumns: 1,
    required: false,
    columns: columns({
      tconst: 'string',
      parentTconst: 'string',
      seasonNumber: 'nullable-int',
      episodeNumber: 'nullable-int',
    }),
  },
  'name.basics': {
    name: 'name.basics',
    idPrefix: 'nm',
    keyColumns: 1,
    required: false,
    columns: columns({
      nconst: 'string',
      primaryName: 'nullable-string',
      birthYear: 'nullable-int',
      deathYear: 'nullable-int',
      primaryProfession: 'nullable-string',
      knownForTitles: 'nullable-string',
    }),
  },
};

export const datasetNames = Object.keys(datasets) as DatasetName[];

/** The largest number of an id: nine digits, which fit an int32. */
export const idMax = 999_999_999;
/** Rows of one title or person block: the id without its last four digits. */
export const blockSize = 10_000;
/** The longest chunk or part of a delta before compression: a broker with default limits accepts it. */
export const messageBytesMax = 1_000_000;
/** The longest part of an original that a dead letter keeps. */
export const deadLetterBytesMax = 256_000;

/** Topic and group names within one namespace. */
export interface TopicNames {
  readonly namespace: string;
  source(dataset: DatasetName): string;
  readonly deltas: string;
  readonly deadLetter: string;
  /** What the source topics hold, by groups of ids: how a newer dump is compared with them. */
  readonly dumpIndex: string;
  /** The topic on which another engine maintains a gold table. */
  goldTable(table: string): string;
  readonly processorGroup: string;
  readonly sinkGroup: string;
  /** Flink commits the offsets of its checkpoints to it, so its lag is Flink's lag. */
  readonly flinkGroup: string;
}

/** A namespace is valid in topic names, group names and folder names. */
export const namespacePattern = /^[a-z0-9][a-z0-9_-]{0,63}$/;

/** The name of the folder with the files of a namespace. */
export const namespaceFolder = (namespace: string) => (namespace === '' ? '_' : namespace);

/** @param namespace '' for none, else the prefix of topics and groups, without its dot */
export function topicNamesIn(namespace: string): TopicNames {
  const prefix = namespace === '' ? '' : `${namespace}.`;
  return {
    namespace,
    source: (dataset) => `${prefix}imdb.${dataset}`,
    deltas: `${prefix}reelflow.deltas`,
    deadLetter: `${prefix}imdb.dead-letter`,
    dumpIndex: `${prefix}imdb.dump-index`,
    goldTable: (table) => `${prefix}reelflow.gold.${table}`,
    processorGroup: `${prefix}reelflow-processors`,
    sinkGroup: `${prefix}reelflow-sink`,
    flinkGroup: `${prefix}reelflow-flink`,
  };
}

/** The text of an id: seven digits at least. `idText('tt', 1)` is `tt0000001`. */
export function idText(prefix: string, id: number): string {
  return prefix + String(id).padStart(7, '0');
}

/** The message key of a block: the id's text without its last four digits. Blocks are `floor(id / 10000)`. */
export function blockKey(prefix: string, block: number): string {
  return prefix + String(block).padStart(3, '0');
}

/**
 * Kafka's default partitioner: murmur2 over the key's bytes, sign bit cleared, modulo the partition count.
 * Source: org.apache.kafka.common.utils.Utils#murmur2.
 * @returns the partition, 0 ≤ p < partitions
 */
export function partitionOf(key: string, partitions: number): number {
  return (murmur2(Buffer.from(key)) & 0x7fffffff) % partitions;
}

function murmur2(data: Uint8Array): number {
  const m = 0x5bd1e995;
  const length = data.length;
  let h = 0x9747b28c ^ length;
  const words = length >> 2;
  for (let i = 0; i < words; i++) {
    const at = i * 4;
    let k =
      (data[at] as number) |
      ((data[at + 1] as number) << 8) |
      ((data[at + 2] as number) << 16) |
      ((data[at + 3] as number) << 24);
    k = Math.imul(k, m);
    k ^= k >>> 24;
    k = Math.imul(k, m);
    h = Math.imul(h, m) ^ k;
  }
  const tail = words * 4;
  const rest = length - tail;
  if (rest === 3) h ^= (data[tail + 2] as number) << 16;
  if (rest >= 2) h ^= (data[tail + 1] as number) << 8;
  if (rest >= 1) {
    h ^= data[tail] as number;
    h = Math.imul(h, m);
  }
  h ^= h >>> 13;
  h = Math.imul(h, m);
  h ^= h >>> 15;
  return h | 0;
}
