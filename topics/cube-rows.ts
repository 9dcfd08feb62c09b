/**
 * Rows of cubes as columns, and how a delta carries them: each column in the narrowest integers that hold its values, each
 * distinct text once. A cube is a name, key columns (`int`, `string`) and measures (`long`); nothing here knows one.
 */
import { MalformedRows, readBlockCount, readLong, readString } from './avro-reader.ts';
import { AvroWriter } from './avro-writer.ts';
import type { Dictionary } from './dictionary.ts';
import { nullInt } from './row-plan.ts';

/** What a column holds: integers of the key, texts of the key as dictionary numbers, or an integer measure. */
export type CubeColumnKind = 'int' | 'string' | 'long';
const kinds: readonly CubeColumnKind[] = ['int', 'string', 'long'];

/** A column of a cube without its values. */
export interface CubeColumn {
  readonly name: string;
  readonly kind: CubeColumnKind;
}

/** Values of a column, one per row. `int` and `string` are Int32Array, where `nullInt` is null; `long` is Float64Array. */
interface CubeValues extends CubeColumn {
  readonly values: Int32Array | Float64Array;
}

export interface CubeRows {
  readonly cube: string;
  readonly columns: readonly CubeValues[];
  /** Number of rows. */
  readonly length: number;
}

/** Names of cubes and columns become names of relations and columns of SQL. */
const namePattern = /^[A-Za-z_]\w{0,62}$/;
/** The sink's own column beside those of a cube. */
const reservedName = 'shard';

/** Columns of a cube on their way to the wire. */
interface PackedColumn extends CubeValues {
  readonly width: number;
}

/** Rows [first, end) of a cube. */
interface Piece {
  readonly rows: CubeRows;
  readonly columns: readonly PackedColumn[];
  readonly first: number;
  readonly end: number;
}

/**
 * The Avro arrays `cubes` of one delta: one array per message.
 * @param dictionary of the string columns
 * @param bytesMax of an array; a single row that is larger gets an array of its own
 * @returns at least one array
 */
export function encodeCubes(
  cubes: readonly CubeRows[],
  dictionary: Dictionary,
  bytesMax: number,
): readonly Buffer[] {
  const arrays: Buffer[] = [];
  const writer = new AvroWriter();
  const close = () => {
    writer.byte(0);
    arrays.push(writer.take());
    writer.length = 0;
  };
  for (const rows of cubes) {
    const columns = rows.columns.map((column) => packed(column, rows.length, dictionary));
    for (let first = 0; first < rows.length; ) {
      const room = bytesMax - writer.length;
      const fitting = fittingRows({ rows, columns, first, end: rows.length }, dictionary, room);
      if (fitting === 0 && writer.length > 0) {
        close();
        continue;
      }
      const end = first + Math.max(fitting, 1);
      writePiece(writer, { rows, columns, first, end }, dictionary);
      first = end;
    }
  }
  if (writer.length > 0 || arrays.length === 0) close();
  return arrays;
}

function packed(column: CubeValues, length: number, dictionary: Dictionary): PackedColumn {
  const { kind } = column;
  const values = column.values.subarray(0, length);
  if (kind === 'string') return { ...column, values, width: widthOf(-1, dictionary.size) };
  let least = 0;
  let most = 0;
  for (let row = 0; row < length; row++) {
    const value = values[row] as number;
    if (value > most) most = value;
    else if (value < least && value !== nullInt) least = value;
    else if (value === nullInt && kind === 'long') least = nullInt;
  }
  const width = widthOf(least, most);
  return { ...column, values, width: kind === 'int' ? Math.min(width, 4) : width };
}

/** The least integer of a width is left out: it is null. */
function widthOf(least: number, most: number): 1 | 2 | 4 | 8 {
  if (least > -0x80 && most < 0x80) return 1;
  if (least > -0x8000 && most < 0x8000) return 2;
  return least > -0x80000000 && most < 0x80000000 ? 4 : 8;
}

/** Bytes of a number of Avro at most, where a length or a count is meant. */
const countBytesMax = 5;

/** How many rows of a piece fit into `room` bytes. */
function fittingRows({ rows, columns, first, end }: Piece, dictionary: Dictionary, room: number): number {
  // Two block counts and the end of the columns, then of each column the name, its length, kind, width, two counts and a 0.
  let left = room - rows.cube.length - 5 * countBytesMax;
  let rowBytes = 0;
  for (const { name, width } of columns) {
    left -= name.length + 5 * countBytesMax;
    rowBytes += width;
  }
  if (left < rowBytes) return 0;
  const texts = columns.filter(({ kind }) => kind === 'string');
  const most = Math.min(end - first, Math.floor(left / rowBytes));
  if (texts.length === 0) return most;
  const seen = texts.map(() => new Set<number>());
  for (let row = first; row < first + most; row++) {
    left -= rowBytes;
    for (let t = 0; t < texts.length; t++) {
      const word = texts[t]?.values[row] as number;
      if (word === nullInt || seen[t]?.has(word)) continue;
      seen[t]?.add(word);
      left -= dictionary.bytesOf(word).length + countBytesMax;
    }
    if (left < 0) return row - first;
  }
  return most;
}

function writePiece(writer: AvroWriter, { rows, columns, first, end }: Piece, dictionary: Dictionary): void {
  writer.long(1);
  writer.string(rows.cube);
  writer.long(end - first);
  writer.long(columns.length);
  for (const { name, kind, width, values } of columns) {
    writer.string(name);
    writer.long(kinds.indexOf(kind));
    let numbers = values.subarray(first, end);
    if (kind === 'string') numbers = writeWords(writer, numbers, dictionary);
    writer.byte(0);
    writer.long(width);
    const bytes = narrowed(numbers, kind, width);
    writer.long(bytes.length);
    writer.raw(bytes);
  }
  writer.byte(0);
}

