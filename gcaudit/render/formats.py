"""The formats that reports, rankings and verdicts can have."""

FORMATS = ("table", "json", "markdown")
RANKING_FORMATS = (*FORMATS, "csv", "parquet")
GATE_FORMATS = ("table", "json", "junit", "markdown")
LIST_FORMATS = ("table", "json")
