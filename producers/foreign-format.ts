/** Recognises by its first bytes a file that is not text of a dataset. */

interface ForeignFormat {
  readonly what: string;
  readonly hint: string;
}

/** First bytes, in hexadecimal, of formats that files with a dataset's name turn out to have. */
const foreignFormats: readonly (readonly [start: string, format: ForeignFormat])[] = [
  ['504b0304', { what: 'a ZIP archive', hint: 'Unpack it, and name the files inside.' }],
  ['1f8b', { what: 'packed with gzip twice', hint: 'Unpack it once with `gunzip`.' }],
  ['28b52ffd', { what: 'packed with zstd', hint: 'Unpack it with `unzstd`.' }],
  ['425a68', { what: 'packed with bzip2', hint: 'Unpack it with `bunzip2`.' }],
  ['fd377a585a', { what: 'packed with xz', hint: 'Unpack it with `unxz`.' }],
  ['50415231', { what: 'a Parquet file', hint: 'Write its data as tab-separated text.' }],
];

/** The format of a file that is not text in UTF-8; undefined otherwise. @param start its first bytes, unpacked */
export function foreignFormat(start: Buffer): ForeignFormat | undefined {
  const hex = start.subarray(0, 8).toString('hex');
  const found = foreignFormats.find(([prefix]) => hex.startsWith(prefix));
  if (found !== undefined) return found[1];
  if (start.toString('latin1', 257, 262) === 'ustar') {
    return { what: 'a tar archive', hint: 'Unpack it, and name the files inside.' };
  }
  const head = start.subarray(0, 64);
  const hasZero = head.includes(0);
  const isEverySecond = [0, 1].some((odd) => head.every((byte, at) => (byte === 0) === (at % 2 === odd)));
  if (/^(?:fffe|feff)/.test(hex) || (hasZero && isEverySecond)) {
    return {
      what: 'not UTF-8 text, but probably UTF-16',
      hint: 'Convert it with `iconv -f UTF-16 -t UTF-8`.',
    };
  }
  if (hasZero) {
    return { what: 'not text', hint: 'Fetch the file again. Unpack archives, and name the files inside.' };
  }
  const text = start
    .subarray(0, 256)
    .toString()
    .replace(/^\uFEFF/, '')
    .trimStart();
  if (/^<[!?a-z]/i.test(text)) {
    return { what: 'an HTML or XML page', hint: 'Fetch the file again: a server answered with a page.' };
  }
  if (text.startsWith('version https://git-lfs')) {
    return { what: 'a Git LFS pointer', hint: 'Fetch the file itself with `git lfs pull`.' };
  }
  return undefined;
}
