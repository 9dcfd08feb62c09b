/**
 * Flink SQL of the source topics: a table of the chunks of each dataset, and a view of the rows that count. Batch and streaming
 * jobs share it.
 */
import type { Secret } from '../runtime/credentials.ts';
import { relationOf } from '../tables/cubes/cube.ts';
import { type Column, type ColumnType, type DatasetName, datasets } from '../topics/catalog.ts';
import { groupSize } from '../topics/id-groups.ts';
import { brokerOptions, formatOptions } from './connections.ts';
import type { FlinkJob } from './sql.ts';
import { identifier, list, view, withOptions } from './sql-text.ts';

const avroTypes: Readonly<Record<ColumnType, string>> = {
  string: 'STRING NOT NULL',
  'nullable-string': 'STRING',
  int: 'INT NOT NULL',
  'nullable-int': 'INT',
  boolean: 'BOOLEAN NOT NULL',
  'nullable-boolean': 'BOOLEAN',
  tenths: 'DOUBLE NOT NULL',
};

function columnOf(dataset: DatasetName, name: string): Column {
  const column = datasets[dataset].columns.find((candidate) => candidate.name === name);
  if (column === undefined) throw new RangeError(`${dataset} has no column ${name}`);
  return column;
}

const chunksOf = (dataset: DatasetName) => `${relationOf(dataset)}_chunks`;
const replacedGroupsOf = (dataset: DatasetName) => `${relationOf(dataset)}_replaced`;
const keyOf = (dataset: DatasetName) =>
  datasets[dataset].columns.slice(0, datasets[dataset].keyColumns).map(({ name }) => name);

/** The chunks of a topic: of each record only the columns that are read, and the position of the chunk. */
export function chunkTable(
  { names, endpoints, destination }: FlinkJob,
  dataset: DatasetName,
  columns: readonly string[],
  reveal: (secret: Secret) => string,
): string {
  const rows = (of: readonly string[]) =>
    `ARRAY<ROW<${of.map((name) => `${identifier(name)} ${avroTypes[columnOf(dataset, name).type]}`).join(', ')}> NOT NULL> NOT NULL`;
  const topic = names.source(dataset);
  // Chunks written before `replaces` existed lack it. Flink reads a missing field only if it is nullable.
  return `CREATE TEMPORARY TABLE ${identifier(chunksOf(dataset))} (
  \`records\` ${rows(columns)},
  \`deletes\` ${rows(keyOf(dataset))},
  \`replaces\` ARRAY<INT NOT NULL>,
  \`chunk_partition\` INT NOT NULL METADATA FROM 'partition' VIRTUAL,
  \`chunk_offset\` BIGINT NOT NULL METADATA FROM 'offset' VIRTUAL
) ${withOptions({
    connector: 'kafka',
    topic,
    ...brokerOptions(endpoints, reveal),
    'scan.startup.mode': 'earliest-offset',
    ...(destination.kind === 'files' && {
      'scan.bounded.mode': 'specific-offsets',
      'scan.bounded.specific-offsets': [...(destination.ends.get(topic) ?? [])]
        .map(([partition, offset]) => `partition:${partition},offset:${offset}`)
        .join(';'),
    }),
    ...(destination.kind === 'topics' && { 'properties.group.id': names.flinkGroup }),
    'properties.isolation.level': 'read_committed',
    // A message is a chunk of up to a megabyte: the default of 500 messages a poll would fill the memory.
    'properties.max.poll.records': '8',
    ...formatOptions('', endpoints, reveal),
  })}`;
}

/** SQL of a column as contributions read it: ids as numbers, ratings in tenths, integers too wide to overflow. */
function relational(dataset: DatasetName, name: string): string {
  const { type } = columnOf(dataset, name);
  const value = `\`rows\`.${identifier(name)}`;
  if (type === 'tenths') return `CAST(ROUND(${value} * 10) AS BIGINT)`;
  if (type === 'int' || type === 'nullable-int') return `CAST(${value} AS BIGINT)`;
  if (/^(tconst|titleId|parentTconst|nconst)$/.test(name))
    return `CAST(SUBSTRING(${value} FROM 3) AS BIGINT)`;
  return value;
}

/** The type that `relational` gives. */
function relationalType(dataset: DatasetName, name: string): string {
  const { type } = columnOf(dataset, name);
  const isNumber = relational(dataset, name).startsWith('CAST(');
  return isNumber ? 'BIGINT' : (avroTypes[type].split(' ')[0] as string);
}

/**
 * The groups of ids that chunks replace, each with the offset of the last replacement. Only replacements in the partition of
 * the rows count.
 */
export function replacedView(dataset: DatasetName): string {
  return view(
    replacedGroupsOf(dataset),
    `SELECT \`chunk_partition\`, CAST(\`groups\`.\`id_group\` AS BIGINT) AS \`id_group\`, MAX(\`chunk_offset\`) AS \`replaced_at\`
FROM ${identifier(chunksOf(dataset))} CROSS JOIN UNNEST(\`replaces\`) AS \`groups\` (\`id_group\`)
GROUP BY \`chunk_partition\`, CAST(\`groups\`.\`id_group\` AS BIGINT)`,
  );
}

/**
 * The rows of a dataset: of each key the last version in its partition, unless that is a delete or a later chunk replaces its
 * group of ids. The join condition compares the offsets, so a replacement retracts only the rows that it removes. (Flink cannot
 * plan NOT EXISTS here, because UNNEST is a correlation, too.)
 */
export function rowsView(dataset: DatasetName, columns: readonly string[]): string {
  const key = keyOf(dataset);
  const id = key[0] as string;
  const select = (of: 'records' | 'deletes', names: readonly string[]) => `
    SELECT \`chunk_partition\`, \`chunk_offset\`, ${of === 'deletes' ? 1 : 0} AS \`deleted\`, \`rows\`.\`place\`,
      ${columns
        .map((name) =>
          names.includes(name)
            ? `${relational(dataset, name)} AS ${identifier(name)}`
            : `CAST(NULL AS ${relationalType(dataset, name)}) AS ${identifier(name)}`,
        )
        .join(',\n      ')}
    FROM ${identifier(chunksOf(dataset))} CROSS JOIN UNNEST(${identifier(of)}) WITH ORDINALITY AS \`rows\` (${list([...names, 'place'])})`;
  return view(
    relationOf(dataset),
    `SELECT ${list(columns)}
FROM (
  SELECT \`chunk_partition\`, \`chunk_offset\`, ${identifier(id)} / ${groupSize} AS \`id_group\`, ${list(columns)}
  FROM (
    SELECT *, ROW_NUMBER() OVER (
      PARTITION BY ${list(key)} ORDER BY \`chunk_offset\` DESC, \`deleted\` DESC, \`place\` DESC
    ) AS \`newest\`
    FROM (${select('records', columns)}
      UNION ALL${select('deletes', key)}
    )
  )
  WHERE \`newest\` = 1 AND \`deleted\` = 0
) AS \`versions\`
LEFT JOIN ${identifier(replacedGroupsOf(dataset))} AS \`replaced\`
  ON \`replaced\`.\`chunk_partition\` = \`versions\`.\`chunk_partition\`
  AND \`replaced\`.\`id_group\` = \`versions\`.\`id_group\`
  AND \`replaced\`.\`replaced_at\` > \`versions\`.\`chunk_offset\`
WHERE \`replaced\`.\`replaced_at\` IS NULL`,
  );
}
