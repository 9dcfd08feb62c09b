/** Types of avsc, which take long to load and to build: only what our own decoders do not read needs one. */
import { createRequire } from 'node:module';
import type { Schema, Type } from 'avsc';

const require = createRequire(import.meta.url);

/** Loads avsc at the first call: most commands need none of it. */
export function avroTypeOf(schema: Schema): Type {
  const { Type } = require('avsc') as typeof import('avsc');
  return Type.forSchema(schema);
}
