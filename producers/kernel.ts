/** Loads a WebAssembly module of `producers/wasm`. Their sources are in `producers/kernels`, in AssemblyScript. */
import { readFileSync } from 'node:fs';

const compiled = new Map<string, WebAssembly.Module>();

/** A new instance, with a memory of its own. @returns its functions, its memory and its constants */
export function instanceOf<Exports>(name: 'encode-rows' | 'hash-rows'): Exports {
  let module = compiled.get(name);
  if (module === undefined) {
    module = new WebAssembly.Module(readFileSync(new URL(`./wasm/${name}.wasm`, import.meta.url)));
    compiled.set(name, module);
  }
  return new WebAssembly.Instance(module).exports as Exports;
}
