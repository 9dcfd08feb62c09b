/**
 * The cubes of a delta, each with its version, as the text `contributor:81f0c2a99d31 region:05b7…` in the order of their names.
 * So a reader knows of each cube by itself whether it is the one that it declares. The text of builds before this one is a
 * single fingerprint, which names no cube.
 */

/** By cube: a fingerprint of its declaration. */
export type CubeVersions = ReadonlyMap<string, string>;

/** As text: `name:version`, sorted, with spaces between. */
export function cubeSetText(versions: CubeVersions): string {
  return [...versions]
    .map(([name, version]) => `${name}:${version}`)
    .sort()
    .join(' ');
}

/** The inverse of `cubeSetText`; entries without a version are left out. */
export function versionsIn(cubeSet: string): CubeVersions {
  const named = cubeSet.split(' ').filter((entry) => entry.includes(':'));
  return new Map(named.map((entry) => entry.split(':', 2) as [string, string]));
}

/** The cubes that two sets have in the same version, in the order of their names. */
export function sameCubesIn(a: string, b: string): string[] {
  const other = versionsIn(b);
  return [...versionsIn(a)].filter(([name, version]) => other.get(name) === version).map(([name]) => name);
}
