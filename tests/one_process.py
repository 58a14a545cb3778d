"""Several commands in one Python process, as fast as one: a program that reads their lines."""

CODE = (
    "import sys, finepref.cli.main as cli\n"
    "for line in sys.stdin.read().splitlines():\n"
    "    sys.argv = line.split()\n"
    "    try:\n        cli.main()\n"
    "    except SystemExit as stop:\n        assert not stop.code, line\n"
)
