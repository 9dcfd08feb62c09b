// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the samples are code
/**
 * The prose check against sentences that use its phrases, against code that only looks like them, and against the good
 * half of each pair. Every phrase of the list is in at least one of the sentences.
 */
import { describe, expect, test } from 'vitest';
import { phrases } from './phrases.ts';
import { findPhrases } from './prose.ts';
import { textsOf } from './texts.ts';

const bad = [
  'A cluster that wants more is told of by the environment, in the words of Kafka’s own clients',
  'one of them, and what it would be today',
  'whose loss was accepted, a store and its deltas name for ever',
  'look into the snapshots, go back in time, keep, throw away',
  'how far consumer groups are behind, by topic and partition, and how they do',
  'A consumer group is not well',
  'offset 5 was to come, 7 came',
  'stores and deltas of before are dead',
  'while the process works or may come to work',
  'nobody is there',
  'somebody is there and stands still',
  'This is not my name.',
  'Too many are looking.',
  'What the sink tells Prometheus.',
  'It is told per transaction, delta and snapshot.',
  'Alive but stuck is not possible',
  'The gaps, or what of them lies, before a position.',
  'How a broker is spoken to; absent is plain text without a name.',
  'See to its permissions',
  'A file that was mended is replayed as any file.',
  'It lives where it has come to.',
  'until the shard has come to the end',
  'the store is where the sink’s shard stands',
  'beginning anew, so long as it shall last',
  'thereby, and hence for so long',
  'rows that come again, and go on in earnest',
  'whoever reads it, and who has a backlog',
  'what is left, what there is, and what becomes of it',
  'the end that was seen',
];

const good = [
  'Configure security through environment variables, named after Kafka’s client settings.',
  'When `--accept-loss` skips lost offsets, the store and all its later deltas record the gap.',
  'show lag and health of consumer groups per partition; see topics and their stores, as well as the tables',
  'no member is running; a member is assigned but makes no progress',
  'Anyone who opens it reads the newest snapshot. People who have tables use a stand-in of the fore-thence kind.',
  'Shown after two commits per partition; accurate while the rate is steady. Hence-like words: hencefort, amend, recommend.',
];

describe('in a document', () => {
  test.each(bad)('“%s” is found', (sentence) => {
    expect(findPhrases('README.md', `Fine.\n${sentence}\n`)).toContainEqual({
      line: 2,
      phrase: expect.any(String),
      write: expect.any(String),
    });
  });

  test.each(good)('“%s” passes', (sentence) => {
    expect(findPhrases('README.md', sentence)).toEqual([]);
  });

  test('every phrase of the list is found', () => {
    const found = new Set(bad.flatMap((sentence) => findPhrases('a.md', sentence).map(({ write }) => write)));
    expect(phrases.map(({ write }) => write).filter((write) => !found.has(write))).toEqual([]);
  });
});

describe('in code', () => {
  const code = [
    'const told = nobody.whoever(anew);',
    "const kinds = ['anew', \"told\", `nobody`, `${space}.nobody`, '--hence', 'a/mend/b'];",
    'const regExp = /is told, nobody/;',
    'if (a / told / nobody) mend(`${told ? nobody : somebody} and ${{ anew: "hence" }.anew}`);',
    'type Told = { readonly anew: Hence };',
  ].join('\n');

  test('names, keywords, regular expressions and what a template computes are no text', () => {
    expect(findPhrases('a/b.ts', code)).toEqual([]);
  });

  test.each([
    ['a line comment', '// The sink is told.'],
    ['a comment at the end of a line', 'const told = 1; // nobody reads it'],
    ['a comment of several lines', '/**\n * A member is\n * told once.\n */'],
    ['line comments that follow each other', '  // begun for\n  // ever'],
    ['a string', "throw new Error('Nobody is there', told);"],
    ['a string with quotes in it', `const a = "it's told"; const told = 'x';`],
    ['a template', 'const a = `${told} is told`;'],
    ['a template in a template', 'const a = `${a.map((b) => `${b} is told`)} c`;'],
    ['what follows a regular expression', "const a = /'/; // told"],
    ['what follows a quotient', "const a = b / c; const d = 'is told'; // /"],
  ])('%s is a text', (_, source) => {
    expect(findPhrases('a/b.ts', source)).toHaveLength(1);
  });

  test('in Python comments and strings are texts, names are none', () => {
    const python = 'told = nobody  # is told\n"""Nobody\nreads."""\nanew = "anew"\n';
    expect(findPhrases('a.py', python).map(({ line, phrase }) => `${line} ${phrase}`)).toEqual([
      '1 told',
      '2 Nobody',
    ]);
  });

  test('every character keeps its place', () => {
    for (const source of [code, "const a = `x ${'y z'} ${1}`; /* b\n * c */ /d/.e;"]) {
      expect(textsOf('a.ts', source)).toHaveLength(source.length);
    }
  });
});
