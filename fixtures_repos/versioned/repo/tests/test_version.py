import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import versioned

ROOT = Path(__file__).resolve().parents[1]


def test_version_comes_from_the_tag():
    assert re.match(r"1\.4\.(0$|1\.dev\d+)", versioned.__version__), versioned.__version__


def test_metadata_agree():
    assert version("versioned") == versioned.__version__


def test_git_knows_the_tag():
    described = subprocess.run(
        ["git", "describe", "--tags", "--abbrev=0"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    assert described.stdout.decode().strip() == "v1.4.0"


def test_the_workspace_is_what_is_tested():
    assert Path(versioned.__file__).resolve().parent == ROOT / "src" / "versioned"