/** Writes the distinct words without the end of their array. @returns the index of each row's word, -1 for null */
function writeWords(
  writer: AvroWriter,
  numbers: Int32Array | Float64Array,
  dictionary: Dictionary,
): Int32Array {
  const places = new Int32Array(dictionary.size).fill(-1);
  const words: number[] = [];
  const indices = new Int32Array(numbers.length);
  for (let row = 0; row < numbers.length; row++) {
    const word = numbers[row] as number;
    if (word === nullInt) {
      indices[row] = -1;
      continue;
    }
    if ((places[word] as number) < 0) places[word] = words.push(word) - 1;
    indices[row] = places[word] as number;
  }
  if (words.length > 0) writer.long(words.length);
  for (const word of words) {
    const bytes = dictionary.bytesOf(word);
    writer.long(bytes.length);
    writer.raw(bytes);
  }
  return indices;
}

function narrowed(values: Int32Array | Float64Array, kind: CubeColumnKind, width: number): Uint8Array {
  const integers = { 1: Int8Array, 2: Int16Array, 4: Int32Array }[width];
  if (integers === undefined) {
    const doubles = Float64Array.from(values);
    return new Uint8Array(doubles.buffer);
  }
  const narrow = new integers(values);
  if (kind === 'int' && width < 4) {
    const least = -(2 ** (8 * width - 1));
    for (let at = values.indexOf(nullInt); at >= 0; at = values.indexOf(nullInt, at + 1)) narrow[at] = least;
  }
  return new Uint8Array(narrow.buffer);
}

/**
 * Decodes one array `cubes`.
 * @param dictionary receives the texts
 * @returns the rows of each cube, and the position after the array
 * @throws MalformedRows for bytes that are not cubes, also if only a name or a number is impossible
 */
export function decodeCubes(
  from: Uint8Array,
  start: number,
  dictionary: Dictionary,
): { cubes: CubeRows[]; at: number } {
  let at = start;
  const long = (): number => {
    const [number, next] = readLong(from, at);
    at = next;
    return number;
  };
  const name = (): string => {
    const [text, next] = readString(from, at);
    at = next;
    if (!namePattern.test(text) || text.toLowerCase() === reservedName)
      throw malformed(`name ${JSON.stringify(text)}`);
    return text;
  };
  /** A list of Avro, whose blocks may carry their size. */
  const list = <Item>(item: () => Item): Item[] => {
    const items: Item[] = [];
    for (;;) {
      const [count, next] = readBlockCount(from, at);
      at = next;
      if (count === 0) return items;
      for (let i = 0; i < count; i++) items.push(item());
    }
  };
  const bytes = (): Uint8Array => {
    const size = long();
    if (size < 0 || at + size > from.length) throw malformed('bytes past the end');
    at += size;
    return from.subarray(at - size, at);
  };
  const word = (): number => {
    const text = bytes();
    const number = dictionary.numberOf(text, 0, text.length);
    if (number < 0) throw new MalformedRows('invalid_value', 'a text is not UTF-8');
    return number;
  };
  const cubes = list((): CubeRows => {
    const cube = name();
    const length = long();
    const columns = list((): CubeValues => {
      const column = { name: name(), kind: kinds[long()] };
      const { kind } = column;
      if (kind === undefined) throw malformed('unknown kind of column');
      const words = list(word);
      if (words.length > 0 && kind !== 'string') throw malformed('words of a number');
      const width = long();
      const values = widened(bytes(), kind, width);
      if (values.length !== length) throw malformed(`${values.length} values in ${length} rows`);
      if (kind === 'string') numberWords(values as Int32Array, words);
      return { name: column.name, kind, values };
    });
    const names = new Set(columns.map((column) => column.name.toLowerCase()));
    if (columns.length === 0 || names.size < columns.length) throw malformed(`columns of ${cube}`);
    return { cube, columns, length };
  });
  return { cubes, at };
}

const malformed = (what: string) => new MalformedRows('undecodable', what);

function widened(bytes: Uint8Array, kind: CubeColumnKind, width: number): Int32Array | Float64Array {
  const integers = { 1: Int8Array, 2: Int16Array, 4: Int32Array }[width];
  if (bytes.length % width !== 0 || (integers === undefined && (width !== 8 || kind !== 'long'))) {
    throw malformed(`${bytes.length} bytes at ${width} bytes a value`);
  }
  // A copy, because the bytes of a message are not aligned.
  const { buffer } = Uint8Array.from(bytes);
  if (integers === undefined) {
    const doubles = new Float64Array(buffer);
    if (!doubles.every(Number.isSafeInteger))
      throw new MalformedRows('invalid_value', 'a measure is not an integer');
    return doubles;
  }
  const narrow = new integers(buffer);
  if (kind === 'long') return new Float64Array(narrow);
  const wide = narrow instanceof Int32Array ? narrow : new Int32Array(narrow);
  if (kind === 'int' && width < 4) {
    const least = -(2 ** (8 * width - 1));
    for (let row = wide.indexOf(least); row >= 0; row = wide.indexOf(least, row + 1)) wide[row] = nullInt;
  }
  return wide;
}

/** Replaces the index of each word by its dictionary number. */
function numberWords(indices: Int32Array, words: readonly number[]): void {
  for (let row = 0; row < indices.length; row++) {
    const index = indices[row] as number;
    if (index < -1 || index >= words.length) throw malformed(`word ${index} of ${words.length}`);
    indices[row] = index < 0 ? nullInt : (words[index] as number);
  }
}
