"""`python -m agents --config FILE`: one agent in the foreground.

`--calibrate FILE` serves nobody: it measures the model of that configuration on this machine, on all cores,
for a few seconds, and prints one JSON document.

Exit codes: 0 drained after SIGTERM or SIGINT, 1 cut short by a second signal, 2 bad
configuration, 3 the model did not load, 4 the port is taken. The reason is the last line on
stderr.
"""

import argparse
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from agents.config import AgentConfig

# Read when the libraries are first imported: only the engine's own threads compute.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> int:
    """Run the agent; returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop_before_serving)
    parser = argparse.ArgumentParser(
        prog="python -m agents", description="Serve one model revision.",
        epilog="example: python -m agents --config agents/minilm-3fa9c1/config.json",
    )  # fmt: skip
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, metavar="FILE", help="JSON configuration")
    what.add_argument("--calibrate", type=Path, metavar="FILE", help="only measure its model on this machine")
    arguments = parser.parse_args()
    _log_to_stderr()
    from agents.config import read_config  # noqa: PLC0415 - signals are handled before anything slow
    from agents.errors import StartError  # noqa: PLC0415 - as above

    try:
        if arguments.calibrate is not None:
            return _calibrate(read_config(arguments.calibrate))
        config = read_config(arguments.config)
        from agents.process import run_agent  # noqa: PLC0415 - as above: the engine's libraries take 0.3 s

        return run_agent(config)
    except StartError as error:
        print(f"agent not started: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the reason, for whoever started it
        return error.exit_code


def _calibrate(config: "AgentConfig") -> int:
    from agents.calibrate import calibrate_here  # noqa: PLC0415 - as above: the engine's libraries take 0.3 s

    print(json.dumps(calibrate_here(config).to_json()), flush=True)  # noqa: T201 - the document
    return 0


def _stop_before_serving(_number: int, _frame: object) -> NoReturn:
    """Nothing is being served yet, so there is nothing to drain."""
    sys.exit(0)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
