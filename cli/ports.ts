/** The ports at which the pipeline listens, in all ways of running it: deploy/ and docs/operations.md use the same. */
export const memberPorts = {
  sink: 9465,
  monitor: 9467,
  /** @param n number of the member on its machine, from 1 to 9 */
  processor: (n: number) => 9470 + n,
} as const;
