"""Validates a CycloneDX file against its schema. Runs in the environment of requirements/release.lock."""

import json
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

text = Path(sys.argv[1]).read_text()
version = SchemaVersion.from_version(json.loads(text)["specVersion"])
error = JsonStrictValidator(version).validate_str(text)
if error is not None:
    sys.exit(f"{Path(sys.argv[1]).name} is not valid CycloneDX: {' '.join(str(error).split())[:300]}")
