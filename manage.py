#!/usr/bin/env python3
"""The appliance's command line: `manage.py COMMAND --help` tells each command's use."""

import os
import sys


def main() -> None:
    """Run the command that the arguments name."""
    os.umask(0o077)  # whatever a command writes is its owner's alone
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "appliance.settings")
    from django.core.management import execute_from_command_line  # noqa: PLC0415 - after the settings' name

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
