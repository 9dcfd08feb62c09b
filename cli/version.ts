/** The version of the package. */
import { readFileSync } from 'node:fs';
import { packageFile } from '../runtime/package.ts';

export function packageVersion(): string {
  return (JSON.parse(readFileSync(packageFile('package.json'), 'utf8')) as { version: string }).version;
}
