/**
 * Loads the product with one source text changed, a mutant: `?mutant=N` behind the URL of a simulator loads it and the modules
 * between it and the change again, all others once.
 */
import { readFileSync } from 'node:fs';
import { registerHooks, stripTypeScriptTypes } from 'node:module';
import { fileURLToPath } from 'node:url';

export interface Change {
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

const root = new URL('../../', import.meta.url).href;
const mutantIn = (url = '') => /[?&]mutant=(\d+)/.exec(url)?.[1];

/**
 * @param changes by the number of the mutant; undefined for one that changes no text
 * @param dependents modules between the simulator and what is changed
 */
export function installMutants(
  changes: readonly (Change | undefined)[],
  dependents: ReadonlySet<string>,
): void {
  registerHooks({
    resolve(specifier, context, next) {
      const resolved = next(specifier, context);
      const mutant = mutantIn(context.parentURL);
      if (mutant === undefined || !dependents.has(resolved.url.replace(root, ''))) return resolved;
      return { ...resolved, url: `${resolved.url}?mutant=${mutant}` };
    },
    load(url, context, next) {
      const mutant = mutantIn(url);
      if (mutant === undefined) return next(url, context);
      const text = readFileSync(fileURLToPath(url), 'utf8');
      const change = changes[Number(mutant)];
      const source =
        change !== undefined && url.startsWith(root + change.file) ? changed(text, change) : text;
      return { format: 'module', source: stripTypeScriptTypes(source), shortCircuit: true };
    },
  });
}

/** @throws RangeError when the text to replace is not there exactly once: the product has moved on */
function changed(text: string, { file, from, to }: Change): string {
  if (text.split(from).length !== 2) throw new RangeError(`${file} does not have exactly one: ${from}`);
  return text.replace(from, () => to);
}
