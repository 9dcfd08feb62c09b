/** The fingerprint of the rules by which the hashes of a dump index were taken. */
import { createHash } from 'node:crypto';
import type { DatasetName } from '../../topics/catalog.ts';
import { groupSize } from '../../topics/id-groups.ts';
import { schemaText } from '../../topics/registry.ts';
import type { InputFile } from '../input-files.ts';

/** Raised when rows are hashed, accepted or encoded in another way. */
const rulesVersion = 2;

/** Covers everything that decides what a row of the file becomes. Hashes of different fingerprints cannot be compared. */
export function fingerprintOf(dataset: DatasetName, file: InputFile | undefined): string {
  const rules = {
    rulesVersion,
    groupSize,
    layout: file?.layout,
    schema: JSON.parse(schemaText(`imdb.${dataset}`)),
  };
  return createHash('sha256').update(JSON.stringify(rules)).digest('hex').slice(0, 16);
}
