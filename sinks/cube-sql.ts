/** SQL of the tables that hold the cubes. */
import type { CubeWire } from '../topics/delta-wire.ts';

type FieldType = CubeWire['fields'][number]['type'];

export const cubeTable = ({ name }: CubeWire) => `cube_${name}`;
export const isText = (type: FieldType) => (Array.isArray(type) ? type[1] : type) === 'string';
const isMeasure = (type: FieldType) => type === 'long';

/** Column definitions. Measures are integers below 2^53 in DOUBLE columns: their sums are exact in any order. */
export const columnsOf = ({ fields }: CubeWire) =>
  fields.map(({ name, type }) => `${name} ${isMeasure(type) ? 'DOUBLE' : 'INTEGER'}`).join(', ');

/** SELECT of the rows of a cube, summed per shard, without those that sum to 0. */
export function selectSums(wire: CubeWire, type: 'BIGINT' | 'DOUBLE'): string {
  const names = (ofMeasures: boolean) =>
    wire.fields.filter((field) => isMeasure(field.type) === ofMeasures).map(({ name }) => name);
  const key = ['shard', ...names(false)].join(', ');
  const measures = names(true);
  return `
    SELECT ${key}, ${measures.map((name) => `sum(${name})::${type} AS ${name}`).join(', ')}
    FROM sink.${cubeTable(wire)} GROUP BY ${key}
    HAVING ${measures.map((name) => `sum(${name}) <> 0`).join(' OR ')}`;
}
