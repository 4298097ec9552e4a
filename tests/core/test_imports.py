"""The mathematics does not wait for MONAI."""

from __future__ import annotations

import subprocess
import sys

PROBE = """
import sys
import monai_ifim.core
print(*sorted({name.partition('.')[0] for name in sys.modules} & {'monai', 'itk', 'nibabel', 'ignite', 'pydicom'}))
"""


def test_importing_the_core_loads_neither_monai_nor_a_file_reader() -> None:
    loaded = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def test_importing_the_package_loads_not_even_torch() -> None:
    probe = "import sys, monai_ifim; print(monai_ifim.__version__, 'torch' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert loaded.stdout.split()[1] == "False"
