"""A picture of what a command prints, for the guides.

python website/terminal.py docs/weights.svg tfavmae weights inspect model.safetensors
"""

import os
import pathlib
import re
import subprocess
import sys

from rich.console import Console
from rich.text import Text

_COLUMNS = 84


def main() -> None:
    picture, *command = sys.argv[1:]
    environment = {**os.environ, "COLUMNS": str(_COLUMNS), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=_COLUMNS, file=nowhere)
        console.print(Text.from_ansi(done.stdout))
    svg = console.export_svg(title=" ".join(command), unique_id="terminal")
    # Rich's font would be loaded from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    pathlib.Path(picture).write_text(svg)
    print(picture)


if __name__ == "__main__":
    main()
