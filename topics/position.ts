/**
 * Positions: the next offset per source topic of one shard. Exclusive, so the empty position is the beginning and
 * two ranges that follow one another share an end.
 */

/** First offset not yet applied. kafkajs' strings become this at the edge; exact up to 2^53. */
export type NextOffset = number & { readonly unit?: 'next offset' };

/** By topic; a topic that is missing stands at 0. */
export type Position = Readonly<Record<string, NextOffset>>;

export function nextIn(position: Position, topic: string): NextOffset {
  return position[topic] ?? 0;
}

/** Whether `a` is at or before `b` in every topic. */
export function notAfter(a: Position, b: Position): boolean {
  return Object.keys(a).every((topic) => nextIn(a, topic) <= nextIn(b, topic));
}

export function samePosition(a: Position, b: Position): boolean {
  return notAfter(a, b) && notAfter(b, a);
}

/** For people: `topic 12, topic 40`. */
export function positionText(position: Position): string {
  const entries = Object.entries(position);
  return entries.length === 0
    ? 'the beginning'
    : entries.map(([topic, next]) => `${topic} ${next}`).join(', ');
}
