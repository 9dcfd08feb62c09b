"""Trains a small model on the newest title_features of a gold folder: what does a title's rating follow from?

    python3 -m venv .venv && .venv/bin/pip install -r docs/requirements.txt
    .venv/bin/python docs/train.py .reelflow/gold [--engine pandas|polars|duckdb|spark]

The table is one file and one frame. Its prepared columns hold no null and no text, so they go into a model as they
are; only the type of a title is still a word. The column `split` says which titles to learn from and which to be judged
by, and says it the same in every snapshot. Prints one line of JSON.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder


def newest(gold: Path) -> Path:
    """The table of the snapshot that CURRENT names."""
    snapshot = (gold / "CURRENT").read_text().strip()
    return gold / "snapshots" / snapshot / "title_features.parquet"


def read(path: Path, engine: str) -> pd.DataFrame:
    """The table as one frame, the same with every engine."""
    if engine == "polars":
        import polars

        return polars.read_parquet(path).to_pandas()
    if engine == "duckdb":
        import duckdb

        return duckdb.read_parquet(str(path)).df()
    if engine == "spark":
        from pyspark.sql import SparkSession

        builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
        spark = builder.config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
        try:
            return spark.read.parquet(str(path.absolute())).toPandas()
        finally:
            spark.stop()
    return pd.read_parquet(path)


def prepared(frame: pd.DataFrame) -> list[str]:
    """The columns that are ready for a model."""
    endings = ("_log10", "_standardised", "_missing")
    return [name for name in frame if name.startswith("genre_") or name.endswith(endings)]


def errors(frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean absolute error in stars, of the model and of always saying the mean, where neither has learnt from."""
    columns = prepared(frame)
    frame = frame.astype({name: float for name in columns})
    parts = {name: part for name, part in frame.groupby("split")}
    train = parts["train"]
    words = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["titleType"]), remainder="passthrough"
    )
    candidates = {"model": make_pipeline(words, Ridge()), "mean": DummyRegressor()}
    found: dict[str, dict[str, float]] = {}
    for name, candidate in candidates.items():
        candidate.fit(train[["titleType", *columns]], train["averageRating"])
        found[name] = {
            split: mean_absolute_error(
                parts[split]["averageRating"], candidate.predict(parts[split][["titleType", *columns]])
            )
            for split in ("validation", "test")
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gold", type=Path, help="the folder that holds CURRENT")
    parser.add_argument("--engine", choices=["pandas", "polars", "duckdb", "spark"], default="pandas")
    given = parser.parse_args()
    frame = read(newest(given.gold), given.engine)
    print(
        json.dumps(
            {
                "titles": frame["split"].value_counts().to_dict(),
                "features": len(prepared(frame)) + 1,
                "nulls": int(frame[prepared(frame)].isna().to_numpy().sum()),
                "meanAbsoluteError": errors(frame),
            }
        )
    )


if __name__ == "__main__":
    main()
