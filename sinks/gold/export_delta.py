"""Writes the tables of a gold snapshot as Delta tables, with delta-rs.

Reads a job from standard input: {"folder": where the Delta tables are, "snapshot": id, "tables": [{"name", "file",
"contentHash"}]}. Each table gets one commit that replaces its rows and names snapshot and content hash; a table whose last
commit has this content already gets none. Writes one line of JSON: {"deltalake": version, "tables": {name: {"version",
"rows", "written"}}}.
"""

import json
import os
import sys

import deltalake
import pyarrow
import pyarrow.parquet

BATCH_ROWS = 100_000
HASH = "reelflow.contentHash"


def notes_of(file: pyarrow.parquet.ParquetFile) -> dict:
    """Gold's notes about the table; earlier snapshots have none."""
    return json.loads((file.schema_arrow.metadata or {}).get(b"reelflow", b'{"about": "", "columns": {}}'))


def schema_of(file: pyarrow.parquet.ParquetFile) -> pyarrow.Schema:
    """The file's columns; what gold says about each goes along as its comment."""
    notes = notes_of(file)["columns"]

    def described(field: pyarrow.Field) -> pyarrow.Field:
        note = notes.get(field.name)
        if note is None:
            return field
        comment = note["about"] + (f" Unit: {note['unit']}." if "unit" in note else "")
        return field.with_metadata({"comment": comment})

    return pyarrow.schema([described(field) for field in file.schema_arrow])


def export(job: dict, table: dict) -> dict:
    path = os.path.join(job["folder"], table["name"])
    file = pyarrow.parquet.ParquetFile(table["file"])
    if deltalake.DeltaTable.is_deltatable(path):
        delta = deltalake.DeltaTable(path)
        if delta.history(1)[0].get(HASH) == table["contentHash"]:
            return {"version": delta.version(), "rows": file.metadata.num_rows, "written": False}
    schema = schema_of(file)
    batches = (batch.cast(schema) for batch in file.iter_batches(BATCH_ROWS))
    deltalake.write_deltalake(
        path,
        pyarrow.RecordBatchReader.from_batches(schema, batches),
        mode="overwrite",
        schema_mode="overwrite",
        name=table["name"],
        description=notes_of(file)["about"],
        commit_properties=deltalake.CommitProperties(
            custom_metadata={"reelflow.snapshot": job["snapshot"], HASH: table["contentHash"]}
        ),
    )
    delta = deltalake.DeltaTable(path)
    return {"version": delta.version(), "rows": file.metadata.num_rows, "written": True}


def main() -> None:
    job = json.load(sys.stdin)
    tables = {table["name"]: export(job, table) for table in job["tables"]}
    print(json.dumps({"deltalake": deltalake.__version__, "tables": tables}))


main()
