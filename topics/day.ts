/** Days of event time: the date of a dump, in UTC. */

const dayMs = 86_400_000;
/** 9999-12-31: a date that every reader of Parquet takes. */
const dayMax = 2_932_896;

/** The day of a dump's date, in days since 1970-01-01. */
export function dayOf(asOfMs: number): number {
  return Math.min(dayMax, Math.max(0, Math.floor(asOfMs / dayMs)));
}

/** `2026-11-27` for a day since 1970-01-01. */
export function dayText(day: number): string {
  return new Date(day * dayMs).toISOString().slice(0, 10);
}
