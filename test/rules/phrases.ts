/**
 * The phrases that no text of the project uses, each with what to write instead. A phrase is a regular expression over
 * lower-case words; a space in it is any white space, also a line break. Keep it precise: plain English must pass.
 */
interface Phrase {
  readonly pattern: string;
  readonly write: string;
}

/** Nouns that may be followed by "who": all else is a component. */
const people =
  'anyone|people|persons?|users?|readers?|operators?|authors?|newcomers?|contributors?|attackers?|maintainers?|viewers?|experts?|creators?|directors?|actors?|man|woman';

export const phrases: readonly Phrase[] = [
  // Actors without a name.
  {
    pattern: 'told',
    write: 'the actor and its verb: "reads", "reports", "receives"; "by default"; "distinguished"',
  },
  { pattern: 'tells prometheus', write: '"exports", "metrics"' },
  { pattern: 'nobody', write: 'the component: "no member", "no process", "no client"' },
  { pattern: 'somebody', write: 'the component: "a member", "another process"' },
  { pattern: 'whoever', write: 'the component, or "anyone who"' },
  {
    pattern: `(?<!\\b(?:${people}) )who (?:has|have|had|is|are|was|holds|finds|asks|looks|comes|stands|moved|reads|gets|only|takes|went|works)`,
    write: 'the component: "a member that …", "which member …"',
  },
  { pattern: '(?:is|are) spoken to', write: '"connection settings", "authentication"' },

  // Archaic and literary words.
  { pattern: 'anew', write: '"again", "from the start"' },
  { pattern: 'for ever', write: '"permanently"' },
  { pattern: 'so long as', write: '"while"' },
  { pattern: 'for so long', write: '"for this long"' },
  { pattern: 'com(?:es?|ing) again', write: '"repeat"' },
  { pattern: 'in earnest', write: 'nothing, or what starts: "start to publish"' },
  { pattern: 'of before', write: '"earlier"' },
  {
    pattern:
      'there(?:by|of|in|upon)|where(?:by|in|upon)|(?:t|w)?hence|henceforth|hitherto|lest|ere|unto|upon',
    write: '"so", "by this", "on"',
  },
  { pattern: 'shall', write: '"must" or "will"' },
  { pattern: '(?:sees?|seeing|seen) to', write: '"check"' },
  { pattern: 'mend(?:s|ed|ing)?', write: '"fix", "correct", "repair"' },

  // Riddles for Kafka's own terms.
  { pattern: '(?:stand(?:s|ing)?|stood) still', write: '"makes no progress"' },
  { pattern: "where (?:[\\w'’]+ ){1,4}(?:stands?|stood)", write: '"position", "offset"' },
  { pattern: "where (?:[\\w'’]+ ){1,4}(?:has|have|had) come", write: '"position", "committed offset"' },
  { pattern: '(?:has|have|had) come to', write: '"reached"' },
  { pattern: 'how far', write: '"lag", "position", "progress"' },
  { pattern: 'what (?:is|was) left', write: '"lag", "the rest", "remaining"' },
  { pattern: 'what there is', write: 'what it is: "the snapshots", "the topics"' },
  {
    pattern: 'what (?:of (?:them|it)|lies|lay)',
    write: 'what it is: "the part before …", "the messages on …"',
  },
  { pattern: 'what (?:becomes|became|has become) of', write: '"what happens to"' },
  { pattern: '(?:was|were) to come', write: '"expected"' },
  { pattern: 'end that was seen', write: '"last observed end offset"' },
  { pattern: '(?:is|are) (?:not )?well(?! (?:known|formed|below|above|under|within))', write: '"healthy"' },
  { pattern: 'alive but stuck', write: '"makes no progress"' },
  { pattern: 'come to work', write: '"is starting"' },

  // Sentences that were puzzles.
  { pattern: 'look(?:s|ed|ing)? into', write: '"inspect", "show"' },
  { pattern: 'in the words of', write: '"named after"' },
  { pattern: 'what it would be today', write: '"whether it would be accepted now"' },
  { pattern: 'keep, throw away', write: '"pin and prune"' },
  { pattern: 'this is not my name', write: '"Unknown Host header."' },
  { pattern: 'too many are looking', write: '"Too many viewers."' },
];
