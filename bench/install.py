"""Makes bench/.venv with the alternatives, one by one, so that one that cannot be had does not keep the others out."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"


def main() -> None:
    """Install every line of requirements.txt; the stamp is written only when all of them are there."""
    if not (VENV / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    if subprocess.run([*pip, "--requirement", str(HERE / "requirements.txt")], check=False).returncode == 0:
        (VENV / ".installed").touch()
        return
    lines = (HERE / "requirements.txt").read_text().splitlines()
    wanted = [line.partition("#")[0].strip() for line in lines]
    for requirement in filter(None, wanted):
        if subprocess.run([*pip, requirement], check=False).returncode:
            print(f"{requirement} cannot be had: what needs it is left out.", file=sys.stderr)


if __name__ == "__main__":
    main()
