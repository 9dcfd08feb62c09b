/** The ports at which members of the pipeline listen. deploy/ and docs/operations.md use the same ports. */
export const memberPorts = {
  sink: 9465,
  monitor: 9467,
  /** @param n number of the member on its machine, from 1 to 9 */
  processor: (n: number) => 9470 + n,
} as const;
