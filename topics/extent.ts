/**
 * Checks that the lengths and counts in a value fit its bytes and its Avro schema. avsc trusts each count that it reads:
 * ten bytes that announce two thousand million records exhaust the memory. So avsc gets only values that pass this check.
 */
import type { Type, types } from 'avsc';
import { MalformedRows, readLong } from './avro-reader.ts';

/** @throws MalformedRows, if the value does not end with the bytes or announces more than they can hold */
export function checkExtent(type: Type, bytes: Uint8Array, start: number): void {
  const end = endOf(type, bytes, start);
  if (end !== bytes.length) {
    throw new MalformedRows('undecodable', `${bytes.length - end} bytes behind the end`);
  }
}

function endOf(type: Type, bytes: Uint8Array, start: number): number {
  switch (type.typeName) {
    case 'null':
      return start;
    case 'boolean':
      return start + 1;
    case 'float':
      return start + 4;
    case 'double':
      return start + 8;
    case 'int':
    case 'long':
    case 'enum':
      return endOfVarint(bytes, start);
    case 'string':
    case 'bytes': {
      const [size, at] = readLong(bytes, start);
      if (size < 0 || size > bytes.length - at)
        throw new MalformedRows('undecodable', 'a string past the end');
      return at + size;
    }
    case 'fixed':
      return start + (type as types.FixedType).size;
    case 'record':
    case 'error': {
      let at = start;
      for (const field of (type as types.RecordType).fields) at = endOf(field.type, bytes, at);
      return at;
    }
    case 'array': {
      const { itemsType } = type as types.ArrayType;
      return endOfBlocks(bytes, start, (at) => endOf(itemsType, bytes, at));
    }
    case 'map': {
      const { valuesType } = type as types.MapType;
      return endOfBlocks(bytes, start, (at) => {
        const [size, key] = readLong(bytes, at);
        if (size < 0) throw new MalformedRows('undecodable', 'a key of negative length');
        return endOf(valuesType, bytes, key + size);
      });
    }
    case 'union:unwrapped':
    case 'union:wrapped': {
      const [branch, at] = readLong(bytes, start);
      const chosen = (type as types.UnwrappedUnionType).types[branch];
      if (chosen === undefined) throw new MalformedRows('undecodable', `union branch ${branch}`);
      return endOf(chosen, bytes, at);
    }
    default:
      return endOf((type as types.LogicalType).underlyingType, bytes, start);
  }
}

function endOfVarint(bytes: Uint8Array, start: number): number {
  for (let at = start; at < start + 10; at++) {
    const byte = bytes[at];
    if (byte === undefined) throw new MalformedRows('undecodable', 'cut off');
    if (byte < 0x80) return at + 1;
  }
  throw new MalformedRows('undecodable', 'number too long');
}

function endOfBlocks(bytes: Uint8Array, start: number, endOfItem: (at: number) => number): number {
  let at = start;
  for (;;) {
    let count: number;
    [count, at] = readLong(bytes, at);
    if (count === 0) return at;
    if (count < 0) [, at] = readLong(bytes, at);
    count = Math.abs(count);
    // An item may take no bytes, but no correct writer sends a list of empty items.
    if (count > bytes.length - at) {
      throw new MalformedRows('undecodable', `${count} items in ${bytes.length} bytes`);
    }
    for (; count > 0; count--) at = endOfItem(at);
  }
}
