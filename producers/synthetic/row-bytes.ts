/** The fields of a synthetic row as bytes, without strings or objects. Each function returns the position after the field. */
import type { Pool } from './words.ts';

export const tab = 9;
export const newline = 10;
export const comma = 44;
export const zero = 48;

/** Text `n` of a pool. */
export function put(out: Uint8Array, at: number, pool: Pool, n: number): number {
  const { bytes, start } = pool;
  const end = start[n + 1] as number;
  for (let i = start[n] as number; i < end; i++) out[at++] = bytes[i] as number;
  return at;
}

/** A non-negative integer. */
export function putInt(out: Uint8Array, at: number, value: number): number {
  let end = at + 1;
  for (let power = 10; power <= value; power *= 10) end++;
  return putDigits(out, at, value, end - at);
}

function putDigits(out: Uint8Array, at: number, value: number, digits: number): number {
  for (let i = at + digits - 1; i >= at; i--) {
    const rest = Math.floor(value / 10);
    out[i] = zero + value - rest * 10;
    value = rest;
  }
  return at + digits;
}

/** Two letters, then seven or eight digits. */
function putId(out: Uint8Array, at: number, first: number, second: number, id: number): number {
  out[at] = first;
  out[at + 1] = second;
  return putDigits(out, at + 2, id, id < 10_000_000 ? 7 : 8);
}

export const putTitleId = (out: Uint8Array, at: number, id: number) => putId(out, at, 116, 116, id);
export const putNameId = (out: Uint8Array, at: number, id: number) => putId(out, at, 110, 109, id);

/** `\N`, which stands for null in the dumps. */
export function putNull(out: Uint8Array, at: number): number {
  out[at] = 92;
  out[at + 1] = 78;
  return at + 2;
}
