"""Make the example of `gcaudit schema`: the report of `gcaudit demo`, with one metric a data set.

python scripts/example_report.py
"""

import json
from pathlib import Path

import gcaudit

KEPT = {"source": ("gc", "cdnv"), "target": ("probe_accuracy",)}
PLACE = Path(gcaudit.__file__).parent / "bundled" / "example-report.json"


def main() -> None:
    """Write the example."""
    content = json.loads(gcaudit.score("demo", "demo", "demo").to_json())
    for role, names in KEPT.items():
        metrics = content[role]["metrics"]
        content[role]["metrics"] = {name: metrics[name] for name in names}
    PLACE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(PLACE)


if __name__ == "__main__":
    main()
