/**
 * Writes WebAssembly: instructions as lists of bytes, and a module of one function over an imported memory.
 * Encoding: https://webassembly.github.io/spec/core/binary/
 */

export type Code = readonly number[];

/** An unsigned number in base 128. */
function unsigned(value: number): Code {
  const bytes: number[] = [];
  for (; value > 0x7f; value >>>= 7) bytes.push((value & 0x7f) | 0x80);
  return [...bytes, value];
}

/** A signed number in base 128. */
function signed(value: bigint): Code {
  const bytes: number[] = [];
  for (; value > 63n || value < -64n; value >>= 7n) bytes.push(Number(value & 0x7fn) | 0x80);
  return [...bytes, Number(value & 0x7fn)];
}

const binary = (opcode: number) => (left: Code, right: Code) => [...left, ...right, opcode];
const load = (opcode: number) => (address: Code, offset: number) => [
  ...address,
  opcode,
  0,
  ...unsigned(offset),
];

const valueTypes = { i32: 0x7f, i64: 0x7e, f64: 0x7c } as const;

type ValueType = keyof typeof valueTypes;

export const i32 = {
  const: (value: number): Code => [0x41, ...signed(BigInt(value))],
  load: load(0x28),
  load8: load(0x2d),
  load16: load(0x2f),
  store: (address: Code, offset: number, value: Code): Code => [
    ...address,
    ...value,
    0x36,
    0,
    ...unsigned(offset),
  ],
  isZero: (value: Code): Code => [...value, 0x45],
  equal: binary(0x46),
  differs: binary(0x47),
  less: binary(0x49),
  greater: binary(0x4b),
  notLess: binary(0x4f),
  add: binary(0x6a),
  subtract: binary(0x6b),
  multiply: binary(0x6c),
  and: binary(0x71),
  or: binary(0x72),
  xor: binary(0x73),
  shiftLeft: binary(0x74),
  shiftRight: binary(0x76),
  ofI64: (value: Code): Code => [...value, 0xa7],
  ofF64: (value: Code): Code => [...value, 0xfc, 2],
};

export const i64 = {
  const: (value: bigint): Code => [0x42, ...signed(BigInt.asIntN(64, value))],
  load: load(0x29),
  differs: binary(0x52),
  add: binary(0x7c),
  multiply: binary(0x7e),
  and: binary(0x83),
  or: binary(0x84),
  shiftLeft: binary(0x86),
  shiftRight: binary(0x88),
};

export const f64 = {
  const: (value: number): Code => [0x44, ...new Uint8Array(Float64Array.of(value).buffer)],
  load: load(0x2b),
  multiply: binary(0xa2),
  subtract: binary(0xa1),
  absolute: (value: Code): Code => [...value, 0x99],
  nearest: (value: Code): Code => [...value, 0x9e],
  less: binary(0x63),
  notGreater: binary(0x65),
};

export const get = (local: number): Code => [0x20, local];
export const set = (local: number, value: Code): Code => [...value, 0x21, local];
export const block = (...body: Code[]): Code => [0x02, 0x40, ...body.flat(), 0x0b];
export const loop = (...body: Code[]): Code => [0x03, 0x40, ...body.flat(), 0x0b];
export const when = (condition: Code, then: Code, otherwise: Code = []): Code => [
  ...[...condition, 0x04, 0x40, ...then],
  ...(otherwise.length === 0 ? [] : [0x05, ...otherwise]),
  0x0b,
];
export const copyMemory = (to: Code, from: Code, bytes: Code): Code => [
  ...to,
  ...from,
  ...bytes,
  ...[0xfc, 0x0a, 0, 0],
];
/** Leaves the enclosing block of a depth, or repeats the loop there. */
export const branchIf = (depth: number, condition: Code): Code => [...condition, 0x0d, ...unsigned(depth)];
export const branch = (depth: number): Code => [0x0c, ...unsigned(depth)];

const sized = (bytes: Code): Code => [...unsigned(bytes.length), ...bytes];
const section = (id: number, body: Code): Code => [id, ...sized(body)];
const text = (name: string): Code => sized([...Buffer.from(name)]);

/**
 * A module that imports the memory `env.memory` and exports the function `run`, which takes i32 parameters and returns an i32.
 * @param locals types of the locals behind the parameters
 */
export function moduleOf(
  parameters: number,
  locals: readonly ValueType[],
  body: Code,
): Uint8Array<ArrayBuffer> {
  const declared = [...unsigned(locals.length), ...locals.flatMap((type) => [1, valueTypes[type]])];
  const parameterTypes = new Array<number>(parameters).fill(valueTypes.i32);
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, ...sized(parameterTypes), 1, valueTypes.i32]),
    ...section(2, [1, ...text('env'), ...text('memory'), 2, 0, 1]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...text('run'), 0, 0]),
    ...section(10, [1, ...sized([...declared, ...body, 0x0b])]),
  ]);
}
