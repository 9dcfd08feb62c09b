/**
 * Positions: the next offset per source topic of one shard. Exclusive, so the empty position is the beginning and
 * two ranges that follow one another share an end.
 */

/** First offset not yet applied. kafkajs' strings become this at the edge; exact up to 2^53. */
export type NextOffset = number & { readonly unit?: 'next offset' };

/** By topic; a missing topic is at 0. */
export type Position = Readonly<Record<string, NextOffset>>;

/** The next offset of a topic; 0 if the position has none. */
export function nextIn(position: Position, topic: string): NextOffset {
  return position[topic] ?? 0;
}

/** Whether `a` is at or before `b` in every topic. */
export function notAfter(a: Position, b: Position): boolean {
  return Object.keys(a).every((topic) => nextIn(a, topic) <= nextIn(b, topic));
}

/** The part of a position, or of gaps, on these topics; all of it for undefined. */
export function onTopics<Value>(
  of: Readonly<Record<string, Value>>,
  topics: readonly string[] | undefined,
): Readonly<Record<string, Value>> {
  if (topics === undefined) return of;
  return Object.fromEntries(Object.entries(of).filter(([topic]) => topics.includes(topic)));
}

/** Messages before a position, by which stores are compared whether or not they began at a base. */
export function messagesBefore(position: Position): number {
  return Object.values(position).reduce((sum, next) => sum + next, 0);
}

/** Whether both name the same next offsets; a topic at offset 0 equals one that is missing. */
export function samePosition(a: Position, b: Position): boolean {
  return notAfter(a, b) && notAfter(b, a);
}

/** Offsets [from, to) that a log lost before they were applied, and that `--accept-loss` skipped. */
export type Gap = readonly [from: NextOffset, to: NextOffset];

/**
 * By topic, ascending, never adjacent; a missing topic has none. A shard holds everything before its position except its
 * gaps.
 */
export type Gaps = Readonly<Record<string, readonly Gap[]>>;

/** The gaps of a topic, followed by one more. */
export function withGap(gaps: readonly Gap[], [from, to]: Gap): Gap[] {
  const last = gaps.at(-1);
  return last?.[1] === from ? [...gaps.slice(0, -1), [last[0], to]] : [...gaps, [from, to]];
}

/** The gaps that do not lie within one of the others. */
export function gapsBeyond(gaps: readonly Gap[], others: readonly Gap[] = []): Gap[] {
  return gaps.filter(([from, to]) => !others.some((other) => other[0] <= from && to <= other[1]));
}

/** Gaps before a position, clipped to it. */
export function gapsBefore(gaps: Gaps, position: Position): Gaps {
  return Object.fromEntries(
    Object.entries(gaps).map(([topic, own]) => {
      const next = nextIn(position, topic);
      const before = own.filter(([from]) => from < next);
      return [topic, before.map(([from, to]): Gap => [from, Math.min(to, next)])];
    }),
  );
}

/** Whether both name the same gaps; a topic without gaps equals one that is missing. */
export function sameGaps(a: Gaps, b: Gaps): boolean {
  const text = (gaps: readonly Gap[] = []) => gaps.join(';');
  return Object.keys({ ...a, ...b }).every((topic) => text(a[topic]) === text(b[topic]));
}

/** First offset that the shard holds. */
export function startAfter([first]: readonly Gap[]): NextOffset {
  return first?.[0] === 0 ? first[1] : 0;
}

/** Text for messages: `topic 12, topic 40`. */
export function positionText(position: Position): string {
  const entries = Object.entries(position);
  return entries.length === 0
    ? 'the beginning'
    : entries.map(([topic, next]) => `${topic} ${next}`).join(', ');
}
