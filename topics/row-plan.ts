/**
 * Which fields of an Avro record become columns, and how. A plan is made once from the Avro record schema; the decoder
 * skips the other fields by their length.
 *
 * Every column is numbers: an id is its digits, a boolean 0 or 1, a tenths double ten times its value, a string of few
 * values its number in a Dictionary, a list of people the place of its ids in `Columns.lists`, null is `nullInt`.
 */
import { Dictionary } from './dictionary.ts';

/** Null in an int column. No field may have it as a value. */
export const nullInt = -2147483648;

/** The Avro field types in our schemas. */
type AvroType = string | [string, string] | { type: string };

export interface AvroField {
  readonly name: string;
  readonly type: AvroType;
}

/**
 * How a wanted field becomes numbers. `text` keeps the bytes, for strings with many distinct values. `people` is a list of
 * ids, joined by commas; what is not an id in it does not count.
 */
export type ColumnForm =
  | 'tt'
  | 'nm'
  | 'int'
  | 'boolean'
  | 'long'
  | 'tenths'
  | 'dictionary'
  | 'text'
  | 'people';

interface WantedField {
  readonly name: string;
  readonly form: ColumnForm;
}

/** What the decoder does with a field. */
export const op = {
  skipVarint: 0,
  skipString: 1,
  skipDouble: 2,
  skipByte: 3,
  id: 4,
  int: 5,
  long: 6,
  tenths: 7,
  dictionary: 8,
  text: 9,
  boolean: 10,
  people: 11,
} as const;

export const nullableBit = 0x80;

export interface Step {
  readonly op: number;
  /** A union ["null", T], encoded with its branch number first. */
  readonly nullable: boolean;
  /** Index of the column, -1 for skipped fields. */
  readonly column: number;
  /** Second byte of an id's prefix (`t` or `m` after `t` or `n`), 0 for others. */
  readonly prefix: number;
  readonly dictionary: Dictionary | undefined;
  readonly name: string;
}

export interface RowPlan {
  readonly steps: readonly Step[];
  /** For the decoder's loop, one element per step: the op with `nullableBit`, and the column. */
  readonly codes: Uint8Array;
  readonly targets: Int8Array;
  readonly forms: readonly ColumnForm[];
  readonly names: readonly string[];
}

/**
 * @param fields fields of the record in schema order
 * @param wanted the fields to keep, in the order of the columns
 * @param dictionaries by field name, for fields of the form `dictionary`
 */
export function planRows(
  fields: readonly AvroField[],
  wanted: readonly WantedField[],
  dictionaries: Readonly<Record<string, Dictionary>> = {},
): RowPlan {
  const steps = fields.map((field): Step => {
    const nullable = Array.isArray(field.type);
    const base = Array.isArray(field.type)
      ? field.type[1]
      : typeof field.type === 'string'
        ? field.type
        : field.type.type;
    const column = wanted.findIndex(({ name }) => name === field.name);
    const form = wanted[column]?.form;
    return {
      op: form === undefined ? skipOf(base) : keepOf(form),
      nullable,
      column,
      prefix: form === 'nm' || form === 'people' ? 0x6d : form === 'tt' ? 0x74 : 0,
      dictionary: form === 'dictionary' ? (dictionaries[field.name] ?? new Dictionary()) : undefined,
      name: field.name,
    };
  });
  for (const { name } of wanted) {
    if (!fields.some((field) => field.name === name)) throw new RangeError(`the schema has no field ${name}`);
  }
  return {
    steps,
    codes: Uint8Array.from(steps, (step) => step.op | (step.nullable ? nullableBit : 0)),
    targets: Int8Array.from(steps, ({ column }) => column),
    forms: wanted.map(({ form }) => form),
    names: wanted.map(({ name }) => name),
  };
}

function skipOf(base: string): number {
  if (base === 'string') return op.skipString;
  if (base === 'double') return op.skipDouble;
  if (base === 'boolean') return op.skipByte;
  return op.skipVarint;
}

function keepOf(form: ColumnForm): number {
  if (form === 'tt' || form === 'nm') return op.id;
  return op[form];
}
