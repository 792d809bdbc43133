"""What a notebook imports from `niah`."""

from pathlib import Path

import pytest

import niah
from tests.synthetic_rows import Synthetic, write_run


def test_the_public_functions_work_together(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Synthetic((1024,), (0.0, 1.0), repeats=6))
    assert niah.load_run(run).baselines == ["dense"]
    (comparison,) = niah.compare([run])
    assert comparison.tax is not None
    assert niah.run_gate(run, None, 0.5).checks[0].tax.value == comparison.tax.value
    assert niah.write_report([run], tmp_path / "page").is_file()


def test_every_public_name_is_there() -> None:
    assert all(callable(getattr(niah, name)) for name in niah.__all__)
    assert dir(niah) == sorted(niah.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'load_runs'"):
        niah.load_runs  # type: ignore[attr-defined]  # noqa: B018
