/** The WebAssembly in the tree against its sources: `npm run wasm` would write the same bytes. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import asc from 'assemblyscript/asc';
import { expect, test } from 'vitest';

const root = join(import.meta.dirname, '../..');
const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const options = (/ (-O.*) -o /.exec(scripts.wasm) as unknown as string[])[1] as string;

test.each(['encode-rows', 'hash-rows'])(
  '%s.wasm is what its source compiles to',
  async (name) => {
    const source = `producers/kernels/${name}.ts`;
    let compiled: Uint8Array | undefined;
    const { error } = await asc.main([source, ...options.split(' '), '--baseDir', root, '-o', 'out.wasm'], {
      writeFile: (_, contents) => {
        compiled = contents as Uint8Array;
      },
    });
    expect(error).toBeNull();
    expect(Buffer.from(compiled ?? [])).toEqual(readFileSync(join(root, `producers/wasm/${name}.wasm`)));
  },
  60_000,
);
