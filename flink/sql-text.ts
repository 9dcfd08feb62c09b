/** Pieces of Flink SQL. */
import { sqlText } from '../database/sql.ts';

export const identifier = (name: string) => `\`${name}\``;
export const list = (names: readonly string[]) => names.map(identifier).join(', ');

export const view = (name: string, query: string) =>
  `CREATE TEMPORARY VIEW ${identifier(name)} AS\n${query.trim()}`;

/** The WITH clause of a table. */
export const withOptions = (values: Readonly<Record<string, string>>) =>
  `WITH (\n${Object.entries(values)
    .map(([key, value]) => `  ${sqlText(key)} = ${sqlText(value)}`)
    .join(',\n')}\n)`;
